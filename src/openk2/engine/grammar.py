"""What a model may say next: free text, or a well-formed call to a declared tool with arguments that fit its schema.

One `Guide` follows one sequence. Its states, with the special tokens that lead from one to the next:

    text -section_begin-> section -call_begin-> header -argument_begin-> arguments -call_end-> section ...
    text -im_end-> done        section (after a call) -section_end-> end -im_end-> done

Outside a tool section the mask is one of two constants. The header is a choice between the token sequences of
`functions.NAME:IDX`, tokenised as in training. The arguments follow an llguidance matcher over the tool's JSON Schema,
without the few keywords that it cannot enforce.
Source of the format: K2 report, appendix B (the enforcer). Shapes: V vocabulary of the model.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from numpy.typing import NDArray

from openk2.chat import call_id
from openk2.core import ToolSpec, UserError
from openk2.engine.schema import arguments_schema, enforceable

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


class State(Enum):
    TEXT = "text"
    SECTION = "section"
    HEADER = "header"
    ARGUMENTS = "arguments"
    END = "end"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Arguments:
    """The compiled parameters of a tool: a fresh matcher (copy before use), and a remark on every part of the schema
    that it does not hold the model to (for whoever declares tools: nothing here prints them)."""

    matcher: LLMatcher
    not_enforced: tuple[str, ...] = ()


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
        self._ll = LLTokenizer(
            tokenizer.json(),
            n_vocab=tokenizer.vocab_size,
            eos_token=self.call_end,
            # Slices speed up masks over large vocabularies; over a small one they only make compiling slower.
            slices=[] if tokenizer.vocab_size < _LARGE_VOCABULARY else None,
        )
        self._compiled: dict[str, Arguments] = {}
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

    def guide(self, tools: Sequence[ToolSpec], first_call_index: int = 0) -> Guide:
        """A guide for one sequence. Raises UserError for a tool whose declaration cannot be enforced."""
        return Guide(self, self.compile(tools), first_call_index)

    def compile(self, tools: Sequence[ToolSpec]) -> dict[str, Arguments]:
        """Name -> what the tool's arguments are held to.

        Raises UserError when a name is empty or declared twice, or when a schema is invalid or nothing can satisfy it.
        Keywords of a valid schema that cannot be enforced are left out, and named in `not_enforced`.
        """
        compiled: dict[str, Arguments] = {}
        for tool in tools:
            if not tool.name or tool.name in compiled:
                raise UserError(f"tool name {tool.name!r} is empty or declared twice: give every tool its own name")
            compiled[tool.name] = self._arguments(tool)
        return compiled

    def header(self, name: str, index: int) -> tuple[int, ...]:
        """The ids of a call's id, `functions.NAME:IDX`."""
        return tuple(self.tokenizer.encode(call_id(name, index)))

    def _arguments(self, tool: ToolSpec) -> Arguments:
        try:
            key = json.dumps(dict(tool.parameters))
            schema = arguments_schema(tool.parameters)
            with self._lock:
                arguments = self._compiled.pop(key, None) or self._compile_tool(tool.name, schema)
                self._compiled[key] = arguments  # behind all others: the first is the one unused for longest
                if len(self._compiled) > _KEPT_SCHEMAS:
                    del self._compiled[next(iter(self._compiled))]
                return arguments
        except (TypeError, ValueError) as e:
            raise UserError(f"the parameters of tool {tool.name} are not a usable JSON Schema: {e}") from e

    def _compile_tool(self, name: str, schema: dict[str, Any]) -> Arguments:
        unknown: list[str] = []

        def knows(pattern: str) -> bool:
            known = not self._compile({"type": "string", "pattern": pattern}).is_error()
            if not known:
                unknown.append(f"Unknown pattern: {pattern}")
            return known

        # Closing may contradict a reference or a composition: then take it as declared. Large bounds go last.
        for large, close in ((True, True), (True, False), (False, True), (False, False)):
            matcher = self._compile(enforceable(schema, knows, close=close, large_bounds=large))
            if not matcher.is_error():
                break
        if not large:
            unknown.append("Bounds of numbers at 2**53 or beyond")
        if matcher.is_error():
            reason = matcher.get_error().strip().splitlines()[0]
            raise UserError(
                f"the grammar cannot enforce the parameters of tool {name} ({reason}): "
                "simplify the schema or switch the grammar off"
            )
        return Arguments(matcher, (*matcher.get_grammar_warnings(), *dict.fromkeys(unknown)))

    def _compile(self, schema: object) -> LLMatcher:
        return LLMatcher(
            self._ll, LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=_OPTIONS), log_level=0
        )


class Guide:
    """Follows one sequence: `mask` what may come next, `advance` with what came."""

    def __init__(self, grammar: Grammar, tools: Mapping[str, Arguments], first_call_index: int) -> None:
        self._grammar = grammar
        self._tools = tools
        self._index = first_call_index
        self._state = State.TEXT
        self._first = True
        self._open: dict[str, tuple[int, ...]] = {}
        self._depth = 0
        self._matcher: LLMatcher | None = None
        self._mask: Mask | None = None

    @property
    def state(self) -> State:
        return self._state

    def mask(self) -> Mask:
        """Allowed next ids, bool [V]. Do not write to it."""
        if self._mask is None:
            self._mask = self._make_mask()
        return self._mask

    def _make_mask(self) -> Mask:
        if self._state is State.TEXT:
            return self._grammar.tools_mask if self._tools else self._grammar.text_mask
        if self._matcher is not None:
            bits = np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")
            size = self._grammar.tokenizer.vocab_size
            mask = np.zeros(self._grammar.vocab_size, dtype=np.bool_)
            mask[:size] = bits[:size]
            return mask
        mask = np.zeros(self._grammar.vocab_size, dtype=np.bool_)
        mask[self.choices()] = True
        return mask

    def choices(self) -> list[int]:
        """The allowed ids in a state between text and arguments, where they are few."""
        grammar = self._grammar
        if self._state is State.SECTION:
            return [grammar.call_begin] if self._first else [grammar.call_begin, grammar.section_end]
        if self._state is State.HEADER:
            following = {ids[self._depth] for ids in self._open.values() if len(ids) > self._depth}
            if any(len(ids) == self._depth for ids in self._open.values()):
                following.add(grammar.argument_begin)
            return sorted(following)
        return [grammar.turn_end]

    def forced(self) -> int | None:
        """The next id if there is no choice, else None."""
        if self._state is State.TEXT or self._state is State.DONE:
            return None
        if self._matcher is not None:
            mask = self.mask()
            return int(mask.argmax()) if np.count_nonzero(mask) == 1 else None
        choices = self.choices()
        return choices[0] if len(choices) == 1 else None

    def advance(self, token: int) -> None:
        """Go on with an id that `mask` allowed. Raises ValueError for another one."""
        try:
            self._advance(token)
        finally:
            self._mask = None

    def _advance(self, token: int) -> None:
        grammar = self._grammar
        if self._state is State.TEXT:
            if not self.mask()[token]:
                raise ValueError(f"id {token} is not allowed in {self._state.value}")
            if token == grammar.turn_end:
                self._state = State.DONE
            elif token == grammar.section_begin:
                self._state = State.SECTION
            return
        if self._matcher is not None:
            if token == grammar.call_end and self._matcher.is_accepting():
                self._matcher = None
                self._state, self._first = State.SECTION, False
                self._index += 1
            elif token == grammar.call_end or not self._matcher.consume_token(token):
                raise ValueError(f"id {token} is not allowed in {self._state.value}: {self._matcher.get_error()}")
            return
        if token not in self.choices() or self._state is State.DONE:
            raise ValueError(f"id {token} is not allowed in {self._state.value}")
        if self._state is State.SECTION:
            self._state = State.END if token == grammar.section_end else State.HEADER
            self._open = {name: grammar.header(name, self._index) for name in self._tools}
            self._depth = 0
        elif self._state is State.HEADER and token == grammar.argument_begin:
            name = next(name for name, ids in self._open.items() if len(ids) == self._depth)
            self._matcher = self._tools[name].matcher.deep_copy()
            self._state = State.ARGUMENTS
        elif self._state is State.HEADER:
            self._open = {
                name: ids for name, ids in self._open.items() if len(ids) > self._depth and ids[self._depth] == token
            }
            self._depth += 1
        else:
            self._state = State.DONE
