"""Running programs that are not trusted: commands and Jupyter kernels, confined and under limits."""

from openk2.sandbox.box import Caps, Ended, Process, Sandbox
from openk2.sandbox.own import touched
from openk2.sandbox.resolve import resolve_sandbox

__all__ = ["Caps", "Ended", "Process", "Sandbox", "resolve_sandbox", "touched"]
