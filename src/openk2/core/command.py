"""How this program was called, for sentences that tell a person what to type next."""

from __future__ import annotations

typed = "openk2"
"""`./k2` or whatever else was typed; `cli.main` sets it."""
