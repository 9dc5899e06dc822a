"""Run folders: one process at a time."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from openk2.core import UserError
from openk2.core.runs import LOCK, check_file, locked, remove_stale, write_text


def test_a_folder_that_is_let_go_in_time_can_be_had(tmp_path: Path) -> None:
    with open(tmp_path / LOCK, "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        release = threading.Timer(0.2, fcntl.flock, (other, fcntl.LOCK_UN))
        release.start()
        with locked(tmp_path, "end it", 60.0):
            assert release.finished.is_set()


def test_a_folder_that_is_kept_is_one_sentence(tmp_path: Path) -> None:
    with open(tmp_path / LOCK, "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with (
            pytest.raises(UserError, match=r"another process is working in .*: wait for it, or end it$"),
            locked(tmp_path, "end it", 0.1),
        ):
            pass


def test_what_a_killed_process_left_is_taken_away(tmp_path: Path) -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    left = [tmp_path / f".weights.{pid}.tmp" for pid in (dead.stdout.strip(), os.getppid(), "1x")]
    young = tmp_path / ".weights.999999999.tmp"
    for path in (*left, young):
        path.write_text("half")
    for path in left:
        os.utime(path, (0, 0))
    remove_stale(tmp_path / "weights")
    assert [path.exists() for path in left] == [False, True, False]
    assert young.exists()


def test_what_is_no_file_is_not_replaced_by_one(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("/proc/self/fd/1")
    for way_out in ("/dev/stdout", "/dev/fd/1", str(tmp_path / "out")):
        with pytest.raises(UserError, match="is a device or a pipe: name a file"):
            check_file(Path(way_out))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(UserError, match="is a device or a pipe: name a file"):
        write_text(pipe, "text")
    assert pipe.is_fifo()
