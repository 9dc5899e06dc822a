"""The families that can be evaluated: the three that are trained, and two fixed sets that are never trained on."""

from __future__ import annotations

from openk2.core import Family
from openk2.worlds.families import FAMILIES, get_family

FIXED = ("real", "handwritten")
EVAL_FAMILIES: tuple[str, ...] = (*FAMILIES, *FIXED)


def eval_family(name: str) -> Family:
    """The family of that name, imported when asked for."""
    if name == "real":
        from openk2.evals.real import RealFamily

        return RealFamily()
    if name == "handwritten":
        from openk2.evals.handwritten import HandwrittenFamily

        return HandwrittenFamily()
    return get_family(name)
