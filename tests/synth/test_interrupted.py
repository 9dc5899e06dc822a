"""Ctrl-C while processes begin: one sentence, and nothing of theirs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytest.importorskip("duckdb")
pytest.importorskip("pyarrow")

RECIPE = """
name = "small"
[domains]
count = 4
tools = 60
[tasks]
count = 400
per_shard = 5
"""


@pytest.mark.parametrize("seconds", [0.0, 0.3])
def test_processes_that_begin_are_quiet(seconds: float, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(RECIPE)
    command = [sys.executable, "-m", "openk2", "synth", "run", "r.toml", "--run", "run", "--workers", "3"]
    with subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        # One of them keeps watch over what processes share.
        while process.poll() is None and len(psutil.Process(process.pid).children()) < 4:
            time.sleep(0.005)
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 130 and "Traceback" not in said and "interrupted: all that was finished" in said
