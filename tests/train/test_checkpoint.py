"""Checkpoints: exact, atomic, and honest about damage."""

import os
import resource
from pathlib import Path
from typing import Any

import pytest
import torch

from openk2.core import UserError
from openk2.train.checkpoint import load_latest, save_checkpoint


def state_of(seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "identity": "x",
        "none": None,
        "model": {"a.b": torch.randn(3, 4, generator=generator), "half": torch.ones(2, dtype=torch.bfloat16)},
        "optimizer": {
            "state": {0: {"step": torch.tensor(3.0)}, 1: {"m": torch.randn(5, generator=generator)}},
            "param_groups": [{"lr": 0.1, "betas": [0.9, 0.95], "params": [0, 1]}],
        },
    }


def assert_equal(a: Any, b: Any) -> None:
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y)
    else:
        assert a == b


def test_round_trip_and_same_bytes(tmp_path: Path) -> None:
    assert load_latest(tmp_path / "a") is None
    for name in ("a", "b"):
        save_checkpoint(tmp_path / name, 7, state_of(1))
    found = load_latest(tmp_path / "a")
    assert found is not None
    assert found[0] == 7
    assert_equal(found[1], state_of(1))
    files = [path / "step-00000007" / "state.safetensors" for path in (tmp_path / "a", tmp_path / "b")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    for step in (1, 5, 20, 100):
        save_checkpoint(tmp_path, step, state_of(step))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000020", "step-00000100"]
    found = load_latest(tmp_path)
    assert found is not None
    assert_equal(found[1], state_of(100))


def test_an_unfinished_one_is_ignored(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, state_of(1))
    (tmp_path / ".step-00000002.building").mkdir()
    (tmp_path / ".step-00000002.building" / "state.safetensors").write_bytes(b"half")
    found = load_latest(tmp_path)
    assert found is not None
    assert found[0] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_short_one_is_one_sentence(tmp_path: Path, keep: int) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, step, state_of(step))
    path = tmp_path / "step-00000002" / "state.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"step-00000002.*go on from step-00000001"):
        load_latest(tmp_path)


def test_a_full_disk_keeps_the_old_one(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, state_of(1))
    # A limit on file size makes a write fail half-way, as a full disk does.
    big = {"model": {"w": torch.zeros(1 << 16)}}
    pid = os.fork()
    if pid == 0:
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
        try:
            save_checkpoint(tmp_path, 2, big)
        except UserError as e:
            os._exit(0 if "earlier checkpoints are intact" in str(e) else 3)
        os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]
    found = load_latest(tmp_path)
    assert found is not None
    assert_equal(found[1], state_of(1))
