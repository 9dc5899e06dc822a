"""A run that is killed, again and again, ends in the same bytes as one that is not."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from openk2.train.stages import STAGES

RUN = """
import json, sys
from pathlib import Path
from openk2.core import UserError
from openk2.train.recipe import parse_recipe
from openk2.train.stages import run_recipe
try:
    run_recipe(parse_recipe(json.loads(sys.argv[1]), "tiny"), Path(sys.argv[2]))
except UserError as e:
    sys.exit(f"UserError: {e}")
except KeyboardInterrupt:
    sys.exit(130)
"""
# What may differ: clocks, and lock files.
IGNORED = {"timings.jsonl", ".lock"}


@contextmanager
def started(raw: dict[str, Any], run: Path) -> Iterator[subprocess.Popen[str]]:
    """A run of the recipe, which does not outlive the block; its workers do not outlive it."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", RUN, json.dumps(raw), str(run)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


def finish(raw: dict[str, Any], run: Path) -> str:
    with started(raw, run) as process:
        _, stderr = process.communicate()
    assert process.returncode == 0, stderr
    return stderr


def files(run: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(run)): p.read_bytes() for p in sorted(run.rglob("*")) if p.is_file() and p.name not in IGNORED
    }


def begun(stage: str) -> Callable[[Path], bool]:
    return lambda run: (run / stage / "begun.json").exists()


def writing_checkpoint(stage: str, after: int = 0) -> Callable[[Path], bool]:
    """A checkpoint is being written, and `after` others are there."""

    def condition(run: Path) -> bool:
        folder = run / stage / "checkpoints"
        return any(folder.glob(".step-*.building")) and len(list(folder.glob("step-*"))) >= after

    return condition


def chunk_done(run: Path) -> bool:
    return any((run / "episodes" / "chunks").glob("train-*"))


def kill_when(raw: dict[str, Any], run: Path, condition: Callable[[Path], bool], delay: float) -> bool:
    """Run until `condition`, wait `delay`, kill. False if the run ended before."""
    with started(raw, run) as process:
        while process.poll() is None and not condition(run):
            time.sleep(0.001)
        time.sleep(delay)
        killed = process.poll() is None
        process.send_signal(signal.SIGKILL)
        _, stderr = process.communicate()
    assert killed or process.returncode == 0, stderr
    return killed


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory, tiny_unchanged: dict[str, Any]) -> Path:
    run = tmp_path_factory.mktemp("reference") / "run"
    said = finish(tiny_unchanged, run)
    for stage in STAGES:
        assert f"{stage}: done" in said
        assert (run / stage / "manifest.json").exists()
    return run


def test_killed_in_the_middle(tiny_raw: dict[str, Any], reference: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert kill_when(tiny_raw, run, writing_checkpoint("pretrain"), 0.0)
    assert kill_when(tiny_raw, run, chunk_done, 0.0)
    assert kill_when(tiny_raw, run, writing_checkpoint("sft", after=1), 0.0)
    said = finish(tiny_raw, run)
    assert "pretrain: already there" in said
    assert "sft: goes on from step" in said
    assert files(run) == files(reference)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_twenty_times(tiny_raw: dict[str, Any], reference: Path, tmp_path: Path) -> None:
    rng = random.Random(int(os.environ.get("KILL_SEED", "0")))
    conditions: list[Callable[[Path], bool]] = [begun(stage) for stage in STAGES]
    conditions += [chunk_done, *(writing_checkpoint(stage) for stage in ("pretrain", "sft") for _ in range(3))]
    run = tmp_path / "run"
    kills = 0
    while kills < 20:
        if kill_when(tiny_raw, run, rng.choice(conditions), rng.choice([0.0, rng.random() * 0.1, rng.random() * 3])):
            kills += 1
            continue
        assert files(run) == files(reference)
        shutil.rmtree(run)
    finish(tiny_raw, run)
    assert files(run) == files(reference)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def training_workers(process: subprocess.Popen[str]) -> list[int]:
    found = []
    for pid in children(process.pid):
        with suppress(FileNotFoundError, ProcessLookupError):
            if b"openk2.train.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.fixture
def in_training(
    tiny_raw: dict[str, Any], reference: Path, tmp_path: Path
) -> Iterator[tuple[subprocess.Popen[str], list[int], Path]]:
    """A run that is in the midst of a pre-training which would take a minute."""
    tiny_raw["pretrain"]["tokens"] = 500_000
    run = tmp_path / "run"
    for stage in ("corpus", "tokenizer", "tokens"):
        shutil.copytree(reference / stage, run / stage)
    with started(tiny_raw, run) as process:
        while process.poll() is None and not (run / "pretrain" / "checkpoints").exists():
            time.sleep(0.01)
        workers = training_workers(process)
        assert len(workers) == 2
        yield process, workers, run


needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")


@needs_proc
def test_workers_die_with_their_parent(in_training: tuple[subprocess.Popen[str], list[int], Path]) -> None:
    process, workers, _ = in_training
    process.kill()
    process.communicate()
    while not all(gone(pid) for pid in workers):
        time.sleep(0.01)


@needs_proc
def test_a_worker_that_dies_is_one_sentence(in_training: tuple[subprocess.Popen[str], list[int], Path]) -> None:
    process, workers, _ = in_training
    os.kill(workers[1], signal.SIGKILL)
    _, stderr = process.communicate()
    assert process.returncode == 1
    last = stderr.strip().splitlines()[-1]
    assert last.startswith("UserError: training worker 1 was ended from outside (SIGKILL")
    assert all(gone(pid) for pid in workers)


@needs_proc
def test_ctrl_c_saves_and_the_same_command_goes_on(
    in_training: tuple[subprocess.Popen[str], list[int], Path], tiny_raw: dict[str, Any]
) -> None:
    process, workers, run = in_training
    # A terminal sends it to the whole process group, and that must not have the workers in it.
    assert os.getpgid(process.pid) not in [os.getpgid(pid) for pid in workers]
    os.kill(process.pid, signal.SIGINT)
    _, stderr = process.communicate()
    assert process.returncode == 130
    assert "nothing is lost; the same command goes on" in stderr
    saved = max(int(p.name.removeprefix("step-")) for p in (run / "pretrain" / "checkpoints").glob("step-*"))
    with started(tiny_raw, run) as process:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if "goes on from" in line:
                break
    assert f"goes on from step {saved} of" in said[-1], said


def test_another_recipe_in_the_same_folder_is_refused(
    tiny_raw: dict[str, Any], reference: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(reference, run)
    tiny_raw["sft"]["lr"] = 0.005
    with started(tiny_raw, run) as process:
        _, stderr = process.communicate()
    assert process.returncode == 1
    assert "sft was made with lr = 0.01, the recipe now says 0.005" in stderr
    assert files(run) == files(reference)


def test_a_changed_output_is_noticed(tiny_raw: dict[str, Any], reference: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(reference, run)
    path = run / "tokens" / "train" / "tokens.npy"
    path.write_bytes(path.read_bytes()[:-2])
    with started(tiny_raw, run) as process:
        _, stderr = process.communicate()
    assert process.returncode == 1
    assert "tokens.npy is not what its stage wrote" in stderr
