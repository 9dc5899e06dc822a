"""Requests: frames keep to their split, noise never touches a value."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openk2.core import Split
from openk2.core.families import get_family
from openk2.worlds.families import lexicon
from openk2.worlds.families.mix import MIX
from openk2.worlds.families.phrasing import BOOKS, Book, Phrase, listing, number_word, plain, request, typo

for family in MIX:
    get_family(family)  # registers its books

DRINK = Book(
    "test.drink",
    "do: (bring|fetch) me {x} [now]",
    "do: i'd like {x}, it is urgent",
    "ask: where is {x}",
    "ask: is there any {x} left",
    "frag: {x} wanted",
    "frag: {x} <cold>",
)

values = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=30)


@given(values, st.integers(0, 10**6), st.sampled_from(["train", "test"]))
def test_a_value_survives_all_noise(value: str, seed: int, split: Split) -> None:
    rng = lexicon.make_rng("noise", split, seed)
    assert value in request(rng, split, DRINK.say(rng, split, x=value), noise=8.0)


@pytest.mark.parametrize("value", ["a  b", "i robot", "yes. no", "what ?", "it's", ",?", "don't  ,"])
def test_values_that_look_like_text_to_be_tidied_survive(value: str) -> None:
    for seed in range(100):
        rng = lexicon.make_rng("tidy", "train", seed)
        assert value in request(rng, "train", DRINK.say(rng, "train", x=value), noise=8.0)


def test_requests_leave_no_marks() -> None:
    for seed in range(200):
        rng = lexicon.make_rng("marks", "train", seed)
        text = request(rng, "train", DRINK.say(rng, "train", x="tea"))
        assert text == plain(text)


def test_typos_do_happen_and_are_small() -> None:
    """The same generator with and without noise: some requests differ, by a letter or two."""
    differing = 0
    for seed in range(300):
        texts = []
        for noise in (0.0, 8.0):
            rng = lexicon.make_rng("typos", "train", seed)
            phrase = DRINK.say(rng, "train", x="tea")
            texts.append(request(rng, "train", phrase, noise=noise, aside=False))
        differing += sorted(texts[0].lower()) != sorted(texts[1].lower())
    assert differing > 100
    rng = lexicon.make_rng("typos", "train", 0)
    assert all(abs(len(typo(rng, "kettle")) - 6) <= 1 for _ in range(50))


@pytest.mark.parametrize("book", sorted(BOOKS))
def test_no_wording_is_in_both_splits(book: str) -> None:
    texts = {
        split: {text for frame in frames for text in frame.texts} for split, frames in BOOKS[book].by_split.items()
    }
    assert texts["test"] and texts["train"]
    assert not texts["test"] & texts["train"]


@pytest.mark.parametrize("book", sorted(BOOKS))
def test_made_up_wordings_keep_the_slots_and_are_never_held_out(book: str) -> None:
    rng = lexicon.make_rng("loose", "train", 0)
    held_out = {text for frame in BOOKS[book].by_split["test"] for text in frame.texts}
    made = set()
    for frame in BOOKS[book].by_split["train"]:
        slots = [sorted(re.findall(r"\{\w+\}", text)) for text in frame.texts]
        for _ in range(40):
            other = BOOKS[book].another(rng, frame)
            if other is frame:
                continue  # what was made up is held out
            text = other.text
            made.add(text)
            assert sorted(re.findall(r"\{\w+\}", text)) in slots
            assert not re.search(r"\w\{|\}\w", text) or re.search(r"\w\{|\}\w", frame.text)
    assert len(made) > (100 if BOOKS[book].loose else 2)
    assert not held_out & made


def test_books_of_one_frame_or_with_open_brackets_are_refused() -> None:
    with pytest.raises(ValueError):
        Book("test.one", "only {x}")
    with pytest.raises(ValueError):
        Book("test.open", "open [{x}", "closed {x}")
    with pytest.raises(ValueError):
        Book("test.drink", "a {x}", "b {x}")


def test_wordings_that_came_later_are_for_training_and_move_no_other() -> None:
    frames = [f"do: {word} {{x}}" for word in ("hold", "drop", "lift", "push", "pull", "turn")]
    before = Book("test.before", *frames)
    after = Book("test.after", *frames, *(f"+do: {word} {{x}}" for word in ("raise", "shake", "throw", "catch")))
    texts = {split: [frame.text for frame in after.by_split[split]] for split in after.by_split}
    assert texts["test"] == [frame.text for frame in before.by_split["test"]]
    assert set(texts["train"]) > {"raise {x}", "shake {x}", "throw {x}", "catch {x}"}
    assert len(texts["train"]) == 10 - len(texts["test"])


def spoken_alike(text: str) -> str:
    """The words of a wording without case, signs and articles."""
    words = re.sub(r"[^\w{} ]", " ", text.lower()).split()
    return " ".join(word for word in words if word not in ("the", "a", "an", "me", "please"))


@pytest.mark.parametrize("book", sorted(BOOKS))
def test_wordings_that_came_later_neither_repeat_nor_contain_a_held_out_one(book: str) -> None:
    held_out = {spoken_alike(text) for frame in BOOKS[book].by_split["test"] for text in frame.texts}
    for frame in BOOKS[book].frames:
        for text in map(spoken_alike, frame.texts if frame.added else ()):
            assert text not in held_out
            assert not any(f" {other} " in f" {text} " for other in held_out if len(other.split()) > 3), text


def test_listing() -> None:
    rng = lexicon.make_rng("listing", "train", 0)
    assert plain(listing(rng, ["a"])) == "a"
    assert plain(listing(rng, ["a", "b"])) == "a and b"
    assert plain(listing(rng, ["a", "b", Phrase("c")])).replace(",", "") == "a b and c"


def test_number_words() -> None:
    assert [number_word(n) for n in (0, 7, 13, 20, 42, 99)] == [
        "zero",
        "seven",
        "thirteen",
        "twenty",
        "forty-two",
        "ninety-nine",
    ]
    with pytest.raises(ValueError):
        number_word(100)
