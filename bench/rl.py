"""Reinforcement learning: this project's rollouts and optimiser step against TRL's GRPOTrainer, on nano's weights.

    ./k2 bench rl --trl PYTHON                # PYTHON is that of an environment with trl, transformers and torch
    ./k2 bench rl --trl PYTHON --prompts 4 --samples 4 --most 48 --rounds 2    # a short one

Tasks are the first turn of `functions`: a request, declared tools, at most so many tokens, one reward by one function
that both sides call. TRL gets the ids of the prompts, and generates by transformers (with its cache, no vLLM). Its
trainer runs in a process of its own, in turns with ours, with as many threads, in the fastest of its configurations,
found first: precision, experts, attention, rows of a micro-batch; without gradient checkpointing, which costs time.
Ours has the faster of bfloat16 and float32.

Rollouts: seconds from the tasks to rewarded episodes; TRL's are those of its generate-and-score step. Step: forward,
backward and update on the same episodes, ours, whose rewards are set so that they differ within every group (a group
without a difference costs us nothing). TRL's has AdamW and the GRPO loss without KL, ours MuonClip, K2's objective and
QK-Clip's monitor. Both learn with a rate so small that all rounds see the start weights.

First, in fp32: the log-probs of two completions must agree within 1e-3, and greedy completions of all prompts may part
only where the two likeliest tokens are closer than 1e-3.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

sys.path.insert(0, str(Path(__file__).parent))
from _common import add_out, enter_child, machine, parser_of, ratio_with_interval, table, write_results
from _trl import peak_mb, reward

LR = 1e-9
NANO = Path(__file__).parent.parent / "src" / "openk2" / "weights" / "nano"


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--trl", metavar="PYTHON", required=True, help="a Python with trl")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--samples", type=int, default=8, help="K, samples of each prompt")
    parser.add_argument("--most", type=int, default=128, help="most tokens of a completion")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds of each side")
    parser.add_argument("--threads", type=int, default=2, help="of each side")
    add_out(parser)
    options = parser.parse_args()
    if min(options.prompts, options.most, options.threads) < 1:
        parser.error("prompts, most and threads must be at least 1")
    if min(options.samples, options.rounds) < 2:
        parser.error("samples and rounds must be at least 2: one has no difference and no interval")
    enter_child(options.threads)
    try:
        subprocess.run([options.trl, "-c", "import trl, datasets"], capture_output=True, text=True, check=True)
    except OSError as e:
        parser.error(f"{options.trl} cannot be run ({e.strerror}): name the Python of an environment with trl")
    except subprocess.CalledProcessError as e:
        parser.error(f"{options.trl} has no trl ({e.stderr.strip().splitlines()[-1]}): pip install trl there")
    import torch

    torch.set_num_threads(options.threads)
    measure(options)


def measure(options: argparse.Namespace) -> None:
    tasks = tasks_of(options.prompts)
    with peer_of(options, tasks) as peer:
        gates = check(options, tasks, peer)
        best, variants = fastest(options, tasks, peer)
    dtype, dtypes = our_dtype(options, tasks)
    ours = Ours(options, tasks, dtype)
    with peer_of(options, tasks) as peer:
        begun = peer.begin(best)
        seconds: dict[str, dict[str, list[float]]] = {"rollouts": {}, "step": {}}
        said: dict[str, list[int]] = {"ours": [], "theirs": []}
        rewards: dict[str, list[float]] = {"ours": [], "theirs": []}
        trained: list[int] = []
        # The first round warms both up.
        for number in range(options.rounds + 1):
            episodes, ours_rollouts = ours.rollouts(number)
            theirs_rollouts = peer.ask(do="rollouts", seed=number)
            ours_step = ours.step(episodes)
            theirs_step = peer.ask(**step_of(options, episodes))
            if number == 0:
                continue
            for what, mine, other in (
                ("rollouts", ours_rollouts, theirs_rollouts["seconds"]),
                ("step", ours_step, theirs_step["seconds"]),
            ):
                seconds[what].setdefault("ours", []).append(mine)
                seconds[what].setdefault("theirs", []).append(other)
            said["ours"].append(sum(len(one.said) for one in episodes))
            said["theirs"].append(theirs_rollouts["tokens"])
            rewards["ours"].append(statistics.fmean(one.reward for one in episodes))
            rewards["theirs"].append(theirs_rollouts["reward"])
            trained.append(sum(len(one.prompt) + len(one.said) for one in episodes))
        memory = {"ours": peak_mb(), "theirs": peer.ask(do="stop")["peak_mb"]}
    compared = {what: compared_of(both) for what, both in seconds.items()}
    result = {
        "what": "single-turn rollouts with reward, and the optimiser step on the same episodes",
        "config": {k: v for k, v in vars(options).items() if k not in ("out", "trl")},
        "machine": machine(),
        "peer_versions": begun["versions"],
        "gates": gates,
        "our_dtypes_seconds": dtypes,
        "our_dtype": dtype,
        "peer_variants_seconds": variants,
        "peer_variant": best,
        "episodes": options.prompts * options.samples,
        "prompt_ids": [len(task.ids) for task in tasks],
        "said_tokens": said,
        "step_tokens": trained,
        "mean_reward": rewards,
        "circles_cut_short": ours.circles,
        **compared,
        "peak_mb": memory,
    }
    write_results(options.out, "rl", result, as_markdown(options, result))


@dataclass(frozen=True, slots=True)
class FirstTurn:
    """A request with its tools, the prompt's ids, and the ids that the expert answers with."""

    messages: Sequence[Any]
    tools: Sequence[Any]
    ids: list[int]
    expected: list[int]


@dataclass(frozen=True, slots=True)
class Said:
    """One of our episodes."""

    group: int
    prompt: tuple[int, ...]
    said: tuple[int, ...]
    logprobs: tuple[float, ...]
    reward: float


def tasks_of(count: int) -> list[FirstTurn]:
    """The first turns of `count` tasks that nano was not trained on."""
    from openk2.chat import nano_tokenizer, render
    from openk2.core.families import get_family

    tokenizer, family = nano_tokenizer(), get_family("functions")
    found = []
    for seed in range(count):
        shown = family.demonstrate(family.sample("test", seed))
        turn = next(i for i, message in enumerate(shown.messages) if message.role == "assistant")
        before = shown.messages[:turn]
        ids = render(before, shown.tools, tokenizer=tokenizer, add_generation_prompt=True).ids
        whole = render(shown.messages[: turn + 1], shown.tools, tokenizer=tokenizer).ids
        assert whole[: len(ids)] == ids
        found.append(FirstTurn(before, shown.tools, list(ids), list(whole[len(ids) :])))
    return found


class Ours:
    """The learner, and the engine that shares its weights, as the trainer behind `./k2 rl run` has them."""

    def __init__(self, options: argparse.Namespace, tasks: Sequence[FirstTurn], dtype: str) -> None:
        import torch

        from openk2.chat import nano_tokenizer
        from openk2.engine import Engine
        from openk2.model import load
        from openk2.rl.learner import Learner
        from openk2.rl.recipe import RLRecipe
        from openk2.train.ranks import Ranks

        self._options, self._tasks = options, tasks
        at_once = len(tasks) * options.samples
        recipe = RLRecipe.model_validate(
            {
                "name": "bench",
                "start": "nano",
                "workers": 1,
                "iterations": 1000,
                "families": {"functions": {"prompts": len(tasks)}},
                "objective": {"lr": LR},
            }
        )
        tokenizer = nano_tokenizer()
        self._learner = Learner(
            load(NANO, dtype=torch.float32), recipe, tokenizer.pad_id, Ranks(), dtype=getattr(torch, dtype)
        )
        self._engine = Engine(self._learner.handover.model, tokenizer, max_batch=at_once, prefixes=at_once)
        self.circles = 0
        """How many generations went round in a circle and were cut short."""

    def rollouts(self, number: int) -> tuple[list[Said], float]:
        """Rewarded episodes, K of each task, and the seconds that they took."""
        from openk2.rl.sampler import Sampler, Seat

        async def play(seat: Seat, group: int, sample: int) -> Said:
            task = self._tasks[group]
            seed = (number * len(self._tasks) + group) * self._options.samples + sample
            policy = seat.policy(grammar=False, temperature=1.0, seed=seed)
            turn = await policy.act(task.messages, task.tools, max_tokens=self._options.most)
            assert list(turn.prompt_ids) == task.ids
            self.circles += seat.circles
            earned = reward(turn.completion_ids, task.expected)
            return Said(group, turn.prompt_ids, turn.completion_ids, turn.logprobs, earned)

        def job(group: int, sample: int) -> Any:
            return lambda seat: play(seat, group, sample)

        began = time.perf_counter()
        jobs = [job(group, sample) for group in range(len(self._tasks)) for sample in range(self._options.samples)]
        episodes = Sampler(self._engine).run(jobs, len(jobs))
        return episodes, time.perf_counter() - began

    def step(self, episodes: Sequence[Said]) -> float:
        """Seconds of an update on the episodes, with `spread` rewards."""
        began = time.perf_counter()
        rewards = spread(self._options, len(episodes))
        mean = statistics.fmean(rewards)
        samples = [sample_of(one, earned - mean) for one, earned in zip(episodes, rewards, strict=True)]
        assert self._learner.update(samples, [], [], first=True) is not None
        return time.perf_counter() - began


def our_dtype(options: argparse.Namespace, tasks: Sequence[FirstTurn]) -> tuple[str, dict[str, float]]:
    """The dtype in which our iteration is shortest, and the seconds of each. What they need counts in our memory."""
    found: dict[str, float] = {}
    for dtype in ("bfloat16", "float32"):
        ours = Ours(options, tasks, dtype)
        for number in range(2):
            episodes, seconds = ours.rollouts(number)
            found[dtype] = seconds + ours.step(episodes)
        print(f"ours, {dtype}: {found[dtype]:.2f} s", flush=True)
    return min(found, key=lambda dtype: found[dtype]), found


def sample_of(one: Said, advantage: float) -> Any:
    """What the learner learns from of an episode."""
    from openk2.rl.episodes import TokenSequence
    from openk2.rl.objective import Sample

    before = len(one.prompt)
    said = (False,) * before + (True,) * len(one.said)
    logprobs = (float("nan"),) * before + one.logprobs
    return Sample((TokenSequence(one.prompt + one.said, said, logprobs),), advantage, one.group)


def spread(options: argparse.Namespace, count: int) -> list[float]:
    """Rewards that are all different within each group: nobody can leave a sample out."""
    return [i % options.samples / (options.samples - 1) for i in range(count)]


def step_of(options: argparse.Namespace, episodes: Sequence[Said]) -> dict[str, Any]:
    """What TRL is told: a step on these episodes."""
    return {"do": "step", "completions": [one.said for one in episodes], "rewards": spread(options, len(episodes))}


@dataclass(frozen=True, slots=True)
class Peer:
    """TRL in a process of its own. `common` is what all its trainers have."""

    process: subprocess.Popen[str]
    errors: IO[str]
    common: dict[str, Any]

    def begin(self, variant: dict[str, Any]) -> dict[str, Any]:
        """A new trainer, until it is told to stop."""
        return self.ask(**self.common, **variant)

    def ask(self, **what: Any) -> dict[str, Any]:
        """What it answers. Raises SystemExit with its last words if it does not."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with suppress(BrokenPipeError):
            print(json.dumps(what), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            raise SystemExit(f"TRL's process ended: {self.errors.read()[-2000:]}")
        found: dict[str, Any] = json.loads(line)
        return found


@contextmanager
def peer_of(options: argparse.Namespace, tasks: Sequence[FirstTurn]) -> Iterator[Peer]:
    """TRL's process, which ends with the block."""
    common = {
        "model": str(NANO),
        "prompts": [task.ids for task in tasks],
        "expected": [task.expected for task in tasks],
        "samples": options.samples,
        "most": options.most,
        "threads": options.threads,
        "lr": LR,
    }
    command = [options.trl, str(Path(__file__).with_name("_trl.py"))]
    pipe = subprocess.PIPE
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, text=True) as process,
    ):
        try:
            yield Peer(process, errors, common)
        except BaseException:
            process.kill()
            raise


def check(options: argparse.Namespace, tasks: Sequence[FirstTurn], peer: Peer) -> dict[str, Any]:
    """Both compute the same in fp32, or nothing is measured."""
    import torch

    from openk2.chat import nano_tokenizer
    from openk2.engine import Engine, Request
    from openk2.model import load
    from openk2.rl.objective import micro_batches, said_logprobs

    model, tokenizer = load(NANO, dtype=torch.float32).eval(), nano_tokenizer()
    begun = peer.begin({"precision": "float32", "experts": "grouped_mm", "attention": "sdpa", "rows": options.samples})
    if begun["ends"] != [tokenizer.eos_id]:
        raise SystemExit(f"TRL ends a turn at {begun['ends']} and we at {tokenizer.eos_id}: nothing is measured")
    prompt, first = tuple(tasks[0].ids), tuple(tasks[0].expected)
    completions = first, first[::-1]
    samples = [sample_of(Said(0, prompt, said, (0.0,) * len(said), 0.0), 1.0) for said in completions]
    (batch,) = micro_batches(samples, 10**6)
    with torch.no_grad():
        ours = said_logprobs(model, batch.ids_T, batch.targets_T, batch.branches).tolist()
    theirs: list[float] = []
    for said in completions:
        theirs += peer.ask(do="logprobs", ids=prompt + said, said=len(said))["logprobs"]
    gap = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
    if not gap <= 1e-3:
        raise SystemExit(f"the log-probs differ by {gap:.2e}, more than 1e-3: nothing is measured")
    requests = [Request(tuple(task.ids), options.most, grammar=False) for task in tasks]
    greedy = [list(one.ids) for one in Engine(model, tokenizer).generate(requests)]
    other = peer.ask(do="greedy")["completions"]
    peer.ask(do="stop")
    parted = 0
    for task, mine, their in zip(tasks, greedy, other, strict=True):
        if mine == their:
            continue
        parted += 1
        same = next(
            (i for i, (a, b) in enumerate(zip(mine, their, strict=False)) if a != b), min(len(mine), len(their))
        )
        with torch.no_grad():
            top = model(torch.tensor([task.ids + mine[:same]]))[0, -1].topk(2).values
        if top[0] - top[1] > 1e-3:
            raise SystemExit(f"greedy completions part at a clear choice, token {same}: nothing is measured")
    return {
        "logprob_gap_fp32": gap,
        "greedy_texts_that_differ": parted,
        "greedy_mean_reward": {
            name: statistics.fmean(reward(said, task.expected) for task, said in zip(tasks, texts, strict=True))
            for name, texts in (("ours", greedy), ("theirs", other))
        },
    }


def fastest(
    options: argparse.Namespace, tasks: Sequence[FirstTurn], peer: Peer
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """TRL's configuration with the shortest iteration (rollouts and a step), and the seconds of all that were tried.

    Precision and experts in all combinations, then attention and rows of a micro-batch at the best of them.
    """
    found: list[dict[str, Any]] = []
    said = [task.expected[: options.most] for task in tasks for _ in range(options.samples)]
    step = {"do": "step", "completions": said, "rewards": spread(options, len(said))}

    def attempt(variant: dict[str, Any]) -> None:
        peer.begin(variant)
        rollouts, update = peer.ask(do="rollouts", seed=0)["seconds"], peer.ask(**step)["seconds"]
        peer.ask(do="stop")
        found.append({"variant": variant, "rollouts": rollouts, "step": update})
        print(f"peer, {spoken(variant)}: rollouts {rollouts:.2f} s, step {update:.2f} s", flush=True)

    def best() -> dict[str, Any]:
        variant: dict[str, Any] = min(found, key=lambda one: one["rollouts"] + one["step"])["variant"]
        return variant

    for precision in ("float32", "bf16 autocast", "bf16 weights"):
        for experts in ("grouped_mm", "eager"):
            attempt({"precision": precision, "experts": experts, "attention": "sdpa", "rows": options.samples})
    attempt(best() | {"attention": "eager"})
    if options.prompts % 2 == 0:
        attempt(best() | {"rows": 2 * options.samples})
    return best(), found


def spoken(variant: dict[str, Any]) -> str:
    return "{precision}, {experts} experts, {attention} attention, {rows} rows".format(**variant)


def compared_of(both: dict[str, list[float]]) -> dict[str, Any]:
    ratio, interval = ratio_with_interval(both["theirs"], both["ours"])
    return {"ours_seconds": both["ours"], "theirs_seconds": both["theirs"], "ratio": ratio, "ratio_ci95": interval}


def as_markdown(options: argparse.Namespace, found: dict[str, Any]) -> str:
    """What was measured, in a table."""

    def rates(amounts: Sequence[float], seconds: Sequence[float]) -> float:
        return statistics.median(amount / each for amount, each in zip(amounts, seconds, strict=True))

    def row(
        name: str, what: str, ours: Sequence[float], theirs: Sequence[float], digits: int, ratio: bool
    ) -> list[str]:
        measured = found[what]
        low, high = measured["ratio_ci95"]
        return [
            name,
            f"{rates(ours, measured['ours_seconds']):,.{digits}f}",
            f"{rates(theirs, measured['theirs_seconds']):,.{digits}f}",
            f"**{measured['ratio']:.2f}x** ({low:.2f} to {high:.2f})" if ratio else "",
        ]

    episodes, ones, said = [found["episodes"]] * options.rounds, [1] * options.rounds, found["said_tokens"]
    memory, gates, tokens = found["peak_mb"], found["gates"], found["step_tokens"]
    rows = [
        row("rollouts: episodes/s", "rollouts", episodes, episodes, 2, True),
        row("rollouts: tokens said/s", "rollouts", said["ours"], said["theirs"], 0, False),
        row("optimiser steps/s", "step", ones, ones, 3, True),
        row("step: tokens of its episodes/s", "step", tokens, tokens, 0, False),
        [
            "peak memory, MB",
            f"{memory['ours']:,}",
            f"{memory['theirs']:,}",
            f"{memory['theirs'] / memory['ours']:.2f}x",
        ],
    ]
    greedy = gates["greedy_mean_reward"]
    mean = {side: statistics.fmean(values) for side, values in found["mean_reward"].items()}
    versions = ", ".join(f"{name} {number}" for name, number in found["peer_versions"].items())
    return (
        f"# Reinforcement learning: nano, {options.prompts} prompts, {options.samples} samples each, at most "
        f"{options.most} tokens, {options.threads} thread(s)\n\n"
        + table(("", "openk2", "TRL", "ratio (95 % interval)"), rows)
        + f"\nOurs: {found['our_dtype']}. Peer: {versions}; {spoken(found['peer_variant'])}. fp32 log-probs agree "
        f"within {gates['logprob_gap_fp32']:.1e}; greedy completions that differ: {gates['greedy_texts_that_differ']} "
        f"of {options.prompts}, mean reward {greedy['ours']:.3f} and {greedy['theirs']:.3f}. Sampled: mean reward "
        f"{mean['ours']:.3f} and {mean['theirs']:.3f}.\n"
    )


if __name__ == "__main__":
    main()
