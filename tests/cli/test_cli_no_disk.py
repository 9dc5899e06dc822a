"""A disk that is full: one sentence, and what was there before is still there."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from openk2.core import Message

Run = Callable[..., Any]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB, half of it taken."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root can make a small file system")
    (folder / "kept").write_bytes(b"x" * 32_000)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def _fill(folder: Path) -> None:
    file = os.open(folder / "rest", os.O_WRONLY | os.O_CREAT)
    with contextlib.suppress(OSError):
        while os.write(file, b"x" * 1000):
            pass
    os.close(file)


def test_evaluation(cli: Run, small_disk: Path) -> None:
    done = cli("eval", "baseline", "--family", "functions", "--n", "30", "--json", "--save", small_disk / "t")
    done.refused("could not write", str(small_disk), "free some space")
    assert (small_disk / "kept").read_bytes() == b"x" * 32_000


def test_agent(
    cli: Run,
    script: Callable[[Sequence[Message | str]], str],
    workspace: Path,
    small_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(small_disk))
    (small_disk / "openk2" / "trajectories").mkdir(parents=True)
    _fill(small_disk)
    done = cli("agent", "hello", "-p", "--yes", "-w", workspace, "--model", script(["Hello. " * 500]))
    assert done.code == 2 and done.err.startswith("openk2: could not ") and done.err.count("\n") == 1
    assert "space" in done.err
    assert (small_disk / "kept").read_bytes() == b"x" * 32_000


def test_training(cli: Run, small_disk: Path) -> None:
    micro = Path(__file__).resolve().parents[2] / "recipes" / "micro.toml"
    done = cli("train", micro, "--run", small_disk / "run", "--until", "corpus")
    assert done.code == 2, (done.out, done.err)
    assert done.err.splitlines()[-1].startswith("openk2: ") and "Traceback" not in done.err
    assert "space" in done.err.splitlines()[-1]
