"""The loop in one process: it learns, goes on with the same bytes, and says what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from openk2.chat import nano_tokenizer
from openk2.core import Message, Step, Trajectory, Turn, UserError, families
from openk2.model import Transformer, load
from openk2.rl.recipe import RLRecipe
from openk2.rl.rollouts import new_group
from openk2.rl.trainer import Trainer
from openk2.train.stages import start_folder
from shared.toy import PLACES as TOYS

NANO = start_folder("nano", "test")


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, place in TOYS.items():
        monkeypatch.setitem(families.PLACES, name, place)
    families.get_family.cache_clear()


def recipe(family: str = "short", **changes: Any) -> RLRecipe:
    raw: dict[str, Any] = {
        "name": "toy", "start": "nano", "iterations": 2, "workers": 1,
        "families": {family: {"prompts": 4, "budget": 40, "turn_tokens": 40, "steps": 1}},
        "objective": {"lr": 0.002, "tau": 0.05, "dtype": "float32"}, "rollout": {"samples": 4},
        "critic": {"valid": 0}, "eval": {"n": 4, "every": 100},
    }  # fmt: skip
    for key, value in changes.items():
        raw[key] = raw[key] | value if isinstance(value, dict) and key in raw else value
    return RLRecipe.model_validate(raw)


def model() -> Transformer:
    return load(NANO, dtype=torch.float32)


def trainer(folder: Path, recipe: RLRecipe, notes: list[str] | None = None, identity: str = "a") -> Trainer:
    said = notes if notes is not None else []
    return Trainer(model(), nano_tokenizer(), recipe, folder, identity=identity, note=said.append)


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def files(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "timings.jsonl")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


SHORT = {"short": {"prompts": 4, "budget": 24, "turn_tokens": 24, "steps": 1}}


def test_it_learns_what_is_rewarded(tmp_path: Path) -> None:
    one = trainer(tmp_path, recipe(families=SHORT, iterations=8, rollout={"samples": 8}))
    assert one.run()
    log = metrics(tmp_path)
    rewards = [line["reward"]["short"] for line in log[1:]]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.15, rewards
    assert log[-1]["success"]["short"]["n"] == 4
    # None where all samples of every task had the same reward: nothing was computed then.
    mismatches = [line["logprob_mismatch_max"] for line in log[1:] if line["groups_with_spread"]]
    assert mismatches and max(mismatches) < 1e-3
    assert log[1]["kl"] == pytest.approx(0, abs=1e-6)
    assert log[-1]["kl"] > 0


def test_it_goes_on_with_the_same_bytes(tmp_path: Path) -> None:
    """Everything at once: paused episodes in the bank, the critic, the PTX loss, three families."""
    full = recipe(
        iterations=2,
        families={
            "functions": {"prompts": 2, "budget": 120, "turn_tokens": 60, "steps": 4},
            "short:dice": {"prompts": 6, "budget": 24, "turn_tokens": 24, "steps": 1},
            "reports": {"prompts": 1, "budget": 40, "turn_tokens": 40, "steps": 1},
        },
        rollout={"samples": 3, "iteration_tokens": 40},
        ptx={"weight": 0.1, "families": {"functions": 2}, "valid": 4},
        critic={"weight": 0.1, "pairs": 4},
        eval={"n": 2, "every": 2},
    )
    whole = trainer(tmp_path / "whole", full)
    assert whole.run()
    log = metrics(tmp_path / "whole")
    assert any(line.get("banked") for line in log) and any(line.get("critic_loss") for line in log), log
    for _ in range(10):
        one = trainer(tmp_path / "cut", full)
        one.resume()
        if one.run(should_stop=lambda: True):
            break
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


def test_a_checkpoint_of_another_recipe_or_model_is_refused(tmp_path: Path) -> None:
    short = recipe(iterations=2)
    assert not trainer(tmp_path, short).run(should_stop=lambda: True)
    with pytest.raises(UserError, match="another recipe"):
        trainer(tmp_path, short, identity="b").resume()
    config = model().config.model_copy(update={"num_hidden_layers": 2})
    with pytest.raises(UserError, match="of another model"):
        Trainer(Transformer(config), nano_tokenizer(), short, tmp_path, identity="a").resume()


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (
            "raises",
            [
                "could not be verified (ZeroDivisionError",
                "held out: episodes left out of short:raises: ",
                "iteration 1: episodes left out of short:raises: ",
                "no episode could be judged",
            ],
        ),
        ("constant", ["there is nothing to learn"]),
    ],
)
def test_what_teaches_nothing_is_said_and_changes_nothing(tmp_path: Path, fault: str, says: list[str]) -> None:
    notes: list[str] = []
    one = trainer(tmp_path, recipe(f"short:{fault}", iterations=1), notes)
    before = {name: tensor.clone() for name, tensor in one.learner.model.state_dict().items()}
    assert one.run()
    assert all(any(sentence in note for note in notes) for sentence in says), notes
    for name, tensor in one.learner.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_a_family_that_makes_no_task_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the family 'short:no task' cannot make the test task 0 \(KeyError: 0\)"):
        trainer(tmp_path, recipe("short:no task")).run()


def test_what_is_penalised_is_taken_from_the_critics_reward(tmp_path: Path) -> None:
    one = trainer(tmp_path, recipe("short:open", iterations=1))

    def rewards(penalties: dict[str, float]) -> list[float]:
        task = families.sample_task("short:open", "train", 0)
        group = new_group(0, "short:open", task, 3)
        for episode, answer in zip(group.episodes, ("Yes.", "No, never.", "Some words."), strict=True):
            step = Step(Turn(Message("assistant", answer), "stop"))
            episode.trajectory = Trajectory(task, "p", (), messages=[step.turn.message], steps=[step])
        group.episodes[1].penalties = penalties
        one._judge([group])
        return [episode.reward for episode in group.episodes if episode.reward is not None]

    fair = rewards({})
    assert rewards({"a claim": 0.25, "flattery": 0.1}) == pytest.approx([fair[0], fair[1] - 0.35, fair[2]])


def test_who_can_only_be_compared_has_no_rate(tmp_path: Path) -> None:
    one = trainer(tmp_path, recipe("short:open", iterations=1))
    assert one.run()
    log = metrics(tmp_path)
    assert log[0]["success"] == {} and log[1]["passed"] == {"short:open": None}
    assert 0 < log[1]["reward"]["short:open"] < 1


def test_a_loss_that_is_not_finite_stops_with_what_was_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = trainer(tmp_path, recipe(iterations=2, rollout={"samples": 6}))
    assert not one.run(should_stop=lambda: True)
    original = one.learner.update

    def poisoned(*args: Any, **kwargs: Any) -> Any:
        with torch.no_grad():
            one.learner.model.layers[0].input_layernorm.weight.fill_(float("nan"))
        return original(*args, **kwargs)

    # No input gives a NaN.
    monkeypatch.setattr(one.learner, "update", poisoned)
    with pytest.raises(UserError, match=r"the loss is not finite at step 3.*intact"):
        one.run()
    again = trainer(tmp_path, recipe(iterations=2, rollout={"samples": 6}))
    assert again.resume() and again.iteration == 1
    assert again.run()


def test_the_engine_shares_the_weights(tmp_path: Path) -> None:
    one = trainer(tmp_path, recipe())
    for name, tensor in one.engine.model.state_dict().items():
        assert tensor.data_ptr() == one.learner.model.state_dict()[name].data_ptr(), name
    half = trainer(tmp_path, recipe(objective={"dtype": "bfloat16"}))
    for name, parameter in half.engine.model.named_parameters():
        assert parameter.data_ptr() == half.learner.precision.working[name].data_ptr(), name
    names = dict(one.learner.handover.tensors())
    assert "model.embed_tokens.weight" in names and "lm_head.weight" in names
