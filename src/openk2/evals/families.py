"""The families that can be evaluated: three that nano is trained on, simulated apps, and two fixed sets that are never
trained on."""

from __future__ import annotations

from openk2.core import Family
from openk2.worlds.families import FAMILIES, get_family

FIXED = ("real", "handwritten")
EVAL_FAMILIES: tuple[str, ...] = (*FAMILIES, "apps", *FIXED)


def eval_family(name: str) -> Family:
    """The family of that name, imported when asked for."""
    if name == "real":
        from openk2.evals.real import RealFamily

        return RealFamily()
    if name == "handwritten":
        from openk2.evals.handwritten import HandwrittenFamily

        return HandwrittenFamily()
    if name == "apps":
        from openk2.synth.family import AppsFamily

        return AppsFamily()
    return get_family(name)
