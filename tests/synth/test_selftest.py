"""The verifiers are tried: what is changed is noticed, what is done wrong is rejected, and both are counted by kind."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("duckdb")
pytest.importorskip("pyarrow")

from openk2.cli.main import app
from openk2.core import Task
from openk2.data.lake import Lake
from openk2.synth import selftest
from openk2.synth.factory import run_factory
from openk2.synth.recipe import SynthRecipe
from openk2.synth.selftest import change, self_test, try_carelessly
from openk2.worlds.apps.told import refuses
from openk2.worlds.apps.world import PlanTurn
from synth.made import apps, tasks

RECIPE = SynthRecipe.model_validate(
    {"name": "tried", "seed": 4, "domains": {"count": 12, "tools": 60}, "tasks": {"count": 230, "in_a_row": 5}}
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    run_factory(RECIPE, folder, workers=1)
    return folder


def test_two_hundred_changes_and_mistakes(run: Path) -> None:
    found = self_test(run, 200)
    assert (found.noticed.n, found.noticed.passed) == (200, 200), found.missed
    assert found.by_execution.passed >= 190, found.missed
    assert found.rejected.n == 200 and found.rejected.passed >= 190, found.missed
    assert found.accepted.n == 200 and found.accepted.passed >= 194, found.missed
    # The same seed, the same trial.
    assert self_test(run, 20).to_json() == self_test(run, 20).to_json()


def test_each_kind_of_change_and_of_mistake_is_made(run: Path) -> None:
    _, rows = Lake(run).query("SELECT atif FROM trajectories LIMIT 60")
    documents = [json.loads(atif) for (atif,) in rows]
    kinds = {change(document, random.Random(i))[0] for i, document in enumerate(documents)}
    assert kinds == set(selftest._CHANGES)
    tried = [
        try_carelessly(
            Task(str(i), "apps", "", i, "", made.model_dump(mode="json")), apps(), random.Random(f"{seed} {i}")
        )
        for seed in range(12)
        for i, (made, _) in enumerate(tasks())
    ]
    assert {kind for kind, _ in tried} == set(selftest._MISTAKES)


def test_other_words_are_of_all_kinds() -> None:
    turn = PlanTurn(answer="It is on 2026-08-21 at 13:05.")
    said = {selftest.in_other_words(turn, random.Random(seed)).answer for seed in range(99)}
    days, times = ("August 21, 2026", "21 Aug 2026", "21.8.2026"), ("1:05 PM", "01:05 PM", "1.05 pm")
    assert said == {f"It is on {day} at {time}." for day in days for time in times}
    refused = PlanTurn(answer="I'm sorry, that is not possible. It is full.")
    assert {selftest.in_other_words(refused, random.Random(seed)).answer for seed in range(199)} == set(
        selftest._REFUSALS
    )


@pytest.mark.parametrize("said", selftest._CLAIMS)
def test_no_claim_is_a_refusal(said: str) -> None:
    assert not refuses([said])


def test_at_the_command_line(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["synth", "verify", str(run), "--self-test", "20"]
    said = CliRunner().invoke(app, command)
    assert said.exit_code == 0 and "20 changed, 20 noticed" in said.output and "95 % CI" in said.output
    raw = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert raw["noticed"]["rate"] == 1.0 and raw["rejected"]["n"] == 20
    # A verifier that lets everything pass fails the trial.
    monkeypatch.setattr(selftest, "try_carelessly", lambda task, apps, rng: ("any", True))
    assert CliRunner().invoke(app, command).exit_code == 1
