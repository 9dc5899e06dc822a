"""What a model folder says about serving it: sizes, type, tokenizer, chat template."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from openk2.core import UserError
from openk2.deploy.describe import Description, Tensors, describe, stored_bytes
from openk2.model.config import ModelConfig, read_json
from openk2.model.stored import BLOCK, INDEX

KERNEL_LATENT = 512
KERNEL_ROTARY = 64
"""The sizes of K2 and DeepSeek-V3, for which the engines' kernels of latent attention are written."""


@dataclass(frozen=True)
class Parts:
    """Bytes of the weights by how an engine spreads them over GPUs."""

    experts: int
    """Routed experts: split by tensor or by expert parallelism."""
    split: int
    """Split by tensor parallelism: projections per head, feed-forward layers without routing, shared experts."""
    copied: int
    """Whole on every GPU: projections into the latents, norms, routers."""
    table: int
    """The embedding table; the head has the same size. Both are split by tensor parallelism."""


@dataclass(frozen=True)
class ModelFolder:
    """A folder to be served. Weights are counted in the type that engines keep them in: block-FP8 or bf16."""

    path: Path
    name: str
    config: ModelConfig
    fp8: bool
    has_weights: bool
    has_chat_template: bool
    k2_calls: bool
    """The template writes tool calls in K2's format, so that the parser `kimi_k2` reads them."""
    own_tokenizer: bool
    """The tokenizer is code in the folder, as K2's is; there is no tokenizer.json."""
    own_model_type: bool
    """model_type is `kimi_k2`, which transformers knows from code in the folder only."""

    @cached_property
    def weight_bytes(self) -> int:
        found = self._description
        return found.bytes_fp8 if self.fp8 else found.bytes_bf16

    @cached_property
    def parts(self) -> Parts:
        sizes = {"experts": 0, "split": 0, "copied": 0, "table": 0}
        for tensor in self._description.tensors:
            sizes[_part(tensor)] += stored_bytes(tensor, fp8=self.fp8)
        # The head is beside the table; the last norm is a few kilobytes.
        return Parts(**sizes | {"table": sizes["table"] // 2})

    @property
    def kernel_sizes(self) -> bool:
        """Whether the engines' kernels of latent attention take this model."""
        return self.config.kv_lora_rank == KERNEL_LATENT and self.config.qk_rope_head_dim == KERNEL_ROTARY

    @property
    def latent_cache_bytes(self) -> int:
        """Of one token, in bf16."""
        return self._description.kv_cache_bytes_per_token

    @property
    def expanded_cache_bytes(self) -> int:
        """Of one token with keys and values of every head, in bf16. Engines pad values to the size of keys."""
        config = self.config
        return 2 * config.num_hidden_layers * config.num_attention_heads * 2 * config.qk_head_dim

    @property
    def absorbed_bytes(self) -> int:
        """The bf16 copies of kv_b_proj that latent attention multiplies with, of all heads and layers."""
        config = self.config
        per_layer = config.kv_lora_rank * config.num_attention_heads * (config.qk_nope_head_dim + config.v_head_dim)
        return 2 * per_layer * config.num_hidden_layers

    def splits_by(self, size: int) -> bool:
        """Whether tensor parallelism of a size cuts heads and feed-forward layers into equal pieces.

        Pieces of block-FP8 matrices are whole blocks: K2's experts, 2,048 wide, go into 16 pieces and not into 32.
        """
        config, block = self.config, BLOCK if self.fp8 and size > 1 else 1
        heads = config.num_attention_heads
        widths = [
            config.intermediate_size,
            config.moe_intermediate_size,
            heads * config.qk_head_dim,
            heads * (config.qk_nope_head_dim + config.v_head_dim),
            heads * config.v_head_dim,
        ]
        return heads % size == 0 and all(width % (size * block) == 0 for width in widths)

    @cached_property
    def _description(self) -> Description:
        return describe(self.config)


def read_folder(path: Path) -> ModelFolder:
    """Read what serving needs. Raises UserError for a folder that no engine could serve."""
    if not path.is_dir():
        raise UserError(f"{path} is no folder: name one that holds a model")
    config = ModelConfig.from_folder(path)
    raw = read_json(path / "config.json")
    fp8 = bool(raw.get("quantization_config"))
    own_tokenizer = not (path / "tokenizer.json").exists()
    if own_tokenizer and not any((path / name).exists() for name in ("tiktoken.model", "tokenizer.model")):
        raise UserError(f"{path} holds no tokenizer (tokenizer.json or tiktoken.model): copy or save the model again")
    template = _template(path)
    folder = ModelFolder(
        # The command may be copied to be run elsewhere.
        path=path.absolute(),
        name=path.resolve().name,
        config=config,
        fp8=fp8,
        has_weights=any(path.glob("*.safetensors")),
        has_chat_template=bool(template),
        k2_calls="<|tool_calls_section_begin|>" in template,
        own_tokenizer=own_tokenizer,
        own_model_type=raw.get("model_type") == "kimi_k2",
    )
    if folder.has_weights:
        _check_weights(folder)
    return folder


def _check_weights(folder: ModelFolder) -> None:
    """Raises UserError for a copy that is not complete. Without any weights a plan can still be made."""
    files = {file.name: file.stat().st_size for file in folder.path.glob("*.safetensors")}
    if (folder.path / INDEX).exists() and "model.safetensors" not in files:
        listed = read_json(folder.path / INDEX).get("weight_map")
        missing = sorted(set(map(str, listed.values())) - files.keys()) if isinstance(listed, dict) else []
        if missing:
            raise UserError(f"{folder.path / missing[0]} does not exist: the folder holds no complete model")
    if sum(files.values()) < 0.98 * folder.weight_bytes:
        raise UserError(
            f"{folder.path}: the weights are {sum(files.values()) / 1e9:,.3f} GB, config.json describes "
            f"{folder.weight_bytes / 1e9:,.3f} GB: copy the model again"
        )


def _template(path: Path) -> str:
    """The chat template; empty if there is none."""
    file = path / "chat_template.jinja"
    if file.exists():
        return file.read_text(encoding="utf-8", errors="replace")
    settings = path / "tokenizer_config.json"
    found = read_json(settings).get("chat_template") if settings.exists() else None
    return "" if found is None else str(found)


def _part(tensor: Tensors) -> str:
    name = tensor.name
    if name in ("model.embed_tokens.weight", "lm_head.weight"):
        return "table"
    if ".mlp.experts." in name:
        return "experts"
    copied = ("norm.weight", "layernorm.weight", ".q_a_proj.weight", ".kv_a_proj_with_mqa.weight", ".mlp.gate.weight")
    return "copied" if name.endswith((*copied, "e_score_correction_bias")) else "split"
