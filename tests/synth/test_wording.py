"""What programs put together reads like English."""

from __future__ import annotations

from typing import Any

import pytest

from openk2.synth.wording import articles, done, in_first_person, in_second_person, label, phrased, said, stated


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("pens", "integer", "number of pens"),
        ("missing_patches", "integer", "number of missing patches"),
        ("visits_needed", "integer", "number of visits needed"),
        ("max_dogs", "integer", "maximum number of dogs"),
        ("new_weight_kg", "number", "weight in kg"),
        ("lot_no", "integer", "lot number"),
        ("address", "integer", "address"),
        ("granted_for", "text", '"granted for"'),
        ("calibrated", "date", '"calibrated" date'),
        ("court_date", "date", "court date"),
        ("opened", "date", "opening date"),
    ],
)
def test_label(name: str, kind: str, words: str) -> None:
    assert label(name, kind) == words


@pytest.mark.parametrize(
    ("words", "value", "sentence"),
    [
        ("credit", 7.0, "The credit is 7."),
        ("number of pens", 7, "The number of pens is 7."),
        ("pens", 7, "Pens: 7."),
        ("glass in cm", 7.5, "The glass in cm is 7.5."),
        ("free", True, "Free: yes."),
        ("status", "in_repair", "The status is in repair."),
    ],
)
def test_stated(words: str, value: Any, sentence: str) -> None:
    assert stated(words, value) == sentence


def test_ranges_stay_ranges() -> None:
    assert said("7_12") == "7-12"


def test_articles() -> None:
    text = "A archive, a user, a hour, a unit of a orchard; a x"
    assert articles(text) == "An archive, a user, an hour, a unit of an orchard; a x"


def test_what_is_not_told_is_left_out() -> None:
    ask = "move {pet} to[ {day}| another day][ at {time}] ([a: {a}; ][b: {b}; ])"
    assert phrased(ask, {"pet": "Bella", "day": "Monday", "b": "1"}) == "move Bella to Monday (b: 1)"
    assert phrased(ask, {"pet": "Bella", "time": "9"}) == "move Bella to another day at 9"
    assert phrased("set {x_date} of {pet}", {"pet": "Bella"}) == "set a certain x date of Bella"


@pytest.mark.parametrize(
    ("said_of_me", "mine", "yours"),
    [
        ("change the credit of me", "change my credit", "change your credit"),
        ("move the date of the next visit of me", "move the date of my next visit", "move the date of your next visit"),
        ("set the speed in km/h of me to 5", "set my speed in km/h to 5", "set your speed in km/h to 5"),
        ("list all visits of me", "list all my visits", "list all your visits"),
        ("send it from me to X", "send it from me to X", "send it from you to X"),
    ],
)
def test_persons(said_of_me: str, mine: str, yours: str) -> None:
    assert in_first_person(said_of_me) == mine
    assert in_second_person(mine) == yours


@pytest.mark.parametrize(
    ("request_", "past"),
    [
        ("book it", "booked it"), ("ship it", "shipped it"), ("cancel it", "cancelled it"), ("retire it", "retired it"),
        ("copy it", "copied it"), ("pay it", "paid it"), ("take it back", "taken it back"), ("clear it", "cleared it"),
    ],
)  # fmt: skip
def test_done(request_: str, past: str) -> None:
    assert done(request_) == past
