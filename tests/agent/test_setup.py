"""Before acting: consent, and a place for records."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from openk2.agent import setup
from openk2.core import UserError
from openk2.sandbox import resolve


def test_records_go_to_the_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert setup.records_folder() == tmp_path / "state" / "openk2" / "trajectories"
    assert setup.records_folder().is_dir()
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert setup.records_folder() == tmp_path / "home" / ".local" / "state" / "openk2" / "trajectories"


@pytest.mark.parametrize("home", ["/dev/null", "/proc/1/nothing"])
def test_without_a_home_that_can_be_written(home: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", home)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    setup._temporary_state.cache_clear()
    folder = setup.records_folder()
    assert folder.is_relative_to(tmp_path) and os.access(folder, os.W_OK)


def test_record_names_are_new() -> None:
    assert len({setup.record_name() for _ in range(50)}) == 50


def test_without_a_terminal_nobody_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pytest gives no terminal, as a job that runs at night has none."""
    monkeypatch.setattr(resolve, "_usable", lambda: (None, "nothing works here"))
    monkeypatch.setattr(resolve, "_consented", [])
    with pytest.raises(UserError, match="pass --yes"):
        setup.acquire_sandbox(assume_yes=False)


def test_consent_is_told_what_it_means(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(resolve, "_usable", lambda: (None, "nothing works here"))
    monkeypatch.setattr(resolve, "_consented", [])
    assert setup.acquire_sandbox(assume_yes=True).kind == "none"
    assert "rights of your user" in capsys.readouterr().err


ACTS = """
import os, sys
from openk2.agent import run, setup
from openk2.evals import demo
assert "torch" not in sys.modules
setup.acquire_policy("random:test", device="cpu")
assert "torch" in sys.modules
print(os.environ.get("GOMP_SPINCOUNT"))
"""


@pytest.mark.parametrize(
    ("own", "looks"), [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")]
)
def test_threads_leave_their_cores_to_others_unless_told_otherwise(own: dict[str, str], looks: str) -> None:
    """It has to be said before torch is there."""
    known = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    environment = {name: value for name, value in os.environ.items() if name not in known} | own
    done = subprocess.run([sys.executable, "-c", ACTS], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == looks, done.stderr
