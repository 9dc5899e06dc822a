"""What the server behind is asked, in OpenAI's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openk2.chat import canonicalise
from openk2.chat import tokenizer as tk
from openk2.core import UserError
from openk2.policy.endpoint import openai_message
from openk2.serve.errors import invalid
from openk2.serve.names import ToolNames
from openk2.serve.prompt import Asked, named_messages

_FIELDS = {"stop_ids": "stop_token_ids"}
"""Names that fields of the engine's Request have in OpenAI's API and its extensions."""


def body_of(asked: Asked, names: ToolNames) -> dict[str, Any]:
    """The request in OpenAI's words. Raises ApiError."""
    messages, prefix = named_messages(asked, names)
    given_system = messages[0].role == "system"
    try:
        messages = canonicalise(messages)[0 if given_system else 1 :]
    except UserError as e:
        raise invalid(asked.where.messages, str(e)) from None
    body: dict[str, Any] = {"messages": [openai_message(message) for message in messages]}
    if prefix is not None:
        body["messages"].append(openai_message(prefix) | {"partial": True})
    if asked.tools:
        body["tools"] = [tool.named(names.to_model(tool.name)) for tool in asked.tools]
    kind, wanted = asked.choice
    if kind == "tool":
        body["tool_choice"] = {"type": "function", "function": {"name": names.to_model(wanted)}}
    elif kind != "auto" and asked.tools:
        body["tool_choice"] = kind
    if asked.tools and not asked.parallel:
        body["parallel_tool_calls"] = False
    if asked.answer == {"type": "object"} and not asked.answer_names:
        body["response_format"] = {"type": "json_object"}
    elif asked.answer is not None:
        wanted_schema = {"name": "answer"} | dict(asked.answer_names)
        wanted_schema |= {"schema": asked.answer, "strict": asked.answer_strict}
        body["response_format"] = {"type": "json_schema", "json_schema": wanted_schema}
    if asked.max_tokens is not None:
        body["max_tokens"] = asked.max_tokens
    if asked.stop:
        body["stop"] = list(asked.stop)
    for name, value in asked.sampling.items():
        body[_FIELDS.get(name, name)] = dict(value) if name == "logit_bias" else value
    if body.get("top_k") == 0:
        # All ids: not every server takes a 0 for it.
        body["top_k"] = -1
    return body | dict(asked.passed)


def again(body: Mapping[str, Any], text: str, problem: str) -> dict[str, Any]:
    """The same question behind a reply that cannot be used, of which only the text is repeated: servers read calls in
    the history as JSON. What has been begun for the model stays the last message, and is continued anew."""
    messages: list[dict[str, Any]] = body["messages"]
    begun = messages[-1:] if messages[-1].get("partial") else []
    text = "".join(message["content"] for message in begun) + text.partition(tk.SECTION_BEGIN)[0]
    said = [{"role": "assistant", "content": text}] if text else []
    told = {"role": "user", "content": f"Your last reply cannot be used: {problem}. Reply again."}
    return {**body, "messages": [*messages[: len(messages) - len(begun)], *said, told, *begun]}
