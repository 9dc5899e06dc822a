"""A world executes calls, makes faults that can be repeated, and judges by its rubric."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openk2.core import Message, ToolCall, ToolResult
from openk2.worlds.apps.user import UserTurn
from openk2.worlds.apps.world import Apps, AppTask, AppWorld, Faults, Grade, Rubric
from worlds.apps.shop import shop

DOMAIN = shop()
OTHER = DOMAIN.model_copy(update={"name": "other"})
SEED = 3


def apps() -> Apps:
    return Apps({"shop": DOMAIN, "other": OTHER}.__getitem__)


def task(*turns: UserTurn, checkpoints: tuple[str, ...] = ("x",), **more: Any) -> AppTask:
    raw: dict[str, Any] = {
        "domain": "shop", "state_seed": SEED, "user": "CUS-1002", "system": "You help.",
        "tools": ("place_order", "list_orders", "befriend"), "turns": turns or (UserTurn(say="Hello."),),
        "rubric": Rubric(checkpoints=checkpoints),
    }  # fmt: skip
    return AppTask.model_validate(raw | more)


def begun(task: AppTask) -> AppWorld:
    world = AppWorld(apps())
    world.begin(task)
    return world


def call(world: AppWorld, name: str, **arguments: Any) -> ToolResult:
    return world.execute(ToolCall("c", name, json.dumps(arguments)))


def order(world: AppWorld, total: float = 1) -> ToolResult:
    return call(world, "place_order", total=total, day="2026-05-02")


def orders(world: AppWorld) -> ToolResult:
    return call(world, "list_orders", customer_id="CUS-1002")


def test_it_begins_with_what_the_task_says() -> None:
    world = AppWorld(apps())
    opening = world.begin(task(distractors={"other": ("cancel_order", "place_order")}))
    assert opening == [Message("system", "You help."), Message("user", "Hello.")]
    assert [spec.name for spec in world.tools] == ["befriend", "cancel_order", "list_orders", "place_order"]
    assert "no tool 'close_account'" in call(world, "close_account", customer_id="CUS-1001").content


def test_worlds_do_not_share_what_changes() -> None:
    shared = apps()
    first, second = AppWorld(shared), AppWorld(shared)
    first.begin(task()), second.begin(task())
    assert not order(first).error
    assert first.state.hash() != second.state.hash() == shared.state("shop", SEED).hash()


def test_faults_are_the_same_again() -> None:
    def results(seed: int) -> list[str]:
        world = begun(task(faults=Faults(seed=seed, timeout=0.3, rate_limit=0.2, stale=0.2)))
        return [(orders(world) if number % 2 else order(world)).content for number in range(30)]

    assert results(1) == results(1) != results(2)
    assert any("too many calls" in result for result in results(1))


def test_a_time_out_changes_nothing() -> None:
    world = begun(task(faults=Faults(seed=1, timeout=0.5)))
    failed = 0
    for _ in range(20):
        before = world.state.hash()
        result = order(world)
        error = json.loads(result.content)
        assert result.error == ("error" in error) == (world.state.hash() == before)
        if result.error:
            assert error["retry"] and "try again" in error["error"]
            failed += 1
    assert 3 < failed < 17


def test_who_tries_again_gets_through() -> None:
    world = begun(task(faults=Faults(timeout=1.0)))
    assert [order(world).error for _ in range(4)] == [True, False] * 2
    # Another call does not try it again.
    assert [order(world, total).error for total in (2, 3, 2, 3)] == [True, True, False, False]


def test_a_stale_read_shows_what_was_so_before() -> None:
    world = begun(task(faults=Faults(stale=1.0)))
    before = orders(world)
    order(world)
    assert orders(world) == before
    fresh = begun(task())
    order(fresh)
    assert orders(fresh) != before


def grade(task: AppTask, *steps: str | float) -> Grade:
    """Of a conversation in which texts are answers and numbers are orders."""
    world = begun(task)
    for step in steps:
        if isinstance(step, str):
            world.answer(step)
        else:
            order(world, step)
    return world.judge()


def after(*totals: float) -> str:
    """The hash of the state behind some orders."""
    world = begun(task())
    for total in totals:
        order(world, total)
    return world.state.hash()


TURNS = (UserTurn(say="Order for 1.", tell=("open",)), UserTurn(say="And for 50000.", refuse=True))
TASK = task(*TURNS, checkpoints=(after(1), after(1)))


def test_what_is_right_passes() -> None:
    assert grade(TASK, 1, "It is open.", "Sorry, no.") == Grade(1.0, True, ())


@pytest.mark.parametrize(
    ("steps", "score", "words"),
    [
        ((1, "It is opened.", "I cannot."), 0.85, "in turn 1 the user was not told open"),
        ((1, "It is open.", "It is done."), 0.85, "in turn 2 the user was not told that it cannot be"),
        (("It is open.", 1, "I cannot."), 0.95, "behind turn 1 the state was another one"),
        (
            (1, "It is open, for 1. You have 77 left.", "I cannot."),
            1.0,
            "in turn 1 the user was told 77, which nothing",
        ),
        (("It is open.", "I cannot."), 0.3, "the state at the end is another one"),
        ((1, "It is open.", 2, "I cannot."), 0.35, "the state at the end is another one"),
        ((1, "It is open."), 0.2, "the state at the end is another one"),
        ((1,), 0.0, "the conversation did not end"),
    ],
)
def test_what_is_wrong_is_named(steps: tuple[str | float, ...], score: float, words: str) -> None:
    found = grade(TASK, *steps)
    assert found.score == score and not found.passed and words in "; ".join(found.wrong)


def test_giving_up_at_once_is_worth_nothing() -> None:
    assert grade(task(UserTurn(say="Order for 1."), checkpoints=(after(1),))).score == 0.0


def test_what_must_not_be_called_and_what_was_not_asked_for() -> None:
    rubric = Rubric(checkpoints=("x",), forbidden=("place_order",))
    world = begun(task(rubric=rubric, distractors={"other": ("close_account",)}))
    order(world, 1e6)
    assert not any("must not be" in wrong for wrong in world.judge().wrong)
    order(world)
    assert "place_order was called, which must not be" in world.judge().wrong
    call(world, "close_account", customer_id="CUS-1001")
    assert "something was changed in other, which was not asked for" in world.judge().wrong
