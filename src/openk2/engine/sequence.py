"""A request, the sequence that grows from it, and the finished generation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from openk2.chat import first_stop
from openk2.core import ContextOverflow, ToolSpec, UserError
from openk2.core.messages import is_unicode
from openk2.engine.grammar import Grammar, Guide, Mask
from openk2.engine.lookup import guess

MIN_TEMPERATURE = 1e-4
"""Under this the noise of drawing is lost in the rounding of logits / temperature: 0 says what is meant."""

_MOST_PENALTY = 100.0


@dataclass(frozen=True, slots=True)
class Request:
    """What to complete and how.

    Args:
        prompt_ids: ids up to and including the generation prompt.
        max_tokens: most ids to generate; the end of the context may come earlier.
        temperature: 0 takes the likeliest id, else (from 1e-4) ids are drawn from softmax(logits / temperature).
        top_k, top_p, min_p: draw only from the so many likeliest ids (0: all), from the smallest set of them whose
            probability reaches this, from ids with at least this part of the likeliest one's probability.
        presence_penalty, frequency_penalty: taken off the logits of ids that were generated, once or each time.
        repetition_penalty: divides positive logits of ids in prompt or completion, and multiplies negative ones.
        logit_bias: (id, what is added to its logit). The grammar has the last word.
        stop: texts that end the generation as soon as its text outside of calls has one; the ids of it are kept.
        stop_ids: ids that end it outside of calls, besides `<|im_end|>`.
        top_logprobs: of how many likeliest ids the log-probs are kept at every position.
        seed: with the position in the sequence, the key of the noise: the batch around a request changes nothing.
        tools: the declared tools, for the grammar.
        grammar: whether to constrain the output to text and well-formed calls of `tools`.
        first_call_index: the number that the next call's id carries (a counter over the whole dialog).
        must_call, one_call: begin with a call; end after the first one.
        answer: a JSON Schema; what is said is JSON that satisfies it, or calls.
    """

    prompt_ids: tuple[int, ...]
    max_tokens: int
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    stop: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()
    top_logprobs: int = 0
    seed: int = 0
    tools: tuple[ToolSpec, ...] = ()
    grammar: bool = True
    first_call_index: int = 0
    must_call: bool = False
    one_call: bool = False
    answer: Mapping[str, Any] | None = None

    def room(self, context: int) -> int:
        """How many ids it can have in a context of so many."""
        return min(self.max_tokens, context - len(self.prompt_ids))

    def guide(self, grammar: Grammar) -> Guide | None:
        """What constrains it, if anything does. Raises UserError as `Grammar.guide`."""
        if not self.grammar:
            return None
        return grammar.guide(
            self.tools, self.first_call_index, must_call=self.must_call, one_call=self.one_call, answer=self.answer
        )

    @property
    def adjusts_logits(self) -> bool:
        """Whether logits are changed before anything is chosen from them."""
        penalties = self.presence_penalty, self.frequency_penalty, self.repetition_penalty
        return penalties != (0.0, 0.0, 1.0) or bool(self.logit_bias)


TopLogprobs = tuple[tuple[int, float], ...]
"""The likeliest ids at a position with their log-probs, the likeliest first."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some ids of a generation that follow each other, with what is known of each."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    top_logprobs: tuple[TopLogprobs, ...] = ()


@dataclass(frozen=True, slots=True)
class Generation:
    """The sampled ids, with `<|im_end|>` or a stop id when it was sampled.

    `logprobs` are the model's own: at temperature 1, without grammar, penalties and filters, as a trainer takes them.
    `top_logprobs`, if they were asked for, one for each id. `stop` is the text that ended it. `cached_tokens` of the
    prompt were not computed again.
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: Literal["stop", "length"]
    top_logprobs: tuple[TopLogprobs, ...] = ()
    stop: str | None = None
    cached_tokens: int = 0

    def part(self, start: int) -> Part:
        """What comes from the id number `start` on."""
        return Part(self.ids[start:], self.logprobs[start:], self.top_logprobs[start:])


class NoRoom(UserError):
    """What is asked for cannot end within the limit. `needs` and `room` are in tokens."""

    def __init__(self, needs: int, room: int, limit: str = "max_tokens") -> None:
        super().__init__(
            f"what is asked for takes {needs} tokens at least, and there is room for {room}: "
            f"raise {limit} or shorten the conversation"
        )
        self.needs, self.room = needs, room


def check(request: Request, *, vocab_size: int, context: int) -> None:
    """Raises ContextOverflow when nothing fits behind the prompt, UserError for numbers that make no sense."""
    if not request.prompt_ids:
        raise UserError("the prompt is empty: render at least one message")
    if not all(0 <= i < vocab_size for i in request.prompt_ids):
        raise UserError(f"the prompt has an id outside the model's vocabulary of {vocab_size}: wrong tokenizer?")
    if len(request.prompt_ids) >= context:
        raise ContextOverflow(
            f"the prompt has {len(request.prompt_ids)} tokens and the context is {context}: "
            "shorten the conversation or the tool declarations"
        )
    if request.max_tokens < 1:
        raise UserError(f"max_tokens is {request.max_tokens}: ask for at least one token")
    temperature, top_p = request.temperature, request.top_p
    if not (temperature == 0 or MIN_TEMPERATURE <= temperature < math.inf) or not 0 < top_p <= 1:
        raise UserError(
            f"temperature {temperature} must be 0 or a finite number from {MIN_TEMPERATURE}, and top_p {top_p} in "
            "(0, 1]: change them"
        )
    wrong = None
    if not all(type(n) is int and n >= 0 for n in (request.top_k, request.top_logprobs)):
        wrong = f"top_k {request.top_k} and top_logprobs {request.top_logprobs} must be whole numbers from 0"
    elif not 0 <= request.min_p <= 1:
        wrong = f"min_p {request.min_p} must lie in [0, 1]"
    elif not all(abs(penalty) <= _MOST_PENALTY for penalty in (request.presence_penalty, request.frequency_penalty)):
        wrong = f"presence_penalty and frequency_penalty must lie between -{_MOST_PENALTY} and {_MOST_PENALTY}"
    elif not 0 < request.repetition_penalty < math.inf:
        wrong = f"repetition_penalty {request.repetition_penalty} must be a positive number"
    elif not all(0 <= i < vocab_size and math.isfinite(bias) for i, bias in request.logit_bias):
        wrong = f"logit_bias takes ids below {vocab_size} and finite numbers"
    elif not all(text and is_unicode(text) for text in request.stop):
        wrong = "stop takes several texts that are not empty"
    elif not all(0 <= i < vocab_size for i in request.stop_ids):
        wrong = f"stop_ids takes ids below {vocab_size}"
    elif not request.grammar and (request.must_call or request.one_call or request.answer is not None):
        wrong = "must_call, one_call and answer need the grammar"
    if wrong:
        raise UserError(f"{wrong}: change it")


class Sequence:
    """One request in progress.

    `ids` are decided; `logprobs` may lag behind them, and `pending` are the last of them that the model has not seen.
    `unread` is what it has not seen of the prompt.
    """

    def __init__(self, index: int, request: Request, grammar: Grammar, context: int) -> None:
        self.index = index
        self.request = request
        self.ids: list[int] = []
        self.logprobs: list[float] = []
        self.top_logprobs: list[TopLogprobs] = []
        self.stopped_by: str | None = None
        self.cached_tokens = 0
        self.pending: list[int] = []
        self.unread: list[int] = []
        self.finish_reason: Literal["stop", "length"] | None = None
        self.limit = request.room(context)
        # Prompt and ids once more, as an array that a guess can search without copying.
        self._all_S = np.empty(len(request.prompt_ids) + self.limit, dtype=np.int64)
        self._all_S[: len(request.prompt_ids)] = request.prompt_ids
        self._grammar = grammar
        # So many ids at the end hold any stop text: an id is a byte at least.
        self._stop_ids_back = max((len(text.encode()) for text in request.stop), default=0)
        self._text_from = 0
        self._in_calls = False
        self._guide = request.guide(grammar)

    @property
    def position(self) -> int:
        """Where the next id will stand."""
        return len(self.request.prompt_ids) + len(self.ids)

    @property
    def seen(self) -> list[int]:
        """What the model has seen, or will have when the prompt is read: all but the pending ids."""
        return [*self.request.prompt_ids, *self.ids[: len(self.ids) - len(self.pending)]]

    def wait_again(self) -> None:
        """Make place for others: what it has seen is read anew when there is room."""
        self.unread = []

    def reserved(self, ahead: int) -> int:
        """How many ids there should be room for: all that are known and the next `ahead`, as far as they may come."""
        return len(self.request.prompt_ids) + min(len(self.ids) + ahead, self.limit)

    def mask(self) -> Mask | None:
        """Allowed next ids, bool [V]; None: all."""
        if self._guide is not None:
            return self._guide.mask(self._room)
        return self._grammar.known_mask

    @property
    def _room(self) -> int:
        """How many ids are left."""
        return self.limit - len(self.ids)

    def settle(self, token: int) -> int:
        """The chosen id, or another one where it would lead too far from the end of a call or an answer."""
        return token if self._guide is None else self._guide.settle(token, self._room)

    @property
    def known_ids(self) -> int:
        """How many ids the tokenizer knows; the model may have more."""
        return self._grammar.tokenizer.vocab_size

    @property
    def complete(self) -> bool:
        """Nothing is left to choose or to score."""
        return self.finish_reason is not None and len(self.logprobs) == len(self.ids)

    def forced(self) -> int | None:
        """The next id if the grammar leaves only one."""
        if self._guide is None or self.finish_reason is not None:
            return None
        return self._guide.forced(self._room)

    def to_feed(self, most: int) -> list[int]:
        """What the model should see next of what is decided, at most `most` ids, once the prompt is read. Nothing is
        chosen behind a last id, so it need not be seen."""
        if self.unread:
            return []
        return self.pending[: min(most, len(self.pending) - (self.finish_reason is not None))]

    def guess(self, most: int) -> list[int]:
        """Ids that may well come next, at most `most` and none behind the last one that there is room for."""
        left = self.limit - len(self.ids) - 1
        if self.finish_reason is not None or min(most, left) < 1:
            return []
        return guess(self._all_S[: self.position], min(most, left))

    def accept(self, token: int) -> None:
        """Take the next id."""
        if self._guide is not None:
            self._guide.advance(token, self._room)
        self._all_S[self.position] = token
        self.ids.append(token)
        self.pending.append(token)
        if token >= self._grammar.tokenizer.base_size:
            self._text_from = len(self.ids)
        if token in (self._grammar.section_begin, self._grammar.section_end):
            self._in_calls = token == self._grammar.section_begin
        stopped = not self._in_calls and (token in self.request.stop_ids or self._has_stop_text())
        if stopped or token == self._grammar.turn_end:
            self.finish_reason = "stop"
        elif len(self.ids) >= self.limit:
            self.finish_reason = "length"

    def _has_stop_text(self) -> bool:
        """Whether the text outside of calls now has a stop text, which goes to `stopped_by`."""
        if not self._stop_ids_back:
            return False
        tail = self.ids[max(self._text_from, len(self.ids) - self._stop_ids_back) :]
        text = self._grammar.tokenizer.decode(tail)
        found = first_stop(text, self.request.stop)
        self.stopped_by = None if found is None else found[1]
        return found is not None

    def part(self, start: int) -> Part:
        """What is decided and scored, from the id number `start` on."""
        stop = len(self.logprobs)
        return Part(tuple(self.ids[start:stop]), tuple(self.logprobs[start:]), tuple(self.top_logprobs[start:]))

    def generation(self) -> Generation:
        """The result. Raises ValueError while the sequence is not complete."""
        if self.finish_reason is None or not self.complete:
            raise ValueError("the sequence is not complete")
        return Generation(
            tuple(self.ids),
            tuple(self.logprobs),
            self.finish_reason,
            tuple(self.top_logprobs),
            self.stopped_by,
            self.cached_tokens,
        )
