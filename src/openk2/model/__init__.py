"""The architecture: configuration, latent attention, experts, the transformer, and its checkpoints."""

from openk2.model.attention import MLA, Branches
from openk2.model.cache import LatentCache
from openk2.model.checkpoint import hf_state_dict, load, save
from openk2.model.config import ModelConfig, YarnScaling
from openk2.model.moe import MoE
from openk2.model.monitor import LogitMonitor
from openk2.model.transformer import IGNORED, Transformer

__all__ = [
    "IGNORED",
    "MLA",
    "Branches",
    "LatentCache",
    "LogitMonitor",
    "MoE",
    "ModelConfig",
    "Transformer",
    "YarnScaling",
    "hf_state_dict",
    "load",
    "save",
]
