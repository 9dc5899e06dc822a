"""Orchestration around the stages: what is refused before anything is computed, and how progress is told."""

import fcntl
import io
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from openk2.chat import Tokenizer
from openk2.core import UserError
from openk2.core.progress import ConsoleReporter
from openk2.core.runs import read_manifest
from openk2.data.shards import Shards
from openk2.train import stages
from openk2.train.recipe import Recipe, parse_recipe
from openk2.train.stages import run_recipe


@pytest.fixture
def said() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def reporter(said: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> ConsoleReporter:
    # Else a busy machine adds lines about how far a stage is.
    monkeypatch.setattr("openk2.core.progress.PLAIN_SECONDS", math.inf)
    return ConsoleReporter(Console(file=said, width=200))


def test_until_and_again(tiny: Recipe, tmp_path: Path, reporter: ConsoleReporter, said: io.StringIO) -> None:
    run = run_recipe(tiny, tmp_path / "run", until="tokens", reporter=reporter)
    assert sorted(p.name for p in run.iterdir()) == [".lock", "corpus", "tokenizer", "tokens"]
    tokenizer = Tokenizer.load(run / "tokenizer")
    assert tokenizer.vocab_size == 768
    shards = Shards(run / "tokens" / "train")
    assert len(shards.tokens) >= 6000
    assert all(ids[-1] == tokenizer.id("[EOS]") for ids, _ in shards)
    manifest = read_manifest(run / "tokens")
    assert manifest is not None
    assert set(manifest.inputs) == {
        "corpus/text/train.jsonl",
        "corpus/text/valid.jsonl",
        "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json",
        "tokenizer/chat_template.jinja",
    }
    run_recipe(tiny, run, until="tokens", reporter=reporter)
    lines = said.getvalue().splitlines()
    assert [line.split(" (")[0] for line in lines] == [
        *(f"{stage}: done" for stage in ("corpus", "tokenizer", "tokens")),
        *(f"{stage}: already there" for stage in ("corpus", "tokenizer", "tokens")),
    ]
    # A folder may move; a stage made from something else is not reused.
    moved = shutil.move(run, tmp_path / "moved")
    run_recipe(tiny, moved, until="tokens", reporter=reporter)
    shutil.rmtree(moved / "tokens")
    path = moved / "tokenizer" / "manifest.json"
    path.write_text(path.read_text().replace('"vocab_size": 768', '"vocab_size": 800'))
    with pytest.raises(UserError, match="vocab_size = 800, the recipe now says 768"):
        run_recipe(tiny, moved, until="tokens", reporter=reporter)


def test_an_unknown_stage(tiny: Recipe, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'tokenise': choose one of corpus, tokenizer"):
        run_recipe(tiny, tmp_path / "run", until="tokenise")
    assert not (tmp_path / "run").exists()


def test_a_device_that_is_not_there(tiny: Recipe, tmp_path: Path) -> None:
    for device in ("abacus", "meta"):
        with pytest.raises(UserError, match=f"'{device}' cannot be used"):
            run_recipe(tiny, tmp_path / "run", device=device)


def test_a_model_that_no_machine_holds(tiny_raw: dict[str, Any], tmp_path: Path) -> None:
    tiny_raw["model"]["hidden_size"] = 10_000_000
    with pytest.raises(UserError, match=r"this machine has .* GB"):
        run_recipe(parse_recipe(tiny_raw, "tiny"), tmp_path / "run")


def test_episodes_of_another_generator(
    tiny: Recipe, tmp_path: Path, reporter: ConsoleReporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_recipe(tiny, tmp_path / "run", until="tokenizer", reporter=reporter)
    monkeypatch.setattr(stages, "_generator", lambda family: "changed")
    with pytest.raises(UserError, match="was made with families"):
        run_recipe(tiny, tmp_path / "run", until="tokenizer", reporter=reporter)


def test_a_run_folder_that_cannot_be(tiny: Recipe, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be used"):
        run_recipe(tiny, tmp_path / "file" / "run")


def test_one_process_at_a_time(tiny: Recipe, tmp_path: Path) -> None:
    with open(tmp_path / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process"):
            run_recipe(tiny, tmp_path, until="corpus")


def test_half_a_stage_of_another_recipe(tiny_raw: dict[str, Any], tmp_path: Path, reporter: ConsoleReporter) -> None:
    (tmp_path / "corpus").mkdir()
    begun = tmp_path / "corpus" / "begun.json"
    begun.write_text(json.dumps({"config": {"paths": ["elsewhere"]}, "inputs": {}}))
    with pytest.raises(UserError, match="delete"):
        run_recipe(parse_recipe(tiny_raw, "tiny"), tmp_path, until="corpus", reporter=reporter)
    for damaged in ("{", "null"):
        begun.write_text(damaged)
        with pytest.raises(UserError, match=r"begun\.json is damaged"):
            run_recipe(parse_recipe(tiny_raw, "tiny"), tmp_path, until="corpus", reporter=reporter)


def test_a_start_that_failed_leaves_the_folder_open(tiny_raw: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("ab")
    bad = parse_recipe(tiny_raw | {"corpus": {"paths": [str(tmp_path / "short.txt")]}}, "tiny")
    with pytest.raises(UserError, match="no text is left for the corpus"):
        run_recipe(bad, tmp_path / "run", until="corpus")
    run_recipe(parse_recipe(tiny_raw, "tiny"), tmp_path / "run", until="corpus")
    assert read_manifest(tmp_path / "run" / "corpus") is not None


def test_a_later_stage_of_another_recipe_is_seen_first(tiny: Recipe, tmp_path: Path) -> None:
    (tmp_path / "sft").mkdir()
    (tmp_path / "sft" / "begun.json").write_text(json.dumps({"config": {"lr": 1.0}, "inputs": {}}))
    with pytest.raises(UserError, match="sft was made with"):
        run_recipe(tiny, tmp_path)
    assert not (tmp_path / "corpus").exists()


def test_own_text_that_has_changed_is_no_longer_the_same_corpus(
    tiny_raw: dict[str, Any], tmp_path: Path, reporter: ConsoleReporter
) -> None:
    text = tmp_path / "text"
    text.mkdir()
    (text / "a.txt").write_text("some words of prose that are long enough to be kept\n" * 20)
    (text / "b.txt").write_text("other words of prose that are long enough to be kept\n" * 20)
    tiny_raw["corpus"] = {"paths": [str(text)], "valid_fraction": 0.3}
    recipe = parse_recipe(tiny_raw, "tiny")
    for _ in range(2):
        run_recipe(recipe, tmp_path / "run", until="corpus", reporter=reporter)
    (text / ".git").mkdir()
    for name in (".git/index", "picture.png", "model.pt"):  # what is no text does not matter
        (text / name).write_bytes(b"\0")
    run_recipe(recipe, tmp_path / "run", until="corpus", reporter=reporter)
    (text / "c.txt").write_text("a third text\n" * 20)
    with pytest.raises(UserError, match="corpus"):
        run_recipe(recipe, tmp_path / "run", until="corpus", reporter=reporter)


def test_the_bar_runs_on_a_terminal(said: io.StringIO) -> None:
    reporter = ConsoleReporter(Console(file=said, width=200, force_terminal=True))
    with reporter.stage("pretrain") as bar:
        bar(10, 100)
        bar(50, 100, "loss 2.000")
    assert "pretrain" in said.getvalue()
    assert "50/100" in said.getvalue()
    assert "loss 2.000" in said.getvalue()


@pytest.mark.parametrize("width", [60, 80, 100])
def test_what_stands_beside_the_bar_is_cut_between_words(width: int, said: io.StringIO) -> None:
    reporter = ConsoleReporter(Console(file=said, width=width, force_terminal=True))
    with reporter.stage("rl") as bar:
        bar(100, 200, "reward 0.345 held out 45.3% 12.3 episodes/s")
    # The last picture of the bar, without what moves the cursor.
    line = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.getvalue()).replace("\r", "\n").rstrip().splitlines()[-1]
    assert len(line) <= width and "100/200" in line
    shown = {60: "reward…", 80: "reward 0.345 held out 45.3%…", 100: "reward 0.345 held out 45.3% 12.3 episodes/s"}
    assert line.rstrip().endswith(shown[width]), line
