"""What a person calls a row fits no other, and an agent finds it."""

from __future__ import annotations

import random

import pytest

from openk2.synth.locate import Locator
from openk2.worlds.apps.filling import today_of
from synth.made import apps, domains


@pytest.mark.parametrize("name", list(domains())[:4])
def test_words_fit_one_row_and_calls_show_it(name: str) -> None:
    interpreter, state = apps().interpreter(name), apps().state(name, 2)
    domain = interpreter.domain
    user = state.rows(str(domain.users))[0]["id"]
    given = {"today": today_of(2), "user": user}
    called: dict[tuple[str, str], str] = {}
    ways = set()
    for seed in range(4):
        locator = Locator(interpreter, state, domain.by_name, given, random.Random(seed))
        for entity in domain.entities:
            for row in state.rows(entity):
                found = locator.find(entity, row)
                assert called.setdefault((entity, found.words), row["id"]) == row["id"], found.words
                ways.add(len(found.calls))
                said = found.words
                if found.words == "me":
                    assert row["id"] == user and not found.calls
                elif not found.calls:
                    assert found.words.endswith(row["id"]) or "my" in found.words
                for tool, arguments in found.calls:
                    # What a call needs was said or shown before.
                    assert all(str(value) in said or (value == user and " my " in f" {found.words} ")
                               for value in arguments.values())  # fmt: skip
                    said += str(interpreter.run(state, domain.by_name[tool], arguments, given))
                if found.calls:
                    assert repr(row["id"]) in said
    assert ways >= {0, 1, 2}


def test_without_tools_a_row_is_called_by_its_id() -> None:
    name = next(iter(domains()))
    interpreter, state = apps().interpreter(name), apps().state(name, 2)
    locator = Locator(interpreter, state, {}, {"today": today_of(2), "user": ""}, random.Random(1))
    for entity, declared in interpreter.domain.entities.items():
        row = state.rows(entity)[0]
        assert locator.find(entity, row).words == f"{declared.singular.replace('_', ' ')} {row['id']}"
