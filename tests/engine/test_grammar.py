"""Whatever a model prefers, what comes out under the grammar is text or well-formed calls of declared tools."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from llguidance import LLMatcher

from openk2.chat import Tokenizer, parse_completion, render
from openk2.core import Message, ToolCall, ToolSpec, UserError, compact_json
from openk2.engine.grammar import Grammar, Guide, State

NAME = ToolSpec("find_name", "", {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]})
COUNT = ToolSpec("find", "", {"type": "object", "properties": {"n": {"type": "integer", "minimum": 3, "maximum": 40}}})
NOTHING = ToolSpec("stop-now", "", {})


@pytest.fixture(scope="module")
def grammar(tokenizer: Tokenizer) -> Grammar:
    return Grammar(tokenizer)


def wander(guide: Guide, grammar: Grammar, seed: int, *, calls: bool = True, limit: int = 30_000) -> list[int] | None:
    """A random walk along the masks, with a taste for what closes things; None when it does not end in time."""
    rng = np.random.default_rng(seed)
    tokenizer = grammar.tokenizer
    pieces = [tokenizer.decode([i]) for i in range(tokenizer.vocab_size)]
    taste = np.array([4.0 if any(c in p for c in '"}],') else 0.0 for p in pieces])
    taste[[grammar.section_end, grammar.turn_end]] += 2.0
    ids: list[int] = []
    if calls:
        guide.advance(grammar.section_begin)
        ids.append(grammar.section_begin)
    while guide.state is not State.DONE:
        mask = guide.mask()
        assert mask.any()
        forced = guide.forced()
        if forced is not None:
            assert np.flatnonzero(mask).tolist() == [forced]
        token = int(np.where(mask, taste + rng.gumbel(size=mask.size), -np.inf).argmax())
        guide.advance(token)
        ids.append(token)
        if len(ids) > limit:
            return None
    return ids


def read(ids: Sequence[int], tokenizer: Tokenizer) -> Message:
    completion = parse_completion(ids, tokenizer)
    assert completion.malformed is None
    return completion.message


def conforms(message: Message, tools: Sequence[ToolSpec], first: int) -> None:
    by_name = {tool.name: tool for tool in tools}
    for index, call in enumerate(message.tool_calls, first):
        assert call.id == f"functions.{call.name}:{index}"
        schema = dict(by_name[call.name].parameters)
        value = json.loads(call.arguments)
        assert isinstance(value, dict)
        Draft202012Validator(schema).validate(value)
        json.dumps(value, ensure_ascii=False).encode()


def test_text_only_without_tools(grammar: Grammar) -> None:
    mask = grammar.guide([]).mask()
    assert np.flatnonzero(mask[grammar.tokenizer.base_size :]).tolist() == [
        grammar.turn_end - grammar.tokenizer.base_size
    ]
    assert mask[: grammar.tokenizer.base_size].all()


def test_ids_beyond_the_tokenizer_are_never_allowed(tokenizer: Tokenizer) -> None:
    wide = Grammar(tokenizer, tokenizer.vocab_size + 7)
    guide = wide.guide([NAME])
    assert not guide.mask()[tokenizer.vocab_size :].any()
    for token in (wide.section_begin, wide.call_begin, *wide.header("find_name", 0), wide.argument_begin):
        guide.advance(token)
        assert guide.mask().shape == (tokenizer.vocab_size + 7,)
        assert not guide.mask()[tokenizer.vocab_size :].any()
    with pytest.raises(UserError, match="belong together"):
        Grammar(tokenizer, tokenizer.vocab_size - 1)


def test_the_header_offers_the_declared_tools_as_they_are_tokenised_in_training(grammar: Grammar) -> None:
    tools = [COUNT, NAME, NOTHING]
    for tool in tools:
        guide = grammar.guide(tools, 12)
        guide.advance(grammar.section_begin)
        assert guide.forced() == grammar.call_begin
        guide.advance(grammar.call_begin)
        for token in grammar.tokenizer.encode(f"functions.{tool.name}:12"):
            assert guide.mask()[token]
            guide.advance(token)
        assert guide.forced() == grammar.argument_begin
    guide = grammar.guide(tools, 12)
    for token in (grammar.section_begin, grammar.call_begin):
        guide.advance(token)
    with pytest.raises(ValueError, match="header"):
        guide.advance(grammar.tokenizer.encode("other")[0])


@pytest.mark.parametrize(
    ("arguments", "good"),
    [
        ('{"name":"x"}', True),
        ('{"name":"ü 中 \\n\\"</s> <|im_end|>"}', True),
        ('{"name": "x"}', False),
        ('{"name":"x","age":3}', False),
        ('{"name":3}', False),
        ("{}", False),
        ('{"name":"x"', False),
    ],
)
def test_arguments_are_compact_json_that_fits(grammar: Grammar, arguments: str, good: bool) -> None:
    guide = grammar.guide([NAME])
    opening = [grammar.section_begin, grammar.call_begin, *grammar.header("find_name", 0), grammar.argument_begin]
    closing = [grammar.call_end, grammar.section_end, grammar.turn_end]

    def walk() -> None:
        for token in [*opening, *grammar.tokenizer.encode(arguments), *closing]:
            allowed = guide.mask()[token]
            assert allowed == (token in np.flatnonzero(guide.mask()))
            guide.advance(token)

    if good:
        walk()
        assert guide.state is State.DONE
    else:
        with pytest.raises(ValueError, match="not allowed"):
            walk()


def test_several_calls_count_on(grammar: Grammar) -> None:
    guide = grammar.guide([COUNT], 4)
    ids = [grammar.section_begin]
    for index in (4, 5):
        ids += [grammar.call_begin, *grammar.header("find", index), grammar.argument_begin]
        ids += [*grammar.tokenizer.encode('{"n":7}'), grammar.call_end]
    ids += [grammar.section_end, grammar.turn_end]
    for token in ids:
        assert guide.mask()[token]
        guide.advance(token)
    conforms(read(ids, grammar.tokenizer), [COUNT], 4)


@pytest.mark.parametrize(
    ("tools", "words"),
    [
        ([COUNT, COUNT], "declared twice"),
        ([ToolSpec("", "", {})], "empty"),
        ([ToolSpec("f", "", {"type": "array"})], "must be a JSON object"),
        ([ToolSpec("f", "", {"type": "object", "properties": {"x": {"type": "wat"}}})], "cannot enforce.*tool f"),
        (
            [ToolSpec("f", "", {"type": "object", "properties": {"x": {"$ref": "#/nowhere"}}})],
            "cannot enforce.*tool f",
        ),
        ([ToolSpec("f", "", {"type": "object", "properties": {"x": {1, 2}}})], "not a usable JSON Schema"),
        ([ToolSpec("f", "", {"type": "object", "properties": {"x": {"minimum": 10**400}}})], "number out of range"),
    ],
)
def test_declarations_that_cannot_be_enforced_are_refused(grammar: Grammar, tools: list[ToolSpec], words: str) -> None:
    with pytest.raises(UserError, match=words):
        grammar.guide(tools)


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (nested(90), "nested too deeply"),
        (nested(480), "nested too deeply"),
        (nested(2000), "nested too deeply"),
        (
            {"properties": {"x": {"pattern": "^\ud800$"}}},
            r"half a surrogate pair in the schema\.properties\.x\.pattern",
        ),
        ({"properties": {"\ud800": {}}}, r"half a surrogate pair in a name in the schema\.properties"),
        ({"properties": {"x": {"multipleOf": float("nan")}}}, r"out of range in the schema\.properties\.x\.multipleOf"),
        ({"properties": {"x": {"type": "integer", "multipleOf": 0}}}, "invalid multiple of"),
    ],
)
def test_refusals_name_the_place(grammar: Grammar, schema: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        grammar.compile_answer({"type": "object", **schema})


LETTERS = [{"type": "string", "pattern": f"^(.*{letter}){{6}}.*$"} for letter in "abcdefghijklmnop"]


@pytest.mark.parametrize(
    ("hard", "remark", "kept"),
    [
        ({"type": "string", "pattern": "^.*foo", "minLength": 50}, "Patterns and lengths of one text.*Property x", str),
        ({"type": "object", "patternProperties": {"^a": {}, "z$": {}}}, "names in common.*Property x", dict),
        ({"type": "array", "minItems": 100_000}, "Property x", list),
        ({"anyOf": LETTERS}, "", object),
    ],
)
def test_a_hard_property_costs_only_itself(grammar: Grammar, hard: dict[str, Any], remark: str, kept: type) -> None:
    fine = {"type": "string", "pattern": r"^\d{5}$"}
    schema = {"type": "object", "properties": {"x": hard, "zip": fine}, "required": ["x", "zip"]}
    said = " ".join(grammar.compile_answer(schema).not_enforced)
    assert re.search(remark, said) and "Anything but" not in said
    rng = np.random.default_rng(0)
    guide, room, ids = grammar.guide([], answer=schema), 300, []
    while guide.state is not State.DONE:
        token = guide.forced(room)
        if token is None:
            token = guide.settle(int(rng.choice(np.flatnonzero(guide.mask(room)))), room)
        guide.advance(token, room)
        ids.append(token)
        room -= 1
    value = json.loads(grammar.tokenizer.decode(ids[:-1]))
    assert re.fullmatch(r"\d{5}", value["zip"]) and isinstance(value["x"], kept)


@pytest.mark.parametrize(
    ("part", "remark"),
    [
        ({"type": "integer", "multipleOf": 999983, "minimum": 1}, "multipleOf"),
        ({"type": "string", "pattern": "^(x{1000}){1000}$"}, "no short text"),
    ],
)
def test_what_takes_the_grammar_long_is_left_out(grammar: Grammar, part: dict[str, Any], remark: str) -> None:
    many = {f"p{i}": part for i in range(100)}
    assert remark in grammar.compile_answer({"type": "object", "properties": many}).not_enforced[-1]


class Breaking:
    """A matcher that breaks its limits with the next id."""

    def __init__(self, matcher: LLMatcher) -> None:
        self.matcher = matcher

    def __getattr__(self, name: str) -> Any:
        return getattr(self.matcher, name)

    def consume_token(self, token: int) -> bool:
        self.matcher.consume_token(0)  # none that JSON has: any refusal leaves a matcher in error
        return False


def test_an_id_that_breaks_the_limits_is_taken_on_the_way_out_only(grammar: Grammar) -> None:
    answer = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    for settled in (False, True):
        guide = grammar.guide([], answer=answer)
        compiled = grammar.compile_answer(answer)
        room = len(compiled.shortest) + 2
        for token in compiled.shortest[:-3]:
            guide.advance(token, room)
        other = grammar.tokenizer.encode("7")[0]
        token = guide.settle(other, room) if settled else compiled.shortest[-3]
        assert (token == other) == settled
        assert guide._matcher is not None
        guide._matcher = cast(LLMatcher, Breaking(guide._matcher))
        guide.advance(token, room)
        assert guide._matcher is not None and guide._matcher.is_error() and guide._way
        for token in (*guide._way[:-1], grammar.turn_end):
            assert guide.forced(room) == token
            with pytest.raises(ValueError, match="not allowed"):
                guide.advance(other, room)
            guide.advance(token, room)
        assert guide.state is State.DONE


def test_who_asks_for_a_compiled_schema_waits_for_nobody(grammar: Grammar, monkeypatch: pytest.MonkeyPatch) -> None:
    known, refused = {"type": "object", "title": "kept"}, {"$ref": "#/nowhere"}
    kept = grammar.compile_answer(known)
    with pytest.raises(UserError, match="enforce the schema of the answer"):
        grammar.compile_answer(refused)
    begun, go_on = threading.Event(), threading.Event()

    def slow(what: str, schema: dict[str, Any]) -> Any:
        begun.set()
        assert go_on.wait(30)
        return kept

    monkeypatch.setattr(grammar, "_compile_schema", slow)
    other = threading.Thread(target=grammar.compile_answer, args=({"title": "new"},))
    other.start()
    assert begun.wait(30)
    assert grammar.compile_answer(known) is kept
    # What is refused once is not compiled again.
    with pytest.raises(UserError, match="enforce the schema of the answer"):
        grammar.compile_answer(refused)
    assert other.is_alive()
    go_on.set()
    other.join()


@pytest.mark.parametrize(
    "bounds",
    [
        {"minimum": -(2**63), "maximum": 2**63 - 1},
        {"minimum": 2**60},
        {"minimum": -1.797e308, "maximum": 1.797e308},
    ],
)
def test_bounds_that_no_double_holds_are_no_reason_to_refuse_a_tool(grammar: Grammar, bounds: dict[str, float]) -> None:
    def tool(**part: object) -> ToolSpec:
        return ToolSpec("f", "", {"type": "object", "properties": {"x": part}})

    for kind in ("integer", "number"):
        remarks = grammar.compile([tool(**bounds, type=kind)])["f"].not_enforced
        assert remarks in ((), ("Bounds of numbers at 2**53 or beyond",))
        assert remarks or bounds != {"minimum": 2**60} or kind == "number"


@pytest.mark.parametrize("name", ["#user", "a name with blanks", "https://example.com/x#/$defs/name"])
def test_a_schema_may_have_any_name(grammar: Grammar, name: str) -> None:
    local = {"$ref": "#/$defs/n"}
    schema = {"$id": name, "type": "object", "properties": {"x": local}, "required": ["x"], "$defs": {"n": NUMBER}}
    ids = wander(grammar.guide([ToolSpec("f", "", schema)]), grammar, 0)
    assert ids is not None
    assert all(0 <= call.parsed()["x"] <= 9 for call in read(ids, grammar.tokenizer).tool_calls)


def test_a_large_exclusive_bound_excludes_itself_alone(grammar: Grammar) -> None:
    part = {"type": "integer", "exclusiveMinimum": 2**53, "maximum": 2**53 + 2}
    tool = ToolSpec("f", "", {"type": "object", "properties": {"x": part}, "required": ["x"]})
    assert not grammar.compile([tool])["f"].not_enforced


NUMBERS = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}, "minItems": 1, "maxItems": 3}
NUMBER = {"type": "integer", "minimum": 0, "maximum": 9}
WORD = {"type": "string", "maxLength": 4}


@pytest.mark.parametrize(
    ("part", "left"),
    [
        ({**NUMBERS, "uniqueItems": True}, NUMBERS),
        ({**NUMBERS, "contains": {"const": 3}, "minContains": 1}, NUMBERS),
        ({**NUMBERS, "unevaluatedItems": False}, NUMBERS),
        ({**NUMBER, "not": {"const": 3}}, NUMBER),
        ({**NUMBER, "if": {"minimum": 5}, "then": {"multipleOf": 2}, "else": {"const": 1}}, NUMBER),
        ({**WORD, "pattern": "^(?!a)b"}, WORD),
        ({**WORD, "pattern": r"(a)\1"}, WORD),
        ({**WORD, "pattern": r"^\bab"}, WORD),
        ({**WORD, "format": "crockford32"}, WORD),
        ({"allOf": [{**WORD, "pattern": "(?=a)"}, {"minLength": 2}]}, {**WORD, "minLength": 2}),
        ({"$ref": "#/$defs/list"}, NUMBERS),
        ({"oneOf": [{"type": "number"}, NUMBER]}, {"type": "number"}),
        ({"oneOf": [NUMBER, {**NUMBERS, "uniqueItems": True}]}, {"anyOf": [NUMBER, NUMBERS]}),
    ],
)
def test_keywords_that_cannot_be_enforced_are_left_out_and_the_rest_is_enforced(
    grammar: Grammar, part: dict[str, Any], left: dict[str, Any]
) -> None:
    def tool(schema: dict[str, Any]) -> ToolSpec:
        root = {"type": "object", "properties": {"x": schema, "n": NUMBER}, "required": ["x", "n"]}
        return ToolSpec("f", "", root | {"$defs": {"list": {**NUMBERS, "uniqueItems": True}}})

    for seed in range(5):
        ids = wander(grammar.guide([tool(part)]), grammar, seed)
        assert ids is not None
        message = read(ids, grammar.tokenizer)
        conforms(message, [tool(left)], 0)
        assert all(call.parsed().keys() == {"x", "n"} for call in message.tool_calls)


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({**NUMBERS, "uniqueItems": True}, ["uniqueItems"]),
        ({**NUMBER, "not": {"const": 3}}, ["not"]),
        ({**NUMBER, "if": {"minimum": 5}, "then": {"multipleOf": 2}}, ["if"]),
        ({"oneOf": [{"type": "number"}, NUMBER]}, ["oneOf"]),
        ({"type": "object", "properties": {"a": NUMBER}, "dependentRequired": {"a": ["b"]}}, ["dependentRequired"]),
        ({"anyOf": [{**WORD, "pattern": "^(?!a)b"}, {**WORD, "format": "crockford32"}]}, ["crockford32", "(?!a)"]),
        ({"oneOf": [WORD, {**NUMBER, "title": "A digit", "default": 3}]}, []),
        ({"type": "object", "minProperties": 1}, ["minProperties"]),
        ({"type": "object", "properties": {"a": NUMBER, "b": NUMBER}, "minProperties": 1}, []),
    ],
)
def test_what_is_not_enforced_is_said(grammar: Grammar, part: dict[str, Any], words: list[str]) -> None:
    tool = ToolSpec("f", "", {"type": "object", "properties": {"x": part}})
    remarks = grammar.compile([NAME, tool])["f"].not_enforced
    assert len(remarks) == len(words)
    assert all(word in remark for word, remark in zip(words, remarks, strict=True))
    assert grammar.compile([NAME, tool])["find_name"].not_enforced == ()


@pytest.mark.parametrize(
    "bounds",
    [
        {"minimum": 2**53 + 1, "maximum": 2**53 + 3},
        {"minimum": -(2**53) - 3, "maximum": -(2**53) - 1},
        {"exclusiveMinimum": 2**53 + 1, "exclusiveMaximum": 2**53 + 9},
        {"exclusiveMinimum": 2**53, "maximum": 2**53 + 8},
        {"minimum": 2**53 - 9, "exclusiveMaximum": 2**53},
    ],
)
def test_large_integer_bounds_hold(grammar: Grammar, bounds: dict[str, int]) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", **bounds}}, "required": ["n"]}
    for seed in range(20):
        ids = wander(grammar.guide([ToolSpec("f", "", schema)]), grammar, seed)
        assert ids is not None
        conforms(read(ids, grammar.tokenizer), [ToolSpec("f", "", schema)], 0)


def test_integers_that_would_be_written_as_others_are_left_out(grammar: Grammar) -> None:
    """A double holds 2**63, and its shortest digits are those of 9223372036854776000."""

    def tool(**part: Any) -> ToolSpec:
        return ToolSpec("f", "", {"type": "object", "properties": {"n": part}, "required": ["n"]})

    chosen = set()
    for seed in range(20):
        ids = wander(grammar.guide([tool(enum=[2**63, 2**70, 10**19, 5])]), grammar, seed)
        assert ids is not None
        chosen |= {call.parsed()["n"] for call in read(ids, grammar.tokenizer).tool_calls}
    assert chosen == {10**19, 5}
    with pytest.raises(UserError):
        grammar.compile([tool(const=2**63)])


@pytest.mark.parametrize(
    "extra",
    [
        {"dependentRequired": {"a": ["b"]}},
        {"not": {"required": ["a", "b"]}},
        {"propertyNames": {"pattern": "^(?!x)"}},
        {"unevaluatedProperties": False, "additionalProperties": False},
        {"oneOf": [{"required": ["a"]}, {"required": ["b"]}], "additionalProperties": False},
        {"if": {"required": ["a"]}, "then": {"required": ["b"]}, "additionalProperties": False},
    ],
)
def test_objects_with_such_keywords_have_their_properties_and_no_others(
    grammar: Grammar, extra: dict[str, Any]
) -> None:
    schema = {"type": "object", "properties": {"a": NUMBER, "b": WORD}}
    for seed in range(5):
        ids = wander(grammar.guide([ToolSpec("f", "", schema | extra)]), grammar, seed)
        assert ids is not None
        conforms(read(ids, grammar.tokenizer), [ToolSpec("f", "", schema | {"additionalProperties": False})], 0)


def test_names_of_a_pattern_that_is_left_out_stay_possible(grammar: Grammar) -> None:
    schema = {
        "type": "object",
        "properties": {"n": NUMBER},
        "patternProperties": {"^(?!x)": NUMBER, "^y": {"type": "boolean"}},
        "required": ["n", "abc"],
        "additionalProperties": False,
    }
    ids = wander(grammar.guide([ToolSpec("f", "", schema)]), grammar, 0)
    assert ids is not None
    for call in read(ids, grammar.tokenizer).tool_calls:
        assert {"n", "abc"} <= call.parsed().keys()


def test_objects_are_closed_only_where_that_cannot_contradict(grammar: Grammar) -> None:
    both: dict[str, Any] = {
        "type": "object",
        "allOf": [
            {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
            {"type": "object", "properties": {"b": {"type": "boolean"}}, "required": ["b"]},
        ],
    }
    # "format" is a keyword on the schema and a mere name among the properties; an unknown one is a remark.
    both["allOf"][0]["properties"]["format"] = {"type": "string", "format": "crockford32", "maxLength": 3}
    tools = [ToolSpec("both", "", both)]
    ids = wander(grammar.guide(tools), grammar, 0)
    assert ids is not None
    conforms(read(ids, grammar.tokenizer), tools, 0)


@pytest.mark.parametrize("large", [{"const": 2**53 + 1}, {"enum": [2**53 + 1]}, {"enum": [[10**400]]}])
def test_numbers_that_no_double_holds_are_never_written_as_a_neighbour(grammar: Grammar, large: dict[str, Any]) -> None:
    def tool(part: dict[str, Any]) -> ToolSpec:
        return ToolSpec("f", "", {"type": "object", "properties": {"a": part}, "required": ["a"]})

    with pytest.raises(UserError, match="cannot enforce"):
        grammar.compile([tool(large)])
    either = [tool({"anyOf": [large, {"enum": [5]}]})]
    for seed in range(5):
        ids = wander(grammar.guide(either), grammar, seed)
        assert ids is not None
        conforms(read(ids, grammar.tokenizer), either, 0)


@settings(max_examples=150, deadline=None)
@given(
    data=st.data(),
    names=st.lists(st.text("ab_-:0é", min_size=1, max_size=4), min_size=3, max_size=3, unique=True),
    first=st.integers(0, 120),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_walk_gives_calls_that_satisfy_their_schemas(
    tokenizer: Tokenizer,
    schemas: st.SearchStrategy[dict[str, Any]],
    data: st.DataObject,
    names: list[str],
    first: int,
    seed: int,
) -> None:
    parameters = data.draw(st.lists(schemas, min_size=1, max_size=3))
    tools = [ToolSpec(name, "", schema) for name, schema in zip(names, parameters, strict=False)]
    grammar = Grammar(tokenizer)
    ids = wander(grammar.guide(tools, first), grammar, seed)
    assert ids is not None, "the walk prefers to close, it must come to an end"
    message = read(ids, tokenizer)
    assert message.tool_calls
    conforms(message, tools, first)


FLAT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city_name": {"type": "string"},
        "n": {"type": "integer"},
        "rate": {"type": "number"},
        "on": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "to": {"type": "object", "properties": {"x": {"type": "string"}, "y": {"enum": ["left", "right-most"]}}},
    },
    "required": ["city_name"],
}


def in_schema_order(value: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """The order in which the grammar, and every demonstration, writes properties."""
    return {
        name: in_schema_order(value[name], part) if isinstance(value[name], dict) else value[name]
        for name, part in schema["properties"].items()
        if name in value
    }


texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from('"\\/\n\t {}[]:,_-.'), max_size=12)


@settings(max_examples=150, deadline=None)
@given(
    value=st.fixed_dictionaries(
        {"city_name": texts},
        optional={
            "n": st.integers(-(10**9), 10**9),
            "rate": st.decimals(-1000, 1000, places=3).map(float),
            "on": st.booleans(),
            "tags": st.lists(texts, max_size=3),
            "to": st.fixed_dictionaries({}, optional={"x": texts, "y": st.sampled_from(["left", "right-most"])}),
        },
    ),
    content=texts,
)
def test_what_training_renders_is_always_allowed(grammar: Grammar, value: dict[str, Any], content: str) -> None:
    """The ids of a rendered turn are a path through the masks: the grammar never fights the training data."""
    arguments = compact_json(in_schema_order(value, FLAT))
    calls = tuple(ToolCall(f"functions.{name}:{i}", name, arguments) for i, name in ((7, "go_there"), (8, "go")))
    rendered = render([Message("assistant", content, calls)], tokenizer=grammar.tokenizer)
    guide = grammar.guide([ToolSpec("go", "", FLAT), ToolSpec("go_there", "", FLAT)], 7)
    for token, said in zip(rendered.ids, rendered.loss_mask, strict=True):
        if said:
            assert guide.mask()[token], (arguments, grammar.tokenizer.decode([token]))
            guide.advance(token)
    assert guide.state is State.DONE


def test_a_keyword_may_be_a_name_or_in_an_example(grammar: Grammar) -> None:
    schema = {"type": "object", "properties": {"multipleOf": {"type": "integer", "default": {"multipleOf": True}}}}
    assert grammar.compile_answer(schema).shortest


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_any_walk_from_the_start_is_text_and_calls(grammar: Grammar, seed: int) -> None:
    tools = [NAME, COUNT, NOTHING]
    ids = wander(grammar.guide(tools, 0), grammar, seed, calls=False)
    assert ids is not None
    conforms(read(ids, grammar.tokenizer), tools, 0)
