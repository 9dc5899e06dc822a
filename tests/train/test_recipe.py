"""Recipes: what is wrong with one is said in one sentence."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from openk2.core import UserError
from openk2.train.recipe import TrainConfig, TuneRecipe, load_recipe, parse_recipe

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.mark.parametrize(
    "path",
    sorted(set(RECIPES.glob("*.toml")) - set(RECIPES.glob("synth-*.toml")) - set(RECIPES.glob("*-rl.toml"))),
    ids=lambda p: p.stem,
)
def test_shipped_recipes_are_valid(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    for stage in (recipe.sft,) if isinstance(recipe, TuneRecipe) else (recipe.pretrain, recipe.sft):
        assert stage.steps > stage.warmup_steps


def test_overrides_are_typed(tmp_path: Path) -> None:
    recipe = load_recipe(
        RECIPES / "micro.toml",
        ["sft.lr=0.003", "workers = 1", 'corpus.paths=["a", "b"]', "name=other", "episodes.train={shell=3}"],
    )
    assert recipe.sft.lr == 0.003
    assert recipe.workers == 1
    assert recipe.corpus.paths == ("a", "b")
    assert recipe.name == "other"
    assert recipe.episodes.train == {"shell": 3}


@pytest.mark.parametrize(("steps", "fraction", "decay"), [(10, 0.3, 3), (9, 0.3, 3), (8, 0.3, 2), (10, 0.0, 0)])
def test_warmup_and_decay_may_fill_all_steps_and_no_more(steps: int, fraction: float, decay: int) -> None:
    raw = {"tokens": steps * 8192, "lr": 0.001, "decay_fraction": fraction}
    assert (whole := TrainConfig.model_validate(raw | {"warmup_steps": steps - decay})).decay_steps == decay
    assert whole.steps == steps
    with pytest.raises(ValidationError, match="longer than the"):
        TrainConfig.model_validate(raw | {"warmup_steps": steps - decay + 1})


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("sft.learning=1", ["'sft.learning'"]),
        ("sft.warmup_step=1", ["'sft.warmup_step'", "'sft.warmup_steps'"]),
        ("worker=1", ["'worker'", "'workers'"]),
        ("pretrain.seqlen=1", ["'pretrain.seq_len'"]),
        ("sft.lr=-1", ["sft.lr", "-1", "greater than 0"]),
        ("sft.lr=fast", ["sft.lr", "'fast'", "number"]),
        ("sft.tokens=0", ["sft.tokens"]),
        ("sft.tokens=10", ["tokens = 10", "less than one step"]),
        ("sft.warmup_steps=10000", ["warmup_steps", "longer"]),
        ("episodes.train.functions=1000000000000", ["episodes.train.functions", "50000000"]),
        ("episodes.valid=60000000", ["episodes.valid", "50000000"]),
        ("model.rope_theta=inf", ["[model]", "rope_theta", "finite"]),
        ("model.max_position_embeddings=1000000000000", ["[model]", "max_position_embeddings"]),
        ("sft.micro_batches=3", ["sft.micro_batches = 3", "workers = 2"]),
        ("pretrain.seq_len=100000", ["seq_len = 100000", "micro_tokens"]),
        ("episodes.max_tokens=100000", ["sft.micro_tokens"]),
        ("sft.qk_clip_threshold=inf", ["sft.qk_clip_threshold", "finite"]),
        ("sft.adam_betas=[1,1]", ["sft.adam_betas", "less than 1"]),
        ("sft.tokens=99999999999999999999", ["sft.tokens"]),
        ("sft.valid_micro_batches=1000000000000", ["sft.valid_micro_batches", "100000"]),
        ("pretrain.micro_tokens=1000000000", ["pretrain.micro_tokens", "10000000"]),
        ("sft.short_tokens=1", ["sft.short_tokens", "128"]),
        ("corpus.valid_fraction=0", ["corpus.valid_fraction"]),
        ("corpus.paths=[]", ["corpus.paths is empty"]),
        ("corpus.valid_fraction=false", ["corpus.valid_fraction = false"]),
        ("model.num_hidden_layers=true", ["model.num_hidden_layers = true"]),
        ("seed=true", ["seed", "true"]),
        ("workers=true", ["workers", "true"]),
        ("episodes.train={cooking=3}", ["'cooking'", "functions, notebook, shell"]),
        ("model.hiden_size=3", ["micro.toml", "unknown key 'model.hiden_size'", "'model.hidden_size'"]),
        ("model.hidden_size=-3", ["micro.toml", "[model]", "hidden_size"]),
        ("sft=3", ["sft"]),
        ("sft.lr.x=3", ["lr is a value"]),
        ("sft.lr", ["key.path=value"]),
        ("=3", ["key.path=value"]),
    ],
)
def test_what_is_wrong_is_named(override: str, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        load_recipe(RECIPES / "micro.toml", [override])
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_missing_section_is_named(tiny_raw: dict[str, Any]) -> None:
    del tiny_raw["sft"]
    with pytest.raises(UserError, match="'sft' is missing"):
        parse_recipe(tiny_raw, "x.toml")


def test_a_file_that_is_not_toml(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text("lr = = 3")
    with pytest.raises(UserError, match="not valid TOML"):
        load_recipe(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read"):
        load_recipe(path)
    with pytest.raises(UserError, match="there is no recipe"):
        load_recipe(tmp_path / "y.toml")
    with pytest.raises(UserError, match="cannot be read"):
        load_recipe(tmp_path)
    with pytest.raises(UserError, match="more than 10 MB"):
        load_recipe(Path("/dev/zero"))


def test_a_model_field_that_does_not_exist_is_refused(tiny_raw: dict[str, Any], tmp_path: Path) -> None:
    tiny_raw["model"]["hidden_sise"] = 3
    with pytest.raises(UserError, match="hidden_sise"):
        parse_recipe(tiny_raw, "x.toml")


def test_an_unknown_key_comes_before_missing_ones(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text("no_such_key = 1\n")
    with pytest.raises(UserError, match="unknown key 'no_such_key'"):
        load_recipe(path)
