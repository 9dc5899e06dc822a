"""An answer while it is being said, the same for every route."""

from __future__ import annotations

from openk2.chat import CallBegin, CompletionReader, Event, Tokenizer, fold
from openk2.core import Message
from openk2.engine import Generation, Part
from openk2.serve.names import ToolNames


class Answer:
    """Takes the engine's news of one request and gives events with the client's names; what it has given adds up to
    `message`, so a whole answer is a streamed one that nobody watched."""

    def __init__(self, tokenizer: Tokenizer, names: ToolNames, stop: tuple[str, ...]) -> None:
        self.tokenizer = tokenizer
        self._names = names
        self._reader = CompletionReader(tokenizer, stop=stop)
        self._events: list[Event] = []
        self.ids: list[int] = []
        self.generation: Generation | None = None

    def take(self, news: Part | Generation) -> list[Event]:
        """What a part says, or at the end what was held back."""
        if isinstance(news, Part):
            self.ids += news.ids
            events = self._reader.feed(news.ids)
        else:
            self.generation = news
            events = self._reader.close()
        events = [
            CallBegin(e.index, e.id, self._names.to_client(e.name)) if isinstance(e, CallBegin) else e for e in events
        ]
        self._events += events
        return events

    @property
    def message(self) -> Message:
        return fold(self._events)

    @property
    def finish_reason(self) -> str:
        """OpenAI's word for why it ended."""
        assert self.generation is not None
        called = any(isinstance(event, CallBegin) for event in self._events)
        return "tool_calls" if called and self.generation.finish_reason == "stop" else self.generation.finish_reason

    @property
    def cached_tokens(self) -> int:
        return 0 if self.generation is None else self.generation.cached_tokens
