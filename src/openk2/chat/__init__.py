"""The tokenizer and the K2 chat format."""

from openk2.chat.format import (
    Completion,
    Parsed,
    Rendered,
    call_id,
    canonicalise,
    parse,
    parse_completion,
    render,
    tool_name,
)
from openk2.chat.stream import (
    ArgumentsPart,
    CallBegin,
    CallEnd,
    CompletionReader,
    Event,
    TextPart,
    TextReader,
    first_stop,
    fold,
)
from openk2.chat.tokenizer import DEFAULT_SYSTEM, Tokenizer, chat_template, nano_tokenizer

__all__ = [
    "DEFAULT_SYSTEM",
    "ArgumentsPart",
    "CallBegin",
    "CallEnd",
    "Completion",
    "CompletionReader",
    "Event",
    "Parsed",
    "Rendered",
    "TextPart",
    "TextReader",
    "Tokenizer",
    "call_id",
    "canonicalise",
    "chat_template",
    "first_stop",
    "fold",
    "nano_tokenizer",
    "parse",
    "parse_completion",
    "render",
    "tool_name",
]
