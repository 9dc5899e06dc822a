"""A sampling option is added as examples/sampling.patch shows it: in a copy of the source."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TRY = """
import math
import torch
from openk2.core import UserError
from openk2.engine import Engine, Request
from openk2.engine.sampling import keep_top_n_sigma
from openk2.policy.resolve import resolve_policy
from openk2.serve.chat import ChatRequest

kept = keep_top_n_sigma(torch.tensor([4.0, 3.0, 0.0, -1.0, -math.inf]), 1.0)
assert kept.isfinite().tolist() == [True, True, False, False, False], kept

engine = resolve_policy("random:test").engine
def said(**options):
    return engine.generate([Request((5, 6, 7), 12, seed=3, **options)])[0].ids
assert said(temperature=2.0, top_n_sigma=0.001) == said() != said(temperature=2.0)
try:
    said(top_n_sigma=-1.0)
except UserError as e:
    assert "top_n_sigma" in str(e)
else:
    raise AssertionError
assert ChatRequest.model_validate({"messages": [], "top_n_sigma": 2}).top_n_sigma == 2
print("done")
"""


def test_the_patch_of_the_examples_adds_one(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    patch = ["git", "apply", "--unsafe-paths", f"--directory={tmp_path}", str(ROOT / "examples" / "sampling.patch")]
    applied = subprocess.run(patch, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert applied.returncode == 0, applied.stderr
    tried = subprocess.run(
        [sys.executable, "-c", TRY],
        env=os.environ | {"PYTHONPATH": str(tmp_path / "src")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert tried.stdout == "done\n", tried.stderr
