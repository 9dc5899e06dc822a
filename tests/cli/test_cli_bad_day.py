"""A bad day: killed at any moment, started twice, clocks that jump, names of every kind. Nothing is lost."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("duckdb")
pytest.importorskip("pyarrow")

from shared.runs import few

Run = Callable[..., Any]
pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("OPENK2_KILLS", "6"))
"""So often is a command killed before it may end; more make a longer day."""

SYNTH = """
name = "small"
[domains]
count = 4
tools = 60
[tasks]
count = 300
per_shard = 10
"""
TRAIN = """
name = "tiny"
workers = 2
[corpus]
paths = ["text"]
valid_fraction = 0.2
[tokenizer]
vocab_size = 600
[episodes]
train = { shell = 12, functions = 12 }
valid = 3
max_tokens = 900
[model]
preset = "test"
max_position_embeddings = 1024
[pretrain]
tokens = 20_000
micro_tokens = 1024
seq_len = 128
lr = 0.01
warmup_steps = 2
checkpoint_seconds = 0.0
[sft]
tokens = 20_000
micro_tokens = 1024
lr = 0.01
warmup_steps = 2
checkpoint_seconds = 0.0
"""
RL = """
name = "tiny"
start = "nano"
workers = 2
iterations = 3
[families."functions:choose"]
prompts = 2
budget = 60
[rollout]
samples = 2
iteration_tokens = 30
[objective]
lr = 0.001
[ptx]
weight = 0.1
families = { functions = 2 }
valid = 2
[critic]
valid = 0
[eval]
n = 2
every = 2
"""


@dataclass(frozen=True)
class Job:
    """A command that makes a folder, and goes on with it."""

    arguments: Sequence[str]
    """`{}` is what it makes."""
    recipe: str = ""


JOBS = {
    "synth": Job(("synth", "run", "recipe.toml", "--run", "{}", "--workers", "2"), SYNTH),
    "train": Job(("train", "recipe.toml", "--run", "{}"), TRAIN),
    "rl": Job(("rl", "run", "recipe.toml", "--run", "{}"), RL),
    "export": Job(("model", "export", "nano", "{}", "--shard-gb", "0.005")),
}


@pytest.fixture(params=sorted(JOBS))
def start(
    request: pytest.FixtureRequest, command: list[str], tmp_path: Path
) -> Callable[[str], subprocess.Popen[bytes]]:
    """Starts the command in a session of its own, with a folder to make."""
    job = JOBS[request.param]
    (tmp_path / "recipe.toml").write_text(job.recipe)
    (tmp_path / "text").mkdir()
    for name in ("a", "b", "c", "d"):
        (tmp_path / "text" / f"{name}.txt").write_text(f"the {name} is a word, and so is another\n" * 400)

    def started(folder: str) -> subprocess.Popen[bytes]:
        arguments = [argument.format(folder) for argument in job.arguments]
        return subprocess.Popen(
            [*command, *arguments], cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip

    return started


def files(folder: Path) -> dict[str, bytes]:
    """What a command has made; clocks, locks and what a killed process was just writing are not part of it."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (".lock", "timings.jsonl") and path.suffix != ".tmp"
    }


def ended(process: subprocess.Popen[bytes]) -> str:
    """What it said, after it has ended well."""
    _, said = process.communicate(timeout=600)
    assert process.returncode == 0, said.decode()
    return said.decode()


def of_session(leader: int) -> list[psutil.Process]:
    """Processes of a session that still run."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


@pytest.mark.timeout(36_000)
def test_killed_at_random_moments(start: Callable[[str], subprocess.Popen[bytes]], tmp_path: Path) -> None:
    began = time.monotonic()
    ended(start("whole"))
    seconds = time.monotonic() - began
    dice = random.Random(KILLS)
    for number in range(KILLS):
        process = start("cut")
        try:
            process.wait(dice.uniform(0.2, 0.9) * seconds)
        except subprocess.TimeoutExpired:
            # Every other time its own processes are left behind, and have to see to it themselves.
            os.kill(process.pid, signal.SIGKILL) if number % 2 else os.killpg(process.pid, signal.SIGKILL)
        _, said = process.communicate()
        assert b"Traceback" not in said, said.decode()
        if process.returncode == 0:
            break
        end = time.monotonic() + 60
        while (left := of_session(process.pid)) and time.monotonic() < end:
            time.sleep(0.1)
        assert not left, left
    ended(start("cut"))
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


@pytest.mark.timeout(1800)
def test_started_twice_in_one_folder(start: Callable[[str], subprocess.Popen[bytes]], tmp_path: Path) -> None:
    ended(start("whole"))
    both = [start("twice") for _ in range(2)]
    said = [process.communicate(timeout=600)[1].decode() for process in both]
    assert 0 in [process.returncode for process in both], said
    for process, words in zip(both, said, strict=True):
        if process.returncode:
            assert process.returncode == 2 and "another process is " in words.splitlines()[-1], words
    assert files(tmp_path / "twice") == files(tmp_path / "whole")


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("now", [1_000_000.0, 4_000_000_000.0], ids=["1970", "2096"])
def test_a_clock_that_jumps(start: Callable[[str], subprocess.Popen[bytes]], now: float, tmp_path: Path) -> None:
    began = time.monotonic()
    ended(start("whole"))
    seconds = time.monotonic() - began
    process = start("cut")
    try:
        process.wait(0.5 * seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    # To the command it looks as if all this was written in another time.
    for path in (tmp_path / "cut").rglob("*"):
        os.utime(path, (now, now))
    ended(start("cut"))
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


# --- names ----------------------------------------------------------------------------------------------------------

NAMES = {
    "letters": "Ünïcödé 数据 🐧",
    "marks": 'it\'s "a" [b]{c} $d & -e; #f %g',
    "blanks": "  two  blanks  ",
    "long": "n" * 250,
    "too long": "n" * 300,
    "of markup": "[red]x[/red] :smile:",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_names_of_folders(name: str, cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if len(name) > 255:
        for arguments in (
            ("synth", "report", name), ("synth", "run", "r.toml", "--run", name), ("rl", "report", name),
            ("export", name, "--to", "trl", "out.parquet"), ("export", few(), "--to", "trl", f"{name}.parquet"),
            ("eval", name), ("eval", "baseline", "--family", "shell", "--n", "1", "--save", name),
            ("model", "export", name, "out"), ("model", "export", "nano", name), ("train", name), ("rl", "run", name),
            ("worlds", "describe", name), ("demo", "--csv", name), ("agent", "hello", "-p", "-w", name),
            ("rl", "gym", "sample", name), ("deploy", "vllm", name),
        ):  # fmt: skip
            cli(*arguments).refused()
        return
    shutil.copytree(few(), name)
    assert cli("synth", "status", name, "--json").code == 0
    assert cli("synth", "query", name, "select count(*) n from tasks", "--json").events == [[{"n": 30}]]
    assert cli("synth", "verify", name, "--workers", "1").code == 0
    assert cli("synth", "report", name, "--out", f"{name[:100]}-r").code == 0
    assert cli("export", name, "--to", "openai", f"{name[:100]}.jsonl").code == 0
    shutil.rmtree(name)
    Path(f"{name[:100]}.csv").write_text(f'"{name[:20].replace(chr(34), "")}",kind\n1,ä\n2,🐧\n', errors="replace")
    done = cli("demo", "--csv", f"{name[:100]}.csv", "--json", "--yes", "--model", "random:test")
    assert done.code == 0 and done.events[-1]["tasks"] > 7, done.err
    done = cli("eval", "baseline", "--family", "functions", "--n", "1", "--save", name, "--json")
    assert done.code == 0, done.err
    assert cli("export", name, "--to", "atif", f"{name[:100]}-a", "--all").code == 0


@pytest.mark.parametrize("name", [os.fsdecode(b"caf\xe9"), "a\nb", "a\x1b[31mb"], ids=["bytes", "line", "color"])
def test_names_that_are_no_text(name: str, cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They work, or one sentence says that they do not: never a traceback, never half of an output."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(few(), name)
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / f"{name}.csv").write_text("a,b\n1,2\n")
    shutil.copy(Path("w", f"{name}.csv"), f"{name}.csv")
    for arguments in (
        ("synth", "status", name), ("synth", "report", name), ("synth", "query", name, "from tasks"),
        ("synth", "verify", name, "--workers", "1"), ("export", name, "--to", "openai", "out.jsonl"),
        ("export", few(), "--to", "trl", f"{name}.parquet"), ("export", few(), "--to", "atif", f"{name}-atif"),
        ("eval", "baseline", "--family", "functions", "--n", "1", "--save", f"{name}-saved"),
        ("demo", "--csv", f"{name}.csv", "--json", "--yes", "--model", "random:test"),
        ("model", "export", "nano", f"{name}-model"), ("model", "describe", f"{name}-model"), ("train", name),
        ("rl", "run", name), ("rl", "report", name), ("worlds", "describe", name), ("rl", "gym", "sample", name),
        ("agent", "hello", "-p", "--yes", "-w", "w", "--model", "random:test"),
    ):  # fmt: skip
        done = cli(*arguments)
        # A random model does not answer.
        assert done.code in (0, 1 if arguments[0] == "agent" else 2), (arguments, done.err)
        if done.code == 2:
            assert done.err.startswith("openk2: ") and done.err.count("\n") == 1, (arguments, done.err)
            assert "\x1b" not in done.err, (arguments, done.err)
