"""What becomes of changes: asked about, taken over, kept from the folder, taken back; sessions listed, gone on with and
executed again."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from openk2.core import Message
from openk2.sandbox import resolve_sandbox
from shared.terminal import Terminal

Run = Callable[..., Any]
Call = Callable[..., Message]
Script = Callable[[Sequence[Message | str]], str]


@pytest.fixture
def changes(call: Call, script: Script) -> str:
    """A model that changes, adds and deletes a file."""
    return script(
        [call("shell", command="echo more >> notes.txt; mkdir in; echo new > in/b.txt; pwd"), "Done.", "Again."]
    )


def test_where_nobody_is_asked_nothing_is_taken_over(cli: Run, changes: str, workspace: Path) -> None:
    before = (workspace / "notes.txt").read_text()
    done = cli("agent", "change", "-w", workspace, "-p", "--model", changes)
    assert done.code == 0 and "nothing of it was taken over" in done.err
    assert "changes 1 in/b.txt" in done.out and "2 notes.txt  +1 -0" in done.out
    done = cli("agent", "change", "-w", workspace, "--json", "--model", changes)
    assert done.events[-1]["refused"] == ["in/b.txt", "notes.txt"] and done.events[-1]["taken"] == []
    (event,) = [event for event in done.events if event["event"] == "changes"]
    assert event["refused"][0] == {"path": "in/b.txt", "change": "added", "added": 1, "removed": 0}
    assert (workspace / "notes.txt").read_text() == before and not (workspace / "in").exists()
    cli("agent", "undo", "-w", workspace).refused("there is nothing to take back in")


def test_taken_over_and_taken_back(cli: Run, changes: str, workspace: Path, tmp_path: Path) -> None:
    before = (workspace / "notes.txt").read_text()
    done = cli("agent", "change", "-w", workspace, "--json", "--yes", "--model", changes)
    assert done.events[-1]["taken"] == ["in/b.txt", "notes.txt"] and done.events[-1]["conflicts"] == []
    (result,) = [event for event in done.events if event["event"] == "tool_result"]
    assert result["tool"] == "shell" and result["output"].endswith("/stage/workspace") and result["error"] is False
    assert json.loads(result["arguments"])["command"].startswith("echo more")
    assert (workspace / "notes.txt").read_text() == f"{before}more\n"
    (listed,) = cli("agent", "sessions", "--json").events
    assert listed["requests"] == ["change"] and listed["turns"] == 1 and listed["workspace"] == str(workspace)
    assert Path(listed["trajectory"]) == Path(done.events[-1]["trajectory"])
    assert "change" in cli("agent", "sessions", "-w", workspace).out
    assert cli("agent", "sessions", "-w", tmp_path).out == "There are no sessions.\n"

    again = cli("agent", "replay", listed["id"], "--json")
    assert again.code == 0 and again.events == [{"session": listed["id"], "first_divergence": None}]
    assert (workspace / "notes.txt").read_text() == f"{before}more\n"
    back = cli("agent", "undo", "-w", workspace, "--json")
    assert back.code == 0 and back.events[0]["taken_back"] == ["in", "in/b.txt", "notes.txt"]
    assert (workspace / "notes.txt").read_text() == before and not (workspace / "in").exists()
    assert cli("agent", "sessions", "--json").events[0]["undone"] == 1


def test_what_a_person_changed_since_stays(cli: Run, changes: str, workspace: Path) -> None:
    cli("agent", "change", "-w", workspace, "-p", "--yes", "--model", changes)
    (workspace / "in" / "b.txt").write_text("mine\n")
    done = cli("agent", "undo", "-w", workspace)
    assert done.code == 1 and "left as it is: in/b.txt: it was changed since" in done.out
    assert (workspace / "in" / "b.txt").read_text() == "mine\n"


def test_a_call_that_gives_something_else_is_found(call: Call, cli: Run, script: Script, workspace: Path) -> None:
    model = script([call("shell", command="wc -l < notes.txt"), call("shell", command="cat /proc/uptime"), "Done."])
    cli("agent", "look", "-w", workspace, "-p", "--yes", "--model", model)
    done = cli("agent", "replay", "-w", workspace, "--json")
    assert done.code == 1
    first = done.events[0]["first_divergence"]
    assert first["step"] == 2 and first["tool"] == "shell" and first["was"] != first["now"]
    assert "step 2, shell" in cli("agent", "replay", "-w", workspace).out


def test_a_session_goes_on(cli: Run, changes: str, workspace: Path) -> None:
    first = cli("agent", "change", "-w", workspace, "--json", "--yes", "--model", changes).events[-1]
    session = Path(first["trajectory"]).parent.name
    done = cli("agent", "resume", session[:-3], "and now?", "--json", "--yes", "--model", changes)
    assert done.events[-1]["answer"] == "Again." and done.events[-1]["trajectory"] == first["trajectory"]
    (listed,) = cli("agent", "sessions", "--json").events
    assert listed["requests"] == ["change", "and now?"]
    cli("agent", "resume", "nothing", "x").refused("there is no session 'nothing'")
    cli("agent", "resume", "-w", workspace.parent, "-p").refused("there is no session of")
    cli("agent", "resume", "-w", workspace, "-p").refused("the task is empty")


def test_read_only_writes_nothing(call: Call, cli: Run, script: Script, workspace: Path) -> None:
    asks = [call("shell", command="echo x > a.txt"), call("write_file", path="a.txt", content="x"), "Done."]
    done = cli("agent", "write", "-w", workspace, "--json", "--yes", "--sandbox", "read-only", "--model", script(asks))
    shell, write = [event for event in done.events if event["event"] == "tool_result"]
    assert shell["error"] and "denied" in shell["output"]
    assert write["error"] and write["output"] == "the workspace is read-only"
    assert done.events[-1]["taken"] == [] and not (workspace / "a.txt").exists()


@pytest.fixture
def port() -> Iterator[int]:
    """Somebody who answers on this machine."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            while True:
                try:
                    server.accept()[0].sendall(b"hello")
                except OSError:
                    return

        threading.Thread(target=answer, daemon=True).start()
        yield server.getsockname()[1]


@pytest.mark.parametrize(("network", "reaches"), [("off", False), ("on", True)])
def test_programs_have_the_network_that_they_are_given(
    call: Call, cli: Run, script: Script, workspace: Path, port: int, network: str, reaches: bool
) -> None:
    if resolve_sandbox(True).kind == "none":
        pytest.skip("nothing is confined without a sandbox")
    code = f"import socket; print(socket.create_connection(('127.0.0.1', {port}), 5).recv(9))"
    model = script([call("shell", command=f'python3 -c "{code}"'), "Done."])
    done = cli("agent", "ask", "-w", workspace, "--json", "--yes", "--network", network, "--model", model)
    (result,) = [event for event in done.events if event["event"] == "tool_result"]
    assert ("hello" in result["output"]) is reaches and result["error"] is not reaches


def test_a_person_is_asked(command: list[str], changes: str, workspace: Path) -> None:
    before = (workspace / "notes.txt").read_text()
    with Terminal([*command, "agent", "change", "-w", workspace, "--model", changes]) as terminal:
        terminal.until("take over?")
        terminal.write("d\n")
        assert "+new" in terminal.until("take over?")
        terminal.write("7\n")
        terminal.until("Say y, n, d, or which of 1 to 2")
        terminal.until("take over?")
        terminal.write("1\n")
        terminal.until("you")
        terminal.write("\n")
        terminal.until("record: ")
        assert terminal.process.wait(300) == 0
    assert (workspace / "in" / "b.txt").read_text() == "new\n"
    assert (workspace / "notes.txt").read_text() == before


def test_ctrl_c_stops_the_request_and_not_the_conversation(
    command: list[str], call: Call, cli: Run, script: Script, workspace: Path
) -> None:
    model = script([call("shell", command="echo x > a.txt"), call("shell", command="sleep 500"), "I was stopped."])
    with Terminal([*command, "agent", "wait", "-w", workspace, "--yes", "--model", model]) as terminal:
        terminal.until("sleep 500")
        terminal.until("running")
        terminal.write("\x03")
        terminal.until("stopped")
        terminal.until("1 a.txt")
        terminal.until("you")
        terminal.write("what happened?\n")
        terminal.until("I was stopped.")
        terminal.until("you")
        terminal.write("\n")
        terminal.until("record: ")
        assert terminal.process.wait(300) == 0
    assert (workspace / "a.txt").read_text() == "x\n"
    (listed,) = cli("agent", "sessions", "--json").events
    assert listed["requests"] == ["wait", "what happened?"]
