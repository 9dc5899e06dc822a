"""Workers as processes: what a person reads when one of them fails."""

import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from openk2.core import UserError
from openk2.core.errors import EndedAtOnce
from openk2.train.launch import ONE_PRESS_SECONDS, train_in_workers
from openk2.train.recipe import SftConfig
from openk2.train.worker import Job


def job_in(tmp_path: Path) -> Job:
    return Job(
        folder=tmp_path / "sft",
        sft=SftConfig(tokens=100_000, lr=0.01, warmup_steps=0),
        seed=0,
        workers=1,
        device="cpu",
        model={"hidden_size": "wide"},
        start_from=None,
        train_shards=tmp_path,
        valid_shards=tmp_path,
        pad_id=0,
        identity="",
        scratch=tmp_path / "sft" / ".workers-1",
    )


def test_a_worker_that_fails_is_one_sentence_and_a_log(tmp_path: Path) -> None:
    job = job_in(tmp_path)
    with pytest.raises(
        UserError, match=r"training worker 0 failed \(.*worker-error\.log has the whole of it"
    ) as caught:
        train_in_workers(job, lambda event: None)
    assert "\n" not in str(caught.value)
    assert "Traceback" in (tmp_path / "sft" / "worker-error.log").read_text()
    assert not job.scratch.exists()


PATIENT = """
import json, sys, time
print(json.dumps({"event": "start"}), flush=True)
sys.stdin.readline()
print(json.dumps({"event": "saving"}), flush=True)
time.sleep(%s)
"""


@pytest.mark.parametrize(("times", "raised"), [(1, KeyboardInterrupt), (2, EndedAtOnce), (3, EndedAtOnce)])
def test_who_stops_it_twice_is_not_told_that_it_was_saved(
    times: int, raised: type[KeyboardInterrupt], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "patient.py").write_text(PATIENT % (0 if times == 1 else 600))
    clear = shutil.rmtree
    ours = signal.getsignal(signal.SIGINT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    pressed = 0

    def press(event: dict[str, Any]) -> None:
        nonlocal pressed
        if event["event"] in ("start", "saving") and pressed < min(times, 2):
            time.sleep(2 * ONE_PRESS_SECONDS if pressed else 0)
            pressed += 1
            signal.raise_signal(signal.SIGINT)

    def press_again(path: Path, ignore_errors: bool) -> None:
        nonlocal pressed
        if 2 <= pressed < times:
            pressed += 1
            signal.raise_signal(signal.SIGINT)
        clear(path, ignore_errors=ignore_errors)

    monkeypatch.setattr("openk2.train.launch.shutil.rmtree", press_again)
    job = job_in(tmp_path)
    with pytest.raises(KeyboardInterrupt) as caught:
        train_in_workers(job, press, "patient")
    assert type(caught.value) is raised and pressed == times and not job.scratch.exists()
    assert signal.getsignal(signal.SIGINT) is ours


def test_whoever_is_told_twice_at_once_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "patient.py").write_text(PATIENT % 0)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    said: list[str] = []

    def press(event: dict[str, Any]) -> None:
        said.append(event["event"])
        if event["event"] == "start":
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as caught:
        train_in_workers(job_in(tmp_path), press, "patient")
    assert type(caught.value) is KeyboardInterrupt and said == ["start", "stopping", "saving"]


def test_whoever_stops_it_at_its_last_moment_has_stopped_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "quick.py").write_text("")
    clear = shutil.rmtree

    def press(path: Path, ignore_errors: bool) -> None:
        signal.raise_signal(signal.SIGTERM)
        clear(path, ignore_errors=ignore_errors)

    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("openk2.train.launch.shutil.rmtree", press)
    job = job_in(tmp_path)
    # As the command line has it.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            train_in_workers(job, lambda event: None, "quick")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not job.scratch.exists()
