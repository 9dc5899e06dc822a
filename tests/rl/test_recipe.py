"""Recipes: what is wrong in them is one sentence, and the temperature falls as it says."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pydantic import ValidationError

from openk2.core import UserError
from openk2.rl.recipe import RLRecipe, load_rl_recipe
from shared import toy

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.mark.parametrize("name", ["micro-rl", "nano-rl"])
def test_our_own(name: str) -> None:
    assert load_rl_recipe(RECIPES / f"{name}.toml").name == name


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("objective.tua=1", "did you mean 'objective.tau'"),
        ("families.chess.prompts=4", "there is no task family 'chess'"),
        ("rollout.samples=1", "rollout.samples = 1 cannot be"),
        ("objective.tau=0", "objective.tau = 0 cannot be"),
        ("objective.lr=nan", "objective.lr"),
        ("families.functions.prompts=1", "is less than workers = 2"),
        ("ptx.families={}", "ptx.weight is set and ptx.families is empty"),
        ("iterations=0", "iterations = 0 cannot be"),
        ("start=''", "start = '' cannot be"),
        ("families.caf\udce9=1", "has bytes that are not UTF-8"),
    ],
)
def test_what_is_wrong_is_one_sentence(override: str, says: str) -> None:
    with pytest.raises(UserError) as raised:
        load_rl_recipe(RECIPES / "micro-rl.toml", [override])
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("key", ["families.functions:ask", 'families."functions:ask"', "families.'functions:ask'"])
def test_a_family_with_an_option_can_be_set(key: str) -> None:
    recipe = load_rl_recipe(RECIPES / "nano-rl.toml", [f"{key}.prompts=6"])
    assert recipe.families["functions:ask"].prompts == 6


def test_a_family_is_named_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(toy.__file__, "own.py")
    base = {"name": "x", "start": "nano", "iterations": 1, "objective": {"lr": 0.001}}
    with pytest.raises(ValidationError, match=r"'own\.py:Short' and '\./own\.py:Short' are the same: write one"):
        RLRecipe.model_validate(base | {"families": {f"{way}own.py:Short": {"prompts": 2} for way in ("", "./")}})
    Path("other.py").write_bytes(Path("own.py").read_bytes())
    Path("link.py").symlink_to("own.py")
    with pytest.raises(ValidationError, match=r"'own\.py:Short' and 'link\.py:Short' are the same: write one"):
        RLRecipe.model_validate(base | {"families": {f"{name}.py:Short": {"prompts": 2} for name in ("own", "link")}})
    once = base | {"families": {"own.py:Short": {"prompts": 2}}}
    for section in ("critic", "eval"):
        with pytest.raises(ValidationError, match=r"'own\.py:Short' and '\./own\.py:Short' are the same: write one"):
            RLRecipe.model_validate(once | {section: {"families": ["./own.py:Short"]}})
    with pytest.raises(ValidationError, match=r"'own\.py:Short' and '\./own\.py:Short' are the same: write one"):
        RLRecipe.model_validate(once | {"ptx": {"weight": 0.1, "families": {"./own.py:Short": 1}}})
    two = {f"{name}.py:Short": {"prompts": 2} for name in ("own", "other")}
    assert len(RLRecipe.model_validate(base | {"families": two}).families) == 2


def recipe(**rollout: object) -> RLRecipe:
    return RLRecipe.model_validate(
        {
            "name": "x", "start": "nano", "iterations": 11, "families": {"functions": {"prompts": 2}},
            "objective": {"lr": 0.001}, "rollout": rollout,
        }
    )  # fmt: skip


def test_the_temperature_falls_along_a_line_or_half_a_cosine() -> None:
    line = recipe(temperature=1.2, final_temperature=0.2)
    assert [round(line.temperature(i), 3) for i in (0, 5, 10)] == [1.2, 0.7, 0.2]
    cosine = recipe(temperature=1.2, final_temperature=0.2, decay="cosine")
    assert [round(cosine.temperature(i), 3) for i in (0, 5, 10)] == [1.2, 0.7, 0.2]
    assert cosine.temperature(1) > line.temperature(1)
