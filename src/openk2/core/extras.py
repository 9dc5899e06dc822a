"""The extras of this package: which of them brings a module that is not there."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires

_REQUIREMENT = re.compile(r"([A-Za-z0-9_.-]+)[^;]*; extra == ['\"](\w+)['\"]")


def extra_with(module: str | None) -> str | None:
    """The smallest extra that brings a module; None if none does. `module` is a name such as `a.b`."""
    try:
        lines = requires("openk2") or []
    except PackageNotFoundError:
        return None
    wanted = (module or "").partition(".")[0].lower()
    found: dict[str, list[str]] = {}
    for line in lines:
        if known := _REQUIREMENT.match(line):
            found.setdefault(known[2], []).append(known[1].lower().replace("-", "_"))
    bringing = [extra for extra, names in found.items() if wanted in names]
    return min(bringing, key=lambda extra: len(found[extra]), default=None)
