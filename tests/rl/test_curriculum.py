"""Which tasks come next."""

from __future__ import annotations

import json
from collections import Counter

from openk2.rl.curriculum import Curriculum
from openk2.rl.recipe import FamilyConfig


def curriculum(**config: object) -> Curriculum:
    return Curriculum("short", FamilyConfig.model_validate({"prompts": 8} | config))


def observe(one: Curriculum, task: int, samples: int, passed: int) -> None:
    one.observe(task, [1.0] * passed + [0.0] * (samples - passed))


def test_at_first_all_are_new() -> None:
    assert curriculum().choose(0, 0) == list(range(8))


def test_half_of_them_are_known_ones_that_are_sometimes_solved() -> None:
    one = curriculum(drop_after=16)
    for task in one.choose(0, 0):
        observe(one, task, 8, [8, 8, 0, 0, 4, 4, 1, 1][task])
    assert one.dropped == 0
    for task in (0, 1, 2, 3):
        observe(one, task, 8, 8 * (task < 2))
    assert one.dropped == 4
    chosen = one.choose(0, 1)
    assert set(chosen[:4]) == {4, 5, 6, 7}
    assert chosen[4:] == [8, 9, 10, 11]


def test_what_has_not_ended_does_not_come_again() -> None:
    one = curriculum()
    assert one.choose(0, 0) == list(range(8))
    for task in (0, 1):
        observe(one, task, 8, 4)
    chosen = one.choose(0, 1)
    assert set(chosen[:2]) == {0, 1} and chosen[2:] == list(range(8, 14))
    other = curriculum()
    other.load_json(json.loads(json.dumps(one.to_json())))
    assert other == one
    assert one.choose(0, 2) == list(range(14, 22))


def test_what_is_solved_half_the_time_comes_most_often() -> None:
    one = curriculum(fresh=0.0, prompts=1, drop_after=1000)
    for task, passed in enumerate((50, 5, 95)):
        observe(one, task, 100, passed)
    count: Counter[int] = Counter()
    for iteration in range(600):
        count.update(one.choose(0, iteration))
        one.out.clear()
    assert 3 < count[0] / count[1] < 8
    assert 3 < count[0] / count[2] < 8


def test_a_task_that_is_never_solved_but_in_part_is_kept() -> None:
    one = curriculum(drop_after=4)
    one.observe(0, [0.5, 0.25, 0.0, 0.5])
    one.observe(1, [0.25] * 4)
    assert one.dropped == 1


def test_the_same_iteration_gives_the_same_tasks() -> None:
    one, other = curriculum(), curriculum()
    for each in (one, other):
        for task in range(30):
            observe(each, task, 8, task % 8)
    assert one.choose(3, 7) == other.choose(3, 7)
    for each in (one, other):
        each.out.clear()
    assert one.choose(3, 7) != other.choose(3, 8)
