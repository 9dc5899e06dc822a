"""One data-parallel training process: `python -m openk2.train.worker JOB.json RANK`, started by `train.launch`.

Standard input is the line to the parent: "stop" asks for a checkpoint and an end after the current step; its end means
that the parent has died, and so does the worker. Rank 0 reports on standard output, one JSON object a line.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict

from openk2.core import UserError
from openk2.core.runs import locked
from openk2.data.batches import BatchPlan, EpisodePlan, PackedPlan
from openk2.data.shards import Shards
from openk2.train.recipe import PretrainConfig, SftConfig, TrainConfig

if TYPE_CHECKING:
    import torch.distributed as dist

REPORT_SECONDS = 0.5
LOCK_SECONDS = 60.0
J = TypeVar("J", bound="WorkerJob")


class WorkerJob(BaseModel):
    """What all ranks need to know, whatever they do."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: Path
    workers: int
    device: str
    identity: str
    scratch: Path


class Job(WorkerJob):
    """One training stage. Either `pretrain` or `sft` is given."""

    pretrain: PretrainConfig | None = None
    sft: SftConfig | None = None
    seed: int
    model: dict[str, Any]
    start_from: Path | None
    train_shards: Path
    valid_shards: Path
    pad_id: int


def work(kind: type[J], train: Callable[[J, int, threading.Event], None]) -> NoReturn:
    """The whole of a worker's process, for `python -m MODULE JOB.json RANK`: read the job, `train(job, rank, stop)`,
    report what goes wrong, and end."""
    job_path, rank = sys.argv[1], int(sys.argv[2])
    try:
        status = _main(kind.model_validate_json(Path(job_path).read_text(encoding="utf-8")), rank, train)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    # Not `sys.exit`: in one of five runs the exchange's own threads made the interpreter abort on its way out.
    os._exit(status)


def _main(job: J, rank: int, train: Callable[[J, int, threading.Event], None]) -> int:
    stop = threading.Event()
    threading.Thread(target=_listen, args=(stop,), daemon=True).start()
    try:
        # Rank 0 writes. The one of a killed run may need a moment to notice, and to let go of the folder.
        advice = "end it and run the same command again"
        with locked(job.folder, advice, LOCK_SECONDS) if rank == 0 else contextlib.nullcontext():
            train(job, rank, stop)
    except UserError as e:
        report({"event": "error", "message": str(e)})
        return 2
    return 0


def _listen(stop: threading.Event) -> None:
    # Not by way of `sys.stdin`: Python aborts when it ends while a thread waits inside a buffered reader.
    while words := os.read(sys.stdin.fileno(), 4096):
        if b"stop" in words:
            stop.set()
    os._exit(1)


def report(event: dict[str, Any]) -> None:
    """Tell the parent."""
    print(json.dumps(event), flush=True)


def join_group(job: WorkerJob, rank: int) -> dist.ProcessGroup | None:
    """The data-parallel group of all ranks; None where there is one alone. Each computes with one thread."""
    import torch
    import torch.distributed as dist
    from torch._C._distributed_c10d import FileStore

    torch.set_num_threads(1)
    if job.workers == 1:
        return None
    dist.init_process_group(
        "gloo",
        # A path, and no URL of it: a folder's name may have signs that mean something else there.
        store=FileStore(str(job.scratch / "rendezvous"), job.workers),
        rank=rank,
        world_size=job.workers,
        # A worker whose others are lost or stuck ends itself.
        timeout=timedelta(minutes=10),
    )
    return dist.group.WORLD


def _train(job: Job, rank: int, stop: threading.Event) -> None:
    import torch

    from openk2.model import ModelConfig, Transformer, load, save
    from openk2.train.trainer import Progress, Trainer

    group = join_group(job, rank)
    if job.start_from is None:
        torch.manual_seed(job.seed)
        model = Transformer(ModelConfig.model_validate(job.model))
    else:
        model = load(job.start_from, dtype=torch.float32)
    plan, valid, config = _plans(job)
    trainer = Trainer(model, plan, valid, config, job.folder, identity=job.identity, device=job.device, group=group)
    resumed = trainer.resume()
    if rank == 0:
        dtype = str(trainer.precision.dtype).removeprefix("torch.")
        report({"event": "start", "step": trainer.step, "steps": config.steps, "resumed": resumed, "dtype": dtype})
    reported_at = 0.0

    def on_step(progress: Progress) -> None:
        nonlocal reported_at
        if rank != 0:
            return
        now = time.monotonic()
        if now - reported_at >= REPORT_SECONDS or progress.valid_loss is not None:
            reported_at = now
            report({"event": "step", **asdict(progress)})

    outcome = trainer.run(on_step, stop.is_set)
    if rank == 0:
        if outcome.finished:
            save(model, job.folder / "model", dtype=torch.float32)
        report({"event": "end", **asdict(outcome)})
    leave(group)


def leave(group: dist.ProcessGroup | None) -> None:
    """The end of `join_group`'s group."""
    import torch.distributed as dist

    if group is not None:
        dist.destroy_process_group()


def _plans(job: Job) -> tuple[BatchPlan, BatchPlan, TrainConfig]:
    """Batch plans for training and validation, and the stage's numbers."""
    train, valid = Shards(job.train_shards), Shards(job.valid_shards)
    if job.pretrain is not None:
        config = job.pretrain

        def packed(shards: Shards, micro_batches: int) -> PackedPlan:
            rows = config.micro_tokens // config.seq_len
            return PackedPlan(shards, seq_len=config.seq_len, rows=rows, micro_batches=micro_batches, seed=job.seed)

        return packed(train, config.micro_batches), packed(valid, config.valid_micro_batches), config
    assert job.sft is not None
    sft = job.sft

    def episodes(shards: Shards, micro_batches: int, short_steps: int = 0) -> EpisodePlan:
        return EpisodePlan(
            shards,
            micro_tokens=sft.micro_tokens,
            micro_batches=micro_batches,
            pad_id=job.pad_id,
            seed=job.seed,
            short_steps=short_steps,
            short_tokens=sft.short_tokens,
        )

    short_steps = round(sft.steps * sft.short_fraction)
    return episodes(train, sft.micro_batches, short_steps), episodes(valid, sft.valid_micro_batches), sft


if __name__ == "__main__":
    work(Job, _train)
