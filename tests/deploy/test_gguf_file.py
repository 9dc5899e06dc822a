"""GGUF: llama.cpp continues token ids exactly as we do, with the same log-probabilities."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
import tokenizers
import torch
from safetensors.torch import load_file, save_file

import openk2
from openk2.chat import Tokenizer, render
from openk2.chat.tokenizer import load_backend
from openk2.core import UserError
from openk2.core.families import get_family
from openk2.deploy.gguf_file import DEEPSEEK_V3_PATTERNS, export_gguf
from openk2.model import ModelConfig, Transformer, load, save

pytest.importorskip("gguf")
NANO = Path(openk2.__file__).parent / "weights" / "nano"


class LlamaCpp:
    """A GGUF file in llama.cpp, greedy."""

    def __init__(self, path: Path) -> None:
        xllamacpp = pytest.importorskip("xllamacpp")
        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(path)
        parameters.n_ctx, parameters.n_parallel, parameters.cpuparams.n_threads = 1024, 1, 1
        parameters.warmup = False
        self._server = xllamacpp.Server(parameters)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        request = Request(self._server.listening_address + path, json.dumps(body).encode())
        request.add_header("Content-Type", "application/json")
        with urlopen(request) as answer:
            return json.load(answer)

    def continued(self, ids: list[int], count: int) -> tuple[list[int], list[float]]:
        """The next ids and their log-probabilities."""
        options = {"n_predict": count, "temperature": 0.0, "top_k": 1, "logprobs": 1, "ignore_eos": True}
        answer: Any = self._server.handle_completions({"prompt": ids, **options})
        answer = json.loads(answer) if isinstance(answer, str) else answer
        content = answer["choices"][0]["logprobs"]["content"]
        return [entry["id"] for entry in content], [entry["logprob"] for entry in content]


@torch.no_grad()
def ours(model: Transformer, ids: list[int], count: int) -> tuple[list[int], list[float]]:
    found, logprobs = list(ids), []
    for _ in range(count):
        best = model(torch.tensor([found]))[0, -1].log_softmax(-1).max(-1)
        found.append(int(best.indices))
        logprobs.append(float(best.values))
    return found[len(ids) :], logprobs


def test_nano_goes_on_as_here(tmp_path: Path) -> None:
    remarks = export_gguf(NANO, tmp_path / "nano.gguf", dtype="fp32")
    assert any("token ids" in remark for remark in remarks)
    theirs, model, tokenizer = LlamaCpp(tmp_path / "nano.gguf"), load(NANO, dtype=torch.float32), Tokenizer.load(NANO)
    for name in ("functions", "notebook", "shell"):
        family = get_family(name)
        task = family.demonstrate(family.sample("test", 5))
        # Up to where the model has to speak.
        rendered = render(task.messages, task.tools, tokenizer=tokenizer)
        prompt = rendered.ids[: rendered.loss_mask.index(True)]
        wanted, logprobs = ours(model, prompt, 16)
        ids, theirs_logprobs = theirs.continued(prompt, 16)
        assert ids == wanted
        assert theirs_logprobs == pytest.approx(logprobs, abs=1e-2)  # its cache is fp16


YARN = {"factor": 8.0, "original_max_position_embeddings": 64, "mscale": 1.0, "mscale_all_dim": 1.0}


@pytest.mark.parametrize(
    "changes",
    [
        {"q_lora_rank": 24, "rope_scaling": YARN | {"beta_fast": 1.0, "beta_slow": 1.0}},
        {"n_group": 4, "topk_group": 2, "first_k_dense_replace": 2, "n_shared_experts": 2},
    ],
    ids=["yarn", "groups"],
)
def test_other_settings_arrive(tmp_path: Path, changes: dict[str, Any]) -> None:
    sources = sorted((Path(openk2.__file__).parent / "core").rglob("*.py"))
    Tokenizer.train((path.read_text() for path in sources), vocab_size=700).save(tmp_path / "tokenizer")
    torch.manual_seed(1)
    ids = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    config = ModelConfig.preset(
        "test", vocab_size=700, max_position_embeddings=512, initializer_range=0.1, **ids, **changes
    )
    model = Transformer(config).eval()
    # Single bytes, which llama.cpp reports only once they make a letter, are never the best.
    model.lm_head.weight.data[:260] = 0
    for moe in model.moe_layers():
        moe.gate.e_score_correction_bias.normal_(0, 0.1)
    save(model, tmp_path / "model", tmp_path / "tokenizer")
    export_gguf(tmp_path / "model", tmp_path / "model.gguf", dtype="fp32")
    prompt = torch.randint(0, 600, (200,)).tolist()
    wanted, logprobs = ours(model, prompt, 6)
    got, theirs_logprobs = LlamaCpp(tmp_path / "model.gguf").continued(prompt, 6)
    assert got == wanted
    assert theirs_logprobs == pytest.approx(logprobs, abs=1e-2)


TEXTS = (
    "Hello world, it's 12345 o'clock;  and\n\n  then some?! I'LL we've DON'T",
    "def f(x):\n    return x**2  # ok\n\n\n\tHTTPServer CamelCase snake_case #include <a.h>",
    "\u4e2d\u6587\u5b57\u7b26 and English\u6df7\u5408, \u65e5\u672c\u8a9e\u30c6\u30b9\u30c8",
    "\ud55c\uad6d\uc5b4 na\u00efve \u00c4\u00d6\u00dc \U0001f44d\U0001f3fd 3.14159 1,000,000",
    "   leading, a nbsp\u00a0here, \t\t \r\n \n and a <|im_end|> that is text  ",
)


@torch.no_grad()
def assert_text_goes_in_and_comes_out(folder: Path, model: Transformer, theirs: LlamaCpp) -> None:
    backend, _ = load_backend(folder)
    backend.encode_special_tokens = True
    for text in TEXTS:
        ids = backend.encode(text, add_special_tokens=False).ids
        body = {"content": text, "add_special": False, "parse_special": False}
        assert theirs.post("/tokenize", body)["tokens"] == ids, text
    options = {"n_predict": 6, "temperature": 0.0, "top_k": 1, "ignore_eos": True, "return_tokens": True}
    answer = theirs.post("/completion", {"prompt": TEXTS[0], **options})
    wanted = ours(model, backend.encode(TEXTS[0], add_special_tokens=False).ids, 6)[0]
    assert answer["tokens"] == wanted
    assert answer["content"] == backend.decode(wanted, skip_special_tokens=False)


def test_text_under_the_vocabulary_of_k2(tmp_path: Path, data_pack: Path) -> None:
    torch.manual_seed(0)
    ids = {"bos_token_id": 163584, "eos_token_id": 163586, "pad_token_id": 163839}
    model = Transformer(ModelConfig.preset("test", vocab_size=163840, **ids))
    folder = tmp_path / "k2"
    save(model, folder)
    for path in (data_pack / "k2_tokenizer").glob("t*"):
        shutil.copy(path, folder)
    remarks = export_gguf(folder, tmp_path / "k2.gguf", dtype="fp32")
    assert not any("token ids" in remark for remark in remarks)
    assert_text_goes_in_and_comes_out(folder, model, LlamaCpp(tmp_path / "k2.gguf"))


NO_IDS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}


def byte_level_bpe() -> Any:
    """Pieces that are learned here, under DeepSeek-V3's way to split."""
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            *(tokenizers.pre_tokenizers.Split(tokenizers.Regex(p), "isolated") for p in DEEPSEEK_V3_PATTERNS),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = tokenizers.decoders.ByteLevel()
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator([*TEXTS, Path(__file__).read_text()], trainer)
    return backend


def test_text_under_a_vocabulary_that_splits_as_deepseek(tmp_path: Path) -> None:
    """Not its own pieces, which are learned here, but its way to split, its BOS and its marks."""
    backend = byte_level_bpe()
    backend.add_special_tokens([tokenizers.AddedToken("<bos>", special=True, normalized=False)])
    backend.add_tokens([tokenizers.AddedToken("<mark>", special=False, normalized=False)])
    size, bos = backend.get_vocab_size(), backend.token_to_id("<bos>")
    torch.manual_seed(0)
    model = Transformer(
        ModelConfig.preset("test", vocab_size=size, bos_token_id=bos, eos_token_id=None, pad_token_id=None)
    )
    folder = tmp_path / "model"
    save(model, folder)
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"add_bos_token": True}))
    remarks = export_gguf(folder, tmp_path / "model.gguf", dtype="fp32")
    assert not any("token ids" in remark for remark in remarks)
    theirs = LlamaCpp(tmp_path / "model.gguf")
    marked = "a <mark> here"
    body = {"content": marked, "add_special": True, "parse_special": True}
    assert theirs.post("/tokenize", body)["tokens"] == [bos, *backend.encode(marked).ids]
    (folder / "tokenizer_config.json").unlink()
    (tmp_path / "model.gguf").unlink()
    export_gguf(folder, tmp_path / "model.gguf", dtype="fp32")
    assert_text_goes_in_and_comes_out(folder, model, LlamaCpp(tmp_path / "model.gguf"))


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw | {"normalizer": {"type": "Lowercase"}},
        lambda raw: changed_part(raw, 0, {"behavior": "Removed"}),
        lambda raw: changed_part(raw, 0, {"invert": True}),
        lambda raw: changed_part(raw, -1, {"use_regex": True}),
        lambda raw: changed_part(raw, -1, {"add_prefix_space": True}),
    ],
)
def test_a_tokenizer_that_does_more_than_split_is_not_called_by_a_known_name(change: Any, tmp_path: Path) -> None:
    backend = byte_level_bpe()
    save(Transformer(ModelConfig.preset("test", vocab_size=backend.get_vocab_size(), **NO_IDS)), tmp_path / "model")
    for raw, known in ((json.loads(backend.to_str()), True), (change(json.loads(backend.to_str())), False)):
        (tmp_path / "model" / "tokenizer.json").write_text(json.dumps(raw))
        remarks = export_gguf(tmp_path / "model", tmp_path / f"{known}.gguf")
        assert any("token ids" in remark for remark in remarks) != known


def changed_part(raw: dict[str, Any], index: int, change: dict[str, Any]) -> dict[str, Any]:
    parts = raw["pre_tokenizer"]["pretokenizers"]
    parts[index] = parts[index] | change
    return raw


def test_a_vocabulary_larger_than_the_model_is_refused(tmp_path: Path) -> None:
    backend = byte_level_bpe()
    save(Transformer(ModelConfig.preset("test", vocab_size=backend.get_vocab_size() - 1, **NO_IDS)), tmp_path / "model")
    backend.save(str(tmp_path / "model" / "tokenizer.json"))
    with pytest.raises(UserError, match="do not belong together"):
        export_gguf(tmp_path / "model", tmp_path / "a.gguf")


def test_only_byte_level_bpe(tmp_path: Path) -> None:
    save(Transformer(ModelConfig.preset("test")), tmp_path / "model")
    tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, "a")).save(str(tmp_path / "model" / "tokenizer.json"))
    with pytest.raises(UserError, match="no byte-level BPE"):
        export_gguf(tmp_path / "model", tmp_path / "a.gguf")


@pytest.fixture
def nano(tmp_path: Path) -> Path:
    return Path(shutil.copytree(NANO, tmp_path / "nano"))


def exported_template(folder: Path, target: Path) -> tuple[str | None, list[str]]:
    """The chat template in the GGUF file, and the remarks."""
    from gguf import GGUFReader

    remarks = export_gguf(folder, target)
    field = GGUFReader(target).get_field("tokenizer.chat_template")
    return None if field is None else field.contents(), remarks


def test_the_chat_template_comes_along_wherever_it_stands(nano: Path, tmp_path: Path) -> None:
    template, settings = nano / "chat_template.jinja", nano / "tokenizer_config.json"
    text = template.read_text()
    assert exported_template(nano, tmp_path / "0.gguf")[0] == text
    template.unlink()
    config = json.loads(settings.read_text())
    several = [{"name": "tools", "template": "no"}, {"name": "default", "template": text}]
    for i, value in enumerate((text, several), 1):
        settings.write_text(json.dumps(config | {"chat_template": value}))
        found, remarks = exported_template(nano, tmp_path / f"{i}.gguf")
        assert found == text and not any("chat template" in remark for remark in remarks)
    for i, content in enumerate((json.dumps(config), None), 3):
        settings.unlink() if content is None else settings.write_text(content)
        found, remarks = exported_template(nano, tmp_path / f"{i}.gguf")
        assert found is None and any("no chat template" in remark for remark in remarks)
    for content, words in ((json.dumps({"chat_template": 3}), "chat_template is a int"), ("[" * 100_000, "damaged")):
        settings.write_text(content)
        with pytest.raises(UserError, match=rf"tokenizer_config\.json.*{words}"):
            export_gguf(nano, tmp_path / "9.gguf")


def test_prediction_heads_are_mentioned(nano: Path, tmp_path: Path) -> None:
    config = json.loads((nano / "config.json").read_text())
    (nano / "config.json").write_text(json.dumps(config | {"num_nextn_predict_layers": 1}))
    weights = load_file(nano / "model.safetensors")
    save_file(weights | {"model.layers.8.enorm.weight": torch.zeros(1)}, nano / "model.safetensors")
    assert any(remark.startswith("1 tensors of multi-token") for remark in export_gguf(nano, tmp_path / "a.gguf"))


def test_numbers_that_the_type_cannot_hold(nano: Path, tmp_path: Path) -> None:
    weights = load_file(nano / "model.safetensors")
    weights["model.layers.3.mlp.experts.2.up_proj.weight"][0, 0] = 1e6
    save_file(weights, nano / "model.safetensors")
    with pytest.raises(UserError, match=r"layers\.3\.mlp\.experts\.2\.up_proj.* too large for torch\.float16"):
        export_gguf(nano, tmp_path / "a.gguf", dtype="fp16")
    assert not list(tmp_path.glob("*.gguf"))


@pytest.mark.parametrize("mscales", [{}, {"mscale": 1.0, "mscale_all_dim": 0.5}])
def test_yarn_that_llama_cpp_does_not_know(nano: Path, tmp_path: Path, mscales: dict[str, float]) -> None:
    yarn = {"factor": 8.0, "original_max_position_embeddings": 64} | mscales
    (nano / "config.json").write_text(json.dumps(ModelConfig.preset("nano", rope_scaling=yarn).to_hf()))
    with pytest.raises(UserError, match=r"config\.json: YaRN.*export it as hf"):
        export_gguf(nano, tmp_path / "a.gguf")
    assert not list(tmp_path.glob("*.gguf"))


def test_a_target_that_exists_stays(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_text("mine")
    before = {path: path.stat().st_mtime_ns for path in [tmp_path, *tmp_path.iterdir()]}
    for target in (tmp_path, tmp_path / "a.gguf"):
        with pytest.raises(UserError, match="exists already"):
            export_gguf(NANO, target)
    assert {path: path.stat().st_mtime_ns for path in [tmp_path, *tmp_path.iterdir()]} == before


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    save(Transformer(ModelConfig.preset("test")), tmp_path / "model")
    with pytest.raises(UserError, match="could not read the tokenizer"):
        export_gguf(tmp_path / "model", tmp_path / "a.gguf")
    (tmp_path / "model" / "tokenizer.json").write_text('{"model": 3}')
    with pytest.raises(UserError, match=r"tokenizer\.json is not a tokenizer"):
        export_gguf(tmp_path / "model", tmp_path / "a.gguf")
    with pytest.raises(UserError, match="no type of weights"):
        export_gguf(tmp_path / "model", tmp_path / "a.gguf", dtype="q4")
    assert not list(tmp_path.glob("*.gguf"))
