"""A family without demonstrations, found by reinforcement learning alone.

    ./k2 bench rl_explore --work FOLDER                  # one seed, two cores, half an hour alone
    ./k2 bench rl_explore --work FOLDER --iterations 2 --n 20 --k 4    # a short one

`instructions:keyword` asks for an answer about a topic that has a given word in it a given number of times. nano, which
was never shown an answer to such a request, begins; what it finds is then tried greedily on tasks that it never saw:
with the words and phrasings of training, with words that training does not have, with phrasings that it does not have,
and with both, which is the family's test split. Before that, pass@k of the start on that split, and how often an answer
passes that only says the request again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from _common import add_out, machine, parser_of, table, write_results
from _rl import ROOT, made, player

from openk2.core import Split, Task
from openk2.core.families import get_family
from openk2.core.rates import Tally
from openk2.rl.gym.instructions import phrased

FAMILY, BUDGET, STEPS = "instructions:keyword", 32, 2
NANO = ROOT / "src" / "openk2" / "weights" / "nano"
FIRST = 700_000
"""No run comes to a task of training as far behind."""
SPLITS: tuple[Split, Split] = ("train", "test")


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--work", type=Path, required=True, metavar="FOLDER", help="where the runs are made")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--iterations", type=int, default=160)
    parser.add_argument("--n", type=int, default=200, help="tasks of each kind")
    parser.add_argument("--k", type=int, default=64, help="samples of each task, of the start")
    add_out(parser)
    options = parser.parse_args()
    if min(options.iterations, options.n, options.k) < 1 or min(options.seeds) < 0:
        parser.error("iterations, n and k must be at least 1, seeds at least 0")
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    start = measured(NANO, work / "start.json", options.n, options.k)
    runs = []
    for seed in options.seeds:
        run = work / f"seed-{seed}"
        seconds = explored(run, options.iterations, seed)
        runs.append(
            {"seed": seed, "seconds": round(seconds, 1), **measured(run / "instruct", run / "rates.json", options.n)}
        )
    result = {
        "what": f"{FAMILY} within {BUDGET} tokens, greedy, from nano",
        "config": {"seeds": options.seeds, "iterations": options.iterations, "n": options.n, "k": options.k},
        "machine": machine(),
        "start": start,
        "runs": runs,
    }
    write_results(options.out, "rl_explore", result, markdown(start, runs))


def explored(run: Path, iterations: int, seed: int) -> float:
    """Make the run, unless it is there; how many seconds it took."""
    return made(
        run,
        ["rl", "run", "recipes/nano-rl.toml"],
        {"seed": seed, "iterations": iterations, "eval.n": 50, "eval.every": 20, "eval.families": "[]",
         "families": f'{{"{FAMILY}"={{prompts=64,budget={BUDGET},turn_tokens={BUDGET},steps={STEPS}}}}}',
         "objective.lr": 0.0005, "rollout.samples": 16, "rollout.final_temperature": 1.0,
         "ptx.weight": 0, "ptx.families": "{}", "critic.weight": 0, "critic.valid": 0},
    )  # fmt: skip


def tasks(words: Split, phrasing: Split, n: int) -> Iterator[Task]:
    """Tasks with the words of one split, in the phrasings of another."""
    family = get_family(FAMILY)
    for seed in range(FIRST, FIRST + n):
        task = family.sample(words, seed)
        yield task if words == phrasing else phrased(task, phrasing)


def measured(model: Path, note: Path, n: int, k: int = 0) -> dict[str, Any]:
    """Greedy success by the splits of words and phrasings; with `k` also pass@k, and that of saying the request."""
    if note.exists():
        return dict(json.loads(note.read_text()))
    play = player(model, FAMILY, STEPS)

    def rate(asked: list[Task], k: int, temperature: float) -> dict[str, Any]:
        tried = play(asked, BUDGET, k, temperature)
        return Tally(len(asked), sum(any(episode.passed for episode in samples) for samples in tried)).to_json()

    found: dict[str, Any] = {}
    for words in SPLITS:
        for phrasing in SPLITS:
            asked = list(tasks(words, phrasing, n))
            found[f"{words} words, {phrasing} phrasings"] = rate(asked, 1, 0.0)
    if k:
        asked = list(tasks("test", "test", n))
        found[f"pass@{k}"] = rate(asked, k, 1.0)
        family = get_family(FAMILY)
        found["request said again"] = Tally(n, sum(bool(family.check(t, t.request).passed) for t in asked)).to_json()
    note.write_text(json.dumps(found))
    return found


def markdown(start: dict[str, Any], runs: list[dict[str, Any]]) -> str:
    def said(rate: dict[str, Any]) -> str:
        low, high = rate["ci95"]
        return f"{100 * rate['rate']:.1f} ({100 * low:.1f} to {100 * high:.1f})"

    heads = (
        "% of tasks never tried, n, 95 %",
        "nano",
        *(f"seed {run['seed']}, {run['seconds']:.0f} s" for run in runs),
    )
    rows = [
        [f"{key}, n = {rate['n']}", said(rate), *(said(run[key]) if key in run else "" for run in runs)]
        for key, rate in start.items()
    ]
    return f"`{FAMILY}` within {BUDGET} tokens, greedy, without demonstrations\n\n{table(heads, rows)}"


if __name__ == "__main__":
    main()
