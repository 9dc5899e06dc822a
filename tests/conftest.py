"""Each process of the tests computes with one thread: those of several processes would only wait for each other.

The data pack is named to nobody: to compare a corpus with all benchmarks takes seconds wherever one is made. Tests that
are about the pack ask for `data_pack`.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before anything imports torch; processes that tests start take it over.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Who starts the tests in the background has Ctrl-C ignored, and the programs that tests interrupt would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_PACK = os.environ.get("OPENK2_DATA")


@pytest.fixture(scope="session", autouse=True)
def nobody_knows_the_data_pack() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("OPENK2_DATA", raising=False)
        yield


@pytest.fixture(scope="session")
def data_pack() -> Path:
    """The folder with the benchmarks."""
    if not _PACK:
        pytest.skip("OPENK2_DATA is not set: it names the folder with the benchmarks")
    return Path(_PACK).resolve()
