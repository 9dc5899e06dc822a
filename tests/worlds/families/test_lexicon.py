"""The word stock: every word has one split, both splits have enough of everything."""

from __future__ import annotations

import pytest

from openk2.core import Split
from openk2.worlds.families import lexicon

SPLITS: tuple[Split, ...] = ("train", "test")


def test_the_stock_is_large() -> None:
    assert len(lexicon.nouns("train")) + len(lexicon.nouns("test")) >= 600


@pytest.mark.parametrize("topic", lexicon.NOUNS)
def test_every_topic_has_nouns_of_both_splits(topic: str) -> None:
    assert len(lexicon.nouns("train", topic)) >= 3
    assert len(lexicon.nouns("test", topic)) >= 3


@pytest.mark.parametrize("split", SPLITS)
def test_words_are_drawn_from_their_split(split: Split) -> None:
    rng = lexicon.make_rng("test", split, 0)
    for _ in range(300):
        assert lexicon.split_of(lexicon.pseudoword(rng, split)) == split
        assert lexicon.split_of(lexicon.noun(rng, split)) == split
        for part in lexicon.person(rng, split).split():
            assert lexicon.split_of(part) == split
        assert lexicon.split_of(lexicon.place(rng, split)) == split


def test_about_one_word_in_five_is_held_out() -> None:
    rng = lexicon.make_rng("test", "train", 0)
    words = {"".join(rng.choices("abcdefghij", k=8)) for _ in range(5000)}
    assert 0.17 < sum(lexicon.split_of(word) == "test" for word in words) / len(words) < 0.23


def test_case_does_not_change_the_split() -> None:
    assert all(lexicon.split_of(word) == lexicon.split_of(word.upper()) for word in lexicon.nouns("test"))


def test_the_plural_belongs_to_the_split_of_the_singular() -> None:
    irregular = {"knife", "shelf", "leaf", "wolf", "mouse", "goose"}
    for split in SPLITS:
        for noun in set(lexicon.nouns(split)) - irregular:
            assert lexicon.split_of(lexicon.plural(noun)) == split, noun


def test_generators_depend_on_all_that_names_them() -> None:
    draws = {
        lexicon.make_rng(family, split, seed, *extra).random()
        for family in ("a", "b")
        for split in SPLITS
        for seed in (0, 1)
        for extra in ((), ("x",))
    }
    assert len(draws) == 16
    assert lexicon.make_rng("a", "test", 3).random() == lexicon.make_rng("a", "test", 3).random()


@pytest.mark.parametrize(
    ("noun", "expected"),
    [
        ("kettle", "kettles"),
        ("box", "boxes"),
        ("berry", "berries"),
        ("knife", "knives"),
        ("sheep", "sheep"),
        ("key", "keys"),
    ],
)
def test_plural(noun: str, expected: str) -> None:
    assert lexicon.plural(noun) == expected


def test_every_meaning_of_verbs_starts_with_a_shared_one() -> None:
    for meaning in lexicon.VERBS:
        assert lexicon.verbs("train", meaning)[0] == lexicon.verbs("test", meaning)[0]
        assert not set(lexicon.verbs("train", meaning)[1:]) & set(lexicon.verbs("test", meaning)[1:])
