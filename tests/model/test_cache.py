"""Cached, ragged, absorbed decoding equals one plain pass over the whole rows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from openk2.core import ContextOverflow, UserError
from openk2.model import LatentCache, ModelConfig, Transformer
from openk2.model.attention import MLA


def build(**changes: object) -> Transformer:
    torch.manual_seed(0)
    return Transformer(ModelConfig.preset("test", **({"initializer_range": 0.15} | changes))).eval()


MODEL = build()
ROW_LIMIT = 24


def plain(model: Transformer, rows: list[list[int]]) -> list[torch.Tensor]:
    with torch.no_grad():
        return [model.hidden(torch.tensor([row]))[0] for row in rows]


def pad(rows: list[list[int]]) -> torch.Tensor:
    width = max(1, max(len(row) for row in rows))
    return torch.tensor([row + [0] * (width - len(row)) for row in rows])


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_split_into_ragged_passes_equals_the_full_forward(data: st.DataObject) -> None:
    rows = [[] for _ in range(data.draw(st.integers(1, 3), label="batch"))]
    cache = LatentCache(MODEL.config, len(rows), max_len=ROW_LIMIT)
    got: list[list[torch.Tensor]] = [[] for _ in rows]
    for _ in range(data.draw(st.integers(1, 4), label="passes")):
        room = [ROW_LIMIT - len(row) for row in rows]
        new = [data.draw(st.lists(st.integers(0, 4095), max_size=min(free, 7))) for free in room]
        if not any(new):
            continue
        x_BTD = MODEL.hidden(pad(new), cache=cache, lengths_B=torch.tensor([len(row) for row in new]))
        for b, row in enumerate(new):
            rows[b] += row
            got[b] += list(x_BTD[b, : len(row)])
    assert cache.lengths_B.tolist() == [len(row) for row in rows]
    for row, parts in zip(rows, got, strict=True):
        if row:
            torch.testing.assert_close(torch.stack(parts), plain(MODEL, [row])[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("changes", [{}, {"q_lora_rank": None}, {"n_shared_experts": 2, "num_experts_per_tok": 3}])
def test_prefill_then_token_by_token(changes: dict[str, object]) -> None:
    model = build(**changes)
    rows = [torch.randint(0, 4096, (n,)).tolist() for n in (9, 3, 14)]
    whole = plain(model, [[*row, 7, 8, 9] for row in rows])
    cache = LatentCache(model.config, 3, max_len=20)
    model.hidden(pad(rows), cache=cache, lengths_B=torch.tensor([len(row) for row in rows]))
    for i, token in enumerate((7, 8, 9)):
        x_BTD = model.hidden(torch.full((3, 1), token), cache=cache)
        for b, row in enumerate(rows):
            torch.testing.assert_close(x_BTD[b, 0], whole[b][len(row) + i], atol=1e-4, rtol=1e-4)


def test_rows_can_be_moved_taken_apart_and_shortened() -> None:
    """As the engine does it: it copies rows to a larger cache or over others, and goes on with a view of some rows."""
    rows = [torch.randint(0, 4096, (n,)).tolist() for n in (5, 8, 2)]
    cache = LatentCache(MODEL.config, 3, max_len=16)
    MODEL.hidden(pad(rows), cache=cache, lengths_B=torch.tensor([5, 8, 2]))
    larger = LatentCache(MODEL.config, 4, max_len=16)
    larger.latent_LBSW[:, :3] = cache.latent_LBSW
    larger.lengths_B[:3] = cache.lengths_B
    cache.latent_LBSW[:, 0, :2] = cache.latent_LBSW[:, 2, :2]
    view = LatentCache(MODEL.config, 0, max_len=16)
    view.latent_LBSW, view.lengths_B = cache.latent_LBSW[:, :2], torch.tensor([2, 3])
    for state, contents in (
        (larger, [*rows, []]),
        (view, [rows[2], rows[1][:3]]),
    ):
        x_BTD = MODEL.hidden(torch.full((len(contents), 1), 99), cache=state)
        for b, row in enumerate(contents):
            torch.testing.assert_close(x_BTD[b, 0], plain(MODEL, [[*row, 99]])[0][-1], atol=1e-4, rtol=1e-4)


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="the system does not say what is in memory")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_memory_is_taken_by_what_is_written_and_given_back(dtype: torch.dtype) -> None:
    cache = LatentCache(MODEL.config, 64, max_len=1 << 14, dtype=dtype)
    row_bytes = cache.latent_LBSW[:, 0].nbytes
    before = in_memory()
    cache.latent_LBSW[:, 5:9] = 1.0
    grown = in_memory() - before
    assert 3.9 * row_bytes < grown < 4.5 * row_bytes
    for row in (5, 7, 8):
        cache.clear(row)
    assert in_memory() - before < 1.5 * row_bytes
    # Its neighbours keep what they have.
    assert bool((cache.latent_LBSW[:, 6] == 1).all()) and not bool(cache.latent_LBSW[:, 7, 100:-100].any())


def in_memory() -> int:
    """Bytes of this process that no other has."""
    text = Path("/proc/self/smaps_rollup").read_text()
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_")) * 1024


def test_bf16_stays_close() -> None:
    model = build().to(torch.bfloat16)
    ids = torch.randint(0, 4096, (2, 12))
    with torch.no_grad():
        whole = model.hidden(ids).float()
    cache = LatentCache(model.config, 2, max_len=16, dtype=torch.bfloat16)
    parts = [model.hidden(ids[:, :8], cache=cache)] + [
        model.hidden(ids[:, i : i + 1], cache=cache) for i in range(8, 12)
    ]
    error = (torch.cat(parts, 1).float() - whole).norm() / whole.norm()
    assert error < 0.2  # one expert chosen differently already costs a few percent


@pytest.mark.parametrize("attention", ["_attend_to_cache", "_attend_expanded"])
def test_many_tokens_behind_others_both_ways(attention: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MLA, "_should_expand", lambda self, time: attention == "_attend_expanded")
    rows = [torch.randint(0, 500, (size,), generator=torch.Generator().manual_seed(size)) for size in (60, 47, 5)]
    cache = LatentCache(MODEL.config, 3, max_len=60)
    for start, stop in ((0, 3), (3, 44), (44, 60)):
        parts = [row[start:stop].tolist() for row in rows]
        counts = [len(part) for part in parts]
        x_BTD = MODEL.hidden(pad(parts), cache=cache, lengths_B=torch.tensor(counts))
        for row, x_TD, count in zip(rows, x_BTD, counts, strict=True):
            wanted_TD = MODEL.hidden(row[None, : start + count])[0, start:]
            torch.testing.assert_close(x_TD[:count], wanted_TD, rtol=1e-4, atol=1e-4)


def test_a_full_cache_is_a_clear_error_and_changes_nothing() -> None:
    cache = LatentCache(MODEL.config, 1, max_len=4)
    MODEL.hidden(torch.tensor([[1, 2, 3]]), cache=cache)
    with pytest.raises(ContextOverflow, match="5 tokens, the cache holds 4"):
        MODEL.hidden(torch.tensor([[4, 5]]), cache=cache)
    assert cache.lengths_B.tolist() == [3]
    with pytest.raises(ContextOverflow, match="2049 tokens"):
        MODEL.hidden(torch.zeros(1, 2049, dtype=torch.int64))


def test_a_cache_that_no_memory_holds_is_one_sentence() -> None:
    with pytest.raises(UserError, match="no memory for a cache of 1048576 rows"):
        LatentCache(ModelConfig.preset("test", max_position_embeddings=2**24), 2**20)
