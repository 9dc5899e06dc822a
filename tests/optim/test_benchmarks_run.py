"""The benchmark scripts run and pass their own gates; what they measure here means nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"
TINY = [
    ("train", "--preset test --steps 2 --probe-steps 1 --rows 2 --time 64"),
    ("train", "--preset test --steps 2 --probe-steps 1 --rows 2 --time 64 --workers 2"),
    ("generate", "--model random:test --rounds 2 --batch 1 2 --prompt 16 --new 8"),
]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("name", "options"), TINY)
def test_benchmark_writes_its_results(name: str, options: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    command = [sys.executable, str(BENCH / f"{name}.py"), *options.split(), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads((tmp_path / f"{name}.json").read_text())
    assert result["logit_gap_fp32"] <= 1e-4
    if name == "train":
        assert result["loss_gap_last_5"] < 0.05
    assert "transformers" in (tmp_path / f"{name}.md").read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("serve.py --model nano --prompt 100000", "more than the 2,048 tokens of nano's context"),
        ("serve.py --model nano --prompt 2041 --new 1", "more than the 2,048 tokens of nano's context"),
        ("serve.py --out /dev/null/x", "/dev/null/x cannot be written"),
        ("optimizer.py --out /dev/null/x", "/dev/null/x cannot be written"),
    ],
)
def test_what_cannot_be_measured_or_kept_is_refused_first(options: str, words: str) -> None:
    script, *rest = options.split()
    done = subprocess.run([sys.executable, str(BENCH / script), *rest], capture_output=True, text=True, timeout=600)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr


def test_the_optimizer_benchmark(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCH / "optimizer.py"), "--shapes", "test", "--steps", "2", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((tmp_path / "optimizer.json").read_text())["shapes"]["test"]
    assert found["singular"]["gap"] < 0.1 and found["peers"]["torch.optim.Muon"]["ratio"] > 0


def test_the_benchmark_of_qk_clip(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCH / "qk_clip.py"), "--cases", "test, 64", "--steps", "2", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((tmp_path / "qk_clip.json").read_text())["cases"]["test, 64"]
    assert (found["heads_clipped"], found["heads"]) == (1, 12)
    assert found["threshold"] > 50
