"""Result texts: short, printable, honest about what is missing."""

from hypothesis import given
from hypothesis import strategies as st

from openk2.worlds import text


@given(st.text())
def test_a_result_is_short_printable_and_encodable(raw: str) -> None:
    for shown in (text.python_text(raw, raw, raw, raw), text.shell_text(raw, 1, raw)):
        assert 0 < len(shown) <= text.RESULT_CHARS
        shown.encode()
        assert not any(ord(c) < 32 and c not in "\n\t" for c in shown)


@given(st.binary())
def test_bytes_of_any_kind(raw: bytes) -> None:
    text.from_bytes(raw).encode()


@given(st.text(st.characters(categories=["L", "N", "P", "Zs"]), max_size=1400))
def test_plain_text_is_left_alone(raw: str) -> None:
    assert text.shell_text(raw) == (raw or text.NO_OUTPUT)


@given(st.integers(1501, 5000))
def test_what_is_left_out_is_counted(length: int) -> None:
    shown = text.cap("x" * length)
    left_out = int(shown.split("... ")[1].split()[0])
    assert shown.count("x") + left_out == length


def test_order_of_the_parts() -> None:
    assert text.python_text("a\n", "b\n", "c", "E: d") == "a\nb\nc\nE: d"
    assert text.shell_text("a\n", 2, "stopped") == "a\nexit code 2\nstopped"
    assert text.shell_text("", 0) == text.python_text("") == "(no output)"


def test_terminal_noise_is_removed() -> None:
    assert text.clean("\x1b[1;31mred\x1b[0m") == "red"
    assert text.clean("\x1b]0;title\x07x") == "x"
    assert text.clean("10%\r50%\r100%\ndone\r\n") == "100%\ndone\n", "a line that was written over shows its last state"


def test_error_lines() -> None:
    assert text.error_line("KeyError", "") == "KeyError"
    assert text.error_line("ValueError", "\nfirst\nsecond") == "ValueError: first"
    assert text.error_line("SyntaxError", "invalid syntax (1234.py, line 3)") == "SyntaxError: invalid syntax (line 3)"
