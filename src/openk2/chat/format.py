"""The K2 chat format: a conversation to token ids (with a loss mask), and ids back to a conversation.

    turn         <|im_CLASS|>NAME<|im_middle|>BODY<|im_end|>       CLASS: user, assistant, or system for all else
    declaration  <|im_system|>tool_declare<|im_middle|>JSON<|im_end|>                            always the first turn
    calls        content<|tool_calls_section_begin|> CALL ... <|tool_calls_section_end|>
    CALL         <|tool_call_begin|>functions.NAME:IDX<|tool_call_argument_begin|>JSON<|tool_call_end|>
    result       body "## Return of ID" newline content

NAME is the message's name or its role; where the vocabulary is of nano's kind, a result has its tool's. IDX counts all
calls of the dialog from 0. A dialog that does not open with a system message gets the default one, K2's or nano's.
Structure is made of reserved ids only and text never encodes to one, so nothing that a user or a tool says can open a
turn.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from openk2.chat import tokenizer as tk
from openk2.chat.tokenizer import DEFAULT_SYSTEM, Tokenizer, nano_tokenizer
from openk2.core import Message, ToolCall, ToolSpec, UserError, as_messages, as_tools, compact_json

_TAKEN = ("system", "tool", tk.TOOL_DECLARE)
_CLASS = {"user": tk.IM_USER, "assistant": tk.IM_ASSISTANT, "system": tk.IM_SYSTEM, "tool": tk.IM_SYSTEM}


@dataclass(frozen=True, slots=True)
class Rendered:
    """Ids of a conversation. `loss_mask[i]` says that `ids[i]` was said by the assistant (its `<|im_end|>` too)."""

    ids: list[int]
    loss_mask: list[bool]


@dataclass(frozen=True, slots=True)
class Parsed:
    """A conversation read from ids. `malformed`: message index -> raw text of a tool section that could not be read."""

    messages: list[Message]
    tools: list[ToolSpec]
    malformed: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Completion:
    """One assistant body. `message` keeps the complete calls (and the ids); the unreadable rest is in `malformed`."""

    message: Message
    malformed: str | None = None


def call_id(name: str, index: int) -> str:
    """The id of the call number `index` of the dialog."""
    return f"{tk.ID_PREFIX}{name}:{index}"


def tool_name(identifier: str) -> str:
    """The tool's name in a call id: `functions.NAME:IDX`, also without the prefix or the index."""
    body = identifier.removeprefix(tk.ID_PREFIX)
    name, colon, index = body.rpartition(":")
    return name if colon and index.isdecimal() else body


def render(
    messages: Sequence[Message | Mapping[str, Any]],
    tools: Sequence[ToolSpec | Mapping[str, Any]] | None = None,
    *,
    tokenizer: Tokenizer | None = None,
    add_generation_prompt: bool = False,
    prefix: Message | None = None,
) -> Rendered:
    """Ids and loss mask of a conversation (K2's chat template, token for token).

    `messages` and `tools` are core dataclasses or OpenAI dicts; a tool's dict is written as it is, key by key, and a
    ToolSpec, or what is declared to a model of nano's kind, in the order that nano has learned.

    The mask is True on the body of every assistant turn including its `<|im_end|>`, not on its header. The body of an
    assistant message with `token_ids` is these ids, as sampled; if they were cut before `<|im_end|>`, one is added that
    the mask leaves out.

    With the generation prompt goes a `prefix`: an assistant message that is to be continued.

    `tokenizer=None` takes the embedded nano's. Raises UserError for text that is not valid Unicode.
    """
    tokenizer = tokenizer or nano_tokenizer()
    out = _Writer(tokenizer)
    specs = as_tools(tools)  # raises for what is no declaration
    if tools:
        declared = [
            spec.to_openai() if tokenizer.of_nano or isinstance(tool, ToolSpec) else tool
            for tool, spec in zip(tools, specs, strict=True)
        ]
        out.turn(tk.IM_SYSTEM, tk.TOOL_DECLARE, compact_json(declared))
    dialog = as_messages(messages)
    if dialog and dialog[0].role != "system":
        out.turn(tk.IM_SYSTEM, "system", tokenizer.default_system(with_tools=bool(tools)))
    for message in dialog:
        if message.role == "assistant":
            out.assistant(message)
            continue
        head = f"{tk.RETURN_OF}{message.tool_call_id or ''}\n" if message.role == "tool" else ""
        name = message.name or (_name_of_result(message) if tokenizer.of_nano else None)
        out.turn(_CLASS[message.role], name or message.role, head + message.content)
    if add_generation_prompt:
        out.header(tk.IM_ASSISTANT, prefix.name or "assistant" if prefix else "assistant")
        out.text(prefix.content if prefix else "")
    return Rendered(out.ids, out.mask)


class _Writer:
    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.ids: list[int] = []
        self.mask: list[bool] = []

    def special(self, name: str, supervised: bool = False) -> None:
        self.ids.append(self._tokenizer.specials[name])
        self.mask.append(supervised)

    def text(self, text: str, supervised: bool = False) -> None:
        self.verbatim(self._tokenizer.encode(text), supervised)

    def verbatim(self, ids: Sequence[int], supervised: bool) -> None:
        self.ids.extend(ids)
        self.mask.extend([supervised] * len(ids))

    def header(self, turn_class: str, name: str) -> None:
        self.special(turn_class)
        self.text(name)
        self.special(tk.IM_MIDDLE)

    def turn(self, turn_class: str, name: str, body: str) -> None:
        self.header(turn_class, name)
        self.text(body)
        self.special(tk.IM_END)

    def assistant(self, message: Message) -> None:
        self.header(tk.IM_ASSISTANT, message.name or "assistant")
        if message.token_ids is not None:
            self.verbatim(message.token_ids, True)
            if not message.token_ids or message.token_ids[-1] != self._tokenizer.eos_id:
                self.special(tk.IM_END)
            return
        self.text(message.content, True)
        if message.tool_calls:
            self.special(tk.SECTION_BEGIN, True)
            for call in message.tool_calls:
                self.special(tk.CALL_BEGIN, True)
                self.text(call.id, True)
                self.special(tk.ARGUMENT_BEGIN, True)
                self.text(call.arguments, True)
                self.special(tk.CALL_END, True)
            self.special(tk.SECTION_END, True)
        self.special(tk.IM_END, True)


def parse(ids: Sequence[int], *, tokenizer: Tokenizer | None = None) -> Parsed:
    """The conversation that `ids` say; the inverse of `render` on canonical messages.

    A generation prompt at the end is dropped, an unfinished last turn is kept. Messages come without `token_ids`.
    Raises UserError, naming the position, for ids that are not a sequence of turns.
    """
    tokenizer = tokenizer or nano_tokenizer()
    reader = _Reader(list(ids), tokenizer)
    messages: list[Message] = []
    tools: list[ToolSpec] = []
    malformed: dict[int, str] = {}
    while not reader.done:
        start = reader.at
        turn_class, name, body, closed = reader.turn()
        if turn_class == tk.IM_ASSISTANT:
            if not body and not closed:
                break
            completion = parse_completion(body, tokenizer)
            if completion.malformed is not None:
                malformed[len(messages)] = completion.malformed
            messages.append(
                Message(
                    "assistant",
                    completion.message.content,
                    completion.message.tool_calls,
                    name=None if name == "assistant" else name,
                )
            )
            continue
        if any(i >= tokenizer.base_size for i in body):
            raise UserError(f"the turn at token {start} has structure tokens inside its text")
        text = tokenizer.decode(body)
        if turn_class == tk.IM_USER:
            messages.append(Message("user", text, name=None if name == "user" else name))
        elif name == tk.TOOL_DECLARE and start == 0:
            tools = _declared(text)
        else:
            messages.append(_system_or_result(name, text))
    return Parsed(messages, tools, malformed)


def parse_completion(ids: Sequence[int], tokenizer: Tokenizer) -> Completion:
    """Read one assistant body: ids after `<|im_middle|>`, with or without the closing `<|im_end|>`.

    Complete calls are kept, also when the section was cut before its end; whatever could not be read (a half call, text
    after the section, a structure token out of place) is returned as `malformed`. The arguments of a call are kept as
    written, valid JSON or not. `message.token_ids` are the ids as given, up to `<|im_end|>`.
    """
    ids = list(ids)
    if tokenizer.eos_id in ids:
        ids = ids[: ids.index(tokenizer.eos_id) + 1]
    reader = _Reader(ids[:-1] if ids and ids[-1] == tokenizer.eos_id else ids, tokenizer)
    content = reader.text()
    calls: list[ToolCall] = []
    good = reader.at
    if reader.take(tk.SECTION_BEGIN):
        while (call := reader.call()) is not None:
            calls.append(call)
            good = reader.at
        reader.at = good if calls else reader.at
        if calls and reader.take(tk.SECTION_END):
            good = reader.at
    rest = reader.ids[good:]
    return Completion(
        Message("assistant", content, tuple(calls), token_ids=tuple(ids)),
        malformed=tokenizer.decode(rest) if rest else None,
    )


class _Reader:
    """A cursor over ids."""

    def __init__(self, ids: list[int], tokenizer: Tokenizer) -> None:
        self.ids = ids
        self.at = 0
        self._tokenizer = tokenizer

    @property
    def done(self) -> bool:
        return self.at >= len(self.ids)

    def take(self, special: str) -> bool:
        """Step over `special` if it is next."""
        if not self.done and self.ids[self.at] == self._tokenizer.specials[special]:
            self.at += 1
            return True
        return False

    def text(self) -> str:
        """The text up to the next reserved id."""
        start = self.at
        while not self.done and self.ids[self.at] < self._tokenizer.base_size:
            self.at += 1
        return self._tokenizer.decode(self.ids[start : self.at])

    def call(self) -> ToolCall | None:
        """A complete call, or None."""
        if not self.take(tk.CALL_BEGIN):
            return None
        identifier = self.text()
        if not tool_name(identifier) or not self.take(tk.ARGUMENT_BEGIN):
            return None
        arguments = self.text()
        return ToolCall(identifier, tool_name(identifier), arguments) if self.take(tk.CALL_END) else None

    def turn(self) -> tuple[str, str, list[int], bool]:
        """Class, name, body, and whether the body was closed."""
        start = self.at
        turn_class = next((c for c in (tk.IM_SYSTEM, tk.IM_USER, tk.IM_ASSISTANT) if self.take(c)), None)
        if turn_class is None:
            raise UserError(
                f"token {start} ({self.ids[start]}) does not open a turn: these ids are not a K2 conversation"
            )
        name = self.text()
        if not self.take(tk.IM_MIDDLE):
            raise UserError(f"the header of the turn at token {start} has no <|im_middle|>")
        end_id = self._tokenizer.eos_id
        begin = self.at
        while not self.done and self.ids[self.at] != end_id:
            self.at += 1
        body = self.ids[begin : self.at]
        return turn_class, name, body, self.take(tk.IM_END)


def _declared(text: str) -> list[ToolSpec]:
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise UserError(f"the tool declaration is not JSON: {e}") from None
    if not isinstance(raw, list):
        raise UserError("the tool declaration is not a JSON array")
    return as_tools(raw)


def _system_or_result(name: str, text: str) -> Message:
    if name != "system" and text.startswith(tk.RETURN_OF) and "\n" in text:
        identifier, _, content = text.removeprefix(tk.RETURN_OF).partition("\n")
        return Message("tool", content, tool_call_id=identifier, name=None if name == "tool" else name)
    return Message("system", text, name=None if name == "system" else name)


def canonicalise(
    messages: Sequence[Message | Mapping[str, Any]], tokenizer: Tokenizer | None = None, *, with_tools: bool = False
) -> list[Message]:
    """The one form of a conversation that the model is trained on, so that foreign histories do not confuse it.

    - a first system message is there (if none was given, K2's default, or nano's where `tokenizer` is of its kind and
      the conversation goes `with_tools`);
    - a result is under its tool's name, where that is what `tokenizer` wants;
    - call ids are `functions.NAME:IDX`, IDX counting over the dialog from 0; results point to them (a result without
      an id answers the first call that has none yet);
    - arguments that are a JSON object are compact JSON, empty ones `{}`; others stay as written;
    - names equal to the role, and fields that do not belong to the role, are dropped; `token_ids` stay only on messages
      that did not change.

    Idempotent; on its output `parse(render(m))` is the identity. Raises UserError for a call without a usable name and
    for a result that answers no call.
    """
    dialog = as_messages(messages)
    out: list[Message] = []
    if dialog and dialog[0].role != "system":
        out.append(Message("system", tokenizer.default_system(with_tools=with_tools) if tokenizer else DEFAULT_SYSTEM))
    new_ids: dict[str, list[str]] = {}
    waiting: list[str] = []
    count = 0
    for position, message in enumerate(dialog):
        name = _canonical_name(message)
        if message.role == "tool":
            target = _answered(message, position, new_ids, waiting)
            if target in waiting:
                waiting.remove(target)
            result = Message("tool", message.content, tool_call_id=target, name=name)
            if name is None and tokenizer is not None and tokenizer.of_nano:
                result = replace(result, name=_name_of_result(result))
            out.append(result)
            continue
        calls: list[ToolCall] = []
        if message.role == "assistant" and message.tool_calls:
            new_ids, waiting = dict(new_ids), []
            fresh: dict[str, list[str]] = {}
            for call in message.tool_calls:
                if not call.name or any(c in call.name for c in "\r\n"):
                    raise UserError(f"message {position}: a tool call needs a one-line name, got {call.name!r}")
                identifier = call_id(call.name, count)
                count += 1
                calls.append(ToolCall(identifier, call.name, _canonical_arguments(call.arguments)))
                fresh.setdefault(call.id, []).append(identifier)
                waiting.append(identifier)
            new_ids |= fresh
        plain = Message(message.role, message.content, tuple(calls), name=name, token_ids=message.token_ids)
        out.append(plain if plain == message else Message(message.role, message.content, tuple(calls), name=name))
    return out


def _answered(message: Message, position: int, new_ids: dict[str, list[str]], waiting: list[str]) -> str:
    """The canonical id of the call that a tool message answers."""
    if message.tool_call_id:
        candidates = new_ids.get(message.tool_call_id, [])
        if candidates:
            return next((c for c in candidates if c in waiting), candidates[-1])
    elif waiting:
        return waiting[0]
    raise UserError(
        f"message {position}: the tool result with id {message.tool_call_id!r} answers no call before it: "
        "give it the id of an assistant's tool call"
    )


def _name_of_result(message: Message) -> str | None:
    """The tool's name in the call id that a result answers; None where `parse` could not tell it from other turns."""
    identifier = message.tool_call_id or ""
    if message.role != "tool" or not identifier.startswith(tk.ID_PREFIX):
        return None
    name = identifier.removeprefix(tk.ID_PREFIX).rpartition(":")[0]
    return None if name in _TAKEN else name or None


def _canonical_name(message: Message) -> str | None:
    name = message.name or None
    if name == message.role:
        return None
    # All three share one turn class: names by which `parse` tells them apart cannot be given away.
    if message.role in ("system", "tool") and name in _TAKEN:
        return None
    if message.role == "system" and message.content.startswith(tk.RETURN_OF) and "\n" in message.content:
        return None
    return name


def _canonical_arguments(text: str) -> str:
    if not text.strip():
        return "{}"
    try:
        value = json.loads(text)
        compact = compact_json(value, finite=True)
        compact.encode("utf-8")
    except (ValueError, RecursionError):
        # ValueError covers bad JSON, digits beyond Python's limit, numbers that have become infinite (1e999), and
        # escapes that are half a character.
        return text
    return compact if isinstance(value, dict) else text
