from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import strategies as st

import openk2
from openk2.chat import Tokenizer
from openk2.model import ModelConfig, Transformer


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """A throw-away tokenizer; accents and CJK are single bytes in it, so masks must hold inside characters too."""
    sources = sorted(Path(openk2.__file__).parent.glob("c*/*.py"))
    return Tokenizer.train((path.read_text(encoding="utf-8") for path in sources), vocab_size=900)


@pytest.fixture(scope="module")
def small_model(tokenizer: Tokenizer) -> Transformer:
    """Random weights that say different things, and a few ids that the tokenizer does not know."""
    torch.manual_seed(0)
    config = ModelConfig.preset(
        "test",
        vocab_size=tokenizer.vocab_size + 4,
        max_position_embeddings=160,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        initializer_range=0.3,
    )
    return Transformer(config).eval()


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> torch.device:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    return torch.device(request.param)


words = st.text(st.sampled_from('abcxyz_- "\\\n/éß中😀\x7f'), min_size=1, max_size=8)
scalars: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.just({"type": "number"}),
    st.just({"type": "string"}),
    st.tuples(st.integers(-50, 50), st.integers(0, 300)).map(
        lambda t: {"type": "integer", "minimum": t[0], "maximum": t[0] + t[1]}
    ),
    st.tuples(st.integers(0, 4), st.integers(0, 9)).map(
        lambda t: {"type": "string", "minLength": t[0], "maxLength": t[0] + t[1]}
    ),
    # Beyond 2^53 see test_grammar.
    st.lists(words | st.integers(-(2**53), 2**53) | st.booleans() | st.none(), min_size=1, max_size=5).map(
        lambda v: {"enum": v}
    ),
    words.map(lambda v: {"const": v}),
    st.just({"type": "string", "pattern": "^[a-zé]{2,5}$"}),
    st.just({"type": ["integer", "null"]}),
)


def _object(properties: dict[str, Any], required: set[str], extra: Any) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    if names := sorted(required & properties.keys()):
        schema["required"] = names
    if extra is not None:
        schema["additionalProperties"] = extra
    return schema


def objects(parts: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(words, parts, max_size=4).flatmap(
        lambda properties: st.builds(
            _object,
            st.just(properties),
            st.sets(st.sampled_from(sorted(properties))) if properties else st.just(set()),
            st.sampled_from([None, None, False, {"type": "boolean"}]),
        )
    )


def arrays(parts: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    bounds = st.tuples(st.integers(0, 2), st.integers(0, 2))
    return st.builds(
        lambda items, b: {"type": "array", "items": items, "minItems": b[0], "maxItems": b[0] + b[1]}, parts, bounds
    )


SCHEMAS = objects(
    st.recursive(
        scalars,
        lambda inner: (
            objects(inner) | arrays(inner) | st.lists(inner, min_size=1, max_size=3).map(lambda v: {"anyOf": v})
        ),
        max_leaves=6,
    )
)


@pytest.fixture(scope="session")
def schemas() -> st.SearchStrategy[dict[str, Any]]:
    """JSON Schemas of arguments: nested objects, arrays, choices, bounds, patterns."""
    return SCHEMAS
