"""Random tables: pure, of one split, and statistics that agree with pandas."""

from __future__ import annotations

import io
import re

import pandas as pd
import pytest

from openk2.core import Split
from openk2.worlds.families import lexicon
from openk2.worlds.families.tables import STATISTICS, Table, content_word, correlation, make_table, numbers

SPLITS: tuple[Split, ...] = ("train", "test")


def table(split: Split, seed: int) -> Table:
    return make_table(lexicon.make_rng("tables", split, seed), split)


def singular(word: str, split: Split) -> bool:
    """Whether a word, or the noun that it is the plural of, belongs to the split."""
    known = {lexicon.plural(noun) for noun in lexicon.nouns(split)}
    return lexicon.split_of(word) == split or word in known


@pytest.mark.parametrize("split", SPLITS)
def test_same_seed_same_table(split: Split) -> None:
    assert table(split, 5) == table(split, 5)
    assert table(split, 5) != table(split, 6)


@pytest.mark.parametrize("split", SPLITS)
def test_every_word_is_of_the_split(split: Split) -> None:
    for seed in range(60):
        t = table(split, seed)
        for column in t.columns:
            assert all(lexicon.split_of(word) == split for word in column.words), column
            if column.kind in ("category", "label"):
                for cell in t.cells(column.name):
                    if re.fullmatch(r"[A-Z]{3}\d+", cell):
                        continue
                    for word in re.findall(r"[A-Za-z]+", cell):
                        assert lexicon.split_of(word) == split, cell
        assert singular(re.split(r"[_.]", t.file)[0], split), t.file


@pytest.mark.parametrize("split", SPLITS)
def test_pandas_reads_the_same_columns_and_gaps(split: Split) -> None:
    for seed in range(40):
        t = table(split, seed)
        df = pd.read_csv(io.StringIO(t.text()))
        assert list(df.columns) == [c.name for c in t.columns]
        assert len(df) == len(t.rows)
        for column in t.columns:
            assert df[column.name].isna().sum() == t.cells(column.name).count("")
            assert pd.api.types.is_numeric_dtype(df[column.name]) == (
                column.numeric or set(t.cells(column.name)) <= {"True", "False"}
            )


def test_statistics_agree_with_pandas() -> None:
    for seed in range(40):
        t = table("train", seed)
        df = pd.read_csv(io.StringIO(t.text()))
        for column in t.numeric:
            values = numbers(t.cells(column.name))
            for op, compute in STATISTICS.items():
                assert compute(values) == pytest.approx(getattr(df[column.name], op)())
        x, y = t.numeric[0].name, t.numeric[-1].name
        pairs = [(float(a), float(b)) for a, b in zip(t.cells(x), t.cells(y), strict=True) if a and b]
        assert correlation(pairs) == pytest.approx(df[x].corr(df[y]))


def test_content_words_are_many() -> None:
    rng = lexicon.make_rng("tables", "train", 0)
    assert len({content_word(rng, "train") for _ in range(2000)}) > 900
