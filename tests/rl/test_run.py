"""What a run of reinforcement learning takes for the same run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from openk2.core import UserError
from openk2.core.errors import EndedAtOnce, Interrupted
from openk2.core.progress import Bar
from openk2.core.runs import locked
from openk2.rl.export import recipe_of
from openk2.rl.recipe import RLRecipe
from openk2.rl.report import figures_of, write_report
from openk2.rl.run import begun_from, config_of, is_rl_run, run_rl
from openk2.train.stages import start_folder
from shared import toy


def few() -> RLRecipe:
    return RLRecipe.model_validate(
        {"name": "few", "start": "nano", "iterations": 1, "objective": {"lr": 0.001}}
        | {"families": {"instructions": {"prompts": 2}}}
    )


def test_a_family_that_was_edited_makes_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Iterations under two verifiers must not meet in one folder."""
    monkeypatch.chdir(tmp_path)
    own = Path("edited.py")
    shutil.copy(toy.__file__, own)
    recipe = RLRecipe.model_validate(
        {"name": "echo", "start": "nano", "iterations": 1, "objective": {"lr": 0.001}, "workers": 1}
        | {"families": {"edited.py:Short": {"prompts": 1}}}
    )
    config = config_of(recipe) | begun_from(recipe, start_folder("nano", "echo"))
    (tmp_path / "run" / "rl" / "checkpoints" / "step-00000000").mkdir(parents=True)
    (tmp_path / "run" / "rl" / "begun.json").write_text(json.dumps({"config": config, "inputs": {}}))
    own.write_text(own.read_text().replace("<= 12", "<= 13"))
    with pytest.raises(UserError, match=r"made when edited\.py:Short had another content: .*choose another run"):
        run_rl(recipe, tmp_path / "run")


def test_a_start_that_was_trained_on_makes_another_run(tmp_path: Path) -> None:
    """It has the same name and the same shape, and its samples would be another policy's."""
    recipe = few()
    begun = begun_from(recipe, start_folder("nano", "few"))
    (name,) = begun["weights"]
    config = config_of(recipe) | {"weights": {name: "0" * 64}}
    (tmp_path / "rl" / "checkpoints" / "step-00000000").mkdir(parents=True)
    (tmp_path / "rl" / "begun.json").write_text(json.dumps({"config": config, "inputs": {}}))
    with pytest.raises(UserError, match=r"made when model\.safetensors had another content: .*choose another run"):
        run_rl(recipe, tmp_path)


class Interrupts:
    """A person who presses Ctrl-C when the bar says what it has to."""

    def __init__(self, words: str) -> None:
        self.words, self.said = words, list[str]()

    def note(self, text: str) -> None:
        self.said.append(text)

    @contextmanager
    def stage(self, name: str) -> Iterator[Bar]:
        yield self._bar

    def _bar(self, done: int, total: int, text: str = "") -> None:
        self.said.append(text)
        if self.words in text:
            raise KeyboardInterrupt


def test_before_the_start_is_measured_nothing_is_waited_for(tmp_path: Path) -> None:
    recipe = RLRecipe.model_validate(
        {"name": "long", "start": "nano", "iterations": 1, "objective": {"lr": 0.001}, "eval": {"n": 200}}
        | {"families": {"math": {"prompts": 2, "budget": 4, "steps": 1}}, "critic": {"valid": 0}}
    )
    person = Interrupts("measuring")
    # Signs that mean something in a URL, which the workers meet at.
    run = tmp_path / "what? #1\n2"
    with pytest.raises(Interrupted, match="before the start was measured, so nothing is kept"):
        run_rl(recipe, run, reporter=person)
    assert "stopping" not in " ".join(person.said)
    # So that a person may think again about what takes so long.
    assert not (run / "rl").exists() and not is_rl_run(run)
    assert list(tmp_path.iterdir()) == [run]
    for what in (figures_of, recipe_of):
        with pytest.raises(UserError, match=r"is not a run of .* give that command again if it was stopped"):
            what(run)


@pytest.mark.parametrize(
    "there", ["instruct", "instruct/model.safetensors", "rl/examples.json", "rl/checkpoints/step-old"]
)
def test_what_nobody_may_lose_is_seen_before_the_start(there: str, tmp_path: Path) -> None:
    recipe = few()
    mine = tmp_path / there
    mine.parent.mkdir(parents=True, exist_ok=True)
    mine.write_text("mine")
    with pytest.raises(UserError, match=r"is there, and no stage has written it: choose another run folder"):
        run_rl(recipe, tmp_path)
    assert mine.read_text() == "mine" and not is_rl_run(tmp_path)


def test_a_start_that_fails_or_is_killed_leaves_the_folder_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = few()
    begun = tmp_path / "rl" / "begun.json"
    begun.parent.mkdir()
    # A place on another disk, prepared for what is to come.
    (tmp_path / "disk" / "lost+found").mkdir(parents=True)
    (begun.parent / "checkpoints").symlink_to(tmp_path / "disk")
    # Of another recipe, which was killed.
    begun.write_text(json.dumps({"config": {"name": "other"}, "inputs": {}}))
    (begun.parent / "metrics.jsonl").write_text("")

    def fail(*_: object) -> None:
        assert not begun.exists() and (begun.parent / "checkpoints").is_dir()
        begun.write_text("")
        raise UserError("no tokenizer here")

    monkeypatch.setattr("openk2.rl.run.run_stage", fail)
    for _ in range(2):
        with pytest.raises(UserError, match="no tokenizer here"):
            run_rl(recipe, tmp_path)
        assert not is_rl_run(tmp_path)
    # Nothing is taken from whoever still works there.
    begun.write_text(json.dumps({"config": {}, "inputs": {}}))
    monkeypatch.setattr("openk2.rl.run.LOCK_SECONDS", 0.0)
    with locked(begun.parent, ""), pytest.raises(UserError, match="another process is working in"):
        run_rl(recipe, tmp_path)
    assert begun.exists()


@pytest.mark.parametrize(
    ("raised", "there", "says"),
    [
        (KeyboardInterrupt, "checkpoints/step-1/state", "nothing is lost in"),
        (EndedAtOnce, "checkpoints/step-1/state", "ended at once: the last checkpoint in .* is kept"),
        # While what is finished is checked.
        (KeyboardInterrupt, "manifest.json", "nothing is lost in"),
    ],
)
def test_what_is_kept_is_said(
    raised: type[KeyboardInterrupt], there: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = few()
    kept = tmp_path / "rl" / there
    kept.parent.mkdir(parents=True)
    kept.write_text("")

    def stop(*_: object) -> None:
        raise raised

    monkeypatch.setattr("openk2.rl.run.check_stage", lambda *_: None)
    monkeypatch.setattr("openk2.rl.run.run_stage", stop)
    with pytest.raises(Interrupted, match=says):
        run_rl(recipe, tmp_path)
    assert kept.exists()


def test_what_is_beside_a_stage_that_never_began_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = few()
    folder = tmp_path / "rl"
    mine = folder / "mine.txt"

    def stop(*_: object) -> None:
        # The first checkpoint was being written.
        (folder / "checkpoints" / ".step-00000000.building").mkdir(parents=True)
        for name in ("begun.json", "dtype", ".lock", "metrics.jsonl", "timings.jsonl", "examples.json"):
            (folder / name).write_text("")
        mine.write_text("")
        raise KeyboardInterrupt

    monkeypatch.setattr("openk2.rl.run.run_stage", stop)
    with pytest.raises(Interrupted, match="nothing is kept"):
        run_rl(recipe, tmp_path)
    assert [path.name for path in folder.rglob("*")] == ["mine.txt"]
    # Nor is what somebody keeps among the checkpoints taken.
    mine.unlink()
    mine = folder / "checkpoints" / "mine.txt"
    with pytest.raises(Interrupted, match="nothing is kept"):
        run_rl(recipe, tmp_path)
    assert mine.exists() and not is_rl_run(tmp_path)
    shutil.rmtree(folder)
    # Ended half way, what is left is no log of another run.
    unlink = Path.unlink

    def ended(path: Path, missing_ok: bool = False) -> None:
        if path.name == "dtype":
            raise KeyboardInterrupt
        unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "unlink", ended)
        run_rl(recipe, tmp_path)
    assert not (folder / "metrics.jsonl").exists() and (folder / "begun.json").exists()


def test_a_log_without_its_run_is_not_written_over(tmp_path: Path) -> None:
    recipe = few()
    log = tmp_path / "rl" / "metrics.jsonl"
    log.parent.mkdir()
    log.write_text('{"iteration": 0}\n')
    lost = r"metrics\.jsonl is all that is left of a run, whose checkpoints are gone, and would be lost"
    with pytest.raises(UserError, match=lost):
        run_rl(recipe, tmp_path)
    assert log.read_text() == '{"iteration": 0}\n'
    # Nor where there is a record, and something that only looks like a checkpoint.
    (log.parent / "begun.json").write_text(json.dumps({"config": {}}))
    (log.parent / "checkpoints" / "step-old").mkdir(parents=True)
    log.write_text('{"iteration": 0}\n{"iteration": 1}\n')
    with pytest.raises(UserError, match=lost):
        run_rl(recipe, tmp_path)
    assert log.read_text() == '{"iteration": 0}\n{"iteration": 1}\n'


def test_a_disk_that_is_not_mounted_is_no_start_that_was_killed(tmp_path: Path) -> None:
    recipe, folder, disk = few(), tmp_path / "rl", tmp_path / "disk"
    folder.mkdir()
    (folder / "begun.json").write_text(json.dumps({"config": {"name": "other"}, "inputs": {}}))
    (folder / "metrics.jsonl").write_text('{"iteration": 0}\n')
    (folder / "checkpoints").symlink_to(disk)
    for says in ("leads to .*disk, where no folder is: mount", "whose checkpoints are gone, .*: bring them back"):
        with pytest.raises(UserError, match=says):
            run_rl(recipe, tmp_path)
        assert (folder / "metrics.jsonl").read_text() == '{"iteration": 0}\n'
        # The place where it would be mounted.
        disk.mkdir(exist_ok=True)
    (disk / "step-00000000").mkdir()
    with pytest.raises(UserError, match="was made with"):
        run_rl(recipe, tmp_path)


def test_a_log_that_was_damaged_or_lost_says_what_can_be_done(tmp_path: Path) -> None:
    folder = tmp_path / "rl"
    folder.mkdir()
    for record, empty, cut in (
        ("begun.json", "has no iteration yet: wait, or give the rl run command again", "correct or delete line 1, and"),
        ("manifest.json", "is lost, and the run is finished", "correct or delete line 1, and"),
    ):
        (folder / record).write_text(json.dumps({"config": {}}))
        (folder / "metrics.jsonl").write_text("")
        with pytest.raises(UserError, match=empty):
            figures_of(tmp_path)
        (folder / "metrics.jsonl").write_text('{"iteration": 0')
        with pytest.raises(UserError, match=cut):
            figures_of(tmp_path)
        # All that machines read stands in the log.
        (folder / record).unlink()
        (folder / "metrics.jsonl").write_text('{"iteration": 0}\n')
        assert figures_of(tmp_path)["iteration"] == [0]
        (folder / record).write_text("{")
        assert write_report(tmp_path)[1][0].suffix == ".html"
    # Nothing but a checkpoint says where to go on.
    (folder / "checkpoints" / "step-00000001").mkdir(parents=True)
    (folder / "metrics.jsonl").write_text('{"iteration": 0')
    with pytest.raises(UserError, match="command again, which cuts it back"):
        figures_of(tmp_path)


def test_a_folder_that_has_one_called_rl_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "rl" / "rl").mkdir(parents=True)
    (tmp_path / "rl" / "rl" / "manifest.json").write_text(json.dumps({"config": {}}))
    assert is_rl_run(tmp_path / "rl") and not is_rl_run(tmp_path)


def test_a_folder_whose_name_no_recipe_can_hold(tmp_path: Path) -> None:
    recipe = few()
    with pytest.raises(UserError, match="has bytes that are not UTF-8: take another"):
        run_rl(recipe, tmp_path / "caf\udce9")
    assert not list(tmp_path.iterdir())


def test_a_default_is_recorded_as_what_it_is() -> None:
    """So that a run goes on when it is written out."""
    raw = {"name": "few", "start": "nano", "iterations": 1, "objective": {"lr": 0.001}}
    families = {"families": {"functions": {"prompts": 2}}, "critic": {"families": ["functions"]}}
    for critic in ({}, {"weight": 0.1, "families": ["functions"]}):
        recipe = RLRecipe.model_validate(raw | families | {"critic": critic})
        said = RLRecipe.model_validate(raw | families | {"critic": critic | {"valid": 200 if critic else 0}})
        assert (
            config_of(recipe)
            == config_of(said)
            != config_of(RLRecipe.model_validate(raw | families | {"critic": critic | {"valid": 7}}))
        )


def test_a_run_without_families_of_its_own_says_nothing_of_them() -> None:
    recipe = few()
    assert list(begun_from(recipe, start_folder("nano", "few"))) == ["weights"]
