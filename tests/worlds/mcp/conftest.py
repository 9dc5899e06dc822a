"""Small servers to start."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from openk2.worlds.mcp.live import Launch

SERVERS = Path(__file__).parent / "servers"


@pytest.fixture
def good() -> Launch:
    return Launch((sys.executable, str(SERVERS / "good.py")))


@pytest.fixture
def pids(tmp_path: Path) -> Path:
    """Where a hostile server writes its process ids."""
    return tmp_path / "pids"


@pytest.fixture
def hostile(pids: Path) -> Callable[[str], Launch]:
    return lambda what: Launch((sys.executable, str(SERVERS / "hostile.py"), what, str(pids)))
