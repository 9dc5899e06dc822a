"""Asks a model for JSON that fits a form: mistakes are told to it, and no question is asked twice.

Answers are kept in a folder under the hash of what was asked (model, sampling, messages, schema, seed), so that a run
that was stopped reads again what it has paid for. What a model says is data and never trusted: it is read as JSON,
checked by the form, and refused with one sentence.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from openk2.core import ContextOverflow, Message, Policy, Seeded, Shaped, UserError
from openk2.core.errors import first_invalid
from openk2.core.messages import as_unicode, compact_json
from openk2.core.runs import sha256_text, write_text
from openk2.policy.failures import EndpointError
from openk2.synth.recipe import AskConfig

T = TypeVar("T")
Model = TypeVar("Model", bound=BaseModel)
REPAIRS = 2
"""So often a model may correct itself."""
_REFUSED_FORMAT = (400, 404, 415, 422, 501)
"""What servers answer that know no `response_format` or not this schema."""
_MOST_STARTS = 200
_LONGEST = 400_000


class NoAnswer(UserError):
    """A model said nothing that can be used, not when its mistakes were named either. `readable` if the last of it was
    JSON."""

    def __init__(self, problem: str, *, readable: bool = False) -> None:
        super().__init__(problem)
        self.readable = readable


class Unreadable(UserError):
    """An answer without the JSON that was asked for."""


class _Kept(BaseModel):
    """An answer as it is kept."""

    model_config = ConfigDict(extra="forbid")

    text: str
    cut: bool
    prompt_tokens: int
    completion_tokens: int


@dataclass(slots=True)
class Counts:
    """Questions that were asked, answers that were there already, and the tokens of both."""

    asked: int = 0
    kept: int = 0
    corrected: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def text(self) -> str:
        said = f"{self.asked} answers, {self.prompt_tokens} tokens in, {self.completion_tokens} out"
        said += f", {self.corrected} corrections" if self.corrected else ""
        return said + (f", {self.kept} were there already" if self.kept else "")


class Asker:
    """Asks one model. `folder` is where its answers are kept; with `again` not those that cannot be used."""

    def __init__(self, policy: Policy, folder: Path, config: AskConfig, *, again: bool = False) -> None:
        self._again = again
        self.model = policy.name
        self.counts = Counts()
        self._policy, self._folder, self._config = policy, folder, config
        self.concurrency = config.concurrency
        self._gate = asyncio.Semaphore(config.concurrency)
        self._shapes = isinstance(policy, Shaped)

    async def ask(
        self,
        messages: Sequence[Message],
        form: type[BaseModel],
        read: Callable[[dict[str, Any]], T],
        *,
        seed: int,
    ) -> T:
        """What `read` makes of the answer. It raises UserError for what is wrong, and the model is told its sentence.

        Raises NoAnswer if nothing can be used, UserError if the model cannot be asked.
        """
        said, mistake, kept = list(messages), UserError(), list[Path]()
        schema = compact_json(form.model_json_schema())
        said[-1] = Message(said[-1].role, f"{said[-1].content}\n\nAnswer with one JSON object of this schema: {schema}")
        for number in range(1 + REPAIRS):
            try:
                answer, path = await self._answer(said, form, seed)
            except ContextOverflow as e:
                raise NoAnswer(f"{self.model} cannot be asked: {e}") from e
            kept.append(path)
            try:
                return read(found_object(answer.text, cut=answer.cut))
            except UserError as e:
                mistake = e
            if number < REPAIRS:
                self.counts.corrected += 1
                again = f"That cannot be used: {mistake}. Give the whole JSON object again, corrected, without more."
                said += [Message("assistant", answer.text or "(nothing)"), Message("user", again)]
        for path in kept if self._again else ():
            path.unlink(missing_ok=True)
        raise NoAnswer(
            f"{self.model} gave nothing that can be used in {1 + REPAIRS} answers: {mistake}",
            readable=not isinstance(mistake, Unreadable),
        )

    async def close(self) -> None:
        """Close the policy."""
        await self._policy.close()

    async def _answer(self, said: Sequence[Message], form: type[BaseModel], seed: int) -> tuple[_Kept, Path]:
        """An answer, and where it is kept."""
        schema = form.model_json_schema()
        sampling = [self._config.temperature, self._config.tokens, seed]
        key = sha256_text(compact_json([self.model, sampling, schema, [message.to_openai() for message in said]]))
        path = self._folder / key[:2] / f"{key}.json"
        kept = _read_kept(path)
        if kept is None:
            async with self._gate:
                kept = await self._asked(said, form.__name__.strip("_"), schema, seed)
            self.counts.asked += 1
            write_text(path, kept.model_dump_json() + "\n")
        else:
            self.counts.kept += 1
        self.counts.prompt_tokens += kept.prompt_tokens
        self.counts.completion_tokens += kept.completion_tokens
        return kept, path

    async def _asked(self, said: Sequence[Message], name: str, schema: Mapping[str, Any], seed: int) -> _Kept:
        policy = self._policy.seeded(seed) if isinstance(self._policy, Seeded) else self._policy
        try:
            async with asyncio.timeout(self._config.seconds):
                if self._shapes and isinstance(policy, Shaped):
                    try:
                        return await self._act(policy.shaped(name, schema), said)
                    except EndpointError as e:
                        if e.status not in _REFUSED_FORMAT:
                            raise
                    kept = await self._act(policy, said)
                    # It was the format that the server did not like, not the question.
                    self._shapes = False
                    return kept
                return await self._act(policy, said)
        except TimeoutError as e:
            raise UserError(
                f"{self.model} gave no answer in {self._config.seconds:g} s: is it overloaded? "
                "(ask.seconds in the recipe allows more)"
            ) from e

    async def _act(self, policy: Policy, said: Sequence[Message]) -> _Kept:
        turn = await policy.act(said, (), max_tokens=self._config.tokens)
        spent = (len(turn.prompt_ids), len(turn.completion_ids))
        if turn.usage is not None:
            spent = (turn.usage.prompt_tokens, turn.usage.completion_tokens)
        return _Kept(
            text=as_unicode(turn.message.content[:_LONGEST]),
            cut=turn.finish_reason == "length",
            prompt_tokens=spent[0],
            completion_tokens=spent[1],
        )


def _read_kept(path: Path) -> _Kept | None:
    """What is kept there; None if there is nothing that can be read."""
    try:
        return _Kept.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def found_object(text: str, *, cut: bool = False) -> dict[str, Any]:
    """The JSON object in a text, the longest if there are several: models think aloud and put fences around it.

    Raises Unreadable if there is none.
    """
    best: dict[str, Any] | None = None
    longest = 0
    at = text.find("{")
    for _ in range(_MOST_STARTS):
        if at < 0:
            break
        end = at + 1
        try:
            value, end = _DECODER.raw_decode(text, at)
            if end - at > longest:
                best, longest = value, end - at
        except (ValueError, RecursionError):
            pass
        at = text.find("{", end)
    # Of an object that was cut off, whole parts of it are inside: they are not what was asked for.
    if cut and longest < len(text.strip()):
        raise Unreadable("the JSON is cut off before its end: write a shorter one")
    if best is None:
        raise Unreadable("there is no JSON object in the answer" if "{" not in text else "the JSON cannot be read")
    return best


def _no_constant(word: str) -> float:
    raise ValueError(f"{word} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)


def fitting(form: type[Model]) -> Callable[[dict[str, Any]], Model]:
    """A reader of answers that are to fit a form, with one sentence for the first mistake."""

    def read(raw: dict[str, Any]) -> Model:
        try:
            return form.model_validate(raw)
        except ValidationError as e:
            place, problem = first_invalid(e)
            raise UserError(f"{place or 'the object'}: {problem[0].lower()}{problem[1:]}") from None

    return read
