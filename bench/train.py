"""Training speed: this project's whole loop against transformers' DeepseekV3ForCausalLM with torch.optim.Muon.

    ./k2 bench train --steps 30 --workers 2

Same weights, data, dtype, batch, threads and allocator, in one process, steps taken in turns. Ours is the trainer that
`./k2 train` runs, with logging, router balancing, logit monitor and QK-Clip; theirs is described in `_peer.py`, in the
fastest of its variants, found first. With `--workers 2` both sides run in the same two data-parallel processes, two
threads in all. Before any timing the fp32 logits of both must agree within 1e-4, and the two
loss curves are printed: both must learn the same.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from _common import add_out, enter_child, machine, parser_of, ranks, ratio_with_interval, table, write_results

if TYPE_CHECKING:
    import torch.distributed as dist


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--preset", default="nano")
    parser.add_argument("--steps", type=int, default=30, help="measured steps of each side")
    parser.add_argument("--probe-steps", type=int, default=3, help="steps to choose the peer's fastest variant by")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--time", type=int, default=512, help="tokens per row")
    parser.add_argument("--micro-batches", type=int, default=2, help="per step")
    parser.add_argument("--supervised", type=float, default=1.0, help="share of targets that have a loss (tuning: 0.3)")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--threads", type=int, default=1, help="per process")
    parser.add_argument("--workers", type=int, default=1, help="data-parallel processes, of both sides alike")
    parser.add_argument("--lr", type=float, default=0.003)
    add_out(parser)
    arguments = parser.parse_args()
    counts = (arguments.steps, arguments.probe_steps, arguments.rows, arguments.micro_batches)
    if min(*counts, arguments.threads, arguments.workers) < 1:
        parser.error("steps, probe-steps, rows, micro-batches, threads and workers must be at least 1")
    if arguments.micro_batches % arguments.workers:
        parser.error("workers must divide micro-batches")
    enter_child(arguments.threads)
    with ranks(arguments.workers) as group:
        compare(arguments, group)


def compare(arguments: argparse.Namespace, group: dist.ProcessGroup | None) -> None:
    import numpy as np
    import torch
    from _peer import PeerLoop, Variant, logit_gap, variants

    from openk2.data.batches import IGNORED, Batch
    from openk2.model import ModelConfig, Transformer
    from openk2.train.recipe import TrainConfig
    from openk2.train.trainer import Progress, Trainer

    class SourceText:
        """Bytes of this project's own sources as ids: real text, so that router loads are as uneven as in life."""

        micro_batches = arguments.micro_batches

        def __init__(self) -> None:
            sources = sorted((Path(__file__).parent.parent / "src").rglob("*.py"))
            self._ids = np.frombuffer(b"\n".join(path.read_bytes() for path in sources), dtype=np.uint8)

        def batch(self, step: int, index: int) -> Batch:
            rng = np.random.default_rng((step, index))
            starts = rng.integers(0, len(self._ids) - arguments.time - 1, size=arguments.rows)
            rows = np.stack([self._ids[s : s + arguments.time + 1] for s in starts]).astype(np.int64)
            targets = np.where(rng.random(rows[:, 1:].shape) < arguments.supervised, rows[:, 1:], IGNORED)
            return Batch(rows[:, :-1], targets, int((targets != IGNORED).sum()))

        def supervised(self, step: int) -> int:
            return sum(self.batch(step, index).supervised for index in range(self.micro_batches))

        def tensors(self, step: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
            """This process's share of a step."""
            batches = [self.batch(step, index) for index in range(rank, self.micro_batches, arguments.workers)]
            return [(torch.from_numpy(b.input_ids_BT), torch.from_numpy(b.targets_BT)) for b in batches]

    rank = 0 if group is None else group.rank()
    torch.manual_seed(0)
    torch.set_num_threads(arguments.threads)
    dtype = getattr(torch, arguments.dtype)
    model = Transformer(ModelConfig.preset(arguments.preset))
    plan = SourceText()

    precisions = ("bf16 copies", "autocast") if dtype == torch.bfloat16 else ("fp32",)
    seconds: dict[Variant, float] = {}
    gap = 0.0
    for variant in variants(precisions):
        if variant.precision == precisions[0]:
            gap = max(gap, logit_gap(model, variant, plan.tensors(0)[0][0][:2, :128]))
        loop = PeerLoop(model, variant, dtype, arguments.lr, group)
        times = []
        for step in range(1 + arguments.probe_steps):
            start = time.perf_counter()
            loop.step(plan.tensors(step), plan.supervised(step))
            times.append(time.perf_counter() - start)
        # Every process must choose the same variant.
        seconds[variant] = agreed(min(times[1:]), group)
        print(f"peer, {variant}: {seconds[variant]:.3f} s a step", flush=True)
    if not gap <= 1e-4:
        raise SystemExit(f"the logits differ by {gap:.2e}, more than 1e-4: nothing is measured")

    best = min(seconds, key=lambda variant: seconds[variant])
    peer = PeerLoop(model, best, dtype, arguments.lr, group)
    warm_up = 3
    # The last step of a run also validates, so it is not measured.
    steps = warm_up + arguments.steps + 1
    per_step = arguments.rows * arguments.time * arguments.micro_batches
    config = TrainConfig(
        tokens=steps * per_step,
        micro_tokens=arguments.rows * arguments.time,
        micro_batches=arguments.micro_batches,
        lr=arguments.lr,
        warmup_steps=0,
        decay_fraction=0.0,
        valid_every=steps + 1,
        checkpoint_seconds=1e9,
        dtype=arguments.dtype,
    )
    ours_s: list[float] = []
    theirs_s: list[float] = []
    our_loss: list[float] = []
    their_loss: list[float] = []
    clock = 0.0

    def take_turns(progress: Progress) -> None:
        nonlocal clock
        ours_s.append(time.perf_counter() - clock)
        our_loss.append(progress.loss)
        start = time.perf_counter()
        step = progress.step - 1
        their_loss.append(peer.step(plan.tensors(step), plan.supervised(step)))
        theirs_s.append(time.perf_counter() - start)
        print(f"step {progress.step}: ours {ours_s[-1]:.3f} s, theirs {theirs_s[-1]:.3f} s", flush=True)
        clock = time.perf_counter()

    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(model, plan, plan, config, Path(folder), group=group)
        clock = time.perf_counter()
        trainer.run(on_step=take_turns)

    if rank != 0:
        return
    kept = slice(warm_up, warm_up + arguments.steps)
    ratio, interval = ratio_with_interval(theirs_s[kept], ours_s[kept])
    ours, theirs = statistics.median(ours_s[kept]), statistics.median(theirs_s[kept])
    loss_gap = abs(statistics.mean(our_loss[-5:]) - statistics.mean(their_loss[-5:]))
    result = {
        "what": "whole training step: data, forward, backward, optimizer",
        "config": {k: v for k, v in vars(arguments).items() if k != "out"},
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens_per_step": per_step,
        "machine": machine(),
        "logit_gap_fp32": gap,
        "peer_variants_seconds": {str(variant): value for variant, value in seconds.items()},
        "peer_variant": str(best),
        "ours_seconds": ours_s[kept],
        "theirs_seconds": theirs_s[kept],
        "ours_tokens_per_second": per_step / ours,
        "theirs_tokens_per_second": per_step / theirs,
        "ratio": ratio,
        "ratio_ci95": interval,
        "our_loss": our_loss,
        "their_loss": their_loss,
        "loss_gap_last_5": loss_gap,
    }
    rows = [
        ("openk2", f"{ours:.3f}", f"{per_step / ours:,.0f}", f"{our_loss[0]:.3f}", f"{our_loss[-1]:.3f}"),
        (f"transformers ({best})", f"{theirs:.3f}", f"{per_step / theirs:,.0f}", f"{their_loss[0]:.3f}",
         f"{their_loss[-1]:.3f}"),
    ]  # fmt: skip
    markdown = (
        f"# Training: {arguments.preset}, {arguments.dtype}, {arguments.rows} x {arguments.time} tokens x "
        f"{arguments.micro_batches}, {arguments.workers} process(es) of {arguments.threads} thread(s)\n\n"
        + table(("loop", "s/step", "tokens/s", "first loss", "last loss"), rows)
        + f"\n**{ratio:.2f}x** (95 % interval {interval[0]:.2f} to {interval[1]:.2f}; {arguments.steps} steps)."
        + f" fp32 logits agree within {gap:.1e}.\n"
    )
    write_results(arguments.out, "train", result, markdown)


def agreed(seconds: float, group: dist.ProcessGroup | None) -> float:
    """The largest of all processes' numbers."""
    if group is None:
        return seconds
    import torch
    import torch.distributed as dist

    shared = torch.tensor(seconds, dtype=torch.float64)
    dist.all_reduce(shared, op=dist.ReduceOp.MAX, group=group)
    return float(shared)


if __name__ == "__main__":
    main()
