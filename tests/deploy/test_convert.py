"""Folders in and out: what comes out loads elsewhere and computes the same; whatever is damaged is one sentence."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from math import ceil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import openk2
from openk2.chat import Tokenizer, render
from openk2.core import UserError
from openk2.core.runs import sha256_file
from openk2.deploy import convert as module
from openk2.deploy.convert import LEFT_OUT, PROGRESS, convert, tokenizer_remark, verify
from openk2.model import ModelConfig, Transformer, load, save
from openk2.model.stored import BLOCK, FP8, SCALE, dequantise

SHARD = 150_000
NANO = Path(openk2.__file__).parent / "weights" / "nano"


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
    assert verify(folder, tmp_path / "out").max_abs_diff == 0
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
    first, second = sorted((tmp_path / "out" / PROGRESS).glob("*.safetensors"))
    second.write_bytes(second.read_bytes()[:-1])  # damaged meanwhile: made again
    write = module.write_tensors
    monkeypatch.setattr(
        module, "write_tensors", lambda path, tensors: (seen.append(path.name), write(path, tensors))[1]
    )
    convert(original, tmp_path / "out", shard_bytes=SHARD)
    assert first.name not in seen and second.name in seen
    for path in sorted((tmp_path / "whole").iterdir()):
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes()


MOMENTS = """
import os, signal, sys
from pathlib import Path
from openk2.deploy import convert as module
from openk2.model import checkpoint

source, target = map(Path, sys.argv[1:])
write_tensors, write_manifest = module.write_tensors, module.write_manifest


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def half_a_shard(tensors, path, metadata):
    path.write_bytes(b"half")
    (path.parent / ".tmpAbCdEf").write_bytes(b"what safetensors writes to")
    die()


def a_shard_without_its_manifest(path, tensors):
    write_tensors(path, tensors)
    die()


def no_last_manifest(folder, manifest):
    if folder == target:
        (target / module.PROGRESS / ".config.json.1.tmp").write_bytes(b"half")
        die()
    write_manifest(folder, manifest)


for place, name, function in (
    (module, "write_tensors", die),
    (checkpoint, "save_file", half_a_shard),
    (module, "write_tensors", a_shard_without_its_manifest),
    (module, "write_manifest", no_last_manifest),
    (module.shutil, "rmtree", die),
):
    child = os.fork()
    if not child:
        setattr(place, name, function)
        module.convert(source, target, shard_bytes=150_000)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL, name
    print(*sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()))
"""


def test_killed_at_any_moment_the_same_call_continues(original: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    wanted = convert(original, whole, shard_bytes=SHARD)
    done = subprocess.run(
        [sys.executable, "-c", MOMENTS, str(original), str(out)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    states = [set(line.split()) for line in done.stdout.splitlines()]
    half, files = f"{PROGRESS}/.tmpAbCdEf", {path.name for path in whole.iterdir()}
    assert half in states[1] and half not in states[2] and not files & set().union(*states[:3])
    assert "manifest.json" not in states[3] and files < states[4]
    assert convert(original, out, shard_bytes=SHARD) == wanted
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        path.name: path.read_bytes() for path in whole.iterdir()
    }


def test_what_is_complete_stays_as_it_is(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    manifest = convert(folder, out)
    dates = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert convert(folder, out) == manifest
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == dates
    with pytest.raises(UserError, match="is not empty"):
        convert(folder, out, dtype="fp32")
    (folder / "tokenizer_config.json").write_text("{}")
    with pytest.raises(UserError, match="is not empty"):
        convert(folder, out)
    (folder / "tokenizer_config.json").unlink()
    (out / "model.safetensors").write_bytes(b"trained further")
    with pytest.raises(UserError, match=r"model\.safetensors is not what the conversion wrote"):
        convert(folder, out)
    with pytest.raises(UserError, match="is a file"):
        convert(folder, out / "config.json")


def test_nothing_of_a_person_s_own_is_touched(original: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in ("manifest.json", "tokenizer.json", ".notes.tmp"):
        (out / name).write_text("mine")
        with pytest.raises(UserError, match="is not empty"):
            convert(original, out)
        assert [path.name for path in out.iterdir()] == [name] and (out / name).read_text() == "mine"
        (out / name).unlink()
    (out / PROGRESS).mkdir()
    (out / PROGRESS / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"is not empty \(notes\.txt\)"):
        convert(original, out)
    (out / PROGRESS / "notes.txt").unlink()

    def stop(done: int, total: int, name: str) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(original, out, shard_bytes=SHARD, on_shard=stop)
    (out / "config.json").write_text("mine")
    with pytest.raises(UserError, match=r"is not empty \(config\.json\)"):
        convert(original, out, shard_bytes=SHARD)
    assert (out / "config.json").read_text() == "mine"


def test_two_at_once(original: Path, tmp_path: Path) -> None:
    def second(done: int, total: int, name: str) -> None:
        with pytest.raises(UserError, match="another process is working"):
            convert(original, tmp_path / "out", shard_bytes=SHARD)

    convert(original, tmp_path / "out", shard_bytes=SHARD, on_shard=second)
    assert verify(original, tmp_path / "out").equal


def test_another_conversion_does_not_mix_with_one_that_was_begun(original: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int, name: str) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(original, tmp_path / "out", shard_bytes=SHARD, on_shard=stop)
    with pytest.raises(UserError, match="beginning of another conversion"):
        convert(original, tmp_path / "out", dtype="fp32")


def test_prediction_heads_are_left_out_and_counted(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_nextn_predict_layers": 1}))
    heads = {f"model.layers.3.{name}.weight": torch.zeros(2) for name in ("enorm", "hnorm")}
    save_file(load_file(folder / "model.safetensors") | heads, folder / "model.safetensors")
    assert convert(folder, tmp_path / "out").results[LEFT_OUT] == 2
    found = verify(folder, tmp_path / "out")
    assert found.equal and found.not_compared == 2


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


@pytest.mark.parametrize("row", [0, 100, 200, 300, 400, 511])
def test_verify_compares_every_row_of_the_embedding(folder: Path, original: Path, row: int) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.embed_tokens.weight"][row] = 0
    save_file(tensors, folder / "model.safetensors")
    found = verify(original, folder, tokens=1)
    assert not found.equal and found.first_difference == "model.embed_tokens"


@pytest.mark.parametrize("changed", ["mlp.experts.3.up_proj.weight", "mlp.gate.weight"])
def test_verify_compares_experts_that_are_never_chosen(
    folder: Path, original: Path, tmp_path: Path, changed: str
) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.2.mlp.gate.e_score_correction_bias"][3] = -10
    save_file(tensors, folder / "model.safetensors")
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    assert verify(other, folder).equal
    # Of the router only the row of the expert that is never chosen.
    part = tensors[f"model.layers.2.{changed}"]
    (part[3] if "gate" in changed else part).mul_(1.5)
    save_file(tensors, other / "model.safetensors")
    assert verify(other, folder).first_difference == "model.layers.2"


def test_verify_compares_what_rounding_leaves(folder: Path, original: Path, tmp_path: Path) -> None:
    """An import in 16 bits is the same model as its source, and a single wrong weight in it is not."""
    to_fp8(folder)
    torch.manual_seed(1)
    exact = tmp_path / "exact"
    save(Transformer(ModelConfig.from_folder(original)), exact)
    for source in (folder, exact):
        for dtype in ("bf16", "fp16"):
            out = tmp_path / f"{source.name}-{dtype}"
            convert(source, out, dtype=dtype)
            assert verify(source, out).equal and verify(out, source).equal
            tensors = load_file(out / "model.safetensors")
            name = "model.layers.1.self_attn.q_b_proj.weight"
            tensors[name][5, 7] += 0.01
            save_file(tensors, out / "model.safetensors")
            assert verify(source, out).first_difference == "model.layers.1"
    assert verify(original, folder).first_difference == "model.layers.0"  # FP8 has lost something


def test_verify_sees_the_last_digit(folder: Path, original: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.2.mlp.experts.1.down_proj.weight"
    tensors[name].view(torch.int16)[0, 0] += 1
    save_file(tensors, folder / "model.safetensors")
    assert verify(original, folder).first_difference == "model.layers.2"


def test_verify_takes_a_short_context(tmp_path: Path) -> None:
    save(Transformer(ModelConfig.preset("test", max_position_embeddings=32, **NO_IDS)), tmp_path)
    assert verify(tmp_path, tmp_path).equal


def test_verify_has_no_number_for_other_shapes(original: Path, tmp_path: Path) -> None:
    for changes, where in (
        ({"num_hidden_layers": 4}, "model.layers.3"),
        ({"first_k_dense_replace": 2}, "model.layers.1"),
        ({"vocab_size": 500}, "model.embed_tokens"),
    ):
        config = ModelConfig.from_folder(original).model_copy(update=changes)
        model = Transformer(config).bfloat16()
        shared = load(original).state_dict()
        model.load_state_dict(
            {
                name: shared.get(name, t) if t.shape == shared.get(name, t).shape else t
                for name, t in model.state_dict().items()
            }
        )
        save(model, tmp_path / "other")
        for pair in ((original, tmp_path / "other"), (tmp_path / "other", original)):
            found = verify(*pair)
            assert (found.equal, found.first_difference, found.max_abs_diff) == (False, where, None)


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
        assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()

    refused("holds NaN", **{name: tensors[name] * float("nan")})
    refused("not floats", **{name: tensors[name].to(torch.int8)})
    refused("missing", **{name: None})
    refused("is FP8 and", **{name: tensors[name].to(FP8)})
    refused("factor per block", **{name: tensors[name].to(FP8), name + SCALE: torch.ones(2, 1)})
    refused("factor per block", **{name: tensors[name].to(FP8), name + SCALE: torch.ones(1, 1, dtype=torch.int32)})
    for dtype in (torch.float8_e5m2, torch.bfloat16):
        refused(f"packed as {dtype}", **{name: tensors[name].to(dtype), name + SCALE: torch.ones(1, 1)})
    refused("packed as", **{name: tensors[name].to(torch.float8_e5m2)})
    refused("has shape", **{name: tensors[name][:-1].clone()})
    refused("does not belong", **{"model.layers.1.mlp.experts.8.down_proj.weight": tensors[name].clone()})
    save_file(tensors, folder / "model.safetensors")
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-9])
    with pytest.raises(UserError, match="cut short"):
        convert(folder, tmp_path / "out")
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(UserError, match="model_type is 'llama'"):
        convert(folder, tmp_path / "out")


def test_damaged_settings_of_the_tokenizer_are_one_sentence(folder: Path, tmp_path: Path) -> None:
    (folder / "tokenizer_config.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"tokenizer_config\.json is damaged"):
        convert(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_asked_for(original: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no type of weights"):
        convert(original, tmp_path / "out", dtype="int4")
    with pytest.raises(UserError, match="source itself"):
        convert(original, original)


MEASURED = """
import resource, sys
from pathlib import Path
import openk2.deploy.gguf_file
from openk2.deploy.convert import convert
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
if sys.argv[1] == "hf":
    convert(Path(sys.argv[2]), Path(sys.argv[3]), shard_bytes=20_000_000)
else:
    openk2.deploy.gguf_file.export_gguf(Path(sys.argv[2]), Path(sys.argv[3]))
print((peak() - before) * (1 if sys.platform == "darwin" else 1024))
"""


@pytest.mark.parametrize("kind", ["hf", pytest.param("gguf", marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_the_model(kind: str, tmp_path: Path) -> None:
    """240 MB in shards of 20 MB take less than 100 MB, most of which are pages of the files and imports."""
    if kind == "gguf":
        pytest.importorskip("gguf")
    sizes = {"hidden_size": 512, "moe_intermediate_size": 256, "n_routed_experts": 64, "num_hidden_layers": 6}
    model = Transformer(ModelConfig.preset("test", **sizes, vocab_size=1024, **NO_IDS)).bfloat16()
    save(model, tmp_path / "whole")
    size = sum(p.numel() for p in model.parameters()) * 2
    assert size > 240e6
    del model
    convert(tmp_path / "whole", tmp_path / "shards", shard_bytes=20_000_000)
    shutil.copy(NANO / "tokenizer.json", tmp_path / "shards")
    command = [sys.executable, "-c", MEASURED, kind, str(tmp_path / "shards"), str(tmp_path / f"out.{kind}")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) < 100e6


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("tokenizer.json", b"{", "not JSON"),
        ("tokenizer.json", b"{}", "not a tokenizer file"),
        ("chat_template.jinja", b"\xff\xfe", "not UTF-8"),
        ("generation_config.json", b"[1", "generation_config.json"),
    ],
)
def test_small_files_that_are_damaged_are_one_sentence(
    folder: Path, tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=words):
        convert(folder, tmp_path / "out")
    assert not (tmp_path / "out" / "config.json").exists()


def test_a_tokenizer_with_more_ids_than_the_model_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copy(NANO / "tokenizer.json", folder)
    with pytest.raises(UserError, match="do not belong together"):
        convert(folder, tmp_path / "out")


def test_a_folder_without_a_tokenizer_is_said(original: Path) -> None:
    assert "AutoTokenizer" in tokenizer_remark(original)[0]
    assert tokenizer_remark(NANO) == []


def test_k2s_own_vocabulary_loads_without_code_of_its_own(tmp_path: Path, data_pack: Path) -> None:
    transformers = pytest.importorskip("transformers")
    vocabulary = data_pack / "k2_tokenizer"
    tokenizer = Tokenizer.load(vocabulary)
    config = ModelConfig.preset("test", vocab_size=tokenizer.vocab_size, hidden_size=16, **NO_IDS)
    source = tmp_path / "source"
    save(Transformer(config).bfloat16(), source)
    for path in vocabulary.iterdir():
        shutil.copy(path, source)
    convert(source, tmp_path / "out")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    text = "Hello \u4e2d\u6587 12345 I'LL"
    assert theirs.encode(text, add_special_tokens=False) == tokenizer.encode(text)
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": text}]
    ids = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert ids == render(messages, tokenizer=tokenizer, add_generation_prompt=True).ids


def test_other_packings_are_one_sentence(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    for packing in ({"quant_method": "gptq"}, {"quant_method": "fp8", "weight_block_size": [64, 64]}):
        (folder / "config.json").write_text(json.dumps(config | {"quantization_config": packing}))
        with pytest.raises(UserError, match="only fp8 in blocks"):
            convert(folder, tmp_path / "out")


def test_a_layer_too_many_is_no_prediction_head(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    fewer = {"num_hidden_layers": config["num_hidden_layers"] - 1, "num_nextn_predict_layers": 1}
    (folder / "config.json").write_text(json.dumps(config | fewer))
    with pytest.raises(UserError, match="no prediction head"):
        convert(folder, tmp_path / "out")
