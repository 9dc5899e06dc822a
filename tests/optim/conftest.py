"""Two processes that exchange tensors over gloo."""

from __future__ import annotations

import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from openk2.train.launch import worker_environment

RANKS = 2
SECONDS = 120


def _run_rank(rank: int, function: Callable[..., None], meeting: str, arguments: tuple[Any, ...]) -> None:
    os.environ.update(worker_environment())
    status = 1
    try:
        dist.init_process_group(
            "gloo", init_method=f"file://{meeting}", rank=rank, world_size=RANKS, timeout=timedelta(seconds=SECONDS)
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
def in_ranks(tmp_path: Path) -> Callable[..., None]:
    """Call a function with the rank and arguments in two processes of one process group, and wait for both."""
    spawn = multiprocessing.get_context("spawn")
    if not (dist.is_available() and dist.is_gloo_available()):
        pytest.skip("this torch has no gloo")

    def call(function: Callable[..., None], *arguments: Any) -> None:
        processes = [
            spawn.Process(target=_run_rank, args=(rank, function, str(tmp_path / "meeting"), arguments))
            for rank in range(RANKS)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(SECONDS)
        codes = [process.exitcode for process in processes]
        for process in processes:
            process.kill()
        assert codes == [0] * RANKS, "exit codes of the ranks (None hangs); their tracebacks are on stderr"

    return call
