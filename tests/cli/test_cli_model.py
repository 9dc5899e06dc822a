"""`openk2 model`: what a person and what a script gets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from openk2.chat import nano_tokenizer
from openk2.model import ModelConfig, Transformer, load, save

Run = Callable[..., Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small untrained model in fp32 with nano's tokenizer."""
    torch.manual_seed(0)
    tokenizer = nano_tokenizer()
    tokenizer.save(tmp_path / "tokenizer")
    ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id, "pad_token_id": tokenizer.pad_id}
    config = ModelConfig.preset("test", vocab_size=tokenizer.vocab_size, num_hidden_layers=6, **ids)
    save(Transformer(config), tmp_path / "model", tmp_path / "tokenizer")
    return tmp_path / "model"


def test_what_a_person_reads(cli: Run) -> None:
    done = cli("model", "describe", "k2")
    assert done.code == 0 and done.err == ""
    assert "1,026,408,209,408" in done.out and "1.83 x" in done.out
    assert max(map(len, done.out.splitlines())) <= 80


def test_what_a_script_reads(cli: Run) -> None:
    (event,) = cli("model", "describe", "test", "--heads", "8", "--json").events
    assert event["heads_compared"]["heads"] == [4, 8]
    assert {"total_parameters", "activated_parameters", "kv_cache_bytes_per_token"} <= event.keys()
    assert list(map(int, event["flops_per_token"])) == [1024, 2048]


def test_its_own_heads_are_not_compared_with_themselves(cli: Run) -> None:
    assert cli("model", "describe", "test", "--heads", "4").out.endswith("\n4 heads are what test has.\n")


def test_what_is_no_model(cli: Run) -> None:
    done = cli("model", "describe", "huge")
    assert done.code == 2 and "'huge' is neither a preset" in done.err and done.err.count("\n") == 1
    assert cli("model", "describe", "k2", "--heads", "0").code == 2


def test_an_empty_name_is_not_the_folder_of_today(cli: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert cli("model", "describe", ".").code == 0
    cli("model", "describe", "").refused("'' is neither a preset")


@pytest.mark.parametrize("command", [("import",), ("export",), ("export", "--format", "hf")])
def test_a_folder_comes_out_and_is_the_same_model(
    cli: Run, folder: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    out = tmp_path / "out"
    done = cli("model", *command, folder, out, "--shard-gb", "0.001")
    assert done.code == 0 and done.out == "" and f"{out} is complete: " in done.err
    assert len(list(out.glob("model-*.safetensors"))) > 1
    assert load(out).lm_head.weight.dtype == torch.bfloat16
    assert (out / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
    assert cli("model", "verify", folder, out).code == 0
    again = cli("model", *command, folder, out, "--shard-gb", "0.001")
    assert again.code == 0 and again.err.splitlines()[-1] == done.err.splitlines()[-1]
    cli("model", *command, folder, out).refused(str(out), "is not empty")


def test_what_is_left_out_is_said(cli: Run, folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_nextn_predict_layers": 1}))
    heads = {"model.layers.6.enorm.weight": torch.zeros(1)}
    save_file(load_file(folder / "model.safetensors") | heads, folder / "model.safetensors")
    done = cli("model", "import", folder, tmp_path / "out")
    assert done.code == 0
    assert "1 tensors of multi-token prediction heads were left out: such heads are not supported\n" in done.err


def test_a_gguf_file_comes_out(cli: Run, folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    target = tmp_path / "model.gguf"
    done = cli("model", "export", folder, target, "--format", "gguf")
    assert done.code == 0 and done.out == "" and "give it token ids" in done.err
    content = target.read_bytes()
    assert content.startswith(b"GGUF")
    cli("model", "export", folder, target, "--format", "gguf").refused(str(target), "exists already")
    assert target.read_bytes() == content


def test_two_folders_are_compared(cli: Run, folder: Path, tmp_path: Path) -> None:
    assert cli("model", "import", folder, tmp_path / "out").code == 0
    (found,) = cli("model", "verify", folder, tmp_path / "out", "--json").events
    assert found == {"equal": True, "first_difference": None, "max_abs_diff": 0.0, "not_compared": 0}
    weights = load_file(tmp_path / "out" / "model.safetensors")
    weights["model.layers.1.self_attn.o_proj.weight"][0] += 0.5
    save_file(weights, tmp_path / "out" / "model.safetensors")
    done = cli("model", "verify", folder, tmp_path / "out", "--json")
    assert done.code == 1 and done.events[0]["first_difference"] == "model.layers.1"
    assert done.events[0]["max_abs_diff"] == pytest.approx(0.5, abs=0.01)
    done = cli("model", "verify", folder, tmp_path / "out")
    assert done.code == 1 and done.out.startswith("different: first in model.layers.1, by up to 0.5")


def test_shapes_that_differ_are_no_infinite_number(cli: Run, folder: Path, tmp_path: Path) -> None:
    save(Transformer(ModelConfig.preset("test")), tmp_path / "other")
    done = cli("model", "verify", folder, tmp_path / "other", "--json")
    found = json.loads(done.out, parse_constant=pytest.fail)
    assert done.code == 1
    assert found == {"equal": False, "first_difference": "model.embed_tokens", "max_abs_diff": None, "not_compared": 0}
    assert cli("model", "verify", folder, tmp_path / "other").out == "different: first in model.embed_tokens\n"


def test_bad_input_is_one_sentence(cli: Run, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for size in ("inf", "nan", "1e300", "0", "-1", "1001"):
        cli("model", "import", folder, out, "--shard-gb", size).refused("--shard-gb is ", "from 0.001 to 1000")
    for command in ("import", "export"):
        cli("model", command, folder, out, "--dtype", "int4").refused("'int4' is no type of weights")
        cli("model", command, tmp_path / "nothing", out).refused("config.json does not exist")
        cli("model", command, folder, folder).refused("source itself")
    cli("model", "export", folder, out, "--format", "onnx").refused("no format 'onnx'")
    cli("model", "verify", folder, tmp_path / "nothing").refused("config.json does not exist")
    cli("model", "verify", folder, "").refused("an empty path")
    assert not out.exists()
