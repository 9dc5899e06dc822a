"""Processes of a pool end with the one that has started them, however that ends, and though they have nothing to do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

POOL = """
import multiprocessing, os, time
from concurrent.futures import ProcessPoolExecutor
from openk2.core.processes import begin_process

if __name__ == "__main__":
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn"), begin_process) as pool:
        futures = [pool.submit(time.sleep, 0.5) for _ in range(2)]
        for future in futures:
            future.result()
        print("idle", flush=True)
        time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nobody_is_left_behind(number: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "pool.py").write_text(POOL)
    with subprocess.Popen([sys.executable, tmp_path / "pool.py"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "idle\n"
        workers = psutil.Process(process.pid).children(recursive=True)
        assert len(workers) >= 2
        os.kill(process.pid, number)
    end = time.monotonic() + 60
    while any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers):
        assert time.monotonic() < end, workers
        time.sleep(0.05)
