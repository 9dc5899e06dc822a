"""What is measured of a policy on held-out tasks: success, the loss on demonstrations, and how well it judges."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from openk2.core.families import is_verified, sample_task
from openk2.core.rates import Tally
from openk2.core.runs import write_text
from openk2.rl.critic import Critic, Pair, pairs_of, report_pairs, right_by_length, shown
from openk2.rl.demonstrations import Demonstrations
from openk2.rl.episodes import Group, told_excluded
from openk2.rl.learner import Learner
from openk2.rl.recipe import FamilyConfig, RLRecipe
from openk2.rl.rollouts import Configs, OnShare, Rollouts, new_group
from openk2.train.folder import EXAMPLES
from openk2.train.ranks import Ranks

_PAIRS_OF_A_TASK = 2
"""So many pairs of a right sample and a wrong one are hoped for from a task."""
_MOST_ATTEMPTS = 6
"""So often as many further tasks are sampled, while there are fewer pairs than wanted."""
_SHOWN = 3
"""So many held-out tasks of each family are shown before and after."""


class Measures:
    """Measures by all processes together; the first writes the examples to `folder`.

    `pairs` are what the critic is measured on. They are sampled once, by the policy before training, and kept.
    """

    def __init__(
        self, recipe: RLRecipe, rollouts: Rollouts, learner: Learner, critic: Critic, demonstrations: Demonstrations,
        ranks: Ranks, folder: Path, note: Callable[[str], None], progress: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._recipe, self._rollouts, self._learner, self._critic = recipe, rollouts, learner, critic
        self._demonstrations, self._ranks, self._folder = demonstrations, ranks, folder
        self._note, self._progress = note, progress
        self.pairs: dict[str, list[Pair]] = {}

    def take(self) -> dict[str, Any]:
        """All of it, for the log."""
        measured = self._measured()
        excluded = [(one["family"], one["excluded"]) for one in measured if one["excluded"]]
        for told in told_excluded(excluded):
            self._say(f"held out: {told}")
        line: dict[str, Any] = {"success": _success(measured), "excluded_held_out": len(excluded)}
        if self._recipe.ptx.families:
            line["ptx_valid"] = round(self._learner.mean_loss(self._demonstrations.held_out()), 6)
        if self._recipe.critic_pairs:
            line |= self._critic_accuracy()
        if self._ranks.first:
            self._keep_examples(measured)
        return line

    def _measured(self) -> list[dict[str, Any]]:
        """Held-out tasks, each tried once and greedily."""
        names = self._recipe.eval.families or tuple(self._recipe.families)
        mine = range(self._ranks.rank, self._recipe.eval.n, self._ranks.count)
        groups = [new_group(-1 - i, name, sample_task(name, "test", i), 1) for name in names for i in mine]
        self._rollouts.finish(groups, 0.0, self._configs(names), self._told("measuring"))
        return self._ranks.join([_measured(group) for group in groups])

    def _told(self, what: str) -> OnShare:
        return lambda share: self._progress(f"{what} {share:.0%}")

    def _configs(self, names: Sequence[str]) -> Configs:
        return {name: self._recipe.families.get(name, FamilyConfig(prompts=1)) for name in names}

    def _critic_accuracy(self) -> dict[str, Any]:
        self.pairs = self.pairs or self._make_pairs()
        line: dict[str, Any] = {}
        for key, pairs in self.pairs.items():
            mine = pairs[self._ranks.rank :: self._ranks.count]
            right = self._ranks.join(self._critic.accuracy(self._learner.handover.model, mine))
            if right:
                line[key] = Tally(len(right), sum(right)).to_json()
                line[f"{key}_by_length"] = Tally(len(pairs), right_by_length(pairs)).to_json()
        return line

    def _make_pairs(self) -> dict[str, list[Pair]]:
        """Pairs of held-out tasks that are not those success is measured on; of reports, by the hidden program."""
        recipe = self._recipe
        wanted = recipe.critic_pairs
        names = [name for name in recipe.critic.families or tuple(recipe.families) if is_verified(name)]
        each = math.ceil(wanted / _PAIRS_OF_A_TASK / max(1, len(names)))
        groups: list[Group] = []
        mine: list[Pair] = []
        for attempt in range(_MOST_ATTEMPTS if names else 0):
            first = recipe.eval.n + attempt * each
            further = [
                new_group(-1 - i, name, sample_task(name, "test", i), recipe.rollout.samples)
                for name in names
                for i in range(first + self._ranks.rank, first + each, self._ranks.count)
            ]
            told = self._told("pairs")
            self._rollouts.finish(further, recipe.rollout.temperature, self._configs(names), told)
            groups += further
            # Of all so far: longer and shorter ones rarely come in equal numbers from a few tasks.
            mine = pairs_of(groups, f"valid {recipe.seed} {self._ranks.rank}")
            if self._ranks.sum([len(mine)])[0] >= wanted:
                break
        pairs = [Pair(**raw) for raw in self._ranks.join([asdict(pair) for pair in mine])]
        if names and len(pairs) < wanted:
            self._say(
                f"{len(pairs)} of the {wanted} pairs that critic.valid wants: too few held-out tasks are solved by "
                "some samples and not by others"
            )
        found = {"critic_accuracy": pairs[:wanted]}
        if "reports" in (*recipe.families, *recipe.eval.families):
            found["critic_reports"] = report_pairs(wanted)
        return found

    def _say(self, sentence: str) -> None:
        if self._ranks.first:
            self._note(sentence)

    def _keep_examples(self, measured: Sequence[dict[str, Any]]) -> None:
        """A few held-out tasks, as they were at the start and as they are now."""
        path = self._folder / EXAMPLES
        before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        now: dict[str, Any] = {}
        count: Counter[str] = Counter()
        for one in sorted(measured, key=lambda one: (one["family"], one["task"])):
            count[one["family"]] += 1
            if count[one["family"]] <= _SHOWN:
                told = {"said": one["said"], "passed": one["passed"]}
                first = before.get(one["task"], {}).get("before", told)
                now[one["task"]] = {"request": one["request"], "before": first, "after": told}
        write_text(path, json.dumps(now, indent=2) + "\n")


def _measured(group: Group) -> dict[str, Any]:
    (episode,) = group.episodes
    trajectory = episode.trajectory
    return {
        "family": episode.family, "task": group.task.id, "request": group.task.request,
        "said": "" if trajectory is None else shown(trajectory), "passed": episode.passed, "tokens": episode.spent,
        "judged": trajectory is not None and not episode.excluded and is_verified(episode.family),
        "excluded": episode.excluded,
    }  # fmt: skip


def _success(measured: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Family -> rate with n and interval, of the tasks that could be judged. Without those that only a critic can."""
    tallies: dict[str, Tally] = {}
    for one in measured:
        if one["judged"]:
            tallies.setdefault(one["family"], Tally()).add(one["passed"])
    return {name: tally.to_json() for name, tally in sorted(tallies.items())}
