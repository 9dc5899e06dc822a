"""One configuration class for every size of the architecture, with Hugging Face's field names.

The presets go from `test` (unit tests) and `nano` (trained from scratch on two CPU cores) to `moonlight` (16B) and
`k2` (the 1T model of the K2 report, table 2).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from openk2.core import UserError
from openk2.core.errors import first_invalid

# The largest dimension that is believed: a damaged file must end in a sentence, not in terabytes.
Size = Annotated[int, Field(gt=0, le=2**24)]

# What this architecture fixes. A folder that says otherwise describes another model.
_FIXED: dict[str, Any] = {
    "hidden_act": "silu",
    "attention_bias": False,
    "tie_word_embeddings": False,
    "rope_interleave": True,
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
    "norm_topk_prob": True,
    "moe_layer_freq": 1,
}
_MODEL_TYPES = ("deepseek_v3", "kimi_k2")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a model folder. Raises UserError if it is missing, damaged or no object."""
    try:
        # Some editors put a byte-order mark before it.
        raw = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as e:
        raise UserError(f"{path} does not exist: name a folder that holds a saved model") from e
    except IsADirectoryError as e:
        raise UserError(f"{path} is a folder and not a file: copy or save the model again") from e
    except (ValueError, RecursionError) as e:
        raise UserError(f"{path} is damaged (not valid JSON): copy or save the model again") from e
    if not isinstance(raw, dict):
        raise UserError(f"{path} must hold a JSON object, found a {type(raw).__name__}: copy or save the model again")
    return raw


class YarnScaling(BaseModel):
    """YaRN context extension (the `rope_scaling` entry of K2's config)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    factor: float = Field(ge=1.0, le=1e6)
    original_max_position_embeddings: Size
    beta_fast: float = Field(default=32.0, gt=0, le=1e6)
    beta_slow: float = Field(default=1.0, gt=0, le=1e6)
    mscale: float | None = Field(default=None, ge=0, le=1e6)
    mscale_all_dim: float | None = Field(default=None, ge=0, le=1e6)

    @property
    def softmax_factor(self) -> float:
        """What the attention scale is multiplied by: m^2 with m = 0.1 mscale_all_dim ln(factor) + 1."""
        return yarn_mscale(self.factor, self.mscale_all_dim) ** 2 if self.mscale_all_dim else 1.0

    @property
    def rotary_factor(self) -> float:
        """What cos and sin are multiplied by (1 in K2, where both mscales are equal)."""
        if self.mscale and self.mscale_all_dim:
            return yarn_mscale(self.factor, self.mscale) / yarn_mscale(self.factor, self.mscale_all_dim)
        return yarn_mscale(self.factor, 1.0)


def yarn_mscale(factor: float, mscale: float) -> float:
    return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1.0 else 1.0


class ModelConfig(BaseModel):
    """Sizes of a K2 model. Field names are those of `DeepseekV3Config` in transformers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    vocab_size: Size
    hidden_size: Size
    num_hidden_layers: int = Field(gt=0, le=1024)
    first_k_dense_replace: int = Field(default=1, ge=0)
    num_attention_heads: int = Field(gt=0, le=4096)
    q_lora_rank: Size | None = None
    kv_lora_rank: Size
    qk_nope_head_dim: Size
    qk_rope_head_dim: Size
    v_head_dim: Size
    intermediate_size: Size
    moe_intermediate_size: Size
    n_routed_experts: int = Field(gt=0, le=4096)
    num_experts_per_tok: Size
    n_shared_experts: int = Field(default=1, gt=0, le=4096)
    routed_scaling_factor: float = Field(default=1.0, gt=0)
    n_group: int = Field(default=1, gt=0)
    topk_group: int = Field(default=1, gt=0)
    rope_theta: float = Field(default=50000.0, gt=1)
    rope_scaling: YarnScaling | None = None
    max_position_embeddings: Size
    rms_norm_eps: float = Field(default=1e-6, gt=0)
    initializer_range: float = Field(default=0.02, gt=0)
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    pad_token_id: int | None = None

    @model_validator(mode="after")
    def _consistent(self) -> ModelConfig:
        if self.num_experts_per_tok > self.n_routed_experts:
            raise ValueError(
                f"num_experts_per_tok ({self.num_experts_per_tok}) exceeds n_routed_experts ({self.n_routed_experts})"
            )
        size, left = divmod(self.n_routed_experts, self.n_group)
        if self.n_group > 1 and (left or size < 2):
            raise ValueError(
                f"n_group ({self.n_group}) must cut {self.n_routed_experts} experts into groups of two or more"
            )
        if self.topk_group > self.n_group or self.num_experts_per_tok > self.topk_group * size:
            raise ValueError(
                f"topk_group ({self.topk_group} of {self.n_group}) leaves fewer than {self.num_experts_per_tok} experts"
            )
        if self.qk_rope_head_dim % 2:
            raise ValueError(f"qk_rope_head_dim ({self.qk_rope_head_dim}) must be even: rotation acts on pairs")
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < self.vocab_size:
                raise ValueError(f"{name} ({value}) is outside the vocabulary of {self.vocab_size}")
        return self

    @property
    def qk_head_dim(self) -> int:
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def latent_dim(self) -> int:
        """Numbers cached per token and layer: the key-value latent and the shared rotary key."""
        return self.kv_lora_rank + self.qk_rope_head_dim

    @property
    def softmax_scale(self) -> float:
        """What q.k is multiplied by before the softmax (k2 report: 192^-0.5, times m^2 once YaRN is on)."""
        scale = 1.0 / math.sqrt(self.qk_head_dim)
        return scale * self.rope_scaling.softmax_factor if self.rope_scaling else scale

    def is_moe(self, layer: int) -> bool:
        return layer >= self.first_k_dense_replace

    def parameter_count(self, active: bool = False) -> int:
        """Number of weights; with `active`, only those that one token passes through (embedding table included)."""
        d, heads = self.hidden_size, self.num_attention_heads
        q_rows = heads * self.qk_head_dim
        query = d * q_rows if self.q_lora_rank is None else self.q_lora_rank * (d + 1 + q_rows)
        latent = d * self.latent_dim + self.kv_lora_rank * (1 + heads * (self.qk_nope_head_dim + self.v_head_dim))
        attention = query + latent + heads * self.v_head_dim * d + 2 * d
        experts = (self.num_experts_per_tok if active else self.n_routed_experts) + self.n_shared_experts
        moe = 3 * d * self.moe_intermediate_size * experts + d * self.n_routed_experts
        dense_layers = min(self.first_k_dense_replace, self.num_hidden_layers)
        layers = self.num_hidden_layers * attention + dense_layers * 3 * d * self.intermediate_size
        return layers + (self.num_hidden_layers - dense_layers) * moe + 2 * self.vocab_size * d + d

    @classmethod
    def preset(cls, name: str, **changes: Any) -> ModelConfig:
        """A named size, with single fields changed if wanted. Raises UserError for an unknown name or bad values."""
        if name not in PRESETS:
            raise UserError(f"there is no model preset {name!r}: choose one of {', '.join(PRESETS)}")
        return cls.build(PRESETS[name] | changes, where=f"the model preset {name!r}")

    @classmethod
    def build(cls, fields: Mapping[str, Any], where: str) -> ModelConfig:
        """Validate; a mistake becomes a UserError that names the field and `where` it stands."""
        try:
            return cls.model_validate(dict(fields))
        except ValidationError as e:
            field, message = first_invalid(e)
            message = message.removeprefix("Value error, ")
            raise UserError(f"{where}: {field + ': ' if field else ''}{message}") from e

    @classmethod
    def from_folder(cls, folder: str | Path) -> ModelConfig:
        """Read `config.json` as written by us or by transformers. Raises UserError naming the file."""
        path = Path(folder) / "config.json"
        return cls.from_hf(read_json(path), where=str(path))

    @classmethod
    def from_hf(cls, raw: Mapping[str, Any], where: str = "config") -> ModelConfig:
        """From the content of a Hugging Face config.json; keys that do not shape the model are ignored.

        Raises UserError when it describes another architecture.
        """
        kind = raw.get("model_type")
        if kind not in _MODEL_TYPES:
            raise UserError(f"{where}: model_type is {kind!r}, this model reads {' or '.join(_MODEL_TYPES)}")
        _check_packing(raw.get("quantization_config"), where)
        for key, value in _FIXED.items():
            if raw.get(key, value) not in (value, None):
                raise UserError(f"{where}: {key} is {raw[key]!r}, this model supports only {value!r}")
        fields = {key: raw[key] for key in cls.model_fields if key in raw and key != "rope_scaling"}
        for key in ("n_group", "topk_group"):
            if fields.get(key, 1) is None:
                del fields[key]
        rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
        if not isinstance(rope, dict):
            raise UserError(f"{where}: the rotary settings are a {type(rope).__name__}, not an object: repair the file")
        if "rope_theta" in rope:
            fields["rope_theta"] = rope["rope_theta"]
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind == "yarn":
            fields["rope_scaling"] = {key: rope[key] for key in YarnScaling.model_fields if rope.get(key) is not None}
        elif kind != "default":
            raise UserError(f"{where}: rope type {kind!r} is not supported, only 'default' and 'yarn' are")
        if fields.get("eos_token_id") and isinstance(fields["eos_token_id"], list):
            fields["eos_token_id"] = fields["eos_token_id"][0]
        return cls.build(fields, where=where)

    def to_hf(self) -> dict[str, Any]:
        """The content of config.json for transformers, vLLM and SGLang.

        Both spellings of the rotary settings are written: `rope_parameters` (transformers 5) and the older
        `rope_theta` with `rope_scaling`.
        """
        scaling = None if self.rope_scaling is None else self.rope_scaling.model_dump(exclude_none=True)
        kind = "default" if scaling is None else "yarn"
        return {
            "architectures": ["DeepseekV3ForCausalLM"],
            "model_type": "deepseek_v3",
            **self.model_dump(exclude={"rope_scaling"}),
            **_FIXED,
            "num_key_value_heads": self.num_attention_heads,
            "num_nextn_predict_layers": 0,
            "attention_dropout": 0.0,
            "rope_scaling": scaling and {"type": kind, **scaling},
            "rope_parameters": {"rope_type": kind, "rope_theta": self.rope_theta, **(scaling or {})},
        }


# routed_scaling_factor of the small presets: the expected 1/|p|_2 of the renormalised top-k of sigmoids of standard
# normal logits, the rule behind K2's 2.827 and Moonlight's 2.446 (Moonlight report, appendix C); a test recomputes it.
PRESETS: dict[str, dict[str, Any]] = {
    "test": {
        "vocab_size": 4096,
        "hidden_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "q_lora_rank": 32,
        "kv_lora_rank": 32,
        "qk_nope_head_dim": 16,
        "qk_rope_head_dim": 8,
        "v_head_dim": 16,
        "intermediate_size": 128,
        "moe_intermediate_size": 32,
        "n_routed_experts": 8,
        "num_experts_per_tok": 2,
        "routed_scaling_factor": 1.409,
        "max_position_embeddings": 2048,
        "bos_token_id": 4032,
        "eos_token_id": 4034,
        "pad_token_id": 4095,
    },
    "nano": {
        "vocab_size": 1024,
        "hidden_size": 192,
        "num_hidden_layers": 8,
        "num_attention_heads": 6,
        "q_lora_rank": 96,
        "kv_lora_rank": 80,
        "qk_nope_head_dim": 32,
        "qk_rope_head_dim": 16,
        "v_head_dim": 32,
        "intermediate_size": 576,
        "moe_intermediate_size": 160,
        "n_routed_experts": 8,
        "num_experts_per_tok": 2,
        "routed_scaling_factor": 1.409,
        "max_position_embeddings": 2048,
        "bos_token_id": 960,
        "eos_token_id": 962,
        "pad_token_id": 1023,
    },
    "moonlight": {
        "vocab_size": 163840,
        "hidden_size": 2048,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "q_lora_rank": None,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "intermediate_size": 11264,
        "moe_intermediate_size": 1408,
        "n_routed_experts": 64,
        "num_experts_per_tok": 6,
        "n_shared_experts": 2,
        "routed_scaling_factor": 2.446,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "bos_token_id": 163584,
        "eos_token_id": 163586,
        "pad_token_id": 163839,
    },
    "deepseek-v3": {
        "vocab_size": 129280,
        "hidden_size": 7168,
        "num_hidden_layers": 61,
        "first_k_dense_replace": 3,
        "num_attention_heads": 128,
        "q_lora_rank": 1536,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "intermediate_size": 18432,
        "moe_intermediate_size": 2048,
        "n_routed_experts": 256,
        "num_experts_per_tok": 8,
        "routed_scaling_factor": 2.5,
        "n_group": 8,
        "topk_group": 4,
        "rope_theta": 10000.0,
        "rope_scaling": {
            "factor": 40.0,
            "original_max_position_embeddings": 4096,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
        },
        "max_position_embeddings": 163840,
        "bos_token_id": 0,
        "eos_token_id": 1,
    },
    "k2": {
        "vocab_size": 163840,
        "hidden_size": 7168,
        "num_hidden_layers": 61,
        "num_attention_heads": 64,
        "q_lora_rank": 1536,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "intermediate_size": 18432,
        "moe_intermediate_size": 2048,
        "n_routed_experts": 384,
        "num_experts_per_tok": 8,
        "routed_scaling_factor": 2.827,
        "rope_scaling": {
            "factor": 32.0,
            "original_max_position_embeddings": 4096,
            "beta_fast": 1.0,
            "beta_slow": 1.0,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
        },
        "max_position_embeddings": 131072,
        "bos_token_id": 163584,
        "eos_token_id": 163586,
        "pad_token_id": 163839,
    },
}


def _check_packing(settings: Any, where: str) -> None:
    """Raises UserError for weights that are packed in another way than the block-FP8 that is read."""
    if settings is None:
        return
    if not isinstance(settings, dict):
        raise UserError(f"{where}: quantization_config is {str(settings)[:80]!r} and no object: copy the model again")
    method, block = settings.get("quant_method", "fp8"), settings.get("weight_block_size")
    if method != "fp8" or block not in (None, [128, 128]):
        blocks = "" if block is None else f" in blocks of {block}"
        raise UserError(
            f"{where}: the weights are packed as {method}{blocks}: only fp8 in blocks of [128, 128] is read"
        )
