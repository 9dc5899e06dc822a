"""What a run of reinforcement learning takes for the same run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from openk2.core import UserError
from openk2.rl.recipe import RLRecipe
from openk2.rl.run import begun_from, run_rl
from openk2.train.stages import start_folder
from shared import toy


def test_a_family_that_was_edited_makes_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Iterations under two verifiers must not meet in one folder."""
    monkeypatch.chdir(tmp_path)
    own = Path("edited.py")
    shutil.copy(toy.__file__, own)
    recipe = RLRecipe.model_validate(
        {"name": "echo", "start": "nano", "iterations": 1, "objective": {"lr": 0.001}, "workers": 1}
        | {"families": {"edited.py:Short": {"prompts": 1}}}
    )
    config = recipe.model_dump(mode="json", exclude={"checkpoint_every"})
    config |= begun_from(recipe, start_folder("nano", "echo"))
    (tmp_path / "run" / "rl").mkdir(parents=True)
    (tmp_path / "run" / "rl" / "begun.json").write_text(json.dumps({"config": config, "inputs": {}}))
    own.write_text(own.read_text().replace("<= 12", "<= 13"))
    with pytest.raises(UserError, match=r"was made with own_families = .*edited.py:Short.*choose another run folder"):
        run_rl(recipe, tmp_path / "run")


def test_a_run_without_families_of_its_own_says_nothing_of_them() -> None:
    recipe = RLRecipe.model_validate(
        {"name": "few", "start": "nano", "iterations": 1, "objective": {"lr": 0.001}}
        | {"families": {"instructions": {"prompts": 2}}}
    )
    assert list(begun_from(recipe, start_folder("nano", "few"))) == ["weights"]
