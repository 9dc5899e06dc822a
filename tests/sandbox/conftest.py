"""Every sandbox that works here, and the case without one."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from openk2.sandbox import Sandbox
from openk2.sandbox.box import probe


@pytest.fixture(params=["sandlock", "bubblewrap", "none"], scope="session")
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    if request.param == "none":
        return Sandbox("none")
    bwrap = shutil.which("bwrap") or ""
    if request.param == "bubblewrap" and not bwrap:
        pytest.skip("bubblewrap is not installed")
    found = Sandbox(request.param, bwrap=bwrap)
    if reason := probe(found):
        pytest.skip(f"{request.param} does not work here: {reason}")
    return found


@pytest.fixture
def confined(sandbox: Sandbox) -> Sandbox:
    if sandbox.kind == "none":
        pytest.skip("nothing is confined without a sandbox")
    return sandbox


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder with a short name: sockets live in it."""
    with tempfile.TemporaryDirectory(prefix="openk2-") as name:
        yield Path(name).resolve()
