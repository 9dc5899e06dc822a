"""One process of reinforcement learning: `python -m openk2.rl.worker JOB.json RANK`, started by `train.launch`."""

from __future__ import annotations

import threading
import time
from dataclasses import asdict
from pathlib import Path

from openk2.rl.recipe import RLRecipe
from openk2.train.worker import REPORT_SECONDS, WorkerJob, join_group, leave, report, work


class RLJob(WorkerJob):
    """The recipe, and the model folder that it starts from."""

    recipe: RLRecipe
    start_from: Path


class _Progress:
    """Tells what the first rank is at, now and then."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._told = 0.0

    def __call__(self, text: str) -> None:
        now = time.monotonic()
        if self._rank == 0 and now - self._told >= REPORT_SECONDS:
            self._told = now
            report({"event": "progress", "text": text})


def _train(job: RLJob, rank: int, stop: threading.Event) -> None:
    import torch

    from openk2.chat import Tokenizer
    from openk2.model import load, save
    from openk2.rl.trainer import Progress, Trainer

    group = join_group(job, rank)
    model = load(job.start_from, dtype=torch.float32)
    trainer = Trainer(
        model,
        Tokenizer.load(job.start_from),
        job.recipe,
        job.folder,
        identity=job.identity,
        device=job.device,
        group=group,
        note=lambda text: report({"event": "note", "text": text}),
        progress=_Progress(rank),
    )
    resumed = trainer.resume()
    if rank == 0:
        total, dtype = job.recipe.iterations, str(trainer.learner.precision.dtype).removeprefix("torch.")
        begun = {"iteration": trainer.iteration, "iterations": total, "resumed": resumed, "dtype": dtype}
        report({"event": "start", **begun})

    def on_iteration(progress: Progress) -> None:
        if rank == 0:
            report({"event": "iteration", **asdict(progress)})

    def on_begun() -> None:
        if rank == 0:
            report({"event": "begun"})

    finished = trainer.run(on_iteration, stop.is_set, on_begun)
    if rank == 0:
        if finished:
            save(model, job.folder / "model", dtype=torch.float32)
        report({"event": "end", "iteration": trainer.iteration, "finished": finished})
    leave(group)


if __name__ == "__main__":
    work(RLJob, _train)
