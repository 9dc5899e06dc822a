"""The loop in one process: it learns, resumes to the same bytes, and refuses what does not belong together."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from openk2.core import UserError
from openk2.data.batches import EpisodePlan, PackedPlan
from openk2.data.shards import Shards, ShardWriter
from openk2.model import ModelConfig, Transformer
from openk2.train.recipe import TrainConfig
from openk2.train.trainer import Progress, Trainer

SMALL: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "intermediate_size": 64,
    "moe_intermediate_size": 16,
    "n_routed_experts": 4,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}


@pytest.fixture
def shards(tmp_path: Path) -> Shards:
    with ShardWriter(tmp_path / "shards") as writer:
        writer.add(np.tile(np.arange(20), 200))
    return Shards(tmp_path / "shards")


def config(**changes: Any) -> TrainConfig:
    base = {"tokens": 64 * 2 * 10, "micro_tokens": 64, "micro_batches": 2, "lr": 0.02, "warmup_steps": 2}
    return TrainConfig.model_validate(base | {"valid_every": 4, "checkpoint_seconds": 1000.0} | changes)


def trainer(folder: Path, shards: Shards, cfg: TrainConfig, *, seed: int = 0, identity: str = "a") -> Trainer:
    torch.manual_seed(seed)
    model = Transformer(ModelConfig.preset("test", **SMALL))
    plan = PackedPlan(shards, seq_len=32, rows=2, micro_batches=cfg.micro_batches, seed=seed)
    valid = PackedPlan(shards, seq_len=32, rows=2, micro_batches=2, seed=seed)
    return Trainer(model, plan, valid, cfg, folder, identity=identity)


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != "timings.jsonl"
    }


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_it_learns(tmp_path: Path, shards: Shards, dtype: str) -> None:
    seen: list[Progress] = []
    cfg = config(tokens=64 * 2 * 40, dtype=dtype)
    outcome = trainer(tmp_path / "run", shards, cfg).run(seen.append)
    assert outcome.finished
    assert outcome.step == cfg.steps == 40
    assert seen[0].loss > 3.5
    assert outcome.valid_loss is not None
    assert outcome.valid_loss < 0.5
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 41))
    assert [line["step"] for line in lines if "valid_loss" in line] == list(range(4, 41, 4))
    assert lines[-1]["lr"] < lines[10]["lr"]
    assert lines[0]["tokens"] == 128


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_resumed_run_makes_the_same_bytes(tmp_path: Path, shards: Shards, dtype: str) -> None:
    cfg = config(dtype=dtype)
    trainer(tmp_path / "whole", shards, cfg).run()
    steps_done = 0
    for stop_at in (1, 4, 7):
        part = trainer(tmp_path / "parts", shards, cfg)
        assert part.resume() == (steps_done > 0)
        assert part.step == steps_done
        outcome = part.run(should_stop=lambda part=part, stop_at=stop_at: part.step + 1 >= stop_at)  # type: ignore[misc]  # mypy cannot infer lambdas with defaults
        assert not outcome.finished
        steps_done = stop_at
    # Lines after the checkpoint, one of them cut short, are what a kill leaves behind.
    with open(tmp_path / "parts" / "metrics.jsonl", "a") as log:
        log.write('{"step": 8, "loss": 0.0}\n{"step": 9, "lo')
    last = trainer(tmp_path / "parts", shards, cfg)
    assert last.resume()
    assert last.run().finished
    assert files(tmp_path / "parts") == files(tmp_path / "whole")


def test_a_finished_run_resumes_to_nothing(tmp_path: Path, shards: Shards) -> None:
    trainer(tmp_path / "run", shards, config()).run()
    before = files(tmp_path / "run")
    again = trainer(tmp_path / "run", shards, config())
    again.resume()
    outcome = again.run()
    assert outcome.finished
    assert outcome.valid_loss is not None
    assert files(tmp_path / "run") == before


def test_another_recipe_or_model_is_refused(tmp_path: Path, shards: Shards) -> None:
    trainer(tmp_path / "run", shards, config()).run(should_stop=lambda: True)
    with pytest.raises(UserError, match="another recipe"):
        trainer(tmp_path / "run", shards, config(), identity="b").resume()
    torch.manual_seed(0)
    other = trainer(tmp_path / "run", shards, config())
    model = Transformer(ModelConfig.preset("test", **SMALL | {"hidden_size": 48}))
    with pytest.raises(UserError, match="another model"):
        Trainer(model, other.plan, other.valid, other.config, tmp_path / "run", identity="a").resume()


def test_micro_batches_add_up_to_one_large_batch(tmp_path: Path, shards: Shards) -> None:
    """Same rows, cut differently: the same gradient, because it is normalised by the targets of the whole step."""
    gradients = []
    for micro_batches, rows in ((1, 4), (4, 1)):
        cfg = config(micro_batches=micro_batches, dtype="float32")
        torch.manual_seed(0)
        model = Transformer(ModelConfig.preset("test", **SMALL))
        plan = PackedPlan(shards, seq_len=32, rows=rows, micro_batches=micro_batches, seed=0)
        one = Trainer(model, plan, plan, cfg, tmp_path / "run")
        loss, tokens, _ = one._forward_backward(lambda: False)
        assert tokens == 128
        gradients.append((loss, one.precision.grad_P.clone()))
    assert gradients[0][0] == pytest.approx(gradients[1][0], rel=1e-5)
    torch.testing.assert_close(gradients[0][1], gradients[1][1], rtol=1e-3, atol=1e-6)


def test_working_copies_give_the_gradient_of_the_masters(tmp_path: Path, shards: Shards) -> None:
    one = trainer(tmp_path / "run", shards, config(dtype="float32"))
    one._forward_backward(lambda: False)
    ours = one.precision.grad_P.clone()
    for layer in one.model.moe_layers():
        layer.gate.e_score_correction_bias.zero_()
    for parameter in one.model.parameters():
        parameter.grad = None
    total = one.plan.supervised(0)
    for index in range(2):
        batch = one.plan.batch(0, index)
        loss, _ = one.model.loss(torch.from_numpy(batch.input_ids_BT), torch.from_numpy(batch.targets_BT))
        torch.autograd.backward(loss / total)
    plain = torch.cat([p.grad.flatten() for p in one.model.parameters() if p.grad is not None])
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-7)


def test_divergence_is_one_sentence(tmp_path: Path, shards: Shards) -> None:
    broken = trainer(tmp_path / "run", shards, config())
    with torch.no_grad():
        broken.model.lm_head.weight.fill_(float("nan"))
    broken.precision.refresh()
    with pytest.raises(UserError, match="diverged"):
        broken.run()


def test_episodes_teach_only_what_the_mask_marks(tmp_path: Path) -> None:
    """Every episode is noise with one learnable answer; the loss falls to that of the answer alone."""
    rng = np.random.default_rng(0)
    with ShardWriter(tmp_path / "shards") as writer:
        for length in rng.integers(5, 20, 200):
            ids = rng.integers(0, 50, length)
            writer.add([*ids, 60, 61], [False] * (length + 1) + [True])
    shards = Shards(tmp_path / "shards")
    cfg = config(tokens=128 * 2 * 30, micro_tokens=128)
    plan = EpisodePlan(shards, micro_tokens=128, micro_batches=2, pad_id=63, seed=0)
    torch.manual_seed(0)
    model = Transformer(ModelConfig.preset("test", **SMALL))
    outcome = Trainer(model, plan, plan, cfg, tmp_path / "run").run()
    assert outcome.valid_loss is not None
    assert outcome.valid_loss < 0.1


def test_a_log_that_cannot_be_written_is_named(tmp_path: Path, shards: Shards) -> None:
    (tmp_path / "run" / "metrics.jsonl").mkdir(parents=True)
    with pytest.raises(UserError, match=r"metrics\.jsonl"):
        trainer(tmp_path / "run", shards, config()).run()
