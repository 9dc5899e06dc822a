"""The loop of reinforcement learning on one rank: sample, judge, update, measure, save.

An iteration reads top to bottom in `Trainer.iterate`. Data-parallel ranks each sample and judge their groups and agree
on every update. All that an iteration does is a function of the state that was saved before it, so a killed run goes on
with the same bytes (clocks in `timings.jsonl` excepted).
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from openk2.chat import Tokenizer
from openk2.core import UserError
from openk2.core.families import is_verified, sample_task
from openk2.engine import Engine
from openk2.model import Transformer
from openk2.rl.critic import Critic, Pair, pairs_of
from openk2.rl.curriculum import Curriculum
from openk2.rl.demonstrations import Demonstrations, free_seeds, holds_back
from openk2.rl.episodes import Group, from_json, sequences_of, to_json, told_excluded
from openk2.rl.learner import Learner, Lesson, Update
from openk2.rl.measures import Measures
from openk2.rl.objective import Sample
from openk2.rl.recipe import RLRecipe
from openk2.rl.rollouts import Rollouts, new_group
from openk2.rl.rubrics import task_rubric
from openk2.train.checkpoint import load_latest, save_checkpoint
from openk2.train.folder import CHECKPOINTS, EXAMPLES, METRICS, TIMINGS
from openk2.train.logs import append, cut_back
from openk2.train.precision import compute_dtype
from openk2.train.ranks import Ranks

_DIVERGENCE_SAMPLES = 32


@dataclass(frozen=True, slots=True)
class Progress:
    """What an iteration looked like. Rates are shares, lengths tokens."""

    iteration: int
    iterations: int
    reward: float | None
    success: float | None
    episodes_per_second: float


class Trainer:
    """Reinforcement learning from `model` by `recipe` in `folder`; `identity` ties checkpoints to recipe and start."""

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        recipe: RLRecipe,
        folder: Path,
        *,
        identity: str = "",
        device: str = "cpu",
        group: dist.ProcessGroup | None = None,
        note: Callable[[str], None] = lambda _: None,
        progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.recipe = recipe
        self.folder = folder
        self.identity = identity
        self.note, self.progress = note, progress
        self.ranks = ranks = Ranks(group)
        at_once, context = recipe.rollout.at_once, model.config.max_position_embeddings
        self.critic = Critic(tokenizer, context)
        dtype = compute_dtype(recipe.objective.dtype, folder, ranks, device)
        self.learner = Learner(model, recipe, tokenizer.pad_id, ranks, device, self.critic.choices, dtype=dtype)
        self.engine = Engine(self.learner.handover.model, tokenizer, max_batch=at_once, prefixes=at_once)
        self.rollouts = Rollouts(self.engine, recipe.rollout, recipe.seed)
        self.demonstrations = Demonstrations(recipe, tokenizer, context, ranks)
        self.measures = Measures(
            recipe, self.rollouts, self.learner, self.critic, self.demonstrations, ranks, folder, note, progress
        )
        self.curricula = {name: Curriculum(name, config) for name, config in recipe.families.items()}
        self.begun = False
        """Whether the start was measured."""
        self.iteration = 0
        self.groups_made = 0
        self.bank: list[Group] = []
        self.start = {name: tensor.clone() for name, tensor in self.learner.handover.model.state_dict().items()}
        """The weights before the first iteration, for the divergence from them."""
        self.seconds: dict[str, float] = {}
        """Where this rank's time went in the last iteration."""

    # --- the loop -----------------------------------------------------------------------------------------------

    def run(
        self,
        on_iteration: Callable[[Progress], None] = lambda _: None,
        should_stop: Callable[[], bool] = lambda: False,
        on_begun: Callable[[], None] = lambda: None,
    ) -> bool:
        """Iterate to the end, or until `should_stop()` (asked on rank 0 once an iteration). Whether it is the end.

        `on_begun` is called when the start is measured and saved: before, there is nothing that could be lost.

        Raises UserError when training diverges or the disk is full; checkpoints of earlier iterations are then there.
        """
        if not self.begun:
            self._log({"iteration": 0, **self.measures.take()})
            self.begun = True
            self.save()
        on_begun()
        while self.iteration < self.recipe.iterations:
            line, episodes = self.iterate()
            self.iteration += 1
            last = self.iteration == self.recipe.iterations
            if last or self.iteration % self.recipe.eval.every == 0:
                clock = _Clock()
                line |= self.measures.take()
                clock.note("measure")
                self.seconds |= clock.seconds
            self._log(line)
            stop = self.ranks.any(self.ranks.first and should_stop())
            if last or stop or self.iteration % self.recipe.checkpoint_every == 0:
                self.save()
            success = line.get("success", {})
            rates = [one["rate"] for one in success.values()]
            on_iteration(
                Progress(
                    self.iteration,
                    self.recipe.iterations,
                    line["mean_reward"],
                    sum(rates) / len(rates) if rates else None,
                    episodes / sum(self.seconds.values()),
                )
            )
            if stop and not last:
                return False
        return True

    def iterate(self) -> tuple[dict[str, Any], int]:
        """One iteration; what is to be logged of it, and how many episodes ended in it."""
        temperature = self.recipe.temperature(self.iteration)
        groups = [*self.bank, *self._new_groups()]
        clock = _Clock()
        self.rollouts.go_on(groups, temperature, self.recipe.families, self._tell_share)
        clock.note("sample")
        finished = [group for group in groups if group.ended]
        self.bank = [group for group in groups if not group.ended]
        self._judge(finished)
        clock.note("judge")
        kl = self._divergence(finished)
        updates = self._update(finished)
        clock.note("update")
        self.seconds = clock.seconds
        everyone = self.ranks.join([_summary(group) for group in finished])
        new = [one for one in everyone if one["seed"] not in self.curricula[one["family"]].seen]
        self._observe(everyone)
        line = {
            "iteration": self.iteration + 1,
            "temperature": round(temperature, 4),
            **_of_groups(everyone),
            "passed_new": _by_family(new, "passed"),
            **_of_updates(updates),
            "kl": kl,
            "banked": sum(self.ranks.join([len(self.bank)])),
            "dropped_tasks": {name: curriculum.dropped for name, curriculum in self.curricula.items()},
        }
        return line, sum(len(one["episodes"]) for one in everyone)

    # --- sampling -----------------------------------------------------------------------------------------------

    def _new_groups(self) -> list[Group]:
        """This rank's share of the iteration's tasks, each with K samples. Numbers are the same whatever the ranks."""
        groups: list[Group] = []
        for name, curriculum in self.curricula.items():
            fresh = partial(free_seeds, name) if holds_back(self.recipe, name) else None
            for seed in curriculum.choose(self.recipe.seed, self.iteration, fresh):
                number, self.groups_made = self.groups_made, self.groups_made + 1
                if number % self.ranks.count == self.ranks.rank:
                    task = sample_task(name, "train", seed)
                    groups.append(new_group(number, name, task, self.recipe.rollout.samples, self.iteration))
        return groups

    def _judge(self, groups: Sequence[Group]) -> None:
        """Rewards of answers that no program can verify, by the policy as its own critic."""
        for group in groups:
            open_ = [e for e in group.episodes if not e.excluded and e.reward is None]
            if open_:
                rubric = task_rubric(str(group.task.data.get("rubric", "")) or group.task.request)
                answers = [e.trajectory.answer for e in open_ if e.trajectory is not None]
                rewards = self.critic.rewards(
                    self.learner.handover.model,
                    group.task.request,
                    rubric,
                    answers,
                    self.recipe.critic.opponents,
                    f"{self.recipe.seed} {group.number}",
                )
                for episode, reward in zip(open_, rewards, strict=True):
                    episode.reward = reward - sum(episode.penalties.values())

    def _tell_share(self, share: float) -> None:
        self.progress(f"sampling {share:.0%}")

    # --- learning -----------------------------------------------------------------------------------------------

    def _update(self, groups: Sequence[Group]) -> list[Update]:
        """The iteration's optimiser steps, each on its part of the groups."""
        count = self.recipe.objective.updates
        pairs = pairs_of([g for g in groups if self._teaches(g)], f"{self.recipe.seed} {self.iteration}")
        found: list[Update] = []
        for number in range(count):
            update = self.learner.update(
                [sample for group in groups[number::count] for sample in samples_of(group, self.iteration)],
                self.demonstrations.of_update(self.iteration, number),
                self._comparisons(pairs[number::count]),
                first=not found,
            )
            if update is not None:
                found.append(update)
        return found

    def _teaches(self, group: Group) -> bool:
        taught = self.recipe.critic.families
        return not taught or group.episodes[0].family in taught

    def _comparisons(self, pairs: Sequence[Pair]) -> list[Lesson]:
        critic = self.recipe.critic
        if not critic.weight:
            return []
        return list(self.critic.lessons(pairs[: max(1, critic.pairs // self.ranks.count)]))

    @torch.no_grad()
    def _divergence(self, groups: Sequence[Group]) -> float | None:
        """KL(policy before the updates, start), nats for each token, estimated on some of what it has just sampled."""
        samples = [sample for group in groups for sample in samples_of(group, self.iteration)[:1] if sample.fresh]
        return self.learner.divergence(samples[:_DIVERGENCE_SAMPLES], self.start)

    def _observe(self, groups: Sequence[dict[str, Any]]) -> None:
        """Count what became of the tasks; say when there is nothing to learn, and what was left out."""
        for one in groups:
            # A task of which no episode can be judged teaches as little as one that is never solved.
            rewards = [e["reward"] for e in one["episodes"]] or [0.0] * len(one["excluded"])
            self.curricula[one["family"]].observe(one["seed"], rewards)
        if self.ranks.first:
            for told in told_excluded((one["family"], reason) for one in groups for reason in one["excluded"]):
                self.note(f"iteration {self.iteration + 1}: {told}")
        if groups and not any(one["episodes"] for one in groups) and self.ranks.first:
            self.note(f"iteration {self.iteration + 1}: no episode could be judged, so there is nothing to learn")
        elif groups and not any(one["spread"] for one in groups) and self.ranks.first:
            self.note(
                f"iteration {self.iteration + 1}: the reward is the same in every group, so there is nothing to learn: "
                "take easier or harder tasks, more samples or a higher temperature"
            )

    # --- state --------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write a checkpoint of the state after `self.iteration` iterations."""
        bank = self.ranks.join([to_json(group) for group in self.bank])
        if not self.ranks.first:
            return
        state = {
            "identity": self.identity,
            "model": self.learner.model.state_dict(),
            "optimizer": self.learner.optimizer.state_dict(),
            "step": self.learner.step,
            "groups": self.groups_made,
            "bank": json.dumps(sorted(bank, key=lambda group: int(group["number"]))),
            "curricula": {name: curriculum.to_json() for name, curriculum in self.curricula.items()},
            "pairs": {name: [asdict(pair) for pair in pairs] for name, pairs in self.measures.pairs.items()},
            "start": self.start,
        }
        save_checkpoint(self.folder / CHECKPOINTS, self.iteration, state)

    def resume(self) -> bool:
        """Load the newest checkpoint, if there is one. Raises UserError if it is damaged or of another recipe."""
        found = load_latest(self.folder / CHECKPOINTS)
        if found is None:
            if self.ranks.first:
                for name in (METRICS, TIMINGS, EXAMPLES):
                    (self.folder / name).unlink(missing_ok=True)
            return False
        self.iteration, state = found
        if state.get("identity") != self.identity:
            raise UserError(
                f"the checkpoint of iteration {self.iteration} in {self.folder} was made with another recipe or start: "
                "go back to that recipe, or choose another run folder"
            )
        try:
            self.learner.model.load_state_dict(state["model"])
            self.learner.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, KeyError, ValueError) as e:
            raise UserError(
                f"the checkpoint of iteration {self.iteration} in {self.folder} is of another model: choose another "
                "run folder"
            ) from e
        self.begun = True
        self.learner.precision.refresh()
        self.learner.step = state["step"]
        self.groups_made = state["groups"]
        groups = [from_json(raw) for raw in json.loads(state["bank"])]
        self.bank = [group for group in groups if group.number % self.ranks.count == self.ranks.rank]
        for name, raw in state["curricula"].items():
            self.curricula[name].load_json(raw)
        self.measures.pairs = {name: [Pair(**raw) for raw in pairs] for name, pairs in state["pairs"].items()}
        self.start = state["start"]
        if self.ranks.first:
            for name in (METRICS, TIMINGS):
                cut_back(self.folder / name, "iteration", self.iteration)
        return True

    def _log(self, line: dict[str, Any]) -> None:
        if self.ranks.first:
            append(self.folder / METRICS, line)
            append(self.folder / TIMINGS, {"iteration": line["iteration"], **self.seconds})


class _Clock:
    """How long each part took, in seconds."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self.seconds: dict[str, float] = {}

    def note(self, what: str) -> None:
        now = time.monotonic()
        self.seconds[what], self._last = round(now - self._last, 2), now


def samples_of(group: Group, iteration: int) -> list[Sample]:
    """What is learned from of a group that has ended."""
    fresh = group.began == iteration
    pairs = zip(group.judged, group.advantages, strict=True)
    return [
        Sample(tuple(sequences_of(e.trajectory)), advantage, group.number, fresh)
        for e, advantage in pairs
        if e.trajectory is not None and e.trajectory.steps
    ]


def _summary(group: Group) -> dict[str, Any]:
    """What the other ranks need to know of a group that has ended."""
    judged = group.judged
    verified = is_verified(group.episodes[0].family)
    return {
        "family": group.episodes[0].family,
        "seed": group.task.seed,
        "spread": any(advantage != 0 for advantage in group.advantages),
        "excluded": [e.excluded for e in group.episodes if e.excluded],
        "episodes": [
            {
                "reward": e.reward, "passed": e.passed if verified else None, "tokens": e.spent,
                "over_budget": e.over_budget, "circles": e.circles, "segments": e.segments, "penalties": e.penalties,
                "stop": e.trajectory.stop if e.trajectory else "",
            }
            for e in judged
        ],
    }  # fmt: skip


def _of_groups(groups: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The log's numbers about episodes, by family."""
    every = [e for one in groups for e in one["episodes"]]
    names = sorted({name for e in every for name in e["penalties"]})
    return {
        "mean_reward": _mean([e["reward"] for e in every]),
        "reward": _by_family(groups, "reward"),
        "passed": _by_family(groups, "passed"),
        "episodes": dict(Counter(one["family"] for one in groups for _ in one["episodes"])),
        "mean_tokens": _by_family(groups, "tokens"),
        "over_budget": _by_family(groups, "over_budget"),
        "penalties": {name: sum(name in e["penalties"] for e in every) for name in names},
        "stops": dict(sorted(Counter(e["stop"] for e in every).items())),
        "circles": sum(e["circles"] for e in every),
        "continued": sum(e["segments"] > 1 for e in every),
        "excluded": sum(len(one["excluded"]) for one in groups),
        "groups": len(groups),
        "groups_with_spread": sum(one["spread"] for one in groups),
    }


def _by_family(groups: Sequence[dict[str, Any]], key: str) -> dict[str, float | None]:
    """Family -> the mean of `key` over its episodes that have one."""
    families = sorted({one["family"] for one in groups})
    every = {name: [e[key] for one in groups if one["family"] == name for e in one["episodes"]] for name in families}
    return {name: _mean([value for value in values if value is not None]) for name, values in every.items()}


def _of_updates(updates: Sequence[Update]) -> dict[str, Any]:
    if not updates:
        return {"updates": 0, "logprob_mismatch_max": None}
    first = updates[0]
    return {
        "updates": len(updates),
        "loss": _mean([u.loss for u in updates if u.loss is not None]),
        "ptx_loss": _mean([u.ptx_loss for u in updates if u.ptx_loss is not None]),
        "critic_loss": _mean([u.critic_loss for u in updates if u.critic_loss is not None]),
        "grad_norm": _mean([u.grad_norm for u in updates]),
        "max_logit": max(u.max_logit for u in updates),
        "clipped_heads": sum(u.clipped_heads for u in updates),
        "logprob_mismatch_max": first.mismatch_max,
        "logprob_mismatch": first.mismatch,
    }


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 6) if values else None
