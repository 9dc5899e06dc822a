"""However little room is left, what began in JSON is whole before it runs out."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from llguidance import LLMatcher

from openk2.chat import Tokenizer, parse_completion
from openk2.core import ToolSpec, UserError
from openk2.engine import Engine, Request
from openk2.engine.closing import Place, leads_out
from openk2.engine.grammar import Grammar, Guide, State
from openk2.model import ModelConfig, Transformer

Schemas = st.SearchStrategy[dict[str, Any]]
TREE = {
    "anyOf": [
        {
            "type": "object",
            "properties": {"op": {"const": "add"}, "left": {"$ref": "#/$defs/node"}, "right": {"$ref": "#/$defs/node"}},
            "required": ["op", "left", "right"],
            "additionalProperties": False,
        },
        {
            "type": "object",
            "properties": {"value": {"type": "integer"}},
            "required": ["value"],
            "additionalProperties": False,
        },
    ]
}
WORDS = {
    "anyOf": [
        {
            "type": "object",
            "properties": {
                "kind": {"const": "value_binary"}, "l": {"$ref": "#/$defs/node"}, "r": {"$ref": "#/$defs/node"},
            },
            "required": ["kind", "l", "r"],
            "additionalProperties": False,
        },
        {
            "type": "object",
            "properties": {"kind": {"const": "value_leaf"}, "v": {"type": "integer"}},
            "required": ["kind", "v"],
            "additionalProperties": False,
        },
    ]
}  # fmt: skip
LISTS = {"type": "array", "items": {"$ref": "#/$defs/node"}}


def an_object(part: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"x": part}, "required": ["x"], **more}


HARD = {
    "a string": an_object({"type": "string"}),
    "a long string": an_object({"type": "string", "minLength": 40}),
    "a pattern": an_object({"type": "string", "pattern": "^[a-f0-9]{32}$"}),
    "a pattern with an end": an_object({"type": "string", "pattern": "^a+b$"}),
    "a pattern with an end anywhere": an_object({"type": "string", "pattern": "\\.py$"}),
    "one of two ends": an_object({"type": "string", "pattern": "(foo|bar).*baz$"}),
    "words": an_object({"type": "string", "pattern": r"^\S+( \S+){3,}$"}),
    "an address": an_object({"type": "string", "format": "email"}),
    "a large multiple": an_object({"type": "integer", "multipleOf": 86400, "minimum": 1}),
    "a multiple below zero": an_object({"type": "integer", "multipleOf": 365, "maximum": -1000}),
    "names with a pattern": {
        "type": "object",
        "patternProperties": {"^x.*-end$": {"type": "integer"}},
        "additionalProperties": False,
        "minProperties": 1,
    },
    "a date": an_object({"type": "string", "format": "date-time"}),
    "a multiple": an_object({"type": "integer", "multipleOf": 7, "minimum": 50}),
    "a long list": an_object({"type": "array", "items": {"type": "boolean"}, "minItems": 20}),
    "a tree": an_object({"$ref": "#/$defs/node"}, **{"$defs": {"node": TREE}}),
    "a tree that is told by a word": an_object({"$ref": "#/$defs/node"}, **{"$defs": {"node": WORDS}}),
    "lists in lists": an_object({"$ref": "#/$defs/node"}, **{"$defs": {"node": LISTS}}),
    "anything": {"type": "object"},
    "some properties": {"type": "object", "additionalProperties": {"type": "string"}, "required": ["a", "b"]},
    "optional objects": {"type": "object", "properties": {n: an_object({"type": "string"}) for n in ("a", "b", "c")}},
    "escapes": an_object({"enum": ['\\"', "\\\\", '"}', "\n", "é中😀"]}),
    "names of special tokens": an_object({"enum": ["<|im_end|>", "<|tool_call_end|>", "[EOS]"]}),
}


@pytest.fixture(scope="module")
def grammar(tokenizer: Tokenizer) -> Grammar:
    return Grammar(tokenizer)


def wander(guide: Guide, seed: int, room: int) -> list[int]:
    """A walk that takes anything the masks allow, told how much room is left."""
    rng = np.random.default_rng(seed)
    ids: list[int] = []
    while len(ids) < room and guide.state is not State.DONE:
        left = room - len(ids)
        token = guide.settle(int(rng.choice(np.flatnonzero(guide.mask(left)))), left)
        assert guide.mask(left)[token]
        guide.advance(token, left)
        ids.append(token)
    return ids


@pytest.mark.parametrize("schema", HARD.values(), ids=HARD.keys())
def test_calls_are_whole_whatever_the_room(grammar: Grammar, schema: dict[str, Any]) -> None:
    tools = [ToolSpec("act", "", schema)]
    least = grammar.guide(tools, must_call=True).needs
    for seed, more in enumerate((0, 1, 2, 3, 5, 8, 13, 40, 100)):
        ids = wander(grammar.guide(tools, must_call=True), seed, least + more)
        completion = parse_completion(ids, grammar.tokenizer)
        assert completion.malformed is None
        assert ids[-1] == grammar.turn_end
        assert completion.message.tool_calls
        for call in completion.message.tool_calls:
            Draft202012Validator(schema).validate(json.loads(call.arguments))


@settings(max_examples=80, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32), more=st.integers(0, 120))
def test_any_schema_is_satisfied_within_any_room(
    grammar: Grammar, schemas: Schemas, data: st.DataObject, seed: int, more: int
) -> None:
    schema = data.draw(schemas)
    tools = [ToolSpec("act", "", schema)]
    guide = grammar.guide(tools, must_call=True)
    ids = wander(guide, seed, guide.needs + more)
    completion = parse_completion(ids, grammar.tokenizer)
    assert completion.malformed is None and ids[-1] == grammar.turn_end
    for call in completion.message.tool_calls:
        Draft202012Validator(schema).validate(json.loads(call.arguments))


@settings(max_examples=60, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32), more=st.integers(0, 60), calls=st.booleans())
def test_an_answer_in_json_is_whole(
    grammar: Grammar, schemas: Schemas, data: st.DataObject, seed: int, more: int, calls: bool
) -> None:
    schema = data.draw(schemas)
    tools = [ToolSpec("act", "", HARD["a string"])] if calls else []
    guide = grammar.guide(tools, answer=schema)
    ids = wander(guide, seed, guide.needs + more)
    message = parse_completion(ids, grammar.tokenizer).message
    assert ids[-1] == grammar.turn_end
    if not message.tool_calls:
        Draft202012Validator(schema).validate(json.loads(message.content))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_shortest_arguments_satisfy_the_schema(grammar: Grammar, schemas: Schemas, data: st.DataObject) -> None:
    schema = data.draw(schemas)
    shortest = grammar.compile_answer(schema).shortest
    Draft202012Validator(schema).validate(json.loads(grammar.tokenizer.decode(shortest[:-1])))


def test_a_way_out_depends_on_where_one_is(grammar: Grammar) -> None:
    compiled = grammar.compile_answer({"type": "object", "properties": {"a": {"type": "string"}}})
    matcher = compiled.matcher.deep_copy()
    assert leads_out(matcher, compiled.shortest)
    matcher.consume_tokens(grammar.tokenizer.encode('{"a":"x'))
    assert not leads_out(matcher, compiled.shortest)
    way = grammar.closer.way(matcher, Place(inside=True))
    assert way is not None and grammar.tokenizer.decode(way[:-1]) == '"}'
    assert grammar.closer.way(matcher, Place(inside=True), most=1) is None


def test_a_number_is_known_by_its_letters(grammar: Grammar) -> None:
    places = {'{"a":true': "", '{"a":[false,12': "12", '{"a":-1.5e': "-1.5e", '{"1': "", '{"a":"\\"1","b":3,': ""}
    for text, number in places.items():
        place = Place()
        for token in grammar.tokenizer.encode(text):
            place = grammar.closer.behind(place, token)
        assert place.number == number


class Counting:
    """A matcher that counts what it is asked."""

    def __init__(self, matcher: Any, count: Counter[str]) -> None:
        self.matcher, self.count = matcher, count

    def __getattr__(self, name: str) -> Any:
        self.count[name] += 1
        return getattr(self.matcher, name)

    def deep_copy(self) -> Counting:
        return Counting(self.matcher.deep_copy(), self.count)


def counted(matcher: LLMatcher, count: Counter[str]) -> LLMatcher:
    return cast(LLMatcher, Counting(matcher, count))


def letters(seed: int, count: int) -> str:
    return "".join(np.random.default_rng(seed).choice(list("bcdefghijklm"), count))


def test_one_step_asks_little_of_a_grammar_with_many_hints(grammar: Grammar) -> None:
    others = {f"p{i}": {"type": "string", "pattern": f"^{letters(i, 100)}$"} for i in range(64)}
    schema = {"type": "object", "properties": {"x": {"type": "string", "minLength": 9000}} | others}
    compiled = grammar.compile_answer({**schema, "additionalProperties": False})
    matcher = compiled.matcher.deep_copy()
    matcher.consume_tokens(grammar.tokenizer.encode('{"x":'))
    count: Counter[str] = Counter()
    quote = grammar.tokenizer.encode('"')[0]
    way = grammar.closer.way_behind(counted(matcher, count), Place(), quote, compiled.hints, 10**6, compiled.shortest)
    assert way is None
    assert count["compute_bitmask"] <= 160 and sum(count.values()) < 10_000


def test_the_way_goes_on_as_before_behind_another_element(grammar: Grammar) -> None:
    schema = an_object({"type": "array", "minItems": 50, "items": {"type": "integer", "multipleOf": 9973}})
    compiled = grammar.compile_answer(schema | {"additionalProperties": False})
    matcher, encode = compiled.matcher.deep_copy(), grammar.tokenizer.encode
    matcher.consume_tokens(encode('{"x":['))
    known = grammar.closer.way(matcher, Place())
    assert known is not None
    count: Counter[str] = Counter()
    way = grammar.closer.way_behind(counted(matcher, count), Place(), encode("7")[0], compiled.hints, 999, known)
    assert way is not None and grammar.tokenizer.decode(way[:-1]).startswith("9784,0,0,0,")
    assert sum(count.values()) < 50


def test_no_call_is_opened_that_does_not_fit(grammar: Grammar) -> None:
    tools = [ToolSpec("long_one", "", an_object({"type": "string", "minLength": 60})), ToolSpec("stop", "", {})]
    room = grammar.guide([tools[1]], must_call=True).needs
    guide = grammar.guide(tools)
    assert not guide.mask(room - 1)[grammar.section_begin]
    assert guide.mask(room)[grammar.section_begin]
    ids = wander(grammar.guide(tools, must_call=True), 0, room)
    assert [call.name for call in parse_completion(ids, grammar.tokenizer).message.tool_calls] == ["stop"]


def test_one_call_ends_the_turn(grammar: Grammar) -> None:
    tools = [ToolSpec("stop", "", {})]
    counts = {
        one: {
            len(parse_completion(wander(guide, seed, 400), grammar.tokenizer).message.tool_calls)
            for seed in range(8)
            for guide in [grammar.guide(tools, must_call=True, one_call=one)]
        }
        for one in (True, False)
    }
    assert counts[True] == {1}
    assert max(counts[False]) > 1


LONG = an_object({"type": "array", "items": {"type": "integer"}, "minItems": 3000})
ENDLESS = {"$ref": "#/$defs/node", "$defs": {"node": an_object({"$ref": "#/$defs/node"})}}
BOMB = an_object({"type": "string", "pattern": "^(x{1000}){1000}$"}, additionalProperties=False)


@pytest.mark.parametrize(
    ("schema", "remark", "kept"),
    [
        (LONG, "Property x: no short JSON", an_object({"type": "array"})),
        (ENDLESS, "Anything but the type", {"type": "object"}),
        (BOMB, r"Pattern of which no short text was found: ^(x{1000})", an_object({"type": "string"})),
    ],
)
def test_what_cannot_be_ended_is_not_begun(
    grammar: Grammar, schema: dict[str, Any], remark: str, kept: dict[str, Any]
) -> None:
    tools = [ToolSpec("f", "", schema)]
    assert remark in grammar.compile(tools)["f"].not_enforced[-1]
    for seed, more in enumerate((0, 3, 20)):
        guide = grammar.guide(tools, must_call=True)
        ids = wander(guide, seed, guide.needs + more)
        completion = parse_completion(ids, grammar.tokenizer)
        assert completion.malformed is None and ids[-1] == grammar.turn_end and completion.message.tool_calls
        for call in completion.message.tool_calls:
            Draft202012Validator(kept).validate(json.loads(call.arguments))


def test_a_hard_pattern_leaves_the_rest_of_its_schema_enforced(grammar: Grammar) -> None:
    hard = {"type": "string", "pattern": "^(.*a.{40}){3}$"}
    count = {"type": "integer", "minimum": 3, "maximum": 5}
    schema = {"type": "object", "properties": {"a": hard, "n": count}, "required": ["a", "n"]}
    wanted = {**schema, "properties": {"a": {"type": "string"}, "n": count}}
    for seed in range(5):
        guide = grammar.guide([ToolSpec("f", "", schema)], must_call=True, one_call=True)
        (call,) = parse_completion(wander(guide, seed, 200), grammar.tokenizer).message.tool_calls
        Draft202012Validator(wanted).validate(json.loads(call.arguments))


def test_a_schema_worn_out_is_compiled_again(grammar: Grammar) -> None:
    """All calls of a schema count towards one limit of the grammar's states; behind it they would only be short."""
    multiple = {"type": "object", "properties": {"n": {"type": "integer", "multipleOf": 299993}}, "required": ["n"]}
    tools = [ToolSpec("f", "", multiple)]

    def begun() -> Guide:
        """Behind `{"n":`."""
        guide = grammar.guide(tools, must_call=True)
        ids = [grammar.section_begin, grammar.call_begin, *grammar.header("f", 0), grammar.argument_begin]
        for token in (
            *ids,
            *grammar.tokenizer.encode('{"'),
            *grammar.tokenizer.encode("n"),
            *grammar.tokenizer.encode('":'),
        ):
            guide.advance(token)
        return guide

    figures = [grammar.tokenizer.encode(figure)[0] for figure in "0123456789"]
    rng = np.random.default_rng(0)
    matcher = begun()._matcher
    assert matcher is not None
    for _ in range(600):
        matcher.deep_copy().validate_tokens([figures[1], *(figures[i] for i in rng.integers(0, 10, 1500))])
    worn = begun()
    assert np.count_nonzero(worn.mask()) == 1
    assert np.count_nonzero(begun().mask()) > 1


def test_what_cannot_be_is_refused(grammar: Grammar) -> None:
    with pytest.raises(UserError, match="no tool is declared"):
        grammar.guide([], must_call=True)
    with pytest.raises(UserError, match="schema of the answer"):
        grammar.guide([], answer={"type": "wat"})


def test_random_weights_call_within_their_limit(tokenizer: Tokenizer) -> None:
    config = ModelConfig.preset(
        "test", vocab_size=tokenizer.vocab_size, bos_token_id=None, eos_token_id=None, pad_token_id=None
    )
    engine = Engine(Transformer(config).eval(), tokenizer)
    tools = tuple(ToolSpec(f"act{i}", "", schema) for i, schema in enumerate(HARD.values()))
    prompt = tuple(tokenizer.encode("Do something."))
    for seed in range(6):
        request = Request(prompt, max_tokens=150, temperature=1.0, seed=seed, tools=tools, must_call=True)
        (generation,) = engine.generate([request])
        completion = parse_completion(generation.ids, tokenizer)
        assert generation.finish_reason == "stop" and completion.malformed is None
        for call in completion.message.tool_calls:
            schema = next(tool.parameters for tool in tools if tool.name == call.name)
            Draft202012Validator(dict(schema)).validate(json.loads(call.arguments))
    with pytest.raises(UserError, match="raise max_tokens"):
        engine.generate([Request(prompt, max_tokens=3, tools=tools, must_call=True)])
