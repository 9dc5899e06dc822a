"""`openk2 train`: recipes that cannot be, and Ctrl-C."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MICRO = Path(__file__).resolve().parents[2] / "recipes" / "micro.toml"
Run = Callable[..., Any]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return Path(shutil.copy(MICRO, tmp_path / "my recipe.toml"))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[sft]\ntokens", "[sft]\ntokns = 1\ntokens", "'sft.tokens'"),
        ("seed = 0", "sede = 0", "'sede'"),
        ("seed = 0", "seed = -3", "seed = -3"),
        ("workers = 2", "workers = 3", "multiple of workers"),
        ("workers = 2", "workers = 'two'", "workers"),
        ("lr = 0.006", "lr = -1", "lr = -1"),
        ("warmup_steps = 5", "warmup_steps = 5000", "warmup_steps = 5000"),
        ("seq_len = 256", "seq_len = 100000", "seq_len = 100000"),
        ('preset = "test"', 'preset = "huge"', "huge"),
        ('preset = "test"', 'preset = "test"\nhidden_size = "big"', "hidden_size"),
        ("[model]", "[model", "not valid TOML"),
    ],
)
def test_recipes_that_cannot_be(cli: Run, recipe: Path, tmp_path: Path, old: str, new: str, words: str) -> None:
    text = recipe.read_text()
    assert old in text
    recipe.write_text(text.replace(old, new, 1))
    cli("train", recipe, "--run", tmp_path / "run").refused(words)
    assert not (tmp_path / "run").exists()


def test_other_bad_input(cli: Run, recipe: Path, tmp_path: Path) -> None:
    run = ("--run", tmp_path / "run")
    cli("train", tmp_path / "missing.toml", *run).refused("missing.toml")
    cli("train", tmp_path, *run).refused("cannot be read")
    cli("train", recipe, *run, "--set", "sft.lr").refused("key.path=value")
    cli("train", recipe, *run, "--set", "sft.speed=3").refused("sft.speed")
    cli("train", recipe, *run, "--until", "dinner").refused("'dinner'", "pretrain")
    cli("train", recipe, "--run", recipe / "below").refused("--run")
    cli("train", recipe, *run, "--device", "nonsense").refused("nonsense")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ctrl_c_while_training_keeps_everything(command: list[str], recipe: Path, tmp_path: Path) -> None:
    """As a terminal sends it: to the command and all its workers. The same command goes on."""
    arguments = [*command, "train", str(recipe), "--run", str(tmp_path / "run"), "--until", "pretrain"]
    metrics = tmp_path / "run" / "pretrain" / "metrics.jsonl"
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not (metrics.exists() and metrics.read_text().count("\n") > 3):
        assert process.poll() is None
        try:
            process.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    last = err.splitlines()[-1]
    assert last.startswith("openk2: interrupted: all that was finished is kept in ") and "Traceback" not in err
    done = subprocess.run(arguments, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0 and "pretrain: goes on from step" in done.stderr
