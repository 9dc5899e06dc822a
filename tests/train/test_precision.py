"""What a run computes in is chosen once, and stays."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from openk2.core import UserError
from openk2.train import precision
from openk2.train.precision import compute_dtype
from openk2.train.ranks import Ranks


def test_auto_is_what_the_machine_is_fastest_in_and_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "fast_dtype", lambda device: torch.bfloat16)
    assert compute_dtype("auto", tmp_path, Ranks(), "cpu") == torch.bfloat16
    monkeypatch.setattr(precision, "fast_dtype", lambda device: torch.float32)
    assert compute_dtype("auto", tmp_path, Ranks(), "cpu") == torch.bfloat16
    (tmp_path / "elsewhere").mkdir()
    assert compute_dtype("auto", tmp_path / "elsewhere", Ranks(), "cpu") == torch.float32


def test_what_is_asked_for_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "fast_dtype", lambda device: pytest.fail("nothing is to be chosen"))
    assert compute_dtype("float32", tmp_path, Ranks(), "cpu") == torch.float32
    assert compute_dtype("bfloat16", tmp_path, Ranks(), "cpu") == torch.bfloat16
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b"int8\n"])
def test_damage_is_named(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "dtype").write_bytes(damage)
    with pytest.raises(UserError, match="dtype is damaged: write float32 or bfloat16"):
        compute_dtype("auto", tmp_path, Ranks(), "cpu")
