"""Answers that were written down: to try a client or an agent against the API without a model."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Iterator

from openk2.chat import ArgumentsPart, CallBegin, CallEnd, Event, TextPart
from openk2.core import Message, UserError
from openk2.policy.scripted import ScriptedPolicy
from openk2.serve.answer import End, Ready, Said
from openk2.serve.errors import invalid
from openk2.serve.prompt import Asked, tool_names
from openk2.serve.service import Service, Settings

_PIECE = 16
"""Letters of arguments in one event."""


class ScriptedService(Service):
    """Says what comes next in the script: after n assistant messages of the conversation its message n.

    Whatever the request allows or forbids, the script decides. Tokens are not known, and counted as none.
    """

    context = None

    def __init__(self, policy: ScriptedPolicy, settings: Settings) -> None:
        super().__init__(settings)
        self._policy = policy

    @property
    def busy(self) -> int:
        return 0

    @property
    def load(self) -> tuple[int, int]:
        return 0, 0

    def prepare(self, asked: Asked) -> Ready:
        tool_names(asked)
        try:
            message = self._policy.next(asked.messages)
        except UserError as e:
            raise invalid("messages", str(e)) from None
        return _Ready(self.settings.name, asked.n, message)

    async def count(self, asked: Asked) -> int:
        return 0

    async def close(self, grace: float) -> None:
        self._closing = True


class _Ready(Ready):
    def __init__(self, model: str, n: int, message: Message) -> None:
        self.model = model
        self.n = n
        self._message = message

    async def say(self, *, streamed: bool) -> AsyncGenerator[tuple[int, Said], None]:
        for index in range(self.n):
            for event in _events(self._message):
                yield index, Said((event,))
            yield index, Said(end=End("stop"))


def _events(message: Message) -> Iterator[Event]:
    for text in re.findall(r"\S+\s*|\s+", message.content):
        yield TextPart(text)
    for index, call in enumerate(message.tool_calls):
        yield CallBegin(index, call.id, call.name)
        for start in range(0, len(call.arguments), _PIECE):
            yield ArgumentsPart(index, call.arguments[start : start + _PIECE])
        yield CallEnd(index)
