"""`openk2 agent`: the interface that others script against, bad input, and talking on a terminal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import openk2
from openk2.core import Message
from openk2.core.atif import read_atif
from shared.somebody import not_root
from shared.terminal import Terminal

Run = Callable[..., Any]
Call = Callable[..., Message]
Script = Callable[[Sequence[Message | str]], str]


def test_events_and_result(call: Call, cli: Run, script: Script, workspace: Path, state: Path) -> None:
    model = script([call("shell", command="wc -l < notes.txt"), "There are 3 lines."])
    done = cli("agent", "How many lines?", "--workspace", workspace, "-p", "--json", "--yes", "--model", model)
    assert done.code == 0 and done.err == ""
    *events, result = done.events
    assert [event["event"] for event in events] == ["start", "user", "assistant", "call", "tool_result", "assistant"]
    assert events[1]["content"] == "How many lines?"
    assert events[3]["name"] == "shell" and json.loads(events[3]["arguments"]) == {"command": "wc -l < notes.txt"}
    assert events[4]["content"] == "3" and events[4]["error"] is False
    record = Path(result["trajectory"])
    assert result == {
        "event": "result",
        "answer": "There are 3 lines.",
        "trajectory": str(record),
        "finished": True,
        "stop": "answered",
        "bad_input": [],
        "taken": [],
        "refused": [],
        "conflicts": [],
    }
    assert record.is_relative_to(state)
    trajectory = read_atif(record)
    assert trajectory.finished and trajectory.answer == "There are 3 lines."
    assert [m.role for m in trajectory.messages] == ["system", "user", "assistant", "tool", "assistant"]


def test_the_work_is_done_in_the_workspace(call: Call, cli: Run, script: Script, workspace: Path) -> None:
    model = script([call("write_file", path="new/a.txt", content="x\n"), "Done."])
    assert cli("agent", "make a.txt", "-w", workspace, "-p", "--yes", "--model", model).code == 0
    assert (workspace / "new" / "a.txt").read_text() == "x\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"PK\0\0\1", "is binary"), (b"", "is empty"), (b"1,2\n3,4\n", "no header"), (b"x" * 20_000_001, "20.0 MB")],
)
def test_a_csv_that_is_no_table_is_said_first(
    call: Call, cli: Run, script: Script, workspace: Path, content: bytes, words: str
) -> None:
    (workspace / "t.csv").write_bytes(content)
    options = ["-w", workspace, "-p", "--yes", "--model"]
    asks = script([call("python", code="print(7)"), "There are 7 rows."])
    done = cli("agent", "How many rows are in t.csv?", *options, asks)
    said = " ".join(done.err.split())
    assert done.code == 2 and words in said and str(workspace / "t.csv") in said
    done = cli("agent", "How many rows are in t.csv?", *options, asks, "--json")
    assert done.code == 2 and words in " ".join(done.err.split()) and done.events[-1]["finished"] is True
    (sentence,) = done.events[-1]["bad_input"]
    assert words in sentence
    assert cli("agent", "How many rows are in this CSV?", *options, asks).code == 2
    # What it holds does not matter to who moves it.
    moves = script([call("shell", command="mv t.csv u.csv"), "Done."])
    done = cli("agent", "rename t.csv to u.csv", *options, moves)
    assert done.code == 0 and words in " ".join(done.err.split())
    assert not (workspace / "t.csv").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("my data.csv", "my data.csv"),
        ("my data.csv", "'my data.csv'"),
        ("t.csv", "**t.csv**"),
        ("t.csv", "file=t.csv"),
        ("T.CSV", "t.csv."),
        ("in/deep er.csv", "./in/deep er.csv"),
        ("in/t.csv", "in/t.csv"),
        ("t.csv", "in/../t.csv"),
    ],
)
def test_a_csv_is_found_by_any_name_of_it(
    call: Call, cli: Run, script: Script, workspace: Path, name: str, said: str
) -> None:
    (workspace / "in").mkdir()
    (workspace / name).write_bytes(b"")
    (workspace / "data.csv").write_text("a,b\n1,2\n")
    (workspace / "old-t.csv").write_bytes(b"\0")
    model = script([call("python", code="print(7)"), "Seven."])
    done = cli("agent", f"how many rows has {said}", "-w", workspace, "-p", "--yes", "--json", "--model", model)
    if "deep er" in name:  # a blank below a folder is more than a request can tell
        assert done.code == 0
    else:
        assert done.code == 2 and len(done.events[-1]["bad_input"]) == 1


def test_a_name_within_a_longer_one_is_another_file(
    call: Call, cli: Run, script: Script, workspace: Path, tmp_path: Path
) -> None:
    (workspace / "old data.csv").write_text("a,b\n1,2\n")
    (workspace / "data.csv").write_bytes(b"")
    model = script([call("python", code="print(7)"), "Seven."])
    assert cli("agent", "sum a in old data.csv", "-w", workspace, "-p", "--yes", "--model", model).code == 0


def test_only_tables_of_the_workspace_are_looked_at(
    call: Call, cli: Run, script: Script, workspace: Path, tmp_path: Path
) -> None:
    (tmp_path / "out.csv").write_bytes(b"")
    (workspace / "link.csv").symlink_to(tmp_path / "out.csv")
    (workspace / "loop.csv").symlink_to("loop.csv")
    (workspace / "array.csv").write_text(",0,1\n0,5,6\n1,7,8\n")
    (workspace / "none.csv").write_text("a,b\n")
    os.mkfifo(workspace / "pipe.csv")
    named = "link.csv loop.csv ./loop.csv array.csv none.csv pipe.csv gone.csv ../out.csv"
    named = f"{named} {tmp_path}/out.csv {'a' * 300}.csv"
    model = script([call("python", code="print(7)"), "Seven."])
    done = cli("agent", f"Look at {named}", "-w", workspace, "-p", "--yes", "--model", model)
    assert done.code == 0 and done.err == ""


@pytest.mark.parametrize(
    ("turn", "options", "why"),
    [
        ({"name": "read_file", "path": "missing.txt"}, [], "the same failing call"),
        ({"name": "read_file", "path": "notes.txt"}, ["--steps", "2"], "--steps"),
        ({"name": "shell", "command": "sleep 60"}, ["--seconds", "1"], "--seconds"),
    ],
)
def test_giving_up_is_status_one(
    call: Call, cli: Run, script: Script, workspace: Path, turn: dict[str, str], options: list[str], why: str
) -> None:
    arguments = ["agent", "do it", "-w", workspace, "-p", "--yes", "--model", script([call(**turn)] * 5), *options]
    done = cli(*arguments)
    assert done.code == 1 and "gave up: " in done.out and why in done.out
    done = cli(*arguments, "--json")
    assert done.code == 1 and done.events[-1]["finished"] is False and why in done.err
    assert read_atif(Path(done.events[-1]["trajectory"])).finished is False


def test_the_end_of_a_script_ends_the_turn(call: Call, cli: Run, script: Script, workspace: Path) -> None:
    model = script([call("read_file", path="notes.txt")])
    done = cli("agent", "x", "-p", "--json", "--yes", "-w", workspace, "--model", model)
    assert done.code == 0 and done.events[-1]["answer"] == "" and done.events[-1]["finished"] is True
    assert len(read_atif(Path(done.events[-1]["trajectory"])).steps) == 2


def test_what_a_person_sees(call: Call, cli: Run, script: Script, workspace: Path) -> None:
    long = "This sentence has so many words that it does not fit into one line of eighty columns, as answers often do."
    model = script([call("shell", command="seq 20; ls missing"), long])
    done = cli("agent", "count [bold] for me", "-w", workspace, "-p", "--yes", "--model", model)
    lines = done.out.splitlines()
    assert max(map(len, lines[:-1])) <= 80 and "\x1b" not in done.out
    assert lines[0] == "you     count [bold] for me"
    assert lines[1:3] == ["call    shell", "        seq 20; ls missing"]
    assert lines[3] == "error   1" and "        ... " in done.out and "        exit code 2" in lines
    spoken = lines.index("model   This sentence has so many words that it does not fit into one line of")
    assert lines[spoken + 1].startswith("        eighty columns")
    assert lines[-1].startswith("record: ") and Path(lines[-1].removeprefix("record: ")).exists()


def test_in_a_pipe_it_does_the_one_task(cli_process: Run, script: Script, workspace: Path) -> None:
    """Standard input stays open and silent: waiting for it would never end."""
    read, write = os.pipe()
    done = cli_process("agent", "hello", "-w", workspace, "--yes", "--model", script(["Hello."]), stdin=read)
    os.close(read)
    os.close(write)
    assert done.code == 0 and "Hello." in done.out


class TestBadInput:
    def test_workspace(self, cli: Run, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        cli("agent", "x", "-p", "-w", tmp_path / "missing").refused("missing does not exist", "--workspace")
        cli("agent", "x", "-p", "-w", tmp_path / "file").refused("is not a folder")
        cli("agent", "x", "-p", "-w", tmp_path / "file" / "below").refused("lies below a file")
        cli("agent", "x", "-p", "-w", "/").refused("the whole system")
        (tmp_path / "loop").symlink_to(tmp_path / "loop")
        cli("agent", "x", "-p", "-w", tmp_path / "loop").refused("circle of symbolic links")

    def test_a_workspace_whose_name_is_not_utf_8(self, cli: Run, tmp_path: Path) -> None:
        folder = tmp_path / os.fsdecode(b"w\xff")
        folder.mkdir()
        cli("agent", "x", "-w", folder).refused("not UTF-8", "rename it")

    def test_the_current_folder_when_it_is_our_own_clone(self, cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(Path(openk2.__file__).parents[2])
        cli("agent", "x", "-p").refused("OpenK2 itself could be changed", "name a folder with --workspace")

    def test_workspace_of_somebody_else(self, cli: Run, tmp_path_factory: pytest.TempPathFactory) -> None:
        folder = tmp_path_factory.mktemp("private") / "inner"
        folder.mkdir()
        folder.chmod(0)
        with not_root():
            done = cli("agent", "x", "-p", "-w", folder)
        folder.chmod(0o700)
        done.refused("cannot be")

    def test_task(self, cli: Run, workspace: Path) -> None:
        cli("agent", "  ", "-p", "-w", workspace).refused("the task is empty")
        cli("agent", "odd \udcff bytes", "-p", "-w", workspace).refused("not UTF-8")

    def test_a_task_that_does_not_fit(self, cli: Run, workspace: Path) -> None:
        done = cli("agent", "many words " * 2000, "-p", "-w", workspace, "--yes")
        assert done.code == 2 and "does not fit" in done.out
        done = cli("agent", "many words " * 2000, "-p", "-w", workspace, "--yes", "--json")
        assert done.code == 2 and "does not fit" in done.err and done.events[-1]["stop"] == "context"
        cli("agent", "-w", workspace).refused("the task is empty")

    def test_models(self, cli: Run, workspace: Path, tmp_path: Path) -> None:
        ask = ("agent", "x", "-p", "--yes", "-w", workspace, "--model")
        cli(*ask, "no-such-model").refused("no-such-model")
        cli(*ask, "random:k2").refused("random:k2")
        cli(*ask, tmp_path).refused("config.json")
        cli(*ask, f"script:{tmp_path / 'missing'}").refused("missing")
        (tmp_path / "bad").write_text("{nonsense\n")
        cli(*ask, f"script:{tmp_path / 'bad'}").refused("line 1 is not JSON")
        cli(*ask, "random:test", "--device", "nonsense").refused("device 'nonsense'")


def test_talking_on_a_terminal(command: list[str], call: Call, script: Script, workspace: Path, state: Path) -> None:
    model = script([call("shell", command="wc -l < notes.txt"), "Three lines.", "You are welcome."])
    with Terminal([*command, "agent", "How many lines?", "-w", workspace, "--yes", "--model", model]) as terminal:
        terminal.until("How many lines?")
        terminal.until("Three lines.")
        terminal.until("you")
        terminal.write("thank you\n")
        shown = terminal.until("You are welcome.")
        assert shown.count("thank you") == 1, "what was typed is not shown again"
        terminal.until("you")
        terminal.write("\n")
        terminal.until("record: ")
        assert terminal.process.wait(300) == 0
    (record,) = (state / "openk2" / "sessions").glob("*/trajectory.json")
    trajectory = read_atif(record)
    assert [m.content for m in trajectory.messages if m.role == "user"] == ["How many lines?", "thank you"]
    assert len(trajectory.steps) == 3


def test_ctrl_c_keeps_what_was_done(
    command: list[str], call: Call, script: Script, workspace: Path, state: Path
) -> None:
    model = script([call("shell", command="wc -l < notes.txt"), call("shell", command="sleep 500"), "Done."])
    with Terminal([*command, "agent", "wait", "-w", workspace, "--yes", "-p", "--model", model]) as terminal:
        terminal.until("sleep 500")
        terminal.until("running")
        terminal.write("\x03")
        terminal.until("openk2: interrupted: what was done so far is recorded in ")
        assert terminal.process.wait(300) == 130
    (record,) = (state / "openk2" / "sessions").glob("*/trajectory.json")
    trajectory = read_atif(record)
    assert trajectory.stop == "interrupted"
    assert [m.content for m in trajectory.messages if m.role == "tool"] == ["3"]


def test_ctrl_c_as_json(command: list[str], call: Call, script: Script, workspace: Path, state: Path) -> None:
    model = script([call("shell", command="sleep 500"), "Done."])
    arguments = ["agent", "wait", "-w", str(workspace), "--yes", "--json", "--model", model]
    process = subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while json.loads(process.stdout.readline())["event"] != "call":
        pass
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert err.startswith("openk2: interrupted") and err.count("\n") == 1
    result = json.loads(out.splitlines()[-1])
    assert result["event"] == "result" and result["finished"] is False
    assert read_atif(Path(result["trajectory"])).stop == "interrupted"


def test_ctrl_c_at_the_prompt(command: list[str], script: Script, workspace: Path) -> None:
    with Terminal([*command, "agent", "hi", "-w", workspace, "--yes", "--model", script(["Hello."])]) as terminal:
        terminal.until("Hello.")
        terminal.until("you")
        # Pressed in the moment before the line editor listens it would only be noticed at the next key.
        time.sleep(1)
        terminal.write("\x03")
        terminal.until("openk2: interrupted")
        assert terminal.process.wait(300) == 130
