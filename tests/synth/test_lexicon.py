"""The lexicon is read whole, and a mistake in it is named."""

from __future__ import annotations

import pytest

from openk2.core import UserError
from openk2.synth.lexicon import NAMED, OwnField, read_sketches, sketches

NAMES = " = A, B, C, D, E, F"
CLINIC = """
[clinic]
category = "Care"
title = "Clinic"
owner = "person"
pet = "unit(owner) species:dog|cat weight_kg:1-60 height:0.5-1.5 chipped? born@ = Bella, Max, Luna, Rocky, Coco, Milo"
"""


def test_all_sketches_are_read() -> None:
    found = sketches()
    assert len(found) >= 400 and len({sketch.name for sketch in found}) == len(found)
    nouns = [noun for sketch in found for noun in sketch.nouns]
    assert all(len(noun.names) >= 6 for noun in nouns if noun.kind in NAMED)


def test_a_line_has_fields_and_names() -> None:
    (clinic,) = read_sketches(CLINIC, "x.toml")
    pet = clinic.nouns[1]
    assert (pet.kind, pet.refs, pet.names[:2]) == ("unit", ("owner",), ("Bella", "Max"))
    assert pet.fields == (
        OwnField("species", "text", ("dog", "cat")),
        OwnField("weight_kg", "integer", (), 1, 60),
        OwnField("height", "number", (), 0.5, 1.5),
        OwnField("chipped", "boolean"),
        OwnField("born", "date"),
    )


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("Pet = 'person'", "domain clinic: Pet: a noun is written in small letters"),
        ("class = 'person'", "class: a noun is written in small letters"),
        ("pet = 'beast(owner)'", "pet: 'beast(owner)' does not begin with one of person, staff"),
        ("pet = 'case'", "pet: a case refers to 1 nouns, and 0 are named"),
        ("pet = 'case(owner, owner)'", "pet: a case refers to 1 nouns, and 2 are named"),
        ("pet = 'case(vet)'", "pet: it refers to 'vet', and there is no such noun"),
        ("pet = 'case(owner) old? old@'", "pet: two of its fields have the same name"),
        ("pet = 'place = A, B, A, D, E, F'", "pet: a name is there twice"),
        ("pet = 'place = A, B, C, D, E'", "pet: a place needs at least 6 names behind ="),
        ("pet = 'case(owner) age'", "pet: the field 'age' is not NAME:a|b, NAME:1-9, NAME? or NAME@"),
        ("pet = 'case(owner) age:9'", "pet: the field 'age:9' is not NAME"),
        ("pet = 'case(owner) from@'", "pet: the field 'from' is a word of expressions"),
        ("pet = 'case(owner) age:9-1'", "pet: age: 9 is not below 1"),
        ("owner = 'staff'", "domain clinic: nobody uses it"),
        ("title = ''", "domain clinic: it needs a category and a title"),
        ("pet = 3", "domain clinic: it must be a table of texts"),
        ("pet = ", "x.toml is not TOML"),
    ],
)
def test_mistakes_are_named(line: str, words: str) -> None:
    lines = {"category": "category = 'Care'", "title": "title = 'Clinic'", "owner": "owner = 'person'"}
    lines[line.partition(" ")[0]] = line
    with pytest.raises(UserError) as e:
        read_sketches("[clinic]\n" + "\n".join(lines.values()), "x.toml")
    assert str(e.value).startswith("x.toml") and words in str(e.value)


def test_the_name_of_a_domain_is_in_small_letters() -> None:
    with pytest.raises(UserError, match="domain Clinic: it needs a category and a title, and a name in small letters"):
        read_sketches("[Clinic]\ncategory = 'Care'\ntitle = 'Clinic'\nowner = 'person'", "x.toml")
