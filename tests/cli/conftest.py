"""Running the command: in this process, which is fast, or as a program of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from openk2.cli.main import main
from openk2.core import Message, ToolCall

COMMAND = [sys.executable, "-c", "from openk2.cli.main import main; main()"]


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]

    def refused(self, *words: str) -> None:
        """It was bad input: one sentence on stderr that has these words, status 2, nothing on stdout."""
        assert self.code == 2, (self.out, self.err)
        assert self.out == ""
        (sentence,) = self.err.splitlines()
        assert sentence.startswith("openk2: ")
        for word in words:
            assert word in sentence


Run = Callable[..., Ended]


@pytest.fixture
def command() -> list[str]:
    """How the command is started as a program."""
    return COMMAND


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, state: Path) -> Run:
    """`cli("demo", "--json")` in this process, as if piped."""
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["openk2", *map(str, arguments)])
        capfd.readouterr()
        code = 0
        try:
            main()
        except SystemExit as e:
            code = e.code if isinstance(e.code, int) else int(e.code is not None)
        captured = capfd.readouterr()
        return Ended(code, captured.out, captured.err)

    return run


@pytest.fixture
def cli_process(state: Path) -> Run:
    """The same as a program of its own; keyword arguments go to `subprocess.run`."""

    def run(*arguments: object, **options: Any) -> Ended:
        settings = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL, "timeout": 600} | options
        done = subprocess.run([*COMMAND, *map(str, arguments)], check=False, **settings)
        return Ended(done.returncode, done.stdout or "", done.stderr or "")

    return run


@pytest.fixture(autouse=True)
def state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Records go here and not to the home folder of whoever runs the tests."""
    folder = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))
    monkeypatch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
    return folder


@pytest.fixture
def call() -> Callable[..., Message]:
    """`call("shell", command="ls")`: an assistant turn with one call."""

    def turn(name: str, **arguments: str) -> Message:
        return Message("assistant", "", (ToolCall("", name, json.dumps(arguments)),))

    return turn


@pytest.fixture
def script(tmp_path: Path) -> Callable[[Sequence[Message | str]], str]:
    """A scripted policy for `--model`: of each answer the text, or the turn."""

    def write(answers: Sequence[Message | str]) -> str:
        path = tmp_path / "script.jsonl"
        messages = [answer if isinstance(answer, Message) else Message("assistant", answer) for answer in answers]
        path.write_text("".join(json.dumps(message.to_openai()) + "\n" for message in messages))
        return f"script:{path}"

    return write


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    (folder / "notes.txt").write_text("one\ntwo\nthree\n")
    return folder
