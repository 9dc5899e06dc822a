"""Optimizer speed: one MuonClip step against other Muons on the matrices of nano and of a small Moonlight.

    ./k2 bench optimizer --steps 15

Every optimizer has its own copy of the same weights and gets the same gradients; steps are taken in turns. Ours is the
whole `MuonClip.step()`: Newton-Schulz, AdamW for what is no matrix, gradient norm, and the look at the logit monitor.
The peers get Muon for the matrices and torch's fused AdamW for the rest. torch.optim.Muon takes 2-D parameters only, so
each expert's matrix is one that shares the stacked tensor's memory; KellerJordan/Muon (the package muon-optimizer)
and heavyball take the stacks as they are. Before any timing the singular values of what Newton-Schulz makes of the
gradients must be those of the exact polynomial within 0.1, and those that began above a hundredth of the norm between
0.65 and 1.3. (The polynomial with Keller Jordan's coefficients itself goes down to 0.68; a square random matrix has
singular values below a hundredth, which five steps do not bring so far.)

Peers beside torch: pip install muon-optimizer heavyball
"""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from _common import arguments_in_child, machine, ratio_with_interval, table, write_results

if TYPE_CHECKING:
    from openk2.model import ModelConfig
    from openk2.optim import Plan

LR, DECAY = 1e-4, 0.1
GAP = 0.1
"""By which singular values after Newton-Schulz in bf16 may differ from the exact polynomial of those before."""


def main() -> None:
    arguments = arguments_in_child(__doc__, "--shapes", ("nano", "moonlight/8", "test"), ["nano", "moonlight/8"])
    results = {name: compare(shapes(name), arguments.steps) for name in arguments.shapes}
    rows = [
        (name, peer, f"{found['ours_ms']:.1f}", f"{one['ms']:.1f}", f"{one['ratio']:.2f}x",
         f"{one['ci95'][0]:.2f} to {one['ci95'][1]:.2f}")
        for name, found in results.items()
        for peer, one in found["peers"].items()
    ]  # fmt: skip
    markdown = (
        f"# One optimizer step, {arguments.threads} thread(s), {arguments.steps} steps in turns\n\n"
        + table(("shapes", "peer", "MuonClip ms", "peer ms", "ratio", "95 % interval"), rows)
        + "\nSingular values after Newton-Schulz: "
        + "; ".join(
            f"{name} {found['singular']['smallest']:.2f} to {found['singular']['largest']:.2f}, off the exact "
            f"polynomial by {found['singular']['gap']:.3f} at most"
            for name, found in results.items()
        )
        + ".\n"
    )
    write_results(arguments.out, "optimizer", {"machine": machine(), "shapes": results}, markdown)


def shapes(name: str) -> ModelConfig:
    """A preset; `moonlight/8` has an eighth of Moonlight's widths, heads and vocabulary, 64 experts, four layers."""
    from openk2.model import ModelConfig

    if name != "moonlight/8":
        return ModelConfig.preset(name)
    whole = ModelConfig.preset("moonlight")
    eighth = ("hidden_size", "intermediate_size", "moe_intermediate_size", "kv_lora_rank", "num_attention_heads")
    changes = {key: getattr(whole, key) // 8 for key in (*eighth, "vocab_size")} | {"num_hidden_layers": 4}
    ids = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    return ModelConfig.build(whole.model_dump() | changes | ids, where=name)


def compare(config: ModelConfig, steps: int) -> dict[str, Any]:
    import torch

    from openk2.model import Transformer
    from openk2.optim import MuonClip, plan_parameters

    torch.manual_seed(0)
    model = Transformer(config)
    model.attach_monitor(100.0)
    plans = plan_parameters(model)
    for plan in plans:
        plan.parameter.grad = torch.randn_like(plan.parameter) * 0.01
    singular = singular_values(plans)
    if not (singular["gap"] <= GAP and singular["smallest"] >= 0.65 and singular["largest"] <= 1.3):
        raise SystemExit(f"singular values after Newton-Schulz are off, nothing is measured: {singular}")
    ours = MuonClip(model, lr=LR, weight_decay=DECAY)
    sides = {"MuonClip": Side(ours.step, [plan.parameter for plan in plans])}
    for name, make in PEERS.items():
        if (side := make(plans)) is not None:
            sides[name] = side
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(steps + 2):
        for name, side in sides.items():
            side.prepare()
            start = time.perf_counter()
            side.step()
            if turn >= 2:
                seconds[name].append(time.perf_counter() - start)
    mine = seconds.pop("MuonClip")
    peers = {}
    for name, theirs in seconds.items():
        ratio, interval = ratio_with_interval(theirs, mine)
        peers[name] = {"ms": 1e3 * statistics.median(theirs), "ratio": ratio, "ci95": interval, "seconds": theirs}
        print(f"{name}: {ratio:.2f}x", flush=True)
    return {
        "parameters": sum(plan.parameter.numel() for plan in plans),
        "matrices": sum(plan.matrices for plan in plans),
        "ours_ms": 1e3 * statistics.median(mine),
        "ours_seconds": mine,
        "singular": singular,
        "peers": peers,
    }


class Side:
    """An optimizer's step with gradients that are the same each time: heavyball takes them away, others change them."""

    def __init__(self, step: Callable[[], object], parameters: list[Any]) -> None:
        self.step = step
        self._gradients = [(parameter, parameter.grad.clone()) for parameter in parameters]

    def prepare(self) -> None:
        for parameter, gradient in self._gradients:
            if parameter.grad is None:
                parameter.grad = gradient.clone()
            else:
                parameter.grad.copy_(gradient)


def singular_values(plans: list[Plan]) -> dict[str, float]:
    """Of the first matrix of every shape, before Newton-Schulz and after it."""
    import torch

    from openk2.optim.newton_schulz import COEFFICIENTS, newton_schulz

    a, b, c = COEFFICIENTS
    seen: set[tuple[int, int]] = set()
    after, exact, well = [], [], []
    for plan in plans:
        if plan.method == "muon" and (plan.rows, plan.cols) not in seen:
            seen.add((plan.rows, plan.cols))
            assert plan.parameter.grad is not None
            matrix_RC = plan.view(plan.parameter.grad)[0]
            value = torch.linalg.svdvals(matrix_RC.double()) / matrix_RC.norm()
            well.append(value >= 0.01)
            for _ in range(5):
                value = a * value + b * value**3 + c * value**5
            # The polynomial does not keep the order.
            exact.append(value.sort(descending=True)[0])
            after.append(torch.linalg.svdvals(newton_schulz(matrix_RC).double()))
    ours, wanted, large = torch.cat(after), torch.cat(exact), torch.cat(well)
    return {
        "smallest": float(ours[large].min()),
        "largest": float(ours.max()),
        "gap": float((ours - wanted).abs().max()),
    }


def copies(plans: list[Plan], flat: bool) -> tuple[list[Any], list[Any]]:
    """Own weights with the same gradients, for Muon and for AdamW; `flat` makes every matrix a parameter."""
    from torch import nn

    muon, adam = [], []
    for plan in plans:
        weight, grad = plan.parameter.detach().clone(), plan.parameter.grad
        assert grad is not None
        if plan.method == "adamw":
            parts = [(weight, grad)]
        elif flat:
            parts = list(zip(plan.view(weight), plan.view(grad), strict=True))
        else:
            # Gate and up, which lie on top of each other, are two matrices for everybody.
            parts = [(plan.view(weight).squeeze(0), plan.view(grad).squeeze(0))]
        for value, gradient in parts:
            parameter = nn.Parameter(value)
            parameter.grad = gradient.clone()
            (muon if plan.method == "muon" else adam).append(parameter)
    return muon, adam


def both(first: Any, muon: list[Any], adam: list[Any]) -> Side:
    """A Muon and torch's AdamW as one."""
    import torch

    second = torch.optim.AdamW(adam, lr=LR, weight_decay=DECAY, betas=(0.9, 0.95), fused=True)

    def step() -> None:
        first.step()
        second.step()

    return Side(step, muon + adam)


def torch_muon(plans: list[Plan]) -> Side:
    import torch

    muon, adam = copies(plans, flat=True)
    return both(torch.optim.Muon(muon, lr=LR, weight_decay=DECAY, adjust_lr_fn="match_rms_adamw"), muon, adam)


def keller_jordan(plans: list[Plan]) -> Side | None:
    if importlib.util.find_spec("muon") is None:
        return None
    from muon import SingleDeviceMuon

    muon, adam = copies(plans, flat=False)
    return both(SingleDeviceMuon(muon, lr=LR, weight_decay=DECAY), muon, adam)


def heavyball(plans: list[Plan]) -> Side | None:
    if importlib.util.find_spec("heavyball") is None:
        return None
    from heavyball import Muon

    muon, adam = copies(plans, flat=True)
    return both(Muon(muon, lr=LR, weight_decay=DECAY, compile_step=False), muon, adam)


PEERS: dict[str, Callable[[list[Plan]], Side | None]] = {
    "torch.optim.Muon": torch_muon,
    "KellerJordan/Muon": keller_jordan,
    "heavyball": heavyball,
}


if __name__ == "__main__":
    main()
