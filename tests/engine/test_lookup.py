"""Prompt lookup: guesses are what stood behind the same ids before, and never change what is generated."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from openk2.chat import Tokenizer
from openk2.engine import Engine, Request, reference_generate
from openk2.engine.lookup import guess
from openk2.engine.rows import Rows
from openk2.engine.sequence import Sequence
from openk2.model import ModelConfig, Transformer


@pytest.mark.parametrize(
    ("ids", "most", "expected"),
    [
        ([1, 2, 3, 4, 5, 1, 2], 9, [3, 4, 5]),  # two are shared: three are guessed
        ([1, 2, 3, 4, 5, 1, 2], 2, [3, 4]),
        ([1, 2, 3, 9, 2, 4, 1, 2], 9, [3, 9, 2]),  # the longer match, not the later one
        ([1, 2, 3, 1, 2, 4, 1, 2], 9, [4, 1, 2]),  # the later of two that are alike
        ([7, 7, 7, 7], 9, [7]),
        ([1, 2, 3], 9, []),
        ([5, 1, 2, 6, 2], 9, []),  # one shared id is not enough
        ([1], 9, []),
    ],
)
def test_guesses_follow_the_longest_known_ending(ids: list[int], most: int, expected: list[int]) -> None:
    assert guess(np.array(ids), most) == expected


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(1, 12))
def test_a_guess_stood_behind_the_same_ids(ids: list[int], most: int) -> None:
    guessed = guess(np.array(ids), most)
    assert len(guessed) <= most
    if guessed:
        places = [i for i in range(2, len(ids)) if ids[i - 2 : i] == ids[-2:] and ids[i : i + len(guessed)] == guessed]
        assert places


@pytest.mark.parametrize("grammar", [True, False])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_right_and_wrong_guesses_change_nothing(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, grammar: bool, temperature: float
) -> None:
    torch.manual_seed(1)
    config = ModelConfig.preset(
        "test",
        vocab_size=tokenizer.vocab_size,
        max_position_embeddings=160,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        initializer_range=0.3,
    )
    engine = Engine(Transformer(config).eval(), tokenizer)
    ids = tuple(tokenizer.encode("one two three one two"))
    request = Request(ids, max_tokens=60, temperature=temperature, seed=3, grammar=grammar)
    wanted = reference_generate(engine.model, tokenizer, request)

    passes: list[int] = []
    extend = Rows.extend

    def counted(rows: Rows, tokens: list[list[int]]) -> torch.Tensor:
        passes.append(len(tokens[0]))
        return extend(rows, tokens)

    monkeypatch.setattr(Rows, "extend", counted)

    def run(rights: int) -> int:
        """The passes that it takes with guesses whose first `rights` ids are right."""

        def oracle(sequence: Sequence, most: int) -> list[int]:
            done = len(sequence.ids)
            wrong = [(token + 1) % tokenizer.base_size for token in wanted.ids[done + rights :]]
            left = sequence.limit - done - 1
            return [*wanted.ids[done : done + rights], *wrong][: max(0, min(most, left, rights + 2))]

        monkeypatch.setattr(Sequence, "guess", oracle)
        passes.clear()
        got = engine.generate([request])[0]
        assert got.ids == wanted.ids
        assert got.finish_reason == wanted.finish_reason
        assert got.logprobs == pytest.approx(wanted.logprobs, abs=1e-4)
        return len(passes)

    alone = run(0)
    assert run(3) < 0.5 * alone + 2
    assert run(8) < run(3)
