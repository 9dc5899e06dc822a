"""The engine: many sequences decoded together, each entering and leaving when it likes.

Shapes: B sequences in the batch, T time, D hidden, V vocabulary.
"""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Mapping
from collections.abc import Sequence as Several
from itertools import takewhile

import torch
from torch import Tensor

from openk2.chat import Tokenizer
from openk2.core import UserError
from openk2.engine.compiled import CompiledStep
from openk2.engine.grammar import Grammar
from openk2.engine.rows import Rows
from openk2.engine.sampling import choose, score
from openk2.engine.sequence import Generation, NoRoom, Part, Request, Sequence, TopLogprobs, check
from openk2.model import Transformer

# Ids that the grammar forces are fed together, up to this many positions in one pass over the batch: padding the other
# rows of a large batch would cost more than the passes it saves.
_POSITIONS = 16
_SCORED = 256
# A sequence gets a place when there is memory for so many more ids than it has.
_AHEAD = 64
_PREFILL_AT_ONCE = 4096


class Engine:
    """A model that completes prompts.

    Args:
        model: in evaluation mode; used as it is when `dtype` is None or its own, else copied once to `dtype`.
        tokenizer: its tokenizer.
        max_batch: most sequences decoded at the same time; more wait.
        prefixes: how many finished sequences a batch remembers, for prompts that begin like them.
        context: most ids of a prompt and its completion; default, and at most, what the model was trained for.
        prefill_chunk: so many ids of prompts are computed before those that run get their next ids.
        cache_bytes: most memory of the latent cache. Requests wait until there is some room for them; when it is used
            up those that came last make place, and go on later where they were. What requests do not need remembers
            finished ones. Default: no bound.
        compiled: decode by a compiled step (see `CompiledStep`).

    Raises UserError when model and tokenizer do not belong together, and as `CompiledStep`.
    """

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        *,
        dtype: torch.dtype | None = None,
        max_batch: int = 64,
        prefixes: int = 64,
        context: int | None = None,
        prefill_chunk: int = 1024,
        cache_bytes: int | None = None,
        compiled: bool = False,
    ) -> None:
        if min(max_batch, prefill_chunk) < 1:
            raise UserError(f"max_batch is {max_batch} and prefill_chunk {prefill_chunk}: both are at least one")
        self.tokenizer = tokenizer
        self.config = model.config
        self.max_batch = max_batch
        self.prefixes = prefixes
        self.prefill_chunk = prefill_chunk
        trained = self.config.max_position_embeddings
        self.context = trained if context is None else context
        if not 1 < self.context <= trained:
            raise UserError(f"context is {self.context}: the model was trained for {trained}, use 2 to {trained}")
        self.model = model if dtype in (None, model.lm_head.weight.dtype) else copy.deepcopy(model).to(dtype)
        each = self.config.num_hidden_layers * self.config.latent_dim * self.model.lm_head.weight.dtype.itemsize
        self.cache_tokens = math.inf if cache_bytes is None else cache_bytes // each
        if self.cache_tokens < self.context:
            raise UserError(
                f"a cache of {cache_bytes} bytes holds {self.cache_tokens} tokens and the context is {self.context}: "
                "give it more memory or shorten the context"
            )
        self.grammar = Grammar(tokenizer, self.config.vocab_size)
        self.compiled = CompiledStep(self.model) if compiled else None

    def head(self, x_XD: Tensor) -> Tensor:
        """Logits [X, V]."""
        if self.compiled is not None:
            return self.compiled.head(x_XD)
        logits_XV: Tensor = self.model.lm_head(x_XD)
        return logits_XV

    def check(self, request: Request) -> None:
        """Raises ContextOverflow, NoRoom or another UserError if `request` cannot be served."""
        check(request, vocab_size=self.config.vocab_size, context=self.context)
        guide, room = request.guide(self.grammar), request.room(self.context)
        if guide is not None and guide.needs > room:
            raise NoRoom(guide.needs, room)

    @torch.inference_mode()
    def score(self, ids: Several[int], top: int = 0) -> Part:
        """The log-prob of each id but the first under those before it, and the `top` likeliest ids' there.

        Raises UserError for what does not fit.
        """
        if not 0 < len(ids) <= self.context or not all(0 <= i < self.config.vocab_size for i in ids):
            raise UserError(f"scoring takes 1 to {self.context} ids of the model's vocabulary")
        ids_1T = torch.tensor([list(ids)], device=self.model.lm_head.weight.device)
        x_TD = self.model.hidden(ids_1T)[0, :-1]
        known = min(self.config.vocab_size, self.tokenizer.vocab_size)
        logprobs: list[float] = []
        tops: list[TopLogprobs] = []
        # Not all positions times all ids at once.
        for x_tD, next_t in zip(torch.split(x_TD, _SCORED), torch.split(ids_1T[0, 1:], _SCORED), strict=True):
            logprobs_tV = self.model.lm_head(x_tD).float().log_softmax(-1)
            logprobs += logprobs_tV.gather(1, next_t[:, None])[:, 0].tolist()
            if top:
                values_tK, ids_tK = logprobs_tV[:, :known].topk(min(top, known))
                pairs = zip(ids_tK.tolist(), values_tK.tolist(), strict=True)
                tops += [tuple(zip(*pair, strict=True)) for pair in pairs]
        return Part(tuple(ids[1:]), tuple(logprobs), tuple(tops))

    def batch(self) -> Batch:
        """An empty batch, to which requests can be added while it runs."""
        return Batch(self)

    def generate(self, requests: Several[Request]) -> list[Generation]:
        """Complete all requests, in their order. Raises as `check`, before anything is generated."""
        batch = self.batch()
        for request in requests:
            batch.add(request)
        done: dict[int, Generation] = {}
        while batch.busy:
            done.update(batch.step())
        return [done[i] for i in range(len(requests))]


class Batch:
    """Sequences in progress. `add` at any time, `step` while `busy`. Weights must not change while it lives."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []  # sequence i has row i of the cache
        self._rows = Rows(engine.model, engine.prefixes, engine.compiled)
        self._count = 0

    @property
    def busy(self) -> bool:
        return bool(self._waiting or self._running)

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def cached(self) -> int:
        """How many ids are in the cache, of running requests and of remembered ones."""
        return self._rows.tokens

    def add(self, request: Request) -> int:
        """Queue a request; the number by which `step` and `drop` know it. Raises as `Engine.check`."""
        self._engine.check(request)
        index, self._count = self._count, self._count + 1
        self._waiting.append(Sequence(index, request, self._engine.grammar, self._engine.context))
        return index

    @torch.inference_mode()
    def drop(self, index: int) -> None:
        """Forget a request that nobody waits for any more."""
        self._waiting = deque(s for s in self._waiting if s.index != index)
        for sequence in [s for s in self._running if s.index == index]:
            self._leave(sequence)

    @torch.inference_mode()
    def step(self) -> list[tuple[int, Generation]]:
        """At least one more id for every sequence that has a place; the sequences that are complete with it."""
        self._make_room()
        self._continue()
        complete = self._leave_complete()
        self._read_prompts()
        complete += self._leave_complete()
        return [(s.index, s.generation()) for s in complete]

    def parts(self, known: Mapping[int, int]) -> list[tuple[int, Part]]:
        """Of running sequences what there is beyond the `known` number of ids, by their index."""
        return [(s.index, s.part(known[s.index])) for s in self._running if s.index in known]

    def _make_room(self) -> None:
        """Let those that came last wait again, as many as what is decided needs. The first always goes on."""
        while (used := sum(s.position for s in self._running)) > self._engine.cache_tokens:
            sequence = max(self._running, key=lambda s: s.index)
            self._leave(sequence)
            sequence.wait_again()
            self._waiting.appendleft(sequence)
        self._rows.trim(self._engine.cache_tokens - used)

    def _read_prompts(self) -> None:
        """Compute a piece of the prompts of those who wait; whose prompt ends in it gets a first id."""
        chunk = self._engine.prefill_chunk
        left = chunk
        for row, sequence in enumerate(self._running):
            if sequence.unread:
                left -= self._fill(row)
        # Where nothing runs nobody is kept waiting by many short ones.
        left = left if self._running else max(left, _PREFILL_AT_ONCE)
        free = self._engine.max_batch - len(self._running)
        room = self._engine.cache_tokens - sum(s.reserved(_AHEAD) for s in self._running)
        news: list[Sequence] = []
        is_long = False
        while self._waiting and left > 0 and len(news) < free and self._waiting[0].reserved(_AHEAD) <= room:
            missing = self._rows.missing(self._waiting[0].seen)
            is_long = missing > chunk
            if is_long or (news and missing > left):
                break
            room -= self._waiting[0].reserved(_AHEAD)
            news.append(self._waiting.popleft())
            left -= missing
        self._admit(news)
        if is_long:
            room -= self._waiting[0].reserved(_AHEAD)
            self._begin(self._waiting.popleft())
        self._rows.trim(max(0, room))

    def _begin(self, sequence: Sequence) -> None:
        """Give a sequence with a long prompt a row, and compute the first piece."""
        seen = sequence.seen
        known = self._rows.begin(seen)
        self._note_cached(sequence, known)
        sequence.unread = seen[known:]
        self._running.append(sequence)
        self._fill(len(self._running) - 1)

    def _fill(self, row: int) -> int:
        """Compute the next piece of a row's prompt; returns how long it was."""
        sequence = self._running[row]
        ids = sequence.unread[: self._engine.prefill_chunk]
        del sequence.unread[: len(ids)]
        x_1D = self._rows.fill(row, ids)
        if not sequence.unread and not sequence.pending:
            self._choose([sequence], x_1D)
        return len(ids)

    def _admit(self, news: list[Sequence]) -> None:
        """Compute whole prompts and choose their first ids."""
        if news:
            order, cached, x_KD = self._rows.admit([s.seen for s in news])
            news = [news[k] for k in order]
            for sequence, count in zip(news, cached, strict=True):
                self._note_cached(sequence, count)
            self._running += news
            fresh = [k for k, s in enumerate(news) if not s.pending]
            if fresh:
                self._choose([news[k] for k in fresh], x_KD[fresh])

    def _note_cached(self, sequence: Sequence, count: int) -> None:
        """Of a sequence that goes on, what its request found cached stays as it was."""
        if not sequence.ids:
            sequence.cached_tokens = count

    def _continue(self) -> None:
        """Feed what is decided but not in the cache yet; a sequence alone also feeds guesses of what comes after it."""
        running = self._running
        most = max(1, _POSITIONS // max(1, len(running)))
        tokens = [s.to_feed(most) for s in running]
        if not any(tokens):
            return
        # Beside a compiled step several positions cost more than guessing saves.
        alone = len(running) == 1 and self._engine.compiled is None
        guesses = running[0].guess(most - len(tokens[0])) if alone else []
        x_BTD = self._rows.extend([[*fed, *guesses] for fed in tokens])
        self._take(tokens, x_BTD)
        seen = len(tokens[0])
        while guesses:
            pairs = zip(running[0].to_feed(len(guesses)), guesses, strict=False)
            right = [token for token, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)]
            if not right:
                break
            self._take([right], x_BTD[:, seen:])
            guesses, seen = guesses[len(right) :], seen + len(right)
        self._rows.forget(len(guesses))

    def _take(self, tokens: list[list[int]], x_BTD: Tensor) -> None:
        """Score ids that the grammar forced, choose where none is; x_BTD is what the fed ids became."""
        running = self._running
        forced = [(b, t) for b, s in enumerate(running) for t in range(min(len(tokens[b]), len(s.pending) - 1))]
        if forced:
            rows, columns = (list(i) for i in zip(*forced, strict=True))
            following = [running[b].pending[t + 1] for b, t in forced]
            score(self._engine.head(x_BTD[rows, columns]), following, [running[b] for b in rows])
        for sequence, fed in zip(running, tokens, strict=True):
            del sequence.pending[: len(fed)]
        ready = [b for b, s in enumerate(running) if tokens[b] and not s.pending]
        if ready:
            self._choose([running[b] for b in ready], x_BTD[ready, [len(tokens[b]) - 1 for b in ready]])

    def _choose(self, sequences: list[Sequence], x_BD: Tensor) -> None:
        """Choose the next id of each, and take on those that then have no alternative."""
        for sequence, token in zip(sequences, choose(self._engine.head(x_BD), sequences), strict=True):
            following: int | None = token
            while following is not None:
                sequence.accept(following)
                following = sequence.forced()

    def _leave_complete(self) -> list[Sequence]:
        complete = [s for s in self._running if s.complete]
        for sequence in complete:
            self._leave(sequence)
        return complete

    def _leave(self, sequence: Sequence) -> None:
        row = self._running.index(sequence)
        last = self._rows.release(row, [*sequence.request.prompt_ids, *sequence.ids])
        self._running[row] = self._running[last]
        self._running.pop()
