"""The training loop for pre-training and fine-tuning: forward, backward, all-reduce, MuonClip, router balance.

Data-parallel ranks each run their micro-batches of a step, add up one flat fp32 gradient buffer (`MixedPrecision`), and
make the same update.

A step draws no random number and data order is a function of (seed, step), so a run that goes on from a checkpoint
makes the same bytes as one that was never stopped.

Shapes: B rows, T time; L layers with experts, E experts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from openk2.core import UserError
from openk2.data.batches import Batch, BatchPlan
from openk2.model import Transformer
from openk2.optim import WSD, MuonClip, StepStats
from openk2.train.checkpoint import KEEP, load_latest, save_checkpoint
from openk2.train.folder import CHECKPOINTS, METRICS, TIMINGS
from openk2.train.logs import append, cut_back
from openk2.train.precision import MixedPrecision, compute_dtype
from openk2.train.ranks import Ranks
from openk2.train.recipe import TrainConfig


@dataclass(frozen=True, slots=True)
class Progress:
    """What a finished step looked like. The speed is that of all ranks, padding included, since the process began."""

    step: int
    steps: int
    loss: float
    valid_loss: float | None
    tokens_per_second: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """How training ended. `finished` is False when it was asked to stop; a checkpoint of `step` then exists."""

    step: int
    finished: bool
    valid_loss: float | None


class LanguageLoss(nn.Module):
    """`model.loss` as a forward, so that it can be called with other parameters than the model's own."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids_BT: Tensor, targets_BT: Tensor) -> tuple[Tensor, int]:
        return self.model.loss(input_ids_BT, targets_BT)


class Trainer:
    """One stage of training on this rank. `group` is the data-parallel process group, None for a single process.

    `identity` ties checkpoints to the recipe and inputs that they were made with.
    """

    def __init__(
        self,
        model: Transformer,
        plan: BatchPlan,
        valid: BatchPlan,
        config: TrainConfig,
        folder: Path,
        *,
        identity: str = "",
        device: str = "cpu",
        group: dist.ProcessGroup | None = None,
    ) -> None:
        self.model = model.to(device).train()
        self.plan = plan
        self.valid = valid
        self.config = config
        self.folder = folder
        self.identity = identity
        self.device = device
        self.ranks = Ranks(group)
        self.step = 0
        self.valid_loss: float | None = None
        model.attach_monitor(config.qk_clip_threshold)
        self.optimizer = MuonClip(
            model,
            lr=config.lr,
            weight_decay=config.weight_decay,
            momentum=config.momentum,
            qk_clip_threshold=config.qk_clip_threshold,
            adam_betas=config.adam_betas,
            process_group=group,
        )
        self.schedule = WSD(
            lr=config.lr,
            steps=config.steps,
            warmup=config.warmup_steps,
            decay=config.decay_steps,
            shape=config.decay_shape,
            final_lr=config.lr * config.final_lr_fraction,
        )
        self._loss = LanguageLoss(model)
        self.precision = MixedPrecision(self.model, compute_dtype(config.dtype, folder, self.ranks, device))

    def resume(self) -> bool:
        """Load the newest checkpoint, if there is one. Raises UserError if it is damaged or of another recipe."""
        found = load_latest(self.folder / CHECKPOINTS, self.device)
        if found is None:
            self._truncate_logs()
            return False
        step, state = found
        if state.get("identity") != self.identity:
            raise UserError(
                f"the checkpoint of step {step} in {self.folder} was made with another recipe or other inputs: "
                "go back to that recipe, or choose another run folder"
            )
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, KeyError, ValueError) as e:
            raise UserError(
                f"the checkpoint of step {step} in {self.folder} is of another model: choose another run folder"
            ) from e
        self.step = step
        self.valid_loss = state["valid_loss"]
        self.precision.refresh()
        self._truncate_logs()
        return True

    def save(self) -> None:
        """Write a checkpoint of the state after `self.step` steps."""
        state = {
            "identity": self.identity,
            "valid_loss": self.valid_loss,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        keep = 1 if self.step == self.config.steps else KEEP
        save_checkpoint(self.folder / CHECKPOINTS, self.step, state, keep)

    def run(
        self, on_step: Callable[[Progress], None] = lambda _: None, should_stop: Callable[[], bool] = lambda: False
    ) -> Outcome:
        """Train to the end of the schedule, or until `should_stop()` (asked on rank 0 once a step).

        Every rank calls its `on_step`. Rank 0 writes `metrics.jsonl` (what was computed), `timings.jsonl` (how long it
        took) and the checkpoints.
        Raises UserError when training diverges or the disk is full.
        """
        saved_at = started_at = time.monotonic()
        tokens = 0
        while self.step < self.config.steps:
            lr = self.schedule.at(self.step)
            loss, step_tokens, stop = self._forward_backward(should_stop)
            self.optimizer.set_lr(lr)
            stats = self.optimizer.step()
            self.precision.refresh()
            self.step += 1
            tokens += step_tokens
            last = self.step == self.config.steps
            valid_loss = self.validate() if last or self.step % self.config.valid_every == 0 else None
            if valid_loss is not None:
                self.valid_loss = valid_loss
            speed = tokens / (time.monotonic() - started_at)
            if self.ranks.first:
                self._log(loss, valid_loss, step_tokens, stats, speed if valid_loss is not None else None)
            on_step(Progress(self.step, self.config.steps, loss, valid_loss, speed))
            if self.ranks.first and (last or stop or time.monotonic() - saved_at >= self.config.checkpoint_seconds):
                self.save()
                saved_at = time.monotonic()
            if stop:
                break
        return Outcome(self.step, self.step == self.config.steps, self.valid_loss)

    def _forward_backward(self, should_stop: Callable[[], bool]) -> tuple[float, int, bool]:
        """Mean loss of the step, its padded tokens over all ranks, and whether to stop after it."""
        supervised = max(1, self.plan.supervised(self.step))
        loss_sum, tokens = 0.0, 0
        for turn, index in enumerate(range(self.ranks.rank, self.plan.micro_batches, self.ranks.count)):
            batch = self.plan.batch(self.step, index)
            loss, _ = self._forward(batch)
            torch.autograd.backward(loss / supervised)
            loss_sum += loss.item()
            tokens += batch.input_ids_BT.size
            self.precision.take_gradients(first=turn == 0)
        # fp64 carries the counts exactly.
        stop = float(self.ranks.first and should_stop())
        moe = self.model.moe_layers()
        counts = [layer.expert_counts_E for layer in moe]
        head = torch.tensor([loss_sum, float(tokens), stop], dtype=torch.float64, device=self.device)
        shared = torch.cat([head, *(count_E.double() for count_E in counts)])
        if self.ranks.count > 1:
            self.ranks.add_up(self.precision.grad_P)
            self.ranks.add_up(shared)
            offset = len(head)
            for count_E in counts:
                count_E.copy_(shared[offset : offset + len(count_E)])
                offset += len(count_E)
        self.model.update_router_bias(self.config.router_bias_rate)
        loss_sum, tokens_sum, stop = shared[:3].tolist()
        mean = loss_sum / supervised
        if not math.isfinite(mean):
            raise UserError(
                f"the loss is not finite at step {self.step + 1}: training has diverged, lower the learning rate and "
                "start again"
            )
        return mean, int(tokens_sum), stop > 0

    def _forward(self, batch: Batch) -> tuple[Tensor, int]:
        input_ids_BT = torch.from_numpy(batch.input_ids_BT).to(self.device)
        targets_BT = torch.from_numpy(batch.targets_BT).to(self.device)
        return cast(tuple[Tensor, int], self.precision.call(self._loss, input_ids_BT, targets_BT))

    @torch.no_grad()
    def validate(self) -> float:
        """Mean loss over the validation micro-batches, which are the same every time."""
        self.model.eval()
        total = torch.zeros(2, dtype=torch.float64, device=self.device)
        for index in range(self.ranks.rank, self.valid.micro_batches, self.ranks.count):
            loss, n = self._forward(self.valid.batch(0, index))
            total += torch.tensor([loss.item(), float(n)], dtype=torch.float64, device=self.device)
        self.model.train()
        self.ranks.add_up(total)
        return float(total[0] / total[1].clamp(min=1))

    def _log(self, loss: float, valid_loss: float | None, tokens: int, stats: StepStats, speed: float | None) -> None:
        line: dict[str, Any] = {
            "step": self.step,
            "loss": loss,
            "lr": stats.lr,
            "tokens": tokens,
            "grad_norm": stats.grad_norm,
            "max_logit": stats.max_logit,
            "clipped_heads": stats.clipped_heads,
        }
        if valid_loss is not None:
            line["valid_loss"] = valid_loss
        append(self.folder / METRICS, line)
        if speed is not None:
            append(self.folder / TIMINGS, {"step": self.step, "tokens_per_second": round(speed, 1)})

    def _truncate_logs(self) -> None:
        """Drop what was logged after the checkpoint: it will be computed again."""
        if self.ranks.first:
            for name in (METRICS, TIMINGS):
                cut_back(self.folder / name, "step", self.step)
