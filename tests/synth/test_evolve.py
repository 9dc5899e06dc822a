"""Domains that a program makes of sketches are valid, and the same for the same seed."""

from __future__ import annotations

import random
import re

import pytest

from openk2.synth.entities import things_of
from openk2.synth.evolve import evolve
from openk2.synth.lexicon import Noun, Sketch, sketches
from openk2.worlds.apps.declaration import read_domain


def test_a_seed_makes_one_domain() -> None:
    sketch = sketches()[100]
    first = evolve(sketch, 1)
    assert evolve(sketch, 1) == first != evolve(sketch, 2)


@pytest.mark.parametrize("sketch", sketches()[::20], ids=lambda sketch: sketch.name)
def test_domains_are_valid(sketch: Sketch) -> None:
    domain = evolve(sketch, 3)
    assert read_domain(domain.model_dump_json()) == domain
    assert len({tool.name for tool in domain.tools}) == len(domain.tools) > 20
    assert domain.users in domain.entities
    assert any(tool.writes for tool in domain.tools) and not all(tool.writes for tool in domain.tools)
    for tool in domain.tools:
        assert not re.search(r"\b[Aa] (?!one\b|eu)[aeio]", f"{tool.description} {tool.ask}"), tool


def test_prefixes_tell_nouns_apart() -> None:
    names = ["card", "card_holder", "cart", "car", "cardigan", "cards_desk", "c4"]
    nouns = tuple(Noun(name, "person", (), (), ()) for name in names)
    things = things_of(Sketch("x", "X", "X", nouns), random.Random(1))
    prefixes = [thing.entity.prefix for thing in things.by_noun.values()]
    assert len(set(prefixes)) == len(names) and prefixes[0] == "CAR"
    assert all(prefix.isalpha() and prefix.isupper() and len(prefix) <= 6 for prefix in prefixes)
