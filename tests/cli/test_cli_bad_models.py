"""A model folder that is damaged, or whose parts do not belong together: one sentence that names the file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import openk2
from openk2.chat import Tokenizer
from openk2.model import ModelConfig, Transformer, save

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small untrained model with its tokenizer."""
    folder = tmp_path_factory.mktemp("model")
    texts = [path.read_text() for path in sorted(Path(openk2.__file__).parent.rglob("*.py"))]
    tokenizer = Tokenizer.train(iter(texts), vocab_size=640)
    tokenizer.save(folder)
    ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id, "pad_token_id": tokenizer.pad_id}
    save(Transformer(ModelConfig.preset("test", vocab_size=tokenizer.vocab_size, **ids)), folder)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "model"))


def _cut(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


def _cut_to_nothing(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def _no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _other_config(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"hidden_size": 48}))


def _more_layers(folder: Path) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"num_hidden_layers": config["num_hidden_layers"] + 1}))


def _no_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def _no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def _other_tokenizer(folder: Path) -> None:
    texts = [path.read_text() for path in sorted(Path(openk2.__file__).parent.rglob("*.py"))]
    Tokenizer.train(iter(texts), vocab_size=700).save(folder)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_cut, "model.safetensors"),
        (_cut_to_nothing, "model.safetensors"),
        (_no_weights, "model.safetensors"),
        (_other_config, "shape"),
        (_more_layers, "missing"),
        (_no_json, "config.json"),
        (_no_tokenizer, "tokenizer"),
        (_other_tokenizer, "tokenizer"),
    ],
)
def test_damaged_folders(cli: Run, folder: Path, damage: Callable[[Path], None], words: str) -> None:
    damage(folder)
    done = cli("eval", folder, "--family", "functions", "--n", "1", "--json")
    done.refused(words, str(folder.name))


def test_the_whole_folder_is_good(cli: Run, folder: Path) -> None:
    done = cli("eval", folder, "--family", "functions", "--n", "1", "--json")
    assert done.code == 0 and done.err == ""
    assert done.events[0]["n"] == 1
