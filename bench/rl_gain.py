"""Reinforcement learning against fine-tuning: from one checkpoint, on the same tasks, for as many minutes.

    ./k2 bench rl_gain --work FOLDER                 # five seeds, about three quarters of an hour
    ./k2 bench rl_gain --work FOLDER --seeds 0 --iterations 4 --n 100    # a short one

The tasks are `functions:single` within 66 tokens, held out by their words. Of 2,000 demonstrations every second, drawn
at random, says what a call is for before it makes it, which costs some 17 tokens; the others do not. nano, fine-tuned
on them, does both, and mostly falls to the budget where it does the first. From there, on two cores:

    rl          reinforcement learning, on the tasks of the demonstrations
    sft         fine-tuning goes on with all demonstrations, for as many seconds as `rl` took
    both        fine-tuning for half of the seconds, reinforcement learning with half of the iterations
    filtered    fine-tuning with the demonstrations alone that are within the budget, for as many seconds

`filtered` is what somebody would do who knows what the budget is for; the others are not told. Each checkpoint is then
measured greedily on the same held-out tasks, within the budget and without one. A run that is there is not made again.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from _common import add_out, machine, parser_of, table, write_results
from _rl import ROOT, made, player

from openk2.chat import Tokenizer, render
from openk2.core import Demonstration
from openk2.core.families import get_family
from openk2.core.rates import Tally
from openk2.rl.gym.catalogue import write_messages
from openk2.worlds.families.lexicon import make_rng

FAMILY, BUDGET, UNLIMITED = "functions:single", 66, 150
TASKS = 2000
START_TOKENS = 600_000
ARMS = ("start", "rl", "sft", "both", "filtered")
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""The 97.5 % quantiles of Student's t with one degree of freedom, two, ...: intervals of two seeds, three, ..."""


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--work", type=Path, required=True, metavar="FOLDER", help="where the runs are made")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--iterations", type=int, default=12, help="of `rl`")
    parser.add_argument("--n", type=int, default=500, help="held-out tasks")
    add_out(parser)
    options = parser.parse_args()
    if min(options.iterations, options.n) < 2 or min(options.seeds) < 0:
        parser.error("iterations and n must be at least 2, seeds at least 0")
    if len(set(options.seeds)) < len(options.seeds) or len(options.seeds) > len(STUDENT) + 1:
        parser.error(f"seeds must differ, and at most {len(STUDENT) + 1} be named")
    # The runs are made from another folder.
    options.work = options.work.resolve()
    options.work.mkdir(parents=True, exist_ok=True)
    write_pools(options.work)
    measured: dict[str, list[dict[str, Any]]] = {arm: [] for arm in ARMS}
    for seed in options.seeds:
        for arm, result in of_seed(options, seed).items():
            measured[arm].append(result)
    differences = {arm: difference(measured[arm], measured["sft"]) for arm in ("start", "rl", "both", "filtered")}
    result = {
        "what": f"{FAMILY} within {BUDGET} tokens, greedy, held out",
        "config": {"seeds": options.seeds, "iterations": options.iterations, "n": options.n},
        "machine": machine(),
        "arms": measured,
        "less_sft": differences,
    }
    write_results(options.out, "rl_gain", result, markdown(options, measured, differences))


# --- demonstrations -----------------------------------------------------------------------------------------------


def write_pools(work: Path) -> None:
    """All demonstrations of both habits, and those that are within the budget."""
    tokenizer = Tokenizer.load(ROOT / "src" / "openk2" / "weights" / "nano")
    everything = list(demonstrations())
    write_messages(work / "sft.jsonl", everything)
    write_messages(work / "filtered.jsonl", [one for one in everything if said(tokenizer, one) <= BUDGET])


def demonstrations() -> Iterator[Demonstration]:
    family = get_family(FAMILY)
    for seed in range(TASKS):
        shown = family.demonstrate(family.sample("train", seed))
        if make_rng("habits", "train", seed).random() < 0.5:
            yield shown
        else:
            yield replace(shown, messages=tuple(replace(m, content="") if m.tool_calls else m for m in shown.messages))


def said(tokenizer: Tokenizer, shown: Demonstration) -> int:
    return sum(render(shown.messages, shown.tools, tokenizer=tokenizer).loss_mask)


# --- runs ---------------------------------------------------------------------------------------------------------


def of_seed(options: argparse.Namespace, seed: int) -> dict[str, dict[str, Any]]:
    """All checkpoints of one seed, made and measured."""
    work = options.work / f"seed-{seed}"
    start = work / "start"
    seconds = {"start": fine_tuned(start, "nano", options.work / "sft.jsonl", START_TOKENS, seed)}
    # What fine-tuning does in a second, with what it needs to begin.
    speed = START_TOKENS / seconds["start"]
    seconds["rl"] = reinforced(work / "rl", start / "instruct", options.iterations, seed)
    tokens = int(speed * seconds["rl"])
    for arm in ("sft", "filtered"):
        seconds[arm] = fine_tuned(work / arm, start / "instruct", options.work / f"{arm}.jsonl", tokens, seed)
    half = fine_tuned(work / "half", start / "instruct", options.work / "sft.jsonl", tokens // 2, seed)
    seconds["both"] = half + reinforced(work / "both", work / "half" / "instruct", options.iterations // 2, seed)
    return {
        arm: {"seed": seed, "seconds": round(seconds[arm], 1), **rates(work / arm / "instruct", options.n)}
        for arm in ARMS
    }


def fine_tuned(run: Path, start: str | Path, file: Path, tokens: int, seed: int) -> float:
    return made(
        run,
        ["train", "recipes/tune.toml"],
        {"start": start, "seed": seed, "episodes.files": json.dumps([str(file.resolve())]), "episodes.train": "{}",
         "sft.tokens": tokens, "sft.lr": 0.001, "sft.warmup_steps": 10},
    )  # fmt: skip


def reinforced(run: Path, start: Path, iterations: int, seed: int) -> float:
    # Nothing is measured within the run, so that all of its time is training.
    family = f'{{"{FAMILY}"={{prompts=32,budget={BUDGET},turn_tokens={BUDGET},steps=3}}}}'
    return made(
        run,
        ["rl", "run", "recipes/nano-rl.toml"],
        {"start": start.resolve(), "seed": seed, "families": family, "iterations": iterations, "eval.n": 2,
         "eval.every": 10_000, "eval.families": "[]", "ptx.weight": 0, "ptx.families": "{}", "critic.weight": 0,
         "critic.valid": 0, "rollout.samples": 8, "rollout.final_temperature": 1.0, "objective.updates": 2,
         "objective.lr": 0.0003},
    )  # fmt: skip


def rates(model: Path, n: int) -> dict[str, Any]:
    """Success of a checkpoint within the budget, task by task, and without one."""
    note = model.parent / f"rates-{n}.json"
    if note.exists():
        return dict(json.loads(note.read_text()))
    family, play = get_family(FAMILY), player(model, FAMILY, steps=3)
    tasks = [family.sample("test", i) for i in range(n)]
    found: dict[str, Any] = {}
    for name, budget in (("within", BUDGET), ("unlimited", UNLIMITED)):
        episodes = [episode for (episode,) in play(tasks, budget, 1, 0.0)]
        found[name] = Tally(n, sum(e.passed for e in episodes)).to_json()
        found[f"{name}_passed"] = "".join("01"[e.passed] for e in episodes)
        found[f"{name}_tokens"] = round(statistics.fmean(e.spent for e in episodes), 1)
    note.write_text(json.dumps(found))
    return found


# --- what is told -------------------------------------------------------------------------------------------------


def difference(arm: Sequence[dict[str, Any]], control: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """An arm less the control, by seed on the same tasks, and the mean with a 95 % interval over the seeds."""
    by_seed = [one["within"]["rate"] - other["within"]["rate"] for one, other in zip(arm, control, strict=True)]
    mean = statistics.fmean(by_seed)
    found: dict[str, Any] = {"by_seed": [round(d, 4) for d in by_seed], "mean": round(mean, 4)}
    if len(by_seed) > 1:
        half = STUDENT[len(by_seed) - 2] * statistics.stdev(by_seed) / math.sqrt(len(by_seed))
        found["ci95"] = [round(mean - half, 4), round(mean + half, 4)]
    return found


def markdown(
    options: argparse.Namespace, measured: dict[str, list[dict[str, Any]]], differences: dict[str, dict[str, Any]]
) -> str:
    def percent(share: float) -> str:
        return f"{100 * share:.1f}"

    rows = []
    for arm, results in measured.items():
        gap = differences.get(arm, {})
        interval = f" ({percent(gap['ci95'][0])} to {percent(gap['ci95'][1])})" if "ci95" in gap else ""
        rows.append(
            [
                arm,
                ", ".join(percent(one["within"]["rate"]) for one in results),
                ", ".join(str(one["within_tokens"]) for one in results),
                ", ".join(percent(one["unlimited"]["rate"]) for one in results),
                ", ".join(f"{one['seconds']:.0f}" for one in results),
                f"{percent(gap['mean'])}{interval}" if gap else "",
            ]
        )
    heads = ("arm", f"% within {BUDGET} tokens", "tokens", "% without budget", "seconds", "points above sft (95 %)")
    seeds = ", ".join(map(str, options.seeds))
    what = f"`{FAMILY}`, held out, greedy, n = {options.n}, {options.iterations} iterations, seeds {seeds}"
    return f"{what}\n\n{table(heads, rows)}"


if __name__ == "__main__":
    main()
