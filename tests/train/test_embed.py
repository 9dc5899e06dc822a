"""The weights in the package are those of the run that their provenance tells of."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from openk2.chat import Tokenizer
from openk2.core import UserError
from openk2.core.progress import ConsoleReporter
from openk2.core.runs import Manifest, sha256_file, write_manifest
from openk2.train.embed import STAGES, TARGETS, WEIGHTS, embed
from openk2.train.recipe import load_recipe
from openk2.train.stages import stage_makers


@pytest.mark.parametrize("stage", TARGETS)
def test_the_shipped_weights_are_those_of_the_provenance(stage: str) -> None:
    outputs = json.loads((WEIGHTS / "provenance.json").read_text())[stage]["outputs"]
    folder = WEIGHTS / TARGETS[stage]
    assert {path.name for path in folder.iterdir()} == set(outputs)
    # The template is no result of training: whoever changes it ships the new one.
    template = outputs.pop("chat_template.jinja") and (folder / "chat_template.jinja").read_text()
    assert template == Tokenizer.load(folder).files()["chat_template.jinja"]
    assert {name: sha256_file(folder / name) for name in outputs} == outputs


def test_the_recipe_and_the_generators_are_those_of_the_weights() -> None:
    """Whoever changes one of them trains the weights again, or says in the model card what they are from."""
    made = json.loads((WEIGHTS / "provenance.json").read_text())
    # In which they were computed, because that machine was fastest in it.
    dtypes = ["pretrain.dtype=bfloat16", "sft.dtype=bfloat16"]
    recipe = load_recipe(Path(__file__).parents[2] / "recipes" / "nano.toml", dtypes)
    for stage in STAGES:
        now = stage_makers(recipe)[stage](Path(), "cpu", ConsoleReporter())
        assert now.config == made[stage]["config"], stage


def test_embedding_a_run(tmp_path: Path) -> None:
    """The shipped models stand in for a finished run."""
    run = tmp_path / "run"
    for stage in STAGES:
        outputs = {}
        if stage in TARGETS:
            shutil.copytree(WEIGHTS / TARGETS[stage], run / stage)
            outputs = {path.name: sha256_file(path) for path in (run / stage).iterdir()}
        else:
            (run / stage).mkdir(parents=True)
        write_manifest(run / stage, Manifest(stage=stage, config={}, outputs=outputs))
    embed(run, tmp_path / "weights")
    assert set(json.loads((tmp_path / "weights" / "provenance.json").read_text())) == set(STAGES)
    assert (tmp_path / "weights" / "nano" / "config.json").read_bytes() == (run / "instruct/config.json").read_bytes()

    (run / "instruct" / "config.json").write_text("{}")
    with pytest.raises(UserError, match="not what its manifest says"):
        embed(run, tmp_path / "weights")
    (run / "sft" / "manifest.json").unlink()
    with pytest.raises(UserError, match="has not finished its stage sft"):
        embed(run, tmp_path / "weights")
