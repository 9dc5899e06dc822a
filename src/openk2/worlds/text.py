"""What a machine tool's result looks like to the model.

The real machine (a Jupyter kernel and a shell in a sandbox) and the fast in-process one that makes demonstrations use
the same functions, so that a model meets the same text in training and at work.

    python    what was printed, then the value of the last expression; an error is its last line: `NameError: ...`
    shell     output and errors in the order they came; a failure adds the line `exit code 1`
    nothing   `(no output)`

Results are plain text of at most `RESULT_CHARS` characters; what is left out in the middle is said where it is missing.
"""

from __future__ import annotations

import re

RESULT_CHARS = 1500
HEAD_CHARS = 1000
TAIL_CHARS = 400
NO_OUTPUT = "(no output)"

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_OVERWRITTEN = re.compile(r"[^\n]*\r(?=[^\n])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_SYNTAX_PLACE = re.compile(r" \([^()]*, line (\d+)\)$")


def cap(text: str) -> str:
    """At most RESULT_CHARS characters: the start and the end, with a line between that counts what is missing."""
    if len(text) <= RESULT_CHARS:
        return text
    missing = len(text) - HEAD_CHARS - TAIL_CHARS
    return f"{text[:HEAD_CHARS]}\n... {missing} characters left out ...\n{text[-TAIL_CHARS:]}"


def clean(text: str) -> str:
    """Text without terminal colours, control characters and lone surrogates; lines end in a newline only.

    Of a line that was written over, as progress bars do, the last state stays.
    """
    text = _OVERWRITTEN.sub("", _ANSI.sub("", text).replace("\r\n", "\n"))
    return _CONTROL.sub("", text).encode("utf-8", "replace").decode("utf-8")


def is_binary(data: bytes) -> bool:
    """Whether bytes are not text: a zero byte, or more than a tenth that is not UTF-8."""
    if b"\0" in data:
        return True
    wrong = data.decode("utf-8", "replace").count("\ufffd")
    return wrong * 10 > len(data)


def from_bytes(data: bytes) -> str:
    """Bytes as the model may read them; binary data are only counted."""
    return f"(binary data, {len(data)} bytes)" if is_binary(data) else clean(data.decode("utf-8", "replace"))


def error_line(name: str, message: str) -> str:
    """The last line of a traceback, as `NameError: name 'x' is not defined`.

    `name` is the exception's class name, `message` its text. A syntax error keeps the line number but not the name of
    the cell, which differs from run to run.
    """
    lines = [line for line in clean(message).split("\n") if line.strip()]
    first = _SYNTAX_PLACE.sub(r" (line \1)", lines[0].strip()) if lines else ""
    return f"{name}: {first}" if first else name


def python_text(printed: str, errors: str = "", value: str = "", error: str | None = None) -> str:
    """The result of running Python code.

    `printed` is standard output, `errors` standard error, `value` the shown form of the last expression and `error` the
    line made by `error_line`, if the code failed.
    """
    return _join(printed, errors, value, error or "")


def shell_text(output: str, code: int = 0, note: str = "") -> str:
    """The result of a shell command: its output, then the exit code if it failed, then a note (say, a time limit)."""
    return _join(output, f"exit code {code}" if code else "", note)


def _join(*parts: str) -> str:
    cleaned = (clean(part).rstrip("\n") for part in parts)
    return cap("\n".join(part for part in cleaned if part)) or NO_OUTPUT
