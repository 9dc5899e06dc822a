"""A small tokenizer for the chat tests, trained on this package's own source."""

from __future__ import annotations

from pathlib import Path

import pytest

import openk2
from openk2.chat import Tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    sources = sorted(Path(openk2.__file__).parent.rglob("*.py"))
    return Tokenizer.train((p.read_text() for p in sources), vocab_size=640)


@pytest.fixture(scope="session")
def k2_like(tokenizer: Tokenizer) -> Tokenizer:
    """One that takes conversations as K2's does, and not as nano's."""
    copy = Tokenizer.from_json(tokenizer.json())
    copy.of_nano = False
    return copy
