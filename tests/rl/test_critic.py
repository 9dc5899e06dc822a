"""The critic: places cancel, vetoes hold, pairs tell nothing by their length, and its lessons are learned."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from openk2.chat import Tokenizer, nano_tokenizer
from openk2.core import Message, Trajectory, Verdict
from openk2.data.batches import IGNORED
from openk2.model import Transformer
from openk2.policy.local import LocalPolicy
from openk2.policy.resolve import resolve_policy
from openk2.rl.critic import Critic, Pair, pairs_of, report_pairs, right_by_length
from openk2.rl.episodes import Episode, Group
from openk2.rl.learner import ChoiceLoss, padded
from openk2.rl.rubrics import CORE, PRESCRIPTIVE, task_rubric
from shared.toy import Short

RUBRIC = task_rubric("It names the town.")


@pytest.fixture(scope="module")
def model() -> Transformer:
    policy = resolve_policy("nano")
    assert isinstance(policy, LocalPolicy)
    return policy.engine.model


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return nano_tokenizer()


def test_what_the_place_alone_does_cancels(model: Transformer, tokenizer: Tokenizer) -> None:
    critic = Critic(tokenizer, 2048)
    (one,) = critic.margins(model, [("Where is it?", RUBRIC, "In Rome.", "In a town.")])
    (other,) = critic.margins(model, [("Where is it?", RUBRIC, "In a town.", "In Rome.")])
    assert one == pytest.approx(-other, abs=1e-4)
    (same,) = critic.margins(model, [("Where is it?", RUBRIC, "In Rome.", "In Rome.")])
    assert same == pytest.approx(0, abs=1e-4)


def test_many_prompts_at_once_give_what_each_gives_alone(model: Transformer, tokenizer: Tokenizer) -> None:
    pairs = [("Where?", RUBRIC, "word " * n, "other") for n in (1, 40, 7, 300)]
    together = Critic(tokenizer, 2048).margins(model, pairs)
    alone = [Critic(tokenizer, 2048).margins(model, [pair])[0] for pair in pairs]
    assert together == pytest.approx(alone, abs=2e-3)


def test_rewards_are_chances_and_a_veto_is_nothing(model: Transformer, tokenizer: Tokenizer) -> None:
    answers = ["It is Rome.", "Great question! It is Rome.", "I do not know.", "It is Rome."]
    rewards = Critic(tokenizer, 2048).rewards(model, "Where?", RUBRIC, answers, 3, "0")
    assert rewards[1] == 0.0
    assert all(0 < reward < 1 for i, reward in enumerate(rewards) if i != 1)
    assert rewards[0] == pytest.approx(rewards[3], abs=1e-4)


def test_a_prompt_always_fits(tokenizer: Tokenizer) -> None:
    ids = Critic(tokenizer, 512).prompt("long " * 5000, RUBRIC, "a " * 9000, "b " * 9000)
    assert len(ids) < 512


def test_a_large_context_has_room_for_the_whole_rubrics(tokenizer: Tokenizer) -> None:
    short, whole = (tokenizer.decode(Critic(tokenizer, n).prompt("?", RUBRIC, "a", "b")) for n in (4096, 8192))
    for rubric in (*CORE, *PRESCRIPTIVE):
        assert rubric.short in short and rubric.text in whole and rubric.text not in short


def group(number: int, answers: list[tuple[str, bool | None]]) -> Group:
    task = Short().sample("train", number)
    episodes = []
    for i, (text, passed) in enumerate(answers):
        trajectory = Trajectory(task, "policy", (), [Message("user", "?"), Message("assistant", text)])
        trajectory.verdict = Verdict(passed)
        episodes.append(Episode("short", number, i, trajectory, reward=float(bool(passed))))
    return Group(number, task, 0, episodes)


def test_pairs_are_a_right_answer_and_a_wrong_one_and_length_tells_nothing() -> None:
    groups = [group(i, [("r" * 10, True), ("w" * (30 if i % 3 else 5), False), ("x", None)]) for i in range(30)]
    pairs = pairs_of(groups, "0")
    assert pairs and all(pair.better[0] == "r" and pair.worse[0] == "w" for pair in pairs)
    longer = sum(len(pair.better) > len(pair.worse) for pair in pairs)
    assert 2 * longer == len(pairs) == 20
    assert pairs_of([group(0, [("a", True), ("b", True)])], "0") == []
    alike = pairs_of([*groups, *(group(i, [("right", True), ("wrong", False)]) for i in range(30, 50))], "0")
    assert len(alike) == 40 and right_by_length(alike) == 20


def test_length_tells_nothing_of_a_kind_of_task_either() -> None:
    """Of one kind the better one is always longer, of the other always shorter: both are left out."""
    longer = [group(i, [("right" * 3, True), ("wrong", False)]) for i in range(4)]
    shorter = [group(i, [("right", True), ("wrong" * 3, False)]) for i in range(4)]
    assert len(pairs_of([*longer, *shorter], "0")) == 8
    other = [replace(one, task=replace(one.task, skill="other")) for one in shorter]
    assert pairs_of([*longer, *other], "0") == []


def test_a_long_request_is_seen_whole_where_there_is_room(tokenizer: Tokenizer) -> None:
    request = "In the beginning there was a harbour. " + "Ships came and went. " * 60
    assert "harbour" in tokenizer.decode(Critic(tokenizer, 2048).prompt(request, RUBRIC, "Yes.", "No."))
    text = tokenizer.decode(Critic(tokenizer, 1024).prompt(request, RUBRIC, "Yes, it was.", "No, never."))
    assert "harbour" not in text and "Yes, it was." in text and "No, never." in text and "What counts:" in text


def test_lessons_are_both_orders_with_one_target(tokenizer: Tokenizer) -> None:
    a, b = Critic(tokenizer, 2048).lessons([Pair("Where?", "It is right.", "In Rome.", "At sea.")])
    for ids, targets in (a, b):
        assert len(ids) == len(targets) and [t for t in targets if t != IGNORED] == targets[-1:]
    assert tokenizer.decode([a[1][-1], b[1][-1]]) == "AB"
    assert a[0] != b[0]


def test_lessons_can_be_learned(tokenizer: Tokenizer) -> None:
    """A few steps on pairs whose better answer says yes: pairs that were not shown are then told apart."""
    policy = resolve_policy("nano")
    assert isinstance(policy, LocalPolicy)
    model, critic = policy.engine.model.train(), Critic(tokenizer, 2048)
    optimizer = torch.optim.AdamW(model.requires_grad_(True).parameters(), lr=3e-4)
    things = ["tea", "rain", "work", "ships"]
    taught = [Pair(f"Do you like {x}?", "It agrees.", f"Yes, I like {x}.", f"No, not {x}.") for x in things]
    held = [Pair(f"Do you like {x}?", "It agrees.", f"Yes, I like {x}.", f"No, not {x}.") for x in ("snow", "books")]
    choose = ChoiceLoss(model, critic.choices)
    for _ in range(8):
        for ids_BT, targets_BT in padded(critic.lessons(taught), 8192, tokenizer.pad_id):
            loss, n = choose(ids_BT, targets_BT)
            assert n == 8
            (loss / n).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert critic.accuracy(model.eval(), held) == [True, True]


def test_pairs_of_reports_are_the_same_each_time() -> None:
    pairs = report_pairs(20)
    assert pairs == report_pairs(20) and len(pairs) == 20
    assert all(pair.better != pair.worse for pair in pairs)
    assert right_by_length(pairs) == 10
