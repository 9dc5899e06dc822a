"""`openk2 rl`: the gym, recipes that cannot be, the micro recipe as a whole, and kill -9."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from openk2.core.families import GYM

MICRO = Path(__file__).resolve().parents[2] / "recipes" / "micro-rl.toml"
Run = Callable[..., Any]


def test_the_families(cli: Run) -> None:
    found = cli("rl", "gym", "list", "--json").events
    assert [one["name"] for one in found] == list(GYM)
    assert all(one["about"] and one["skills"] for one in found)
    said = cli("rl", "gym", "list").out
    assert "functions[:SKILL] " in said and "reports " in said
    assert max(map(len, said.splitlines())) <= 80


def test_a_sample_says_what_its_gold_answer_is_worth(cli: Run) -> None:
    example = Path(__file__).resolve().parents[2] / "examples" / "reward.py"
    assert re.search(
        r"verdict passed\nreward  0\.\d+ \(0\.\d+ off for words\)", cli("rl", "gym", "sample", f"{example}:Brief").out
    )
    assert "verdict not judged by code: " in cli("rl", "gym", "sample", "reports").out


@pytest.mark.parametrize("name", [*GYM, "apps:single", "reasoning:countdown"])
def test_samples_have_a_gold_answer_that_their_verifier_judges(cli: Run, name: str) -> None:
    found = cli("rl", "gym", "sample", name, "-n", "2", "--seed", "5", "--json").events
    assert len(found) == 2
    for one in found:
        assert one["prompt"] and one["answer"]
        # What a critic has to judge has no verdict.
        assert one["verdict"]["passed"] is (None if name == "reports" else True), one["verdict"]
    assert found == cli("rl", "gym", "sample", name, "-n", "2", "--seed", "5", "--json").events


def test_gold_conversations_are_what_train_reads(cli: Run, tmp_path: Path) -> None:
    target = tmp_path / "math.jsonl"
    assert cli("rl", "gym", "sample", "math", "-n", "7", "--messages", target).code == 0
    again = json.loads(cli("rl", "gym", "sample", "math", "-n", "7", "--messages", target, "--force", "--json").out)
    assert again == {"path": str(target), "conversations": 7}
    cli("rl", "gym", "sample", "math", "--messages", target).refused("is there already", "--force")
    lines = [json.loads(line) for line in target.read_text().splitlines()]
    assert len(lines) == 7
    assert [m["role"] for m in lines[0]["messages"]][-2:] == ["user", "assistant"]


def test_bad_input(cli: Run, tmp_path: Path) -> None:
    run = ("--run", tmp_path / "run")
    cli("rl", "gym", "sample", "chess").refused("there is no task family 'chess'")
    cli("rl", "gym", "sample", "math", "--split", "exam").refused("'exam'")
    cli("rl", "gym", "sample", "reports:x").refused("reports takes no option")
    cli("rl", "gym", "rate", "math", "--model", "nowhere").refused("nowhere")
    cli("rl", "gym", "rate", "reports", "-n", "1").refused("can only be compared")
    cli("rl", "report", tmp_path).refused("is not a run of reinforcement learning")
    cli("rl", "run", tmp_path / "missing.toml", *run).refused("missing.toml")
    cli("rl", "run", MICRO, *run, "--set", "start=elsewhere").refused("'elsewhere'", "nano")
    cli("rl", "run", MICRO, *run, "--set", "objective.tua=1").refused("objective.tau")
    cli("rl", "run", MICRO, *run, "--device", "nonsense").refused("nonsense")
    assert not (tmp_path / "run").exists()


@pytest.mark.timeout(600)
def test_the_whole_algorithm_in_miniature(cli: Run, cli_process: Run, tmp_path: Path) -> None:
    run = tmp_path / "run"
    ended = cli_process("rl", "run", MICRO, "--run", run)
    assert ended.code == 0, ended.err
    figures = json.loads(cli("rl", "report", run, "--json").out)
    assert json.loads(cli("rl", "report", run, "--json", "--out", tmp_path / "page").out) == figures
    assert (tmp_path / "page" / "report.html").exists() and not (run / "rl" / "report").exists()
    assert figures["iteration"] == [0, 1, 2, 3]
    assert figures["temperature"] == [None, 1.0, 0.85, 0.7]
    assert [rate["n"] for rate in figures["success"]["functions:choose"] if rate] == [10, 10]
    assert set(figures["reward"]) == set(figures["mean_tokens"]) == {"functions:choose", "instructions", "reports"}
    assert any(loss is not None for loss in figures["critic_loss"])
    assert figures["passed"]["reports"] == [None] * 4
    # Both workers judge, each its own pairs.
    for kind in ("critic_accuracy", "critic_reports"):
        counts = [
            (one and one["n"], by and by["n"])
            for one, by in zip(figures[kind], figures[f"{kind}_by_length"], strict=True)
        ]
        assert all(one == by for one, by in counts) and counts[0][0] > 0 and counts[-1][0] > 0, counts
    assert max(value for value in figures["logprob_mismatch_max"] if value is not None) < 4
    shown = cli("rl", "report", run)
    assert shown.code == 0 and (run / "rl" / "report" / "report.html").exists()
    assert max(map(len, shown.out.splitlines()[:6])) <= 80
    assert (run / "instruct" / "config.json").exists()
    again = cli_process("rl", "run", MICRO, "--run", run)
    assert again.code == 0 and "already there" in again.err
    cli("rl", "run", MICRO, "--run", run, "--set", "iterations=9").refused("iterations = 3", "another run folder")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(command: list[str], tmp_path: Path) -> None:
    def files(run: Path) -> dict[str, bytes]:
        paths = [p for p in sorted(run.rglob("*")) if p.is_file() and p.name not in ("timings.jsonl", ".lock")]
        return {str(p.relative_to(run)): p.read_bytes() for p in paths}

    def start(run: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*command, "rl", "run", str(MICRO), "--run", str(run)], stderr=subprocess.DEVNULL, start_new_session=True
        )

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert start(whole).wait() == 0
    for seconds in (9, 14, 19, 24, 600):
        process = start(cut)
        try:
            assert process.wait(seconds) == 0
            break
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            time.sleep(0.5)
    assert files(cut) == files(whole)
