"""Which sandbox this system offers."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from functools import cache

from openk2.core import UserError
from openk2.sandbox.box import UNCONFINED, Sandbox, probe

_consented: list[Sandbox] = []


def resolve_sandbox(consent: bool | Callable[[str], bool] = False) -> Sandbox:
    """The best sandbox that works here, tried for real.

    When none works, `consent` decides: True, or a function that asks the user the given question. Given once, it holds
    for the whole process, so that worlds made later need not ask again. Raises UserError when there is no consent.
    """
    found, reasons = _usable()
    if found is not None:
        return found
    if _consented:
        return _consented[0]
    question = f"{UNCONFINED} ({reasons}) Go on without a sandbox?"
    if consent is True or (callable(consent) and consent(question)):
        _consented.append(Sandbox("none", notice=f"{UNCONFINED} ({reasons})"))
        return _consented[0]
    raise UserError(f"no sandbox works here ({reasons}): install bubblewrap, or pass --yes to run without a sandbox")


@cache
def _usable() -> tuple[Sandbox | None, str]:
    """The first sandbox that works, or why none does."""
    reasons = []
    for name, find in (("sandlock", _find_sandlock), ("bubblewrap", _find_bubblewrap)):
        found = find()
        if isinstance(found, Sandbox):
            reason = probe(found)
            if not reason:
                return found, ""
        else:
            reason = found
        reasons.append(f"{name}: {reason}")
    return None, "; ".join(reasons)


def _find_sandlock() -> Sandbox | str:
    if sys.platform != "linux":
        return "needs Linux"
    try:
        import sandlock
    except (ImportError, OSError) as e:
        return f"not installed ({e})"
    abi = sandlock.landlock_abi_version()
    if abi < 1:
        return "this kernel has no Landlock"
    missing = [name for name, (needed, _) in _PROTECTIONS.items() if abi < needed]
    if not missing:
        return Sandbox("sandlock")
    what = ", ".join(_PROTECTIONS[name][1] for name in missing)
    return Sandbox(
        "sandlock", notice=f"The sandbox is weaker on this kernel (Landlock {abi}): it does not stop {what}."
    )


# What each Landlock version added, by the first version that has it.
_PROTECTIONS = {
    "FS_REFER": (2, "moving files between folders"),
    "FS_TRUNCATE": (3, "truncating files that are only readable"),
    "NET_TCP": (4, "TCP by Landlock itself"),
    "FS_IOCTL_DEV": (5, "device commands"),
    "SIGNAL_SCOPE": (6, "signals to your other programs"),
    "ABSTRACT_UNIX_SOCKET_SCOPE": (6, "abstract sockets of your other programs"),
}


def _find_bubblewrap() -> Sandbox | str:
    path = shutil.which("bwrap")
    if path is None:
        return "not installed"
    return Sandbox("bubblewrap", bwrap=path)
