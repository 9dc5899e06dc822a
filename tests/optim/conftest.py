"""Two processes that exchange tensors over gloo."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from openk2.train.launch import worker_environment

RANKS = 2
# What gloo waits for the other rank, when a rank shows where it hangs, and when both are ended.
GLOO_SECONDS, STACK_SECONDS, SECONDS = 60, 90, 100


def _run_rank(rank: int, function: Callable[..., None], meeting: str, arguments: tuple[Any, ...]) -> None:
    # Ends it, too, where nobody is left to do so.
    faulthandler.dump_traceback_later(STACK_SECONDS, exit=True)
    status = 1
    try:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{meeting}",
            rank=rank,
            world_size=RANKS,
            timeout=timedelta(seconds=GLOO_SECONDS),
        )
        function(rank, *arguments)
        dist.destroy_process_group()
        status = 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    # Gloo's threads may abort the interpreter, or hold it, on its ordinary way out.
    os._exit(status)


@pytest.fixture
def in_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Call a function, once in a test, with the rank and arguments in two processes of one group; wait for both."""
    if not (dist.is_available() and dist.is_gloo_available()):
        pytest.skip("this torch has no gloo")
    for name, value in worker_environment().items():
        monkeypatch.setenv(name, value)
    spawn = multiprocessing.get_context("spawn")

    def call(function: Callable[..., None], *arguments: Any) -> None:
        meeting = str(tmp_path / "meeting")
        processes = [
            spawn.Process(target=_run_rank, args=(rank, function, meeting, arguments), daemon=True)
            for rank in range(RANKS)
        ]
        end = time.monotonic() + SECONDS
        try:
            for process in processes:
                process.start()
            for process in processes:
                process.join(max(0.0, end - time.monotonic()))
            codes = [process.exitcode for process in processes]
        finally:
            for process in processes:
                if process.pid is not None:
                    process.kill()
                    process.join()
        assert codes == [0] * RANKS, "exit codes of the ranks; what they said is on stderr"

    return call
