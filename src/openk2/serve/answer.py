"""An answer while it is being said, the same for every route and wherever it comes from."""

from __future__ import annotations

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any, Literal

from openk2.chat import CallBegin, Event, TextPart, Tokenizer, fold
from openk2.core import Message
from openk2.engine import Part


@dataclass(frozen=True, slots=True)
class ReasoningPart:
    """More of what was thought before the answer, where a model behind another server shows it."""

    text: str


@dataclass(frozen=True, slots=True)
class RefusalPart:
    """More of why there is no answer, where the server behind tells that from text."""

    text: str


News = Event | ReasoningPart | RefusalPart
Finish = Literal["stop", "length", "content_filter"]


@dataclass(frozen=True, slots=True)
class End:
    """How an answer ended, and what it took. `stop` is the stop text that ended it. Where the server behind does not
    say what it took, it is not `counted`, and the numbers mean nothing."""

    finish_reason: Finish
    stop: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    counted: bool = True


@dataclass(frozen=True, slots=True)
class Said:
    """News of an answer: events with the client's names, the ids behind them where they are known, the end."""

    events: tuple[News, ...] = ()
    part: Part | None = None
    end: End | None = None


@dataclass(slots=True)
class Answer:
    """Takes the news of one answer. What it has taken adds up to `message`, so a whole answer is a streamed one that
    nobody watched."""

    prompt_tokens: int
    completion_tokens: int = 0
    cached_tokens: int = 0
    end: End | None = None
    _events: list[News] = field(default_factory=list)

    def take(self, said: Said) -> None:
        """One more piece of news."""
        self._events += said.events
        if said.end is not None:
            self.end = said.end
            self.prompt_tokens = said.end.prompt_tokens
            self.completion_tokens = said.end.completion_tokens
            self.cached_tokens = said.end.cached_tokens

    @property
    def message(self) -> Message:
        return fold(event for event in self._events if not isinstance(event, ReasoningPart | RefusalPart))

    @property
    def counted(self) -> bool:
        """Whether it is known what it took."""
        return self.end is None or self.end.counted

    @property
    def reasoning(self) -> str:
        """What was thought."""
        return "".join(event.text for event in self._events if isinstance(event, ReasoningPart))

    @property
    def refusal(self) -> str:
        """Why there is no answer, where that is told from text."""
        return "".join(event.text for event in self._events if isinstance(event, RefusalPart))

    @property
    def shown(self) -> str:
        """Text and refusal as they were said, for a route that has one word for both."""
        return "".join(event.text for event in self._events if isinstance(event, TextPart | RefusalPart))

    @property
    def finish_reason(self) -> str:
        """OpenAI's word for why it ended."""
        assert self.end is not None
        called = any(isinstance(event, CallBegin) for event in self._events)
        return "tool_calls" if called and self.end.finish_reason == "stop" else self.end.finish_reason


def openai_head(prefix: str, kind: str, model: str) -> dict[str, Any]:
    """What every answer in OpenAI's forms and each of its chunks begins with."""
    return {"id": f"{prefix}-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": model}


def openai_usage(prompt: int, completion: int, cached: int) -> dict[str, Any]:
    """What an answer took, in tokens; of the prompt's, `cached` were not computed again."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


class Ready(ABC):
    """A request that has been checked and can be answered, in `n` choices.

    Attributes:
        model: the name of who answers.
        n: how many answers there will be.
        prompt_ids: what is completed, where it is known before the answer.
        tokenizer: of the ids, where they are known.
    """

    model: str
    n: int
    prompt_ids: tuple[int, ...] = ()
    tokenizer: Tokenizer | None = None

    async def begin(self) -> None:
        """Wait until there is something to say, if that may yet be refused. Raises ApiError."""
        return

    @abstractmethod
    def say(self, *, streamed: bool) -> AsyncGenerator[tuple[int, Said], None]:
        """(number of the choice, news of it), until each has come to its end.

        News come as they are said if `streamed`, else in as few as possible. Closing the iterator gives the rest up.
        Raises ApiError if there is no place, and when it fails.
        """
