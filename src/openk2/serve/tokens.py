"""`/tokenize`: the ids of a text or of a conversation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openk2.core.messages import is_unicode
from openk2.serve.chat import ChatRequest, ToolEntry
from openk2.serve.errors import invalid
from openk2.serve.fields import Declared, Fields, Listed
from openk2.serve.local import LocalService
from openk2.serve.prompt import render_prompt


class TokenizeRequest(Fields):
    """Either `prompt`, a text, or `messages` with `tools`."""

    model: str | None = None
    prompt: str | None = None
    messages: Listed[dict[str, Any]] | None = None
    tools: Declared[ToolEntry] | None = None

    def ids(self, service: LocalService, body: Mapping[str, Any]) -> list[int]:
        """The ids. Raises ApiError."""
        if (self.prompt is None) == (self.messages is None):
            raise invalid(None, "send either prompt or messages")
        if self.prompt is not None:
            if not is_unicode(self.prompt):
                raise invalid("prompt", "the text has half a character (a lone surrogate), which no encoding has")
            return service.tokenizer.encode(self.prompt)
        chat = ChatRequest(messages=self.messages or [], tools=self.tools)
        return list(render_prompt(service.engine, chat.asked(service.settings, body)))
