"""`/v1/completions`: plain text or token ids in, text and token ids out, without a grammar; scoring with `echo`.

Text in a prompt is text: markers of the chat format become special ids only when ids are sent. What a model says is
shown with its markers by name, up to the end of the turn.
"""

from __future__ import annotations

import asyncio
import codecs
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field, SkipValidation

from openk2.chat import TextReader
from openk2.core import ContextOverflow, UserError
from openk2.core.messages import compact_json, is_unicode
from openk2.engine import Generation, Part, Request, TopLogprobs
from openk2.serve.answer import openai_head, openai_usage
from openk2.serve.errors import invalid
from openk2.serve.fields import Sampling
from openk2.serve.local import LocalService
from openk2.serve.prompt import check_ids, check_sampling

_DEFAULT_TOKENS = 16
_MOST_PROMPTS = 64
_Decoder = codecs.getincrementaldecoder("utf-8")
_NOTED = ("tokens", "token_logprobs", "top_logprobs", "text_offset")


class CompletionRequest(Sampling):
    # Checked below: of millions of ids every alternative would be tried, and that holds the event loop up.
    prompt: SkipValidation[str | list[str] | list[int] | list[list[int]]]
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    suffix: Any = None
    best_of: int | None = None

    def prompts(self, service: LocalService) -> list[list[int]]:
        """The ids of each prompt. Raises ApiError."""
        given: list[Any] = self.prompt if isinstance(self.prompt, list) else [self.prompt]
        if given and type(given[0]) is int:
            given = [given]
        if not 0 < len(given) <= _MOST_PROMPTS:
            raise invalid("prompt", f"there are {len(given)} prompts: send 1 to {_MOST_PROMPTS}")
        return [_ids(service, one) for one in given]

    def requests(self, service: LocalService) -> list[Request]:
        """What the engine is asked, `n` times for each prompt. Heavy: not for the event loop. Raises ApiError."""
        if self.suffix is not None:
            raise invalid("suffix", "inserting into text is not served: leave it out")
        if self.best_of is not None and self.best_of > 1:
            raise invalid("best_of", "choosing among completions is not served: leave it out, and ask for n of them")
        if self.max_tokens == 0 and not self.echo:
            raise invalid("max_tokens", "0 is for scoring, together with echo")
        fields = self.engine_fields(service.settings)
        check_sampling(service.engine, fields)
        seed = secrets.randbits(63) if self.seed is None else self.seed
        requests: list[Request] = []
        for prompt in map(tuple, self.prompts(service)):
            for _ in range(self.n or 1):
                request = Request(
                    prompt,
                    1 if self.max_tokens == 0 else _DEFAULT_TOKENS if self.max_tokens is None else self.max_tokens,
                    grammar=False,
                    stop=self.stops,
                    top_logprobs=self.logprobs or 0,
                    # No two draw the same, also where a prompt is sent several times.
                    seed=seed + len(requests),
                    **fields,
                )
                # What is only scored may fill the context: nothing has to fit behind it.
                scored = self.max_tokens == 0 and len(prompt) == service.context
                checked = replace(request, prompt_ids=request.prompt_ids[:-1]) if scored else request
                try:
                    service.engine.check(checked)
                except ContextOverflow as e:
                    raise invalid("prompt", str(e), code="context_length_exceeded") from None
                except UserError as e:
                    raise invalid(None, str(e)) from None
                requests.append(request)
        return requests


def _ids(service: LocalService, prompt: Any) -> list[int]:
    if not isinstance(prompt, str | list):
        raise invalid("prompt", "it must be a text, a list of ids, or a list of either")
    least = len(prompt) // service.engine.grammar.closer.longest_piece if isinstance(prompt, str) else len(prompt)
    if least > service.context:
        raise invalid("prompt", f"it is longer than the context of {service.context} tokens: shorten it",
                      code="context_length_exceeded")  # fmt: skip
    if isinstance(prompt, list):
        if not prompt or not all(type(token) is int for token in prompt):
            raise invalid("prompt", "a list of ids has whole numbers, and at least one")
        check_ids(service.engine, "prompt", prompt)
        return prompt
    if not prompt or not is_unicode(prompt):
        problem = "has half a character (a lone surrogate), which no encoding has" if prompt else "is empty"
        raise invalid("prompt", f"the text {problem}")
    return service.tokenizer.encode(prompt)


class _Choice:
    """One completion while it is being said."""

    def __init__(self, service: LocalService, asked: CompletionRequest, request: Request) -> None:
        self._tokenizer = service.tokenizer
        self._reader = TextReader(request.stop)
        self._asked = asked
        self.request = request
        self.text = ""
        self.ids: list[int] = []
        self.logprobs: dict[str, list[Any]] = {key: [] for key in _NOTED}
        self._letters, self._decoder = 0, _Decoder("replace")
        self.generation: Generation | None = None

    def echo(self, scored: Part | None) -> str:
        """The prompt, said before the completion."""
        first, *others = self.request.prompt_ids
        self._note(first, None)
        for i, token in enumerate(others):
            self._note(token, *((None,) if scored is None else _at(scored, i)))
        self.text = self._tokenizer.decode(self.request.prompt_ids)
        # A character that the prompt leaves unfinished is not finished by what follows.
        self._letters, self._decoder = len(self.text), _Decoder("replace")
        return self.text

    def take(self, part: Part) -> str:
        said = ""
        for i, token in enumerate(part.ids):
            self.ids.append(token)
            self._note(token, *_at(part, i))
            if token != self._tokenizer.eos_id:
                said += self._reader.feed(self._tokenizer.shown(token))
        self.text += said
        return said

    def end(self, generation: Generation) -> str:
        self.generation = generation
        said = self._reader.close()
        self.text += said
        return said

    def _note(self, token: int, logprob: float | None, top: TopLogprobs | None = None) -> None:
        shown = self._tokenizer.shown(token)
        # What is left of a character that this id does not finish is a sign of its own before it.
        unfinished = bool(self._decoder.getstate()[0]) and not 0x80 <= (shown[0] if shown else 0x80) < 0xC0
        self.logprobs["text_offset"].append(self._letters + unfinished)
        self.logprobs["tokens"].append(self._show(token))
        self.logprobs["token_logprobs"].append(logprob)
        named = None if top is None else {self._show(i): value for i, value in top}
        self.logprobs["top_logprobs"].append(named)
        # Of a character in several ids all stand where it stands.
        self._letters += len(self._decoder.decode(shown))

    def _show(self, token: int) -> str:
        return self._tokenizer.shown(token).decode("utf-8", "replace")

    @property
    def finish_reason(self) -> str:
        return "length" if self.generation is None else self.generation.finish_reason

    def openai(self, index: int, text: str, start: int, finish: str | None) -> dict[str, Any]:
        """The choice, with log-probs and ids from their number `start` on."""
        noted = None
        if self._asked.logprobs is not None:
            noted = {key: values[start:] for key, values in self.logprobs.items()}
        out: dict[str, Any] = {"index": index, "text": text, "finish_reason": finish, "logprobs": noted}
        if self._asked.return_token_ids:
            echoed = len(self.logprobs["tokens"]) - len(self.ids)
            out["token_ids"] = self.ids[max(start - echoed, 0) :]
            if start == 0:
                out["prompt_token_ids"] = list(self.request.prompt_ids)
        return out

    @property
    def noted(self) -> int:
        return len(self.logprobs["tokens"])


def _at(part: Part, i: int) -> tuple[float, TopLogprobs | None]:
    return part.logprobs[i], part.top_logprobs[i] if part.top_logprobs else None


def _usage(choices: list[_Choice], n: int) -> dict[str, Any]:
    # The n choices of a prompt share it.
    firsts = choices[::n]
    prompt, completion = sum(len(c.request.prompt_ids) for c in firsts), sum(len(c.ids) for c in choices)
    cached = sum(c.generation.cached_tokens for c in firsts if c.generation is not None)
    return openai_usage(prompt, completion, cached)


async def _begin(service: LocalService, asked: CompletionRequest, requests: list[Request]) -> list[_Choice]:
    choices = [_Choice(service, asked, request) for request in requests]
    for choice in choices if asked.echo else []:
        scored = None
        if asked.logprobs is not None:
            scored = await asyncio.to_thread(service.engine.score, choice.request.prompt_ids, asked.logprobs)
        choice.echo(scored)
    return choices


async def whole(service: LocalService, asked: CompletionRequest, requests: list[Request]) -> dict[str, Any]:
    """The completions at once."""
    choices = await _begin(service, asked, requests)
    if asked.max_tokens != 0:
        async for index, news in service.run(requests, streamed=False):
            choices[index].take(news) if isinstance(news, Part) else choices[index].end(news)
    return openai_head("cmpl", "text_completion", service.settings.name) | {
        "choices": [c.openai(i, c.text, 0, c.finish_reason) for i, c in enumerate(choices)],
        "usage": _usage(choices, asked.n or 1),
    }


async def streamed(
    service: LocalService, asked: CompletionRequest, requests: list[Request]
) -> AsyncGenerator[str, None]:
    """The completions in chunks, each as JSON, and the last word."""
    choices = await _begin(service, asked, requests)
    head = openai_head("cmpl", "text_completion", service.settings.name)
    sent = [0] * len(choices)

    def chunk(index: int, text: str, finish: str | None = None) -> str:
        start, sent[index] = sent[index], choices[index].noted
        return compact_json(head | {"choices": [choices[index].openai(index, text, start, finish)]})

    for index, choice in enumerate(choices):
        if asked.echo:
            yield chunk(index, choice.text, "length" if asked.max_tokens == 0 else None)
    if asked.max_tokens != 0:
        async with aclosing(service.run(requests, streamed=True)) as stream:
            async for index, news in stream:
                if isinstance(news, Part):
                    yield chunk(index, choices[index].take(news))
                else:
                    yield chunk(index, choices[index].end(news), news.finish_reason)
    if asked.stream_options is not None and asked.stream_options.include_usage:
        yield compact_json(head | {"choices": [], "usage": _usage(choices, asked.n or 1)})
    yield "[DONE]"
