from __future__ import annotations

from pathlib import Path

import pytest
import torch

import openk2
from openk2.chat import Tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """A throw-away tokenizer; accents and CJK are single bytes in it, so masks must hold inside characters too."""
    sources = sorted(Path(openk2.__file__).parent.glob("c*/*.py"))
    return Tokenizer.train((path.read_text(encoding="utf-8") for path in sources), vocab_size=900)


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> torch.device:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    return torch.device(request.param)
