"""`openk2 view`: the same things on the terminal, as JSON and on a page, and nothing that a model says runs there."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from openk2.core import Message

Run = Callable[..., Any]


@pytest.fixture
def session(
    cli: Run, call: Callable[..., Message], script: Callable[[Sequence[Message | str]], str], workspace: Path
) -> Path:
    """A record of a session with a call that failed, and with words that are no HTML."""
    turns = [call("shell", command="echo '<script>alert(1)</script>'; exit 3"), "Done & <b>dusted</b>.\x1b[2J"]
    done = cli("agent", "say <i>it</i>", "-w", workspace, "--json", "--model", script(turns))
    return Path(done.events[-1]["trajectory"])


def test_everything_is_shown_everywhere(cli: Run, session: Path, tmp_path: Path) -> None:
    shown = cli("view", session)
    assert shown.code == 0 and shown.out.startswith("you     say <i>it</i>\ncall    shell\n")
    assert "error   <script>alert(1)</script>\n        exit code 3" in shown.out and "\x1b" not in shown.out
    assert cli("view", session.parent).out == cli("view", session.parent.name).out == shown.out
    events = cli("view", session, "--json").events
    assert [event["event"] for event in events] == ["user", "assistant", "call", "tool_result", "assistant", "verdict"]
    assert events[3]["tool"] == "shell" and events[3]["error"] is True

    page = tmp_path / "page.html"
    assert cli("view", session, "--html", page).out == f"{page}\n"
    text = page.read_text()
    assert "say &lt;i&gt;it&lt;/i&gt;" in text and "&lt;script&gt;alert(1)" in text and "Done &amp; &lt;b&gt;" in text
    assert "<script" not in text and "\x1b" not in text
    # It needs nothing else.
    assert not re.search(r"(src|href)=|url\(|@import|http://|https://", text)
    cli("view", session, "--html", page).refused("page.html is there already")
    assert cli("view", session, "--html", page, "--force").code == 0


def test_what_is_no_trajectory(cli: Run, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    cli("view", tmp_path / "x.json").refused("x.json", "not JSON")
    cli("view", tmp_path).refused("is a folder without trajectory.json")
    cli("view", "nothing").refused("there is no session 'nothing'")
    cli("view", tmp_path / "missing.json").refused("missing.json")
