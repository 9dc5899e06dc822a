"""A begun state looks like one of a real app, and is the same for the same seed."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from openk2.core import UserError
from openk2.worlds.apps.declaration import Domain, read_domain
from openk2.worlds.apps.filling import fill, today_of
from worlds.apps.shop import shop

ENTITIES: dict[str, Any] = {
    "visits": {
        "prefix": "VIS",
        "singular": "visit",
        "fields": {
            "pet": {"ref": "pets"},
            "vet": {"ref": "vets", "optional": True},
            "start_time": {"type": "time"},
            "end_time": {"type": "time"},
            "opened": {"type": "date"},
            "due": {"type": "date"},
            "start": {"type": "date"},
            "end": {"type": "date"},
            "budget": {"type": "number", "kind": "money"},
            "spent": {"type": "number", "kind": "money"},
            "seats": {"type": "integer", "minimum": 2, "maximum": 5},
            "seats_taken": {"type": "integer", "kind": "few"},
            "level": {"type": "number", "minimum": 1.5, "maximum": 2.5},
            "status": {"values": ["open", "closed"]},
        },
    },
    "pets": {"prefix": "PET", "singular": "pet", "fields": {"name": {"unique": True, "examples": ["Bella", "Max"]}}},
    "vets": {"prefix": "VET", "singular": "vet", "fields": {"name": {"unique": True, "kind": "person"}}},
}


def clinic(**more: Any) -> Domain:
    tool = {"name": "get_pet", "description": "A pet.", "parameters": {"pet_id": {"ref": "pets"}}}
    return read_domain(
        {
            "name": "clinic", "category": "Care", "title": "Clinic", "entities": ENTITIES | more,
            "tools": [tool | {"returns": {"row": "pet"}}],
        }
    )  # fmt: skip


@pytest.mark.parametrize("domain", [shop(), clinic()], ids=lambda domain: domain.name)
def test_a_seed_makes_one_state(domain: Domain) -> None:
    assert fill(domain, 3).hash() == fill(domain, 3).hash() != fill(domain, 4).hash()
    assert date.fromisoformat(today_of(3)) and len({today_of(seed) for seed in range(20)}) > 10


@pytest.mark.parametrize("seed", range(20))
def test_rows_are_sensible(seed: int) -> None:
    state = fill(clinic(), seed)
    pets, vets, visits = (state.rows(name) for name in ("pets", "vets", "visits"))
    for rows in (pets, vets):
        assert len({row["name"] for row in rows}) == len(rows) >= 6
    for row in visits:
        assert state.row("pets", row["pet"]) is not None
        assert row["vet"] is None or state.row("vets", row["vet"]) is not None
        for first, last in (("start_time", "end_time"), ("opened", "due"), ("start", "end")):
            assert row[first] < row[last]
        assert row["spent"] <= row["budget"] and row["seats_taken"] <= row["seats"]
        assert 2 <= row["seats"] <= 5 and 1.5 <= row["level"] <= 2.5
        assert row["status"] in ("open", "closed")


@pytest.mark.parametrize("optional", [True, False])
def test_who_refers_to_one_of_a_kind_each(optional: bool) -> None:
    cages = {
        "prefix": "CAG",
        "singular": "cage",
        "fields": {"pet": {"ref": "pets", "unique": True, "optional": optional}},
    }
    keepers = {"prefix": "KEE", "singular": "keeper", "fields": {"cage": {"ref": "cages", "unique": True}}}
    for seed in range(20):
        state = fill(clinic(cages=cages, keepers=keepers), seed)
        pets = [row["pet"] for row in state.rows("cages") if row["pet"] is not None]
        assert pets and len(set(pets)) == len(pets)
        found = [row["cage"] for row in state.rows("keepers")]
        assert found and len(set(found)) == len(found) and None not in found


def test_an_optional_reference_to_what_is_not_there_yet_is_left_out() -> None:
    rooms = {
        "prefix": "ROO",
        "singular": "room",
        "fields": {"guest": {"ref": "guests", "unique": True, "optional": True}},
    }
    fields = {"room": {"ref": "rooms"}, "friend": {"ref": "guests", "unique": True, "optional": True}}
    guests = {"prefix": "GUE", "singular": "guest", "fields": fields}
    state = fill(clinic(rooms=rooms, guests=guests), 0)
    assert len(state.rows("rooms")) >= 6 and len(state.rows("guests")) >= 6


def test_what_is_optional_is_sometimes_left_out() -> None:
    vets = [row["vet"] for seed in range(5) for row in fill(clinic(), seed).rows("visits")]
    assert None in vets and len(set(vets)) > 2


def test_a_circle_is_one_sentence() -> None:
    circle = {
        "hens": {"prefix": "H", "singular": "hen", "fields": {"egg": {"ref": "eggs"}}},
        "eggs": {"prefix": "E", "singular": "egg", "fields": {"hen": {"ref": "hens"}}},
    }
    with pytest.raises(UserError, match="the domain clinic cannot be filled: hens, eggs refer to each other"):
        fill(clinic(**circle), 1)
    # One of them may be without the other.
    circle["eggs"]["fields"] = {"hen": {"ref": "hens", "optional": True}}
    assert fill(clinic(**circle), 1).rows("hens")
