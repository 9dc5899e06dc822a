"""The policy that runs here: renders the conversation, lets the engine complete it, reads the turn from the ids.

Every `act` adds a sequence to the batch of the engine's thread and awaits the result, so concurrent rollouts are
decoded together and the event loop never waits for the model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Protocol

from openk2.chat import canonicalise, parse_completion, render
from openk2.core import Message, ToolSpec, Turn
from openk2.engine import Engine, Generation, Request, Worker


class Submits(Protocol):
    """Where requests go: a thread of their own, or whoever decides when to generate."""

    def submit(self, request: Request) -> Future[Generation]: ...

    def close(self) -> None: ...


class LocalPolicy:
    """Answers with a local model.

    Args:
        engine: the model and its tokenizer.
        grammar: whether calls are constrained to declared tools and their schemas.
        temperature, top_p, seed: how ids are drawn; noise is keyed by seed and position. Rollouts that should differ
            take `seeded(n)` policies, which share the batch.
        name: what trajectories call this policy.
        worker: where requests go; by default a thread that this policy starts.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        grammar: bool = True,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        name: str = "local",
        worker: Submits | None = None,
    ) -> None:
        self.name = name
        self.engine = engine
        self.grammar = grammar
        self.temperature = temperature
        self.top_p = top_p
        self.seed = seed
        self._worker = worker or Worker(engine)

    def seeded(self, seed: int) -> LocalPolicy:
        """The same policy with another seed. It shares this one's batch; closing either closes both."""
        return LocalPolicy(
            self.engine,
            grammar=self.grammar,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=seed,
            name=self.name,
            worker=self._worker,
        )

    async def act(self, messages: Sequence[Message], tools: Sequence[ToolSpec], *, max_tokens: int) -> Turn:
        """The next turn. Raises ContextOverflow if the conversation does not fit, UserError for unusable tools."""
        tokenizer = self.engine.tokenizer
        # Calls that were not sampled here carry foreign ids and spacing, which the model has never seen.
        if any(m.tool_calls and m.token_ids is None for m in messages):
            messages = canonicalise(messages, tokenizer, with_tools=bool(tools))
        prompt = render(messages, tools, tokenizer=tokenizer, add_generation_prompt=True).ids
        request = Request(
            prompt_ids=tuple(prompt),
            max_tokens=max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            tools=tuple(tools),
            grammar=self.grammar,
            first_call_index=sum(len(m.tool_calls) for m in messages),
        )
        self.engine.check(request)
        generation = await asyncio.wrap_future(self._worker.submit(request))
        completion = parse_completion(generation.ids, tokenizer)
        finish = generation.finish_reason
        return Turn(
            message=completion.message,
            finish_reason="tool_calls" if finish == "stop" and completion.message.tool_calls else finish,
            prompt_ids=request.prompt_ids,
            completion_ids=generation.ids,
            logprobs=generation.logprobs,
            malformed=completion.malformed,
            model=self.name,
        )

    async def close(self) -> None:
        """Stop the background thread; turns that are still being generated are cancelled."""
        await asyncio.to_thread(self._worker.close)
