"""Folders in and out: what comes out loads elsewhere and computes the same; whatever is damaged is one sentence."""

from __future__ import annotations

import json
import shutil
from math import ceil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from openk2.core import UserError
from openk2.core.runs import sha256_file
from openk2.model import ModelConfig, Transformer, load, save
from openk2.model import convert as module
from openk2.model.convert import PROGRESS, convert, verify
from openk2.model.stored import BLOCK, FP8, SCALE, dequantise

SHARD = 150_000


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("saved")
    config = ModelConfig.preset("test", hidden_size=72, moe_intermediate_size=40, vocab_size=512, **NO_IDS)
    save(Transformer(config).bfloat16(), folder)
    return folder


NO_IDS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "model"))


def quantise(weight_RC: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """As DeepSeek-V3's weights are published: e4m3 whose largest number of a block is 448."""
    rows, columns = weight_RC.shape
    r, c = ceil(rows / BLOCK), ceil(columns / BLOCK)
    padded = torch.zeros(r * BLOCK, c * BLOCK)
    padded[:rows, :columns] = weight_RC.float()
    blocks = padded.view(r, BLOCK, c, BLOCK)
    scale_rc = blocks.abs().amax((1, 3)).clamp_min(1e-12) / 448
    packed = (blocks / scale_rc[:, None, :, None]).to(FP8).view(r * BLOCK, c * BLOCK)
    return packed[:rows, :columns].contiguous(), scale_rc


def to_fp8(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    for name in list(tensors):
        if name.startswith("model.layers.") and tensors[name].dim() == 2 and not name.endswith("mlp.gate.weight"):
            tensors[name], tensors[name + SCALE] = quantise(tensors[name])
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize("shape", [(128, 128), (130, 257), (1, 5), (384, 100)])
def test_block_fp8_is_close_to_what_was_packed(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    weight_RC = torch.randn(shape)
    packed_RC, scale_rc = quantise(weight_RC)
    # Three bits of mantissa: half a step is a sixteenth.
    torch.testing.assert_close(dequantise(packed_RC, scale_rc), weight_RC, rtol=1 / 16, atol=2e-4)


def test_export_has_shards_that_transformers_loads(original: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    manifest = convert(original, tmp_path / "out", shard_bytes=SHARD)
    shards = sorted((tmp_path / "out").glob("*.safetensors"))
    assert len(shards) > 3 and max(path.stat().st_size for path in shards) < 2 * SHARD
    assert all(sha256_file(tmp_path / "out" / name) == digest for name, digest in manifest.outputs.items())
    assert not (tmp_path / "out" / PROGRESS).exists()
    ids_BT = torch.randint(0, 512, (2, 20))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", dtype=torch.float32, experts_implementation="eager"
    ).eval()
    with torch.no_grad():
        wanted = load(original, dtype=torch.float32)(ids_BT)
        torch.testing.assert_close(theirs(ids_BT, use_cache=False).logits, wanted, atol=1e-4, rtol=1e-4)
    found = verify(original, tmp_path / "out")
    assert found.equal and found.first_difference is None and found.max_abs_diff == 0


def test_block_fp8_is_taken_in(folder: Path, original: Path, tmp_path: Path) -> None:
    to_fp8(folder)
    convert(folder, tmp_path / "out", dtype="fp32", shard_bytes=SHARD)
    assert verify(folder, tmp_path / "out").equal
    assert not verify(original, tmp_path / "out").equal  # FP8 has lost something
    ours, packed = load(tmp_path / "out"), load(folder, dtype=torch.float32)
    for (name, a), (_, b) in zip(ours.named_parameters(), packed.named_parameters(), strict=True):
        torch.testing.assert_close(a, b, msg=name)
    torch.testing.assert_close(
        ours.layers[0].mlp.up_proj.weight, load(original).layers[0].mlp.up_proj.weight.float(), rtol=1 / 16, atol=1e-3
    )


def test_the_same_call_continues(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert(original, tmp_path / "whole", shard_bytes=SHARD)
    seen: list[str] = []

    def stop(done: int, total: int, name: str) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(original, tmp_path / "out", shard_bytes=SHARD, on_shard=stop)
    first, second = sorted((tmp_path / "out").glob("*.safetensors"))
    second.write_bytes(second.read_bytes()[:-1])  # damaged meanwhile: made again
    write = module.write_tensors
    monkeypatch.setattr(
        module, "write_tensors", lambda path, tensors: (seen.append(path.name), write(path, tensors))[1]
    )
    convert(original, tmp_path / "out", shard_bytes=SHARD)
    assert first.name not in seen and second.name in seen
    for path in sorted((tmp_path / "whole").iterdir()):
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes()
    with pytest.raises(UserError, match="holds a model already"):
        convert(original, tmp_path / "out", dtype="fp32")


@pytest.mark.parametrize(
    "part",
    ["model.embed_tokens", "model.layers.1.mlp.experts.3.down_proj", "model.layers.2.self_attn.kv_b_proj", "lm_head"],
)
def test_verify_names_the_first_part_that_differs(folder: Path, original: Path, part: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors[f"{part}.weight"] = tensors[f"{part}.weight"] * 1.5
    save_file(tensors, folder / "model.safetensors")
    found = verify(original, folder, tokens=256)
    where = found.first_difference
    assert where is not None and part.startswith(where) and found.max_abs_diff > 0 and not found.equal


def test_verify_sees_what_is_not_in_the_weights(folder: Path, original: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["rope_parameters"]["rope_theta"] = 100.0
    (folder / "config.json").write_text(json.dumps(config))
    assert verify(original, folder).first_difference == "model.layers.0"


def test_damaged_sources_are_one_sentence(folder: Path, tmp_path: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.experts.3.down_proj.weight"

    def refused(words: str, **changes: torch.Tensor | None) -> None:
        changed = {key: value for key, value in (tensors | changes).items() if value is not None}
        save_file(changed, folder / "model.safetensors")
        with pytest.raises(UserError, match=words) as caught:
            convert(folder, tmp_path / "out")
        assert "\n" not in str(caught.value) and not (tmp_path / "out" / "config.json").exists()

    refused("holds NaN", **{name: tensors[name] * float("nan")})
    refused("not floats", **{name: tensors[name].to(torch.int8)})
    refused("missing", **{name: None})
    refused("is FP8 and", **{name: tensors[name].to(FP8)})
    refused("factor per block", **{name: tensors[name].to(FP8), name + SCALE: torch.ones(2, 1)})
    refused("has shape", **{name: tensors[name][:-1].clone()})
    refused("does not belong", **{"model.layers.1.mlp.experts.8.down_proj.weight": tensors[name].clone()})
    save_file(tensors, folder / "model.safetensors")
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-9])
    with pytest.raises(UserError, match="cut short"):
        convert(folder, tmp_path / "out")
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(UserError, match="model_type is 'llama'"):
        convert(folder, tmp_path / "out")


def test_what_cannot_be_asked_for(original: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no type of weights"):
        convert(original, tmp_path / "out", dtype="int4")
    with pytest.raises(UserError, match="source itself"):
        convert(original, original)
