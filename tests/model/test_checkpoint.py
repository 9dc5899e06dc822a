"""Round trips, and one clear sentence for every kind of damaged folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from openk2.core import UserError
from openk2.model import ModelConfig, Transformer, checkpoint, load, save
from openk2.model.checkpoint import hf_state_dict, shapes_of
from openk2.model.transformer import Block


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("saved")
    save(Transformer(ModelConfig.preset("test")), folder)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "model"))


def test_round_trip_is_exact_and_stable(folder: Path, tmp_path: Path) -> None:
    model = load(folder)
    assert not model.training
    save(model, tmp_path / "again")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_weights_are_as_readable_as_the_config(folder: Path) -> None:
    assert (folder / "model.safetensors").stat().st_mode == (folder / "config.json").stat().st_mode


def test_expert_names_on_disk(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    model = load(folder)
    gate_up = dict(model.named_parameters())["layers.1.mlp.experts.gate_up_proj"]
    torch.testing.assert_close(tensors["model.layers.1.mlp.experts.3.gate_proj.weight"], gate_up[3, :32].detach())
    torch.testing.assert_close(tensors["model.layers.1.mlp.experts.3.up_proj.weight"], gate_up[3, 32:].detach())
    assert tensors["model.layers.1.mlp.gate.e_score_correction_bias"].dtype == torch.float32
    assert "model.layers.0.mlp.gate_proj.weight" in tensors and "lm_head.weight" in tensors


def test_the_tokenizer_comes_along(folder: Path, tmp_path: Path) -> None:
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    auto_map = {"AutoTokenizer": ["their/repository--words.Words", None], "Other": "pieces.Pieces"}
    names = (
        *("tokenizer.json", "chat_template.jinja", "added_tokens.json", "vocab.json", "merges.txt"),
        *("tokenization_kimi.py", "tokenization_utils.py", "words.py", "pieces.py"),
    )
    taken = dict.fromkeys(names, "x") | {"tokenizer_config.json": json.dumps({"auto_map": auto_map})}
    for name, text in (taken | {"setup.py": "x", "notes.txt": "x"}).items():
        (tokenizer / name).write_text(text)
    save(load(folder), tmp_path / "out", tokenizer_folder=tokenizer)
    ours = {"config.json", "model.safetensors"}
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir() if path.name not in ours} == taken
    with pytest.raises(UserError, match="tokenizer"):
        save(load(folder), tmp_path / "out", tokenizer_folder=tmp_path / "nowhere")


@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_file(folder: Path, fraction: float) -> None:
    path = folder / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * fraction)])
    with pytest.raises(UserError, match=r"model\.safetensors is cut short"):
        load(folder)


def test_a_missing_file(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"model\.safetensors does not exist"):
        load(folder)
    with pytest.raises(UserError, match=r"config\.json does not exist"):
        load(folder / "nowhere")


def test_a_missing_shard(folder: Path) -> None:
    index = {"weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    load(folder)  # transformers leaves an old index where it was, and takes the single file as well
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="model-00001-of-00002"):
        load(folder)
    for damaged in ("{", '{"weight_map": {"lm_head.weight": 3}}'):
        (folder / "model.safetensors.index.json").write_text(damaged)
        with pytest.raises(UserError, match=r"index\.json is damaged"):
            load(folder)


def test_an_index_that_says_otherwise_than_the_files(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    shards = [{}, {}]
    for name, tensor in tensors.items():
        shards[name == "lm_head.weight"][name] = tensor
    for number, shard in enumerate(shards):
        save_file(shard, folder / f"{number}.safetensors")
    where = {name: f"{number}.safetensors" for number, shard in enumerate(shards) for name in shard}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": where}))
    load(folder)
    # What the index does not list is left out, a second copy too.
    save_file(shards[1] | {"old": torch.ones(1), "model.norm.weight": torch.ones(3)}, folder / "1.safetensors")
    load(folder)
    for wrong, name in (
        (where | {"lm_head.weight": "0.safetensors"}, "lm_head.weight"),
        (where | {"model.extra": "0.safetensors"}, "model.extra"),
    ):
        index.write_text(json.dumps({"weight_map": wrong}))
        with pytest.raises(UserError, match=rf"index\.json: tensor {name} is not where the index says"):
            load(folder)


DEEP = "[" * 100_000


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_a_json_file_that_is_too_deep(folder: Path, name: str) -> None:
    (folder / name).write_text(DEEP)
    if "index" in name:
        (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="is damaged") as caught:
        load(folder)
    assert name in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[1]", '{"model_type": "deepseek_v3"}', "\0\1"])
def test_a_bad_config(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config\.json"):
        load(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rope_parameters", [1]),
        ("eos_token_id", []),
        ("hidden_size", None),
        ("num_hidden_layers", 10**8),
        ("max_position_embeddings", 10**12),
        ("rope_parameters", {"rope_theta": float("inf")}),
    ],
)
def test_a_damaged_entry_of_the_config(folder: Path, key: str, value: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {key: value}))
    with pytest.raises(UserError, match=r"config\.json"):
        load(folder)


def test_a_folder_whose_name_is_no_text(folder: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(folder) + b"\xff"))
    folder.rename(odd)
    with pytest.raises(UserError, match="not UTF-8"):
        load(odd)


def test_weights_that_are_no_floats(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({name: tensor.to(torch.int8) for name, tensor in weights.items()}, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"torch\.int8, not floats"):
        load(folder)


def test_a_full_disk_is_one_sentence(folder: Path) -> None:
    """In a process of its own, whose files may not grow beyond 100 kB."""
    code = (
        "import resource, signal, sys\n"
        "from openk2.core import UserError\n"
        "from openk2.model import load, save\n"
        f"model = load({str(folder)!r})\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n"
        f"    save(model, {str(folder / 'copy')!r})\n"
        "except UserError as e:\n"
        "    sys.exit(str(e))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("could not write") and "free some space" in done.stderr
    assert not list((folder / "copy").glob("*.safetensors"))


def test_another_configuration(folder: Path) -> None:
    config = ModelConfig.preset("test", kv_lora_rank=24).to_hf()
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"kv_a_layernorm.* shape \[32\], config\.json asks for \[24\]"):
        load(folder)


def test_missing_and_foreign_tensors(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    save_file({k: v for k, v in tensors.items() if k != "model.norm.weight"}, path)
    with pytest.raises(UserError, match=r"1 tensors are missing.*model\.norm\.weight"):
        load(folder)
    save_file(tensors | {"model.extra": torch.zeros(1)}, path)
    with pytest.raises(UserError, match=r"model\.extra does not belong"):
        load(folder)


def test_only_prediction_layers_may_follow_the_last_one(folder: Path) -> None:
    path, config = folder / "model.safetensors", json.loads((folder / "config.json").read_text())
    tensors = load_file(path)

    def told(count: object) -> None:
        (folder / "config.json").write_text(json.dumps(config | {"num_nextn_predict_layers": count}))

    save_file(tensors | {"model.layers.3.eh_proj.weight": torch.zeros(1)}, path)
    for none in (0, None):
        told(none)
        with pytest.raises(UserError, match=r"layers\.3\.eh_proj.*belong to another configuration"):
            load(folder)
    told(1)
    load(folder)
    told("one")
    with pytest.raises(UserError, match=r"config\.json: num_nextn_predict_layers is 'one'"):
        load(folder)
    save_file(tensors | {"model.layers.4.eh_proj.weight": torch.zeros(1)}, path)
    told(1)
    with pytest.raises(UserError, match=r"layers\.4\.eh_proj.*belong to another configuration"):
        load(folder)


@pytest.mark.parametrize(
    "changes", [{}, {"first_k_dense_replace": 0}, {"first_k_dense_replace": 9, "q_lora_rank": None}]
)
def test_shapes_are_those_of_the_model(changes: dict[str, Any]) -> None:
    config = ModelConfig.preset("test", num_hidden_layers=4, **changes)
    wanted = {name: tuple(tensor.shape) for name, tensor in hf_state_dict(Transformer(config)).items()}
    assert list(shapes_of(config).items()) == list(wanted.items())


def test_the_shapes_of_many_layers_take_one_of_each_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[int] = []
    monkeypatch.setattr(checkpoint, "Block", lambda config, layer: built.append(layer) or Block(config, layer))
    shapes_of(ModelConfig.preset("k2"))
    assert built == [0, 1]
