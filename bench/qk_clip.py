"""What QK-Clip costs: a whole training step without it, watched with no head over the threshold, and with a tenth over.

    ./k2 bench qk_clip --steps 15

Three copies of the same weights take the same steps in turns: forward and backward on bf16 copies of fp32 weights, and
MuonClip; who begins changes with every turn. `nano, 512` computes attention in blocks, which see their logits;
`nano, 2048` and `llama, 2048` (a small one of transformers) use torch's flash kernel, whose log-sum-exp bounds them.
Queries are scaled up until the largest logits are near 100, as in a run that needs clipping, and the clipped copy's
queries and keys are put back after every step, so that the same heads are over the threshold each time. Before any
timing a tenth of the heads must be clipped, and the first layer's exact maxima after the clip, in bf16, must not exceed
the threshold by more than 2 %.
"""

from __future__ import annotations

import copy
import math
import statistics
import time
from typing import Any, cast

from _common import arguments_in_child, machine, ratio_with_interval, table, write_results

CASES = {"nano, 512": (8, 512), "nano, 2048": (2, 2048), "llama, 2048": (2, 2048), "test, 64": (2, 64)}
LARGEST = 100.0
LR = 1e-6


def main() -> None:
    arguments = arguments_in_child(__doc__, "--cases", CASES, list(CASES)[:3])
    results = {name: compare(name, arguments.steps) for name in arguments.cases}
    rows = [
        (name, f"{found['ms']:.0f}", *(f"{100 * (r - 1):+.1f} % ({100 * (lo - 1):+.1f} to {100 * (hi - 1):+.1f})"
         for r, (lo, hi) in (found["watched"], found["clipped"])), f"{found['heads_clipped']} of {found['heads']}")
        for name, found in results.items()
    ]  # fmt: skip
    header = ("model, tokens a row", "without ms", "watched, 95 % interval", "a tenth clipped", "heads")
    markdown = f"# QK-Clip in a training step, {arguments.threads} thread(s), {arguments.steps} steps in turns\n\n"
    write_results(arguments.out, "qk_clip", {"machine": machine(), "cases": results}, markdown + table(header, rows))


class Side:
    """One copy of the model and its loop. `threshold` None is MuonClip without a monitor."""

    def __init__(self, model: Any, ids_BT: Any, threshold: float | None) -> None:
        import torch

        from openk2.optim import MuonClip, attach_logit_monitor, attention_layers

        self.model, self.ids_BT = copy.deepcopy(model), ids_BT
        self.monitor = None if threshold is None else attach_logit_monitor(self.model, threshold)
        options: dict[str, Any] = {"attention": []} if threshold is None else {"qk_clip_threshold": threshold}
        self.optimizer = MuonClip(self.model, lr=LR, logit_monitor=self.monitor, **options)
        self.masters = dict(self.model.named_parameters())
        self.copies = {
            # The router stays fp32, as in training.
            name: (p.detach().clone() if "gate.weight" in name else p.detach().bfloat16()).requires_grad_()
            for name, p in self.masters.items()
        }
        self.before = {
            id(p): p.detach().clone()
            for layer in (attention_layers(self.model) if threshold is not None else [])
            for name, p in cast(torch.nn.Module, layer).named_parameters()
            if name.startswith(("q_", "k_", "kv_b"))
        }

    def step(self) -> Any:
        import torch

        loss_of(self.model, self.copies, self.ids_BT).backward()
        for name, master in self.masters.items():
            master.grad = self.copies[name].grad.float()
            self.copies[name].grad = None
        stats = self.optimizer.step()
        with torch.no_grad():
            torch._foreach_copy_(list(self.copies.values()), list(self.masters.values()))
        return stats

    def put_back(self) -> None:
        import torch

        with torch.no_grad():
            for name, master in self.masters.items():
                if id(master) in self.before:
                    master.copy_(self.before[id(master)])
                    self.copies[name].copy_(master)


def loss_of(model: Any, parameters: dict[str, Any], ids_BT: Any) -> Any:
    import torch
    import torch.nn.functional as F

    out = torch.func.functional_call(model, parameters, (ids_BT[:, :-1],))
    return F.cross_entropy(getattr(out, "logits", out).flatten(0, 1).float(), ids_BT[:, 1:].flatten())


def exact_maxima(model: Any, parameters: dict[str, Any], ids_BT: Any) -> Any:
    """Per layer and head, with every head looked at."""
    import torch

    from openk2.optim import attach_logit_monitor

    model = copy.deepcopy(model).train()
    monitor = attach_logit_monitor(model, -math.inf)
    with torch.no_grad():
        loss_of(model, parameters, ids_BT)
    return monitor.max_logit_LH


def compare(name: str, steps: int) -> dict[str, Any]:
    import torch

    torch.manual_seed(0)
    model = make(name).train()
    rows, length = CASES[name]
    ids_BT = torch.randint(0, 256, (rows, length + 1))
    threshold = scale_up(model, ids_BT)
    sides = {"without": Side(model, ids_BT, None), "watched": Side(model, ids_BT, 1e9)}
    sides["clipped"] = Side(model, ids_BT, threshold)
    stats = sides["clipped"].step()
    wanted = max(1, round(0.1 * stats.heads))
    after = exact_maxima(model, sides["clipped"].copies, ids_BT)[0]
    if stats.clipped_heads != wanted or float(after.max()) > threshold * 1.02:
        raise SystemExit(f"{name}: {stats.clipped_heads} heads were clipped and not {wanted}: nothing is measured")
    sides["clipped"].put_back()
    seconds: dict[str, list[float]] = {key: [] for key in sides}
    turns = list(sides.items())
    for turn in range(steps + 2):
        # Whoever comes first in a turn is a few percent slower; so everybody does, equally often.
        turns.append(turns.pop(0))
        for key, side in turns:
            start = time.perf_counter()
            side.step()
            if turn >= 2:
                seconds[key].append(time.perf_counter() - start)
            side.put_back()
    return {
        "ms": 1e3 * statistics.median(seconds["without"]),
        "watched": ratio_with_interval(seconds["watched"], seconds["without"]),
        "clipped": ratio_with_interval(seconds["clipped"], seconds["without"]),
        "heads": stats.heads,
        "heads_clipped": stats.clipped_heads,
        "threshold": threshold,
        "seconds": seconds,
    }


def make(name: str) -> Any:
    if name.startswith("llama"):
        from transformers import LlamaConfig, LlamaForCausalLM

        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=1024, hidden_size=256, intermediate_size=704, num_hidden_layers=5, num_attention_heads=8,
                num_key_value_heads=4, max_position_embeddings=2048,
            )
        )  # fmt: skip
    from openk2.model import ModelConfig, Transformer

    return Transformer(ModelConfig.preset(name.partition(",")[0]))


def scale_up(model: Any, ids_BT: Any) -> float:
    """Scale the queries until the largest logit is near LARGEST; returns a threshold that a tenth of the heads pass."""
    import torch

    from openk2.optim import attention_layers

    def maxima() -> Any:
        copies = {
            name: p.detach() if "gate.weight" in name else p.detach().bfloat16() for name, p in model.named_parameters()
        }
        return exact_maxima(model, copies, ids_BT)

    # What a layer sees depends on the layers before it.
    for _ in range(4):
        with torch.no_grad():
            for index, (layer, max_logit_H) in enumerate(zip(attention_layers(model), maxima(), strict=True)):
                query: Any = layer.q_b_proj if hasattr(layer, "q_b_proj") else cast(Any, layer).q_proj
                # Not the same in all layers: the threshold has to pass between two heads.
                query.weight.mul_(LARGEST * (1 - 0.04 * index) / max_logit_H.max())
    ranked = maxima().flatten().sort(descending=True).values
    tenth = max(1, round(0.1 * len(ranked)))
    return float(ranked[tenth - 1 : tenth + 1].mean())


if __name__ == "__main__":
    main()
