"""Model folders without weights: config, tokenizer and chat template are all that a plan reads."""

from __future__ import annotations

import json
from pathlib import Path

from openk2.model import ModelConfig

BLOCK_FP8 = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}


def described_folder(path: Path, preset: str, *, fp8: bool, template: str = "<|tool_calls_section_begin|>") -> Path:
    """A folder as it is published: K2's own model type, and a tokenizer that is code."""
    path.mkdir(parents=True)
    config = ModelConfig.preset(preset).to_hf()
    if preset == "k2":
        config["model_type"] = "kimi_k2"
    if fp8:
        config["quantization_config"] = BLOCK_FP8
    (path / "config.json").write_text(json.dumps(config))
    (path / "tiktoken.model").touch()
    if template:
        (path / "chat_template.jinja").write_text(template)
    return path
