"""The engine: many sequences decoded together, each entering and leaving when it likes.

Shapes: B sequences in the batch, T time, D hidden, V vocabulary.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Sequence as Several

import torch
from torch import Tensor

from openk2.chat import Tokenizer
from openk2.core import UserError
from openk2.engine.grammar import Grammar
from openk2.engine.sampling import choose
from openk2.engine.sequence import Generation, OnToken, Request, Sequence, check
from openk2.model import Transformer


class Engine:
    """A model that completes prompts.

    Args:
        model: used as it is when `dtype` is None or its own, else copied once to `dtype`.
        tokenizer: its tokenizer.
        max_batch: most sequences decoded at the same time; more wait.

    Raises UserError when model and tokenizer do not belong together.
    """

    def __init__(
        self, model: Transformer, tokenizer: Tokenizer, *, dtype: torch.dtype | None = None, max_batch: int = 64
    ) -> None:
        if max_batch < 1:
            raise UserError(f"max_batch is {max_batch}: allow at least one sequence")
        self.tokenizer = tokenizer
        self.config = model.config
        self.max_batch = max_batch
        self.model = model if dtype in (None, model.lm_head.weight.dtype) else copy.deepcopy(model).to(dtype)
        self.grammar = Grammar(tokenizer, self.config.vocab_size)

    def check(self, request: Request) -> None:
        """Raises ContextOverflow or UserError if `request` cannot be served: too long, bad numbers, bad tools."""
        check(request, vocab_size=self.config.vocab_size, context=self.config.max_position_embeddings)
        if request.grammar:
            self.grammar.compile(request.tools)

    def batch(self, on_token: OnToken | None = None) -> Batch:
        """An empty batch, to which requests can be added while it runs."""
        return Batch(self, on_token)

    def generate(self, requests: Several[Request], on_token: OnToken | None = None) -> list[Generation]:
        """Complete all requests, in their order. Raises as `check`, before anything is generated."""
        for request in requests:
            self.check(request)
        batch = self.batch(on_token)
        for request in requests:
            batch.add(request)
        done: dict[int, Generation] = {}
        while batch.busy:
            done.update(batch.step())
        return [done[i] for i in range(len(requests))]


class Batch:
    """Sequences in progress. `add` at any time, `step` while `busy`."""

    def __init__(self, engine: Engine, on_token: OnToken | None = None) -> None:
        self._engine = engine
        self._on_token = on_token
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []
        self._count = 0

    @property
    def busy(self) -> bool:
        return bool(self._waiting or self._running)

    def add(self, request: Request) -> int:
        """Queue a request; the number by which `step` and `drop` know it. Raises as `Engine.check`."""
        self._engine.check(request)
        index, self._count = self._count, self._count + 1
        self._waiting.append(
            Sequence(index, request, self._engine.grammar, self._engine.config.max_position_embeddings)
        )
        return index

    def drop(self, index: int) -> None:
        """Forget a request that nobody waits for any more."""
        self._waiting = deque(s for s in self._waiting if s.index != index)
        self._running = [s for s in self._running if s.index != index]

    @torch.inference_mode()
    def step(self) -> list[tuple[int, Generation]]:
        """One more id for every sequence; the sequences that ended with it."""
        while self._waiting and len(self._running) < self._engine.max_batch:
            self._running.append(self._waiting.popleft())
        if not self._running:
            return []
        ids, logprobs = choose(self._logits(), self._running)
        finished: list[tuple[int, Generation]] = []
        for sequence, token, logprob in zip(self._running, ids, logprobs, strict=True):
            if sequence.accept(token, logprob):
                finished.append((sequence.index, sequence.generation()))
            if self._on_token is not None:
                self._on_token(sequence.index, token)
        self._running = [s for s in self._running if s.finish_reason is None]
        return finished

    def _logits(self) -> Tensor:
        model = self._engine.model
        rows = [[*s.request.prompt_ids, *s.ids] for s in self._running]
        time = max(map(len, rows))
        ids_BT = torch.tensor([row + [0] * (time - len(row)) for row in rows], device=model.lm_head.weight.device)
        last_B = torch.tensor([len(row) - 1 for row in rows], device=ids_BT.device)
        x_BTD = model.hidden(ids_BT)
        logits_BV: Tensor = model.lm_head(x_BTD[torch.arange(len(rows), device=ids_BT.device), last_B])
        return logits_BV
