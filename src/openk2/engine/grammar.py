"""What a model may say next: free text, or a well-formed call to a declared tool with arguments that fit its schema.

One `Guide` follows one sequence. Its states, with the special tokens that lead from one to the next:

    text -section_begin-> section -call_begin-> header -argument_begin-> arguments -call_end-> section ...
    text -im_end-> done        section (after a call) -section_end-> end -im_end-> done
    answer -im_end-> done      (an answer in JSON instead of text)

In text the mask is one of two constants. The header is a choice between the token sequences of `functions.NAME:IDX`,
tokenised as in training. The arguments follow an llguidance matcher over the tool's JSON Schema, without the few
keywords that it cannot enforce; so does an answer in JSON.

A guide that is told how many ids are left (`room`) opens only calls that can be closed within them, and lets nothing
pass in JSON behind which it could not be closed any more (see `closing`).
Source of the format: K2 report, appendix B (the enforcer). Shapes: V vocabulary of the model.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from numpy.typing import NDArray

from openk2.chat import call_id
from openk2.core import ToolSpec, UserError
from openk2.engine.closing import Closer, Place, Spelled
from openk2.engine.hints import hints_of, least_length
from openk2.engine.schema import (
    arguments_schema,
    counts_free_names,
    digits_of_multiples,
    enforceable,
    misfit,
    too_much,
    without_own_name,
)

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

    from openk2.chat import Tokenizer

Mask = NDArray[np.bool_]

_OPTIONS: JsonCompileOptions = {
    "whitespace_flexible": False,
    "item_separator": ",",
    "key_separator": ":",
    # A keyword that cannot be enforced is no reason to refuse a tool: `oneOf` is taken as `anyOf`, others are passed
    # over, with a remark.
    "coerce_one_of": True,
    "lenient": True,
}


_LARGE_VOCABULARY = 32768
_KEPT_SCHEMAS = 512  # compiled, about 80 kB each
_LONGEST_SCHEMA = 256 << 10  # takes a second or two
_DEEPEST = 127
_LONGEST_TEXT = 1 << 15  # more letters than a way out has
_MOST_MULTIPLES = 300_000  # the sum of all, takes about two seconds
_SHORT, _SEARCHED, _MISS = 160, 64, 16
"""Of a schema without a way out so many patterns are searched for one, a miss counting more, by so many choices."""
_MOST_PROPERTIES = 32
_WHAT = "\0"  # in a refusal that is kept: what is refused
ENDLESS = 1 << 40
"""Room enough for everything."""


class State(Enum):
    TEXT = "text"
    MUST_CALL = "before the first call"
    ANSWER = "answer"
    SECTION = "section"
    HEADER = "header"
    ARGUMENTS = "arguments"
    END = "end"
    DONE = "done"


@dataclass(slots=True)
class Json:
    """A compiled schema: a fresh matcher (copy before use), few ids that satisfy it, the end included, what helps to
    find such, and a remark on every part of the schema that it does not hold the model to (for whoever wrote it:
    nothing here prints them). It is `worn` once a copy is beyond the grammar's limits, which all copies share."""

    matcher: LLMatcher
    shortest: tuple[int, ...]
    hints: Spelled
    not_enforced: tuple[str, ...] = ()
    worn: bool = False


class Grammar:
    """Compiles tool declarations for one tokenizer and hands out a `Guide` per sequence. Threads may share it.

    Args:
        tokenizer: the tokenizer whose ids are constrained.
        vocab_size: columns of the logits; ids past the tokenizer's are never allowed. Default: the tokenizer's.

    Raises UserError when the model has fewer ids than the tokenizer.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int | None = None) -> None:
        self.tokenizer = tokenizer
        self.vocab_size = tokenizer.vocab_size if vocab_size is None else vocab_size
        if self.vocab_size < tokenizer.vocab_size:
            raise UserError(
                f"the tokenizer has {tokenizer.vocab_size} ids and the model {self.vocab_size}: "
                "they do not belong together, name a folder that holds both"
            )
        self.section_begin = tokenizer.id("<|tool_calls_section_begin|>")
        self.section_end = tokenizer.id("<|tool_calls_section_end|>")
        self.call_begin = tokenizer.id("<|tool_call_begin|>")
        self.argument_begin = tokenizer.id("<|tool_call_argument_begin|>")
        self.call_end = tokenizer.id("<|tool_call_end|>")
        self.turn_end = tokenizer.eos_id
        # The end of a call is the matcher's end of sequence, so its mask says by itself when the arguments are whole.
        try:
            self._ll = LLTokenizer(
                _without_names(tokenizer.json()),
                n_vocab=tokenizer.vocab_size,
                eos_token=self.call_end,
                # Slices speed up masks over large vocabularies; over a small one they only make compiling slower.
                slices=[] if tokenizer.vocab_size < _LARGE_VOCABULARY else None,
            )
        except ValueError as e:
            raise UserError(f"the tokenizer is damaged ({e}): restore it or train it again") from e
        pieces = [tokenizer.piece(i) for i in range(tokenizer.base_size)]
        self.closer = Closer(pieces, tokenizer.vocab_size, self.call_end)
        self._compiled: dict[tuple[str, bytes], Json | str] = {}
        self._lock = threading.Lock()

        # Everything behind the BPE pieces is reserved.
        self.text_mask = np.zeros(self.vocab_size, dtype=np.bool_)
        self.text_mask[: tokenizer.base_size] = True
        self.text_mask[self.turn_end] = True
        self.tools_mask = self.text_mask.copy()
        self.tools_mask[self.section_begin] = True
        # Without a guide everything goes except ids that the tokenizer cannot decode.
        self.known_mask: Mask | None = None
        if self.vocab_size > tokenizer.vocab_size:
            self.known_mask = np.arange(self.vocab_size) < tokenizer.vocab_size

    def guide(
        self,
        tools: Sequence[ToolSpec],
        first_call_index: int = 0,
        *,
        must_call: bool = False,
        one_call: bool = False,
        answer: Mapping[str, Any] | None = None,
    ) -> Guide:
        """A guide for one sequence.

        With `must_call` it begins with a call; with `one_call` it ends after the first. `answer` is a JSON Schema that
        all text must satisfy, if the sequence does not call tools instead. Raises UserError for a schema that cannot be
        enforced, and where a call is due and no tool is declared.
        """
        compiled = self.compile(tools)
        if must_call and not compiled:
            raise UserError("a call is due and no tool is declared: declare one or let the model choose")
        return Guide(
            self,
            compiled,
            first_call_index,
            must_call=must_call,
            one_call=one_call,
            answer=None if answer is None else self.compile_answer(answer),
        )

    def compile(self, tools: Sequence[ToolSpec]) -> dict[str, Json]:
        """Name -> what the tool's arguments are held to.

        Raises UserError when a name is empty or declared twice, or when a schema is invalid or nothing can satisfy it.
        Keywords of a valid schema that cannot be enforced are left out, and named in `not_enforced`.
        """
        compiled: dict[str, Json] = {}
        for tool in tools:
            if not tool.name or tool.name in compiled:
                raise UserError(f"tool name {tool.name!r} is empty or declared twice: give every tool its own name")
            compiled[tool.name] = self._kept(f"the parameters of tool {tool.name}", tool.parameters, arguments_schema)
        return compiled

    def compile_answer(self, schema: Mapping[str, Any]) -> Json:
        """What an answer in JSON is held to. Raises UserError as `compile`."""
        return self._kept("the schema of the answer", schema, dict)

    def header(self, name: str, index: int) -> tuple[int, ...]:
        """The ids of a call's id, `functions.NAME:IDX`."""
        return tuple(self.tokenizer.encode(call_id(name, index)))

    def _kept(
        self, what: str, schema: Mapping[str, Any], completed: Callable[[Mapping[str, Any]], dict[str, Any]]
    ) -> Json:
        """The compiled schema, from those that are kept if it is there. Refusals are kept as well: clients repeat
        them."""
        try:
            written = json.dumps(dict(schema))
            if len(written) > _LONGEST_SCHEMA:
                raise ValueError(f"{len(written)} bytes of JSON, and at most {_LONGEST_SCHEMA} are taken: shorten it")
            key = completed.__name__, hashlib.sha256(written.encode()).digest()
            with self._lock:
                kept = self._compiled.pop(key, None)
                if isinstance(kept, Json) and kept.worn:
                    kept = None
                if kept is not None:
                    self._compiled[key] = kept  # behind all others: the first is the one unused for longest
            if kept is None:
                # Without the lock: who asks for what is kept does not wait for what others have compiled.
                try:
                    kept = self._compile_schema(_WHAT, completed(without_own_name(schema)))
                except UserError as e:
                    kept = str(e)
                with self._lock:
                    self._compiled[key] = kept
                    if len(self._compiled) > _KEPT_SCHEMAS:
                        del self._compiled[next(iter(self._compiled))]
        except (TypeError, ValueError, RecursionError) as e:
            if isinstance(e, RecursionError) or "recursion limit" in str(e):
                why = f"nested too deeply, at most {_DEEPEST} levels of objects and lists are taken"
            else:
                why = misfit(schema, "the schema") or str(e)
            raise UserError(f"{what} are not a usable JSON Schema: {why}".replace("answer are", "answer is")) from e
        if isinstance(kept, str):
            raise UserError(kept.replace(_WHAT, what))
        return kept

    def _compile_schema(self, what: str, schema: dict[str, Any]) -> Json:
        patterns = _Patterns(self._compile, self.closer)
        written, matcher, remarks = self._first_usable(schema, patterns.is_known)
        shortest, hints = None, self.closer.spelled(hints_of(written))
        broken: list[str] = []
        if matcher.is_error():
            reason = too_much(matcher.get_error(), schema)
            if reason is None:
                first = matcher.get_error().strip().splitlines()[0]
                raise UserError(f"the grammar cannot enforce {what} ({first}): correct the schema")
            broken = [reason]
        else:
            shortest = self.closer.way(matcher, Place(), hints)
        # What cannot be ended must not begin. Each search has its own compilation: limits are broken for all copies.
        if shortest is None:
            written, matcher, remarks = self._first_usable(schema, patterns.is_short)
            shortest = self._way(matcher, hints)
        if shortest is None:
            loosened, hard = self._without_hard_properties(schema, patterns.is_short)
            if hard:
                written, matcher, remarks = self._first_usable(loosened, patterns.is_short)
                shortest = self._way(matcher, hints)
                remarks += [f"Property {name}: no short JSON that satisfies it was found" for name in hard]
        if shortest is None:
            remarks.append("Anything but the type: no short JSON that satisfies the schema was found")
            matcher = self._compile({"type": schema["type"]} if "type" in schema else {})
            shortest = self.closer.way(matcher, Place())
            assert shortest is not None
        return Json(
            matcher, shortest, hints, (*matcher.get_grammar_warnings(), *broken, *patterns.remarks.values(), *remarks)
        )

    def _way(self, matcher: LLMatcher, hints: Spelled) -> tuple[int, ...] | None:
        return None if matcher.is_error() else self.closer.way(matcher, Place(), hints)

    def _without_hard_properties(
        self, schema: dict[str, Any], knows: Callable[[str], bool]
    ) -> tuple[dict[str, Any], list[str]]:
        """The schema in which properties that alone can keep it from an end are held to their type, and their names."""
        properties = schema.get("properties")
        if not isinstance(properties, dict) or len(properties) > _MOST_PROPERTIES:
            return schema, []
        loosened, hard = dict(properties), []
        for name, part in properties.items():
            alone = {**schema, "type": "object", "properties": {name: part}, "required": [name]}
            _, matcher, _ = self._first_usable(alone, knows)
            if self._way(matcher, self.closer.spelled(hints_of(part))) is None:
                kind = part.get("type") if isinstance(part, dict) else None
                loosened[name] = {} if kind is None else {"type": kind}
                hard.append(name)
        return {**schema, "properties": loosened}, hard

    def _first_usable(
        self, schema: dict[str, Any], knows: Callable[[str], bool]
    ) -> tuple[dict[str, Any], LLMatcher, list[str]]:
        """The schema with as much of it as can be compiled, and remarks on what was left out; else a matcher's error.

        Closing may contradict a reference or a composition: then it is taken as declared.
        """
        tried: list[dict[str, Any]] = []
        with_multiples = (True, False) if digits_of_multiples(schema) <= _MOST_MULTIPLES else (False,)
        for multiples, large, close in product(with_multiples, (True, False), (True, False)):
            written = enforceable(schema, knows, close=close, large_bounds=large, multiples=multiples)
            if written in tried:
                continue
            tried.append(written)
            matcher = self._compile(written)
            if not matcher.is_error():
                break
        remarks = [
            *([] if multiples else ["multipleOf of numbers with many digits"]),
            *([] if large else ["Bounds of numbers at 2**53 or beyond"]),
            *(["minProperties where names are free"] if counts_free_names(written) else []),
        ]
        return written, matcher, remarks

    def _compile(self, schema: object) -> LLMatcher:
        return LLMatcher(
            self._ll, LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=_OPTIONS), log_level=0
        )


class _Patterns:
    """Which patterns of a schema can be enforced. Each is looked at once; `remarks` on those that cannot."""

    def __init__(self, compiled: Callable[[object], LLMatcher], closer: Closer) -> None:
        self.remarks: dict[str, str] = {}
        self._compiled = compiled
        self._closer = closer
        self._seen: set[str] = set()
        self._searched: set[str] = set()
        self._left = _SEARCHED

    def is_known(self, pattern: str) -> bool:
        if pattern not in self._seen:
            self._seen.add(pattern)
            # A long one can take a second only to be begun.
            if least_length(pattern) > _LONGEST_TEXT:
                self._miss(pattern)
            elif self._matcher(pattern).is_error():
                self.remarks[pattern] = f"Unknown pattern: {pattern}"
        return pattern not in self.remarks

    def is_short(self, pattern: str) -> bool:
        """Whether it is known and a short text is found. After many, or some misses, others are not looked at."""
        if self.is_known(pattern) and pattern not in self._searched:
            self._searched.add(pattern)
            hints = self._closer.spelled(hints_of({"pattern": pattern}))
            left = self._left > 0
            if left and self._closer.way(self._matcher(pattern), Place(), hints, effort=_SHORT) is not None:
                self._left -= 1
            else:
                self._left -= _MISS
                self._miss(pattern)
        return pattern not in self.remarks

    def _matcher(self, pattern: str) -> LLMatcher:
        return self._compiled({"type": "string", "pattern": pattern})

    def _miss(self, pattern: str) -> None:
        self.remarks[pattern] = f"Pattern of which no short text was found: {pattern}"


def _without_names(tokenizer: str) -> str:
    """A tokenizer.json in which reserved tokens have names that no JSON can contain: text such as "<|im_end|>", which
    a schema may ask for, is written in ordinary pieces."""
    content = json.loads(tokenizer)
    for token in content["added_tokens"]:
        token["content"] = f"\x01{token['id']}"
    return json.dumps(content)


class Guide:
    """Follows one sequence: `mask` what may come next, `settle` what was chosen, `advance` with what came.

    `room` is how many ids are left, the next one included. `settle` and `room` may be left out where nothing ends
    before the guide does.
    """

    def __init__(
        self,
        grammar: Grammar,
        tools: Mapping[str, Json],
        first_call_index: int,
        *,
        must_call: bool = False,
        one_call: bool = False,
        answer: Json | None = None,
    ) -> None:
        self._grammar = grammar
        self._tools = tools
        self._index = first_call_index
        self._one_call = one_call
        self._state = State.TEXT
        self._first = True
        self._costs: dict[str, int] = {}
        self._open: dict[str, tuple[int, ...]] = {}
        self._depth = 0
        self._schema: Json | None = None
        self._matcher: LLMatcher | None = None
        self._mask: Mask | None = None
        # Of JSON under way: a way out, if one is known, where it is, and the way out behind an id that was settled.
        self._way: tuple[int, ...] | None = None
        self._place, self._hints = Place(), Spelled()
        self._settled: tuple[int, tuple[int, ...]] | None = None
        if must_call:
            self._state = State.MUST_CALL
        elif answer is not None:
            self._begin_json(State.ANSWER, answer)
        self._count_costs()

    @property
    def state(self) -> State:
        return self._state

    @property
    def needs(self) -> int:
        """How many ids are needed before anything can be said at all."""
        if self._state is State.MUST_CALL:
            return 1 + min(self._costs.values())
        return len(self._way) if self._state is State.ANSWER and self._way is not None else 1

    def mask(self, room: int = ENDLESS) -> Mask:
        """Allowed next ids, bool [V]. Do not write to it."""
        if self._state is State.TEXT:
            return self._grammar.tools_mask if self._can_call(room - 1) else self._grammar.text_mask
        if self._matcher is not None:
            if self._mask is None:
                self._mask = self._matcher_mask(self._matcher)
            self._mask[self._grammar.section_begin] = self._may_begin_section(room)
            return self._mask
        mask = np.zeros(self._grammar.vocab_size, dtype=np.bool_)
        mask[self.choices(room)] = True
        return mask

    def _matcher_mask(self, matcher: LLMatcher) -> Mask:
        size = self._grammar.tokenizer.vocab_size
        bits = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
        mask = np.zeros(self._grammar.vocab_size, dtype=np.bool_)
        if matcher.is_error():
            # It has become too much for the grammar's limits. The way out was known before.
            mask[self._next_out] = True
            assert self._schema is not None
            self._schema.worn = True
        else:
            mask[:size] = np.unpackbits(bits, bitorder="little")[:size]
        if self._state is State.ANSWER:
            mask[self._grammar.turn_end] = mask[self._grammar.call_end]
            mask[self._grammar.call_end] = False
        return mask

    @property
    def _next_out(self) -> int:
        """The next id of the way out that is known, the end of a call where none is."""
        return self._way[0] if self._way else self._grammar.call_end

    def _may_begin_section(self, room: int) -> bool:
        """Whether calls may come instead of an answer in JSON."""
        return self._state is State.ANSWER and self._first and self._can_call(room - 1)

    def choices(self, room: int = ENDLESS) -> list[int]:
        """The allowed ids in a state between text and JSON, where they are few."""
        grammar = self._grammar
        if self._state is State.MUST_CALL:
            return [grammar.section_begin]
        if self._state is State.SECTION:
            if self._first:
                return [grammar.call_begin]
            more = not self._one_call and self._can_call(room)
            return [grammar.call_begin, grammar.section_end] if more else [grammar.section_end]
        if self._state is State.HEADER:
            following = {ids[self._depth] for ids in self._open.values() if len(ids) > self._depth}
            if any(len(ids) == self._depth for ids in self._open.values()):
                following.add(grammar.argument_begin)
            return sorted(following)
        return [grammar.turn_end]

    def forced(self, room: int = ENDLESS) -> int | None:
        """The next id if there is no choice, else None."""
        if self._state is State.TEXT or self._state is State.DONE:
            return None
        if self._matcher is not None:
            mask = self.mask(room)
            # Settled as well: the way out that is known may be spelled in other ids.
            return self.settle(int(mask.argmax()), room) if np.count_nonzero(mask) == 1 else None
        choices = self.choices(room)
        return choices[0] if len(choices) == 1 else None

    def settle(self, token: int, room: int) -> int:
        """`token`, which `mask` allowed; or the next id on a way out, if behind `token` no end is within `room`."""
        if self._matcher is None or token == self._grammar.section_begin:
            return token
        answer = self._state is State.ANSWER
        end = self._grammar.turn_end if answer else self._grammar.call_end
        # Behind a call the section and the turn have to be ended.
        most = room - 1 if answer else room - 3
        closer = self._grammar.closer
        if token == end or (self._way and token == self._way[0]):
            return token
        if self._way is None:
            self._way = closer.way(self._matcher, self._place, self._hints)
            if self._way is None:
                return token
        way = closer.way_behind(self._matcher, self._place, token, self._hints, most, self._way)
        if way is None:
            return end if self._way[0] == self._grammar.call_end else self._way[0]
        self._settled = token, way
        return token

    def advance(self, token: int, room: int = ENDLESS) -> None:
        """Go on with an id that `mask` allowed. Raises ValueError for another one."""
        grammar = self._grammar
        if self._matcher is not None and not (token == grammar.section_begin and self._may_begin_section(room)):
            self._advance_json(token)
            return
        allowed = self.mask(room)[token] if self._state is State.TEXT else token in self.choices(room)
        if self._matcher is None and (not allowed or self._state is State.DONE):
            raise ValueError(f"id {token} is not allowed in {self._state.value}")
        if token == grammar.section_begin:
            self._matcher = self._mask = None
            self._state = State.SECTION
        elif token == grammar.turn_end:
            self._state = State.DONE
        elif token == grammar.section_end:
            self._state = State.END
        elif token == grammar.call_begin:
            self._state = State.HEADER
            # The first call may have to go beyond its room: then no call would have fitted.
            fitting = [name for name, cost in self._costs.items() if cost <= room] or list(self._costs)
            self._open = {name: grammar.header(name, self._index) for name in fitting}
            self._depth = 0
        elif self._state is State.HEADER and token == grammar.argument_begin:
            name = next(name for name, ids in self._open.items() if len(ids) == self._depth)
            self._begin_json(State.ARGUMENTS, self._tools[name])
        elif self._state is State.HEADER:
            self._open = {
                name: ids for name, ids in self._open.items() if len(ids) > self._depth and ids[self._depth] == token
            }
            self._depth += 1

    def _advance_json(self, token: int) -> None:
        assert self._matcher is not None
        self._mask = None
        answer = self._state is State.ANSWER
        if token == (self._grammar.turn_end if answer else self._grammar.call_end):
            ends = self._matcher.is_accepting()
            if not ends and not (self._matcher.is_error() and self._next_out == self._grammar.call_end):
                raise ValueError(f"id {token} is not allowed in {self._state.value}")
            self._end_json()
            return
        # Behind a token of a way out the rest of it is known, also when the token is too much for the grammar's limits.
        way: tuple[int, ...] | None = None
        if self._settled is not None and self._settled[0] == token:
            way = self._settled[1]
        elif self._way and self._way[0] == token:
            way = self._way[1:]
        known = way is not None
        reserved = token >= self._grammar.tokenizer.base_size
        if reserved or not (self._matcher.consume_token(token) or (known and self._matcher.is_error())):
            raise ValueError(f"id {token} is not allowed in {self._state.value}")
        self._way, self._settled = way, None
        self._place = self._grammar.closer.behind(self._place, token)
        self._first = self._first and not answer

    def _end_json(self) -> None:
        self._matcher = self._settled = None
        if self._state is State.ANSWER:
            self._state = State.DONE
            return
        self._state, self._first = State.SECTION, False
        self._index += 1
        self._count_costs()

    def _begin_json(self, state: State, schema: Json) -> None:
        self._state, self._schema = state, schema
        self._matcher = schema.matcher.deep_copy()
        self._way, self._place, self._hints = schema.shortest, Place(), schema.hints

    def _count_costs(self) -> None:
        """How many ids a call of each tool takes at least, from `call_begin` to the end of the turn."""
        # call_begin, argument_begin, section_end, turn_end
        self._costs = {
            name: 4 + len(self._grammar.header(name, self._index)) + len(tool.shortest)
            for name, tool in self._tools.items()
        }

    def _can_call(self, room: int) -> bool:
        return bool(self._costs) and room >= min(self._costs.values())
