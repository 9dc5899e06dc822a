"""Muon, MuonClip, parameter groups, QK-Clip, learning-rate schedules."""

from openk2.optim.groups import Plan, param_groups_table, plan_parameters
from openk2.optim.logits import attach_logit_monitor
from openk2.optim.muonclip import MuonClip, StepStats
from openk2.optim.newton_schulz import fast_dtype, newton_schulz
from openk2.optim.qk_clip import Monitor, attention_layers, qk_clip_
from openk2.optim.schedule import WSD

__all__ = [
    "WSD",
    "Monitor",
    "MuonClip",
    "Plan",
    "StepStats",
    "attach_logit_monitor",
    "attention_layers",
    "fast_dtype",
    "newton_schulz",
    "param_groups_table",
    "plan_parameters",
    "qk_clip_",
]
