"""The command itself: help, errors in one sentence, and nothing heavy before it is needed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from openk2 import __main__ as first
from openk2 import __version__
from openk2.cli import main as module
from openk2.core import UserError
from openk2.core.extras import extra_with

Run = Callable[..., Any]


@pytest.mark.parametrize(
    "command",
    [
        *((), ("demo",), ("agent",), ("train",), ("eval",), ("test",), ("model",), ("deploy",), ("serve",)),
        *(
            ("worlds", *rest)
            for rest in (
                (),
                ("list",),
                ("describe",),
                ("serve",),
                ("play",),
                ("mcp",),
                ("mcp", "add"),
                ("mcp", "import"),
            )
        ),
        *(("model", name) for name in ("describe", "import", "export", "verify")),
        *(("export",), ("synth",)),
        *(("synth", name) for name in ("run", "status", "verify", "query", "report", "show")),
    ],
)
def test_help_fits_eighty_columns_and_cuts_nothing(cli: Run, command: tuple[str, ...]) -> None:
    done = cli(*command, "--help")
    assert done.code == 0 and done.err == ""
    assert done.out.startswith(f"Usage: openk2 {' '.join(command)}".rstrip())
    assert max(map(len, done.out.splitlines())) <= 80
    assert "..." not in done.out.replace("[ARGS]...", "").replace("[COMMAND]...", "")
    assert "\x1b" not in done.out and "./k2" not in done.out


def test_what_is_to_be_copied_is_in_one_piece(cli: Run) -> None:
    assert '-d \'{"messages": [{"role": "user", "content": "hello"}]}\'\n' in cli("serve", "--help").out
    assert 'agent "how many rows are in data.csv?" -w DIR\n' in cli("agent", "--help").out


def test_help_names_the_command_as_it_was_typed(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENK2_COMMAND", "./k2")
    done = cli("eval", "--help")
    assert done.out.startswith("Usage: ./k2 eval ") and "Example: ./k2 eval nano" in done.out
    assert cli("eval", "--help").out.startswith("Usage: openk2 eval ")  # not for what a command starts


def test_the_help_names_every_command(cli: Run) -> None:
    done = cli("--help")
    for command in ("demo", "agent", "train", "eval", "deploy", "model", "synth", "export", "test"):
        assert f"  {command} " in done.out
    assert cli().out == done.out or cli().err == done.out


def test_ctrl_c_before_anything_has_begun(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "main", interrupted)
    with pytest.raises(SystemExit) as caught:
        first.main()
    assert caught.value.code == 130 and capsys.readouterr().err == "openk2: interrupted\n"


def test_a_reader_that_has_gone_is_no_failure_of_the_agent() -> None:
    read, write = os.pipe()
    os.close(read)
    for options in (["--json"], []):
        command = [sys.executable, "-m", "openk2", "model", "describe", "test", *options]
        done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
        assert done.returncode == 141 and done.stderr == ""
    os.close(write)


def test_without_a_stdout_there_is_still_a_sentence() -> None:
    command = f"{sys.executable} -m openk2 model describe nope >&-"
    done = subprocess.run(command, shell=True, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith("openk2: 'nope' is neither")


def test_version(cli: Run) -> None:
    assert cli("--version").out == f"openk2 {__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["agent", "--help"], ["--version"], ["nonsense"]])
def test_nothing_heavy_is_imported_for_help(arguments: list[str]) -> None:
    code = (
        f"import sys; sys.argv = ['openk2', *{arguments!r}]\n"
        "from openk2.cli.main import main\n"
        "try:\n    main()\n"
        "finally:\n    print([m for m in ('torch', 'pandas', 'numpy', 'jupyter_client') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["eval"], "MODEL"),
        (["eval", "nano", "--n", "0"], "--n"),
        (["eval", "nano", "--n", "many"], "--n"),
        (["agent", "x", "--seconds", "0"], "--seconds"),
        (["demo", "--loud"], "--loud"),
        (["serve", "--cache-gb", "1e300"], "--cache-gb"),
    ],
)
def test_a_wrong_command_line_is_explained(cli: Run, arguments: list[str], words: str) -> None:
    done = cli(*arguments)
    assert done.code == 2 and done.out == ""
    assert words in done.err and "Traceback" not in done.err


@pytest.mark.parametrize("command", [("serve",), ("deploy", "vllm", "x")])
def test_hosts_that_are_no_address(cli: Run, command: tuple[str, ...]) -> None:
    cli(*command, "--host", "http://127.0.0.1").refused("--host is 'http://127.0.0.1'", "without http://")
    done = cli(*command, "--host", "a" * 300)
    done.refused("--host has 300 characters")
    assert "aaaa" not in done.err


def test_bad_input_is_a_sentence_and_no_json(cli: Run, tmp_path: Path) -> None:
    cli("eval", "stream", "--json").refused("the server is missing")
    cli("eval", "stream", "--json", "--base-url", "http://").refused("'http://' is no address of a server")
    cli("deploy", "vllm", tmp_path / "none", "--json").refused("is no folder")


def test_a_key_that_is_no_key(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "clé")
    cli("eval", "stream", "--base-url", "http://127.0.0.1:1").refused("OPENAI_API_KEY is no key")


def _fails_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(module.Commands, "main", fail)


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (UserError("it is broken: mend it"), 2, "openk2: it is broken: mend it\n"),
        (OSError(28, "No space left on device"), 2, "openk2: no space left on the disk"),
        (
            PermissionError(13, "Permission denied", "/etc/x"),
            2,
            "openk2: /etc/x cannot be used: Permission denied; ",
        ),
        (OSError(30, "Read-only file system", "/mnt/x"), 2, "openk2: /mnt/x cannot be used"),
        (FileExistsError(17, "File exists", "/x"), 2, "openk2: /x cannot be used: File exists; something else stands"),
        (OSError(36, "File name too long", "aaa"), 2, "openk2: aaa cannot be used: File name too long\n"),
    ],
)
def test_what_the_world_refuses_is_one_sentence(
    cli: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, sentence: str
) -> None:
    _fails_with(monkeypatch, error)
    done = cli()
    assert done.code == code
    assert done.err.startswith(sentence) and done.err.count("\n") == 1


def test_what_is_a_mistake_of_ours_is_not_hidden(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    _fails_with(monkeypatch, OSError(9, "Bad file descriptor"))
    with pytest.raises(OSError, match="Bad file"):
        cli()


def test_a_reader_that_goes_away_is_no_error(command: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*command, "--help"], stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system, as macOS, has no /dev/full")
def test_a_full_disk_behind_standard_output(cli_process: Run) -> None:
    with open("/dev/full", "w") as full:
        done = cli_process(
            *("eval", "baseline", "--family", "functions", "--n", "2", "--json"),
            capture_output=False,
            stdout=full,
            stderr=subprocess.PIPE,
        )
    assert done.code == 2
    assert done.err == "openk2: no space left on the disk: free some and run the same command again\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_any_encoding_of_the_terminal_will_do(cli_process: Run, encoding: str, tmp_path: Path) -> None:
    name = "d\u00e4t\u4e2d.csv"
    done = cli_process(
        "demo",
        "--csv",
        tmp_path / name,
        env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
        encoding=encoding,
        errors="replace",
    )
    assert done.code == 2
    assert "there is no file" in done.err and "Traceback" not in done.err


@pytest.mark.parametrize(
    "command",
    [
        ("agent", "x", "-p", "--workspace", ""),
        ("demo", "--csv", ""),
        ("eval", "nano", "--family", "functions", "--n", "1", "--save", ""),
        ("train", "recipes/micro.toml", "--run", ""),
        ("train", ""),
    ],
)
def test_an_empty_path_is_not_this_folder(cli: Run, command: tuple[str, ...]) -> None:
    done = cli(*command)
    assert done.code == 2 and done.out == ""
    assert "an empty path was given" in done.err and done.err.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    [
        ("rl", "report", "run"), ("export", "run", "--to", "verl", "to"), ("train", "x"),
        ("rl", "gym", "sample", "mine.py:Mine"),
    ],
)  # fmt: skip
def test_a_working_folder_that_is_gone(
    cli: Run, command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    cli(*command).refused("the folder that you are in is gone")


def test_an_empty_model_name_is_not_this_folder(cli: Run) -> None:
    done = cli("eval", "", "--family", "functions", "--n", "1")
    assert done.code == 2 and "there is no model ''" in done.err


def test_python_dash_m() -> None:
    done = subprocess.run([sys.executable, "-m", "openk2", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"openk2 {__version__}\n"


def test_benchmarks_by_name(cli: Run) -> None:
    cli("bench", "nope").refused("no benchmark 'nope'", "serve")
    for flag in ("-h", "--help"):
        done = cli("bench", flag)
        assert done.code == 0 and "Example: openk2 bench serve" in done.out
        names = re.search(r"NAME <str>\s+(.*?)\.\s+\[required", done.out, re.S)
        assert names is not None
        there = {path.stem for path in (Path(__file__).parents[2] / "bench").glob("[a-z]*.py")}
        assert set(re.findall(r"\w+", names[1])) == there | {"or"}


def test_what_an_extra_brings_is_named(monkeypatch: pytest.MonkeyPatch, cli: Run) -> None:
    for name, extra in (("uvicorn", "serve"), ("duckdb", "data"), ("mcp.client", "agent"), ("math_verify", "rl")):
        assert extra_with(name) == extra
    assert extra_with("nothing_of_the_kind") is None and extra_with(None) is None
    # As it is before anything has imported them.
    monkeypatch.delitem(sys.modules, "openk2.serve.server", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    cli("serve").refused("this needs the package uvicorn: pip install 'openk2[serve]'")


def test_nano_is_a_model_folder(cli: Run) -> None:
    assert "equal" in cli("model", "verify", "nano", "nano").out
