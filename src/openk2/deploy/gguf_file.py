"""Export to GGUF, the format of llama.cpp (architecture `deepseek2`), one tensor at a time.

llama.cpp attends over cached latents: `kv_b_proj` is stored as two stacks of per-head matrices, and the cache looks
like one key of kv_lora_rank + qk_rope_head_dim numbers. Norms, router and its bias are fp32, the rest is as chosen.

Legend: H heads, N nope part of a head, V value part, C latent rank, E experts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from math import isclose, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from openk2.chat.k2_vocabulary import PATTERN
from openk2.chat.tokenizer import load_backend
from openk2.core import UserError
from openk2.core.runs import atomic_path, read_small_text, remove_stale
from openk2.deploy.convert import DTYPES, OnShard, left_out_remark
from openk2.model.checkpoint import check_names, shapes_of
from openk2.model.config import ModelConfig, read_json
from openk2.model.stored import StoredTensors

if TYPE_CHECKING:
    import gguf

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5

DEEPSEEK_V3_PATTERNS = (
    r"\p{N}{1,3}",
    "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+"
    "|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
)
_SPLITS = {(PATTERN,): "kimi-k2", DEEPSEEK_V3_PATTERNS: "deepseek-v3"}
"""How a tokenizer splits text before BPE -> llama.cpp's name for it."""

_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.q_a_proj": "attn_q_a",
    "self_attn.q_a_layernorm": "attn_q_a_norm",
    "self_attn.q_b_proj": "attn_q_b",
    "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa",
    "self_attn.kv_a_layernorm": "attn_kv_a_norm",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp",
    "mlp.shared_experts.gate_proj": "ffn_gate_shexp",
    "mlp.shared_experts.up_proj": "ffn_up_shexp",
    "mlp.shared_experts.down_proj": "ffn_down_shexp",
}
_WHOLE = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}


@dataclass(frozen=True, slots=True)
class _Tensor:
    """`parts` are stored tensors that follow one another; `half` takes the keys' or values' rows of a `kv_b_proj`."""

    name: str
    shape: tuple[int, ...]
    parts: tuple[str, ...]
    exact: bool = False
    half: str = ""


def export_gguf(source: Path, target: Path, *, dtype: str = "bf16", on_tensor: OnShard | None = None) -> list[str]:
    """Write `source` as one GGUF file (bf16, fp16 or fp32) with its tokenizer and chat template.

    Returns remarks that a person must know. Raises UserError as `convert`, for a target that exists, and when the
    folder has no tokenizer, its YaRN cannot be said in GGUF or the `gguf` package is missing.
    """
    gguf = _package()
    if dtype not in DTYPES:
        raise UserError(f"{dtype!r} is no type of weights: use {', '.join(DTYPES)}")
    if target.exists():
        raise UserError(f"{target} exists already: name a new file")
    config = ModelConfig.from_folder(source)
    if config.rope_scaling is not None and not isclose(config.rope_scaling.rotary_factor, 1.0):
        raise UserError(
            f"{source / 'config.json'}: YaRN with this mscale and mscale_all_dim multiplies cos and sin by "
            f"{config.rope_scaling.rotary_factor:.4g}, llama.cpp by 1: export it as hf"
        )
    stored = StoredTensors(source)
    shapes = shapes_of(config)
    left_out = check_names(stored, config, shapes)
    remove_stale(target)
    with atomic_path(target) as temporary:
        writer = gguf.GGUFWriter(temporary, "deepseek2")
        _write_settings(writer, config, source.resolve().name)
        remarks = [*left_out_remark(left_out), *_write_tokenizer(writer, source, config)]
        tensors = list(_tensors(config, shapes))
        for tensor in tensors:
            kind = torch.float32 if tensor.exact else DTYPES[dtype]
            size = prod(tensor.shape) * kind.itemsize
            writer.add_tensor_info(tensor.name, tensor.shape, _numpy_dtype(kind), size, _ggml_type(kind))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        _write_tensors(writer, tensors, stored, config, DTYPES[dtype], on_tensor)
        writer.close()
    return remarks


def _package() -> Any:
    try:
        import gguf
    except ImportError as e:
        raise UserError("the package gguf is missing: pip install gguf") from e
    return gguf


def _ggml_type(kind: torch.dtype) -> Any:
    types = _package().GGMLQuantizationType
    return {torch.bfloat16: types.BF16, torch.float16: types.F16, torch.float32: types.F32}[kind]


def _numpy_dtype(kind: torch.dtype) -> Any:
    import numpy as np

    return np.dtype({torch.bfloat16: "uint16", torch.float16: "float16", torch.float32: "float32"}[kind])


def _write_settings(writer: gguf.GGUFWriter, config: ModelConfig, name: str) -> None:
    import gguf

    writer.add_name(name)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_vocab_size(config.vocab_size)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(1)
    if config.q_lora_rank is not None:
        writer.add_q_lora_rank(config.q_lora_rank)
    writer.add_kv_lora_rank(config.kv_lora_rank)
    writer.add_key_length(config.latent_dim)
    writer.add_value_length(config.kv_lora_rank)
    writer.add_key_length_mla(config.qk_head_dim)
    writer.add_value_length_mla(config.v_head_dim)
    writer.add_leading_dense_block_count(config.first_k_dense_replace)
    writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    writer.add_expert_count(config.n_routed_experts)
    writer.add_expert_used_count(config.num_experts_per_tok)
    writer.add_expert_shared_count(config.n_shared_experts)
    writer.add_expert_group_count(config.n_group)
    writer.add_expert_group_used_count(config.topk_group)
    writer.add_expert_weights_scale(config.routed_scaling_factor)
    writer.add_expert_weights_norm(True)
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
    writer.add_rope_dimension_count(config.qk_rope_head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    if (yarn := config.rope_scaling) is not None:
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(yarn.factor)
        writer.add_rope_scaling_orig_ctx_len(yarn.original_max_position_embeddings)
        writer.add_rope_scaling_yarn_beta_fast(yarn.beta_fast)
        writer.add_rope_scaling_yarn_beta_slow(yarn.beta_slow)
        writer.add_rope_scaling_yarn_log_mul(0.1 * (yarn.mscale_all_dim or 0.0))


def _write_tokenizer(writer: gguf.GGUFWriter, source: Path, config: ModelConfig) -> list[str]:
    backend, path = load_backend(source)
    raw: dict[str, Any] = json.loads(backend.to_str())
    before = raw["pre_tokenizer"] or {}
    before = before["pretokenizers"] if before.get("type") == "Sequence" else [before]
    if raw["model"]["type"] != "BPE" or not any(part.get("type") == "ByteLevel" for part in before):
        raise UserError(f"{path} is no byte-level BPE: exporting to GGUF knows no other tokenizer")
    kinds = {entry["id"]: CONTROL if entry["special"] else USER_DEFINED for entry in raw["added_tokens"]}
    added = {entry["id"]: entry["content"] for entry in raw["added_tokens"]}
    words = {number: word for word, number in raw["model"]["vocab"].items()} | added
    merges = [" ".join(pair) for pair in raw["model"]["merges"]]
    if max(words, default=0) >= config.vocab_size:
        raise UserError(
            f"{path} has ids up to {max(words)} and the model {config.vocab_size}: they do not belong together"
        )
    splits = _splits(raw, before)
    numbers = range(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_SPLITS.get(splits, "default"))
    writer.add_token_list([words.get(number, f"[UNUSED_{number}]") for number in numbers])
    writer.add_token_types([kinds.get(n, NORMAL if n in words else UNUSED) for n in numbers])
    writer.add_token_merges(merges)
    for value, add in (
        (config.bos_token_id, writer.add_bos_token_id),
        (config.eos_token_id, writer.add_eos_token_id),
        (config.pad_token_id, writer.add_pad_token_id),
    ):
        if value is not None:
            add(value)
    settings = source / "tokenizer_config.json"
    wants_bos = settings.exists() and read_json(settings).get("add_bos_token") is True
    wants_bos = wants_bos or backend.encode("a").ids[:1] == [config.bos_token_id]
    writer.add_add_bos_token(wants_bos and config.bos_token_id is not None)
    remarks = []
    if (template := _chat_template(source)) is not None:
        writer.add_chat_template(template)
    else:
        remarks.append("the folder has no chat template: llama.cpp will take one of its own unless it is given one")
    if wants_bos and config.bos_token_id is None:
        remarks.append("the tokenizer begins a text with a token that config.json does not name: llama.cpp will not")
    if splits not in _SPLITS:
        remarks.append(
            "llama.cpp does not know how this tokenizer splits text: give it token ids, it would cut a text otherwise"
        )
    return remarks


def _splits(raw: dict[str, Any], before: list[dict[str, Any]]) -> tuple[str, ...]:
    """The expressions by which a tokenizer splits text, one after the other, if it does nothing else to it."""
    *cuts, last = before
    plain = raw.get("normalizer") in (None, {"type": "Sequence", "normalizers": []})
    plain = plain and last["type"] == "ByteLevel" and not last["add_prefix_space"] and not last["use_regex"]
    for cut in cuts:
        plain = plain and cut["type"] == "Split" and cut["behavior"] == "Isolated" and not cut["invert"]
    return tuple(str(cut["pattern"].get("Regex")) for cut in cuts) if plain else ()


def _chat_template(source: Path) -> str | None:
    """From its own file or from the tokenizer's settings, where it may be one of several by name."""
    if (path := source / "chat_template.jinja").exists():
        try:
            return read_small_text(path)
        except (OSError, ValueError) as e:
            raise UserError(f"{path} cannot be read ({e}): repair the file") from e
    if not (path := source / "tokenizer_config.json").exists():
        return None
    found = read_json(path).get("chat_template")
    if isinstance(found, list):
        named = [entry for entry in found if isinstance(entry, dict) and entry.get("name") == "default"]
        found = named[0].get("template") if named else None
    if found is not None and not isinstance(found, str):
        raise UserError(f"{path}: chat_template is a {type(found).__name__}, not a text: repair the file")
    return found


def _tensors(config: ModelConfig, shapes: dict[str, tuple[int, ...]]) -> Iterator[_Tensor]:
    """What the file holds, in the order of the layers."""
    heads, nope, value, latent = (
        *(config.num_attention_heads, config.qk_nope_head_dim),
        *(config.v_head_dim, config.kv_lora_rank),
    )
    for name, shape in shapes.items():
        if name in _WHOLE:
            yield _Tensor(_WHOLE[name], shape, (name,), exact=len(shape) == 1)
        elif name == "lm_head.weight":
            yield _Tensor("output.weight", shape, (name,))
        else:
            _, _, layer, part = name.split(".", 3)
            block, inner = f"blk.{layer}", part.removesuffix(".weight")
            if inner == "self_attn.kv_b_proj":
                yield _Tensor(f"{block}.attn_k_b.weight", (heads, latent, nope), (name,), half="keys")
                yield _Tensor(f"{block}.attn_v_b.weight", (heads, value, latent), (name,), half="values")
            elif inner == "mlp.gate.e_score_correction_bias":
                yield _Tensor(f"{block}.exp_probs_b.bias", shape, (name,), exact=True)
            elif inner.startswith("mlp.experts.0."):
                kind = inner.rpartition(".")[2]
                experts = tuple(name.replace(".experts.0.", f".experts.{e}.") for e in range(config.n_routed_experts))
                stacked = (config.n_routed_experts, *shape)
                yield _Tensor(f"{block}.ffn_{kind.removesuffix('_proj')}_exps.weight", stacked, experts)
            elif not inner.startswith("mlp.experts."):
                exact = len(shape) == 1 or inner == "mlp.gate"
                yield _Tensor(f"{block}.{_NAMES[inner]}.weight", shape, (name,), exact=exact)


def _write_tensors(
    writer: gguf.GGUFWriter,
    tensors: list[_Tensor],
    stored: StoredTensors,
    config: ModelConfig,
    kind: torch.dtype,
    on_tensor: OnShard | None,
) -> None:
    """The values; a stack of experts is written expert by expert, so that it is never in memory as a whole."""
    assert writer.fout is not None
    out = writer.fout[0]
    for done, tensor in enumerate(tensors):
        if on_tensor is not None:
            on_tensor(done, len(tensors), tensor.name)
        writer.write_padding(out, out.tell())
        began = out.tell()
        for part in tensor.parts:
            values = stored.read_as(part, torch.float32 if tensor.exact else kind)
            if tensor.half:
                values_HRC = values.view(config.num_attention_heads, -1, config.kv_lora_rank)
                nope = config.qk_nope_head_dim
                values = values_HRC[:, :nope].transpose(1, 2) if tensor.half == "keys" else values_HRC[:, nope:]
            values = values.contiguous()
            if values.dtype == torch.bfloat16:
                values = values.view(torch.int16)
            values.numpy().tofile(out)
        writer.write_padding(out, out.tell() - began)
