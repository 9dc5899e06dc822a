"""Demonstrations share no request with the tasks that are rolled out, nor with those that are only measured on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from openk2.core import Task, UserError
from openk2.core.families import get_family
from openk2.rl import demonstrations
from openk2.rl.curriculum import Curriculum
from openk2.rl.demonstrations import demonstration_seed, free_seeds, held_back, holds_back
from openk2.rl.recipe import FamilyConfig, RLRecipe
from shared import toy


def requests(name: str, seeds: list[int]) -> set[str]:
    return {get_family(name).sample("train", seed).request for seed in seeds}


@pytest.mark.parametrize("name", ["safety", "instructions:heading", "shell"])
def test_no_request_is_in_two_pools(name: str) -> None:
    free = free_seeds(name, 0, 400)
    assert free == sorted(set(free)) and not any(held_back(get_family(name).sample("train", seed)) for seed in free)
    tasks = requests(name, free)
    ptx = requests(name, [demonstration_seed(name, "ptx", i) for i in range(100)])
    valid = requests(name, [demonstration_seed(name, "valid", i) for i in range(50)])
    assert len(tasks) > 100 and len(ptx) > 50 and len(valid) > 20
    assert tasks.isdisjoint(ptx) and tasks.isdisjoint(valid) and ptx.isdisjoint(valid)


def test_each_demonstration_has_a_seed_of_its_own() -> None:
    seeds = [demonstration_seed("safety", "ptx", i) for i in range(50)]
    assert seeds == sorted(set(seeds))


def test_the_curriculum_skips_what_is_held_back() -> None:
    one = Curriculum("safety", FamilyConfig(prompts=8, drop_after=8))
    first = one.choose(0, 0, lambda first, count: free_seeds("safety", first, count))
    assert first == free_seeds("safety", 0, 8)
    for seed in first:
        one.observe(seed, [1.0] * 8)
    assert one.choose(0, 1, lambda first, count: free_seeds("safety", first, count)) == free_seeds(
        "safety", first[-1] + 1, 8
    )


def test_only_the_tasks_of_families_that_are_demonstrated_are_held_back() -> None:
    recipe = {"name": "a", "start": "random:test", "iterations": 1, "objective": {"lr": 0.1}}
    families = {name: {"prompts": 2} for name in ("safety", "instructions:heading", "shell")}
    without = RLRecipe.model_validate(recipe | {"families": families})
    shown = {"weight": 0.1, "families": {"instructions": 1, "shell": 1}}
    run = RLRecipe.model_validate(recipe | {"families": families, "ptx": shown})
    assert [holds_back(run, name) for name in families] == [False, True, True]
    assert not any(holds_back(without, name) for name in families)


def test_a_family_of_ones_own_is_the_same_however_it_is_spelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("own.py", "other.py"):
        Path(name).write_text(Path(toy.__file__).read_text() + "\n\nclass Long(Short):\n    pass\n")
    recipe = {"name": "a", "start": "random:test", "iterations": 1, "objective": {"lr": 0.1}}
    families = {f"{name}.py:Short": {"prompts": 2} for name in ("own", "other")}
    shown = {"weight": 0.1, "families": {"./own.py:Long": 1}}
    run = RLRecipe.model_validate(recipe | {"families": families, "ptx": shown})
    assert [holds_back(run, name) for name in families] == [True, False]


class OneTask:
    """A family that always asks the same."""

    def sample(self, split: str, seed: int) -> Task:
        return Task(f"one/{split}/{seed}", "one", "one", seed, "Say a.", {}, "train")


def test_a_family_with_too_few_tasks_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demonstrations, "sample_task", lambda name, split, seed: OneTask().sample(split, seed))
    takes: dict[str, Callable[[], object]] = {
        "tasks": lambda: free_seeds("only", 0, 2),
        "ptx": lambda: demonstration_seed("only", "ptx", 0),
        "valid": lambda: demonstration_seed("only", "valid", 0),
    }
    assert held_back(OneTask().sample("train", 0)) is False
    takes.pop("tasks")()  # where its only request is
    for take in takes.values():
        with pytest.raises(UserError, match="the family 'only' has too few tasks to keep demonstrations apart"):
            take()
