"""A run of the factory: the same bytes whatever the workers, however often it was stopped, and it can be verified."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("duckdb")
pytest.importorskip("pyarrow")

from openk2.core import UserError
from openk2.core.atif import from_atif
from openk2.core.runs import read_manifest, sha256_file
from openk2.data.lake import Lake
from openk2.sandbox import resolve_sandbox
from openk2.synth import factory
from openk2.synth.factory import run_factory
from openk2.synth.lexicon import split_of_domain
from openk2.synth.recipe import RealConfig, SynthRecipe, load_synth_recipe
from openk2.synth.show import markdown
from openk2.synth.verify import difference, verify_run
from openk2.worlds.apps.declaration import Domain
from openk2.worlds.apps.world import Apps

RECIPES = Path(__file__).parents[2] / "recipes"
SMALL = SynthRecipe.model_validate(
    {
        "name": "small",
        "seed": 3,
        "domains": {"count": 6, "tools": 60},
        "tasks": {"count": 40, "in_a_row": 4, "per_shard": 10},
    }
)


def bytes_of(run: Path) -> dict[str, str]:
    return {str(path.relative_to(run)): sha256_file(path) for path in run.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    run_factory(SMALL, folder, workers=1)
    return folder


def rows(run: Path, sql: str) -> list[tuple[Any, ...]]:
    return Lake(run).query(sql)[1]


def test_agents_turns_and_domains_are_the_recipes(tmp_path: Path) -> None:
    small = {
        "name": "nano",
        "domains": {"count": 12, "tools": 60, "held_out": "left out"},
        "agents": {"per_domain": 2, "tools": [2, 4], "distractors": 0},
        "tasks": {"count": 40, "turns": 2, "in_a_row": 4},
    }
    run_factory(SynthRecipe.model_validate(small), tmp_path, workers=1)
    made = [json.loads(agent) for (agent,) in rows(tmp_path, "select agent from agents")]
    assert len(made) == 24 and all(1 <= len(one["tools"]) <= 4 and not one["distractors"] for one in made)
    # A change of mind is one more.
    assert rows(tmp_path, "select max(json_array_length(data, '$.turns')) from tasks")[0][0] <= 3
    assert {split_of_domain(one["domain"]) for one in made} == {"train"}
    with pytest.raises(UserError, match="tools"):
        load_synth_recipe(RECIPES / "synth-nano.toml", ["agents.tools=[5, 4]"])


def test_counts_of_a_run(run: Path) -> None:
    status = Lake(run).status()
    assert status["domains"] == 6 and status["agents"] == 18 and status["tasks"] == status["attempts"] <= 40
    assert status["kept"] + sum(status["dropped"].values()) == 40 and status["kept"] > 30
    assert status["tools"] == rows(run, "select count(*) from tools where dropped = ''")[0][0] > 200
    manifest = read_manifest(run / "synth")
    assert manifest is not None and manifest.results["kept"] == status["kept"]
    assert all(sha256_file(run / "synth" / name) == digest for name, digest in manifest.outputs.items())


def test_the_bytes_do_not_depend_on_the_workers(run: Path, tmp_path: Path) -> None:
    run_factory(SMALL, tmp_path, workers=2)
    assert bytes_of(tmp_path) == bytes_of(run)


def test_a_stopped_run_goes_on(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = factory.run_planner, []

    def stopped(*arguments: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        real(*arguments)

    monkeypatch.setattr(factory, "run_planner", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_factory(SMALL, tmp_path, workers=1)
    assert Lake(tmp_path).status()["attempts"] == 20 and not Lake(tmp_path).status()["finished"]
    run_factory(SMALL, tmp_path, workers=1)
    assert len(calls) == 5 and bytes_of(tmp_path) == bytes_of(run)


def test_a_larger_run_keeps_what_is_there(run: Path, tmp_path: Path) -> None:
    few = SMALL.model_copy(update={"tasks": SMALL.tasks.model_copy(update={"count": 15})})
    run_factory(few, tmp_path, workers=1)
    assert Lake(tmp_path).status()["attempts"] <= 15
    run_factory(SMALL, tmp_path, workers=1)
    assert bytes_of(tmp_path) == bytes_of(run)
    with pytest.raises(UserError, match="holds a run with another seed"):
        run_factory(SMALL.model_copy(update={"seed": 4}), tmp_path, workers=1)


def test_every_trajectory_can_be_executed_again(run: Path) -> None:
    found = verify_run(run, workers=1).to_json()
    assert found["checked"] == found["agreed"] == Lake(run).status()["kept"] and found["disagreed"] == 0


def test_a_share_of_the_tasks_is_executed_for_real(run: Path, tmp_path: Path) -> None:
    resolve_sandbox(consent=True)
    few = SMALL.tasks.model_copy(update={"count": 15})
    mixed = SMALL.model_copy(update={"tasks": few, "real": RealConfig(share=0.3)})
    run_factory(mixed, tmp_path, workers=2)
    (found,) = rows(tmp_path, "select count(*), count(distinct domain) from trajectories where kinds = 'real'")
    assert 2 <= found[0] <= 9 and found[1] == 1
    # The other tasks are those of a run without.
    sql = "select number, data from tasks where kinds <> 'real' order by number"
    assert set(rows(tmp_path, sql)) < set(rows(run, sql))
    status = verify_run(tmp_path, workers=1).to_json()
    assert status["checked"] == status["agreed"] == Lake(tmp_path).status()["kept"]
    shown = markdown(tmp_path, n=15, seed=0)
    assert shown.count(": machine (") >= 2 and "### The checks" in shown and "### The rubric" in shown


def changed(value: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return f"{value}x"


def test_one_changed_value_is_found(run: Path) -> None:
    """In each trajectory one value is changed: of a call, of a result, of what was said, of the verdict."""
    apps = Apps(lambda name: Domain.model_validate_json(declared[name]))
    declared = dict(rows(run, "select name, declaration from domains"))
    found = 0
    kept = rows(run, "select hash, atif from trajectories")
    for number, (digest, atif) in enumerate(kept):
        raw = json.loads(atif)
        assert asyncio.run(difference(from_atif(raw), apps, digest)) is None
        steps = [step for step in raw["steps"] if step.get("tool_calls")]
        kind = number % 5
        if kind == 0:
            raw["extra"]["verdict"]["passed"] = False
        elif kind == 1 or not steps:
            user = [step for step in raw["steps"] if step["source"] == "user"][-1]
            user["message"] += " now"
        elif kind == 2:
            result = steps[-1]["observation"]["results"][-1]
            result["content"] = result["content"].replace(":", ": ", 1)
        elif kind == 3:
            call = steps[0]["tool_calls"][0]
            call["function_name"] += "x"
        else:
            calls = [call for step in steps for call in step["tool_calls"] if call["arguments"]]
            if calls:
                name = sorted(calls[0]["arguments"])[0]
                calls[0]["arguments"][name] = changed(calls[0]["arguments"][name])
            else:
                raw["extra"]["task"]["data"]["state_seed"] += 1
        # The content's hash alone would find most of it.
        found += asyncio.run(difference(from_atif(raw), apps)) is not None
    assert found == len(kept)


def test_questions(run: Path) -> None:
    assert rows(run, "select count(distinct domain) from trajectories")[0][0] >= 4
    with pytest.raises(UserError, match=r"cannot be answered.*nothing"):
        rows(run, "select nothing from trajectories")
    with pytest.raises(UserError, match="is not a run of the data factory"):
        Lake(run / "elsewhere")


def test_two_processes_do_not_share_a_folder(tmp_path: Path) -> None:
    from openk2.core.runs import locked

    with locked(tmp_path / "synth", "wait"), pytest.raises(UserError, match="another process is working"):
        run_factory(SMALL, tmp_path, workers=1)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("synth-*.toml")), ids=lambda path: path.stem)
def test_shipped_recipes(path: Path) -> None:
    assert load_synth_recipe(path).name == path.stem


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('name = "x"\n[task]\ncount = 3', "unknown key 'task': did you mean 'tasks'"),
        ('name = "x"\n[tasks]\ncout = 3', "unknown key 'tasks.cout': did you mean 'tasks.count'"),
        ('name = "x"\n[tasks]\ncount = 0', "tasks.count = 0 cannot be"),
        ('name = "X y"', "name = 'X y' cannot be"),
        ("seed = 1", "'name' is missing"),
        ("name = ", "is not valid TOML"),
    ],
)
def test_recipes_that_cannot_be(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=words):
        load_synth_recipe(path)
    with pytest.raises(UserError, match="there is no recipe"):
        load_synth_recipe(tmp_path / "none.toml")
