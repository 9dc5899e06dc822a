"""Recipes that somebody has broken: each mistake is one sentence, whatever it is."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import Field

from openk2.core import UserError
from openk2.core.recipes import Section, parsed, read_recipe
from openk2.rl.recipe import load_rl_recipe
from openk2.synth.recipe import load_synth_recipe
from openk2.train.recipe import load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
LONGEST = 1000
Reader = Callable[[Path, list[str]], Any]


def reader(path: Path) -> Reader:
    if path.name.endswith("rl.toml"):
        return load_rl_recipe
    return load_synth_recipe if path.name.startswith("synth") else load_recipe


def keys(section: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The way to every section and value."""
    for key, value in section.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from keys(value, (*above, key))


def said(read: Reader, path: Path, overrides: list[str]) -> str | None:
    """What is wrong, if anything is."""
    try:
        read(path, overrides)
    except UserError as e:
        sentence = str(e)
        assert "\n" not in sentence and 0 < len(sentence) < LONGEST, sentence
        return sentence
    return None


VALUES = st.one_of(
    st.integers(-(2**70), 2**70).map(str),
    st.floats().map(lambda x: {"inf": "inf", "-inf": "-inf"}.get(str(x), str(x))),
    st.sampled_from(["true", '""', "[]", "{}", "[[[]]]", '"\\u0000"', "{ a = 1 }", "1979-05-27", "nan", "0", "-1"]),
    st.text(st.characters(codec="utf-8"), max_size=300).map(lambda text: f"'{text}'"),
    st.lists(st.integers(), max_size=300).map(str),
)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_value_anywhere(path: Path, data: st.DataObject) -> None:
    ways = list(keys(tomllib.loads(path.read_text(encoding="utf-8"))))
    way = data.draw(st.sampled_from(ways))
    more = data.draw(st.one_of(st.just(()), st.tuples(st.sampled_from(["bogus", "lr", "a b", "ä"]))))
    key = ".".join(f'"{part}"' for part in (*way, *more))
    said(reader(path), path, [f"{key}={data.draw(VALUES)}"])


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_to_the_file(path: Path, data: st.DataObject, tmp_path: Path) -> None:
    raw = path.read_bytes()
    start = data.draw(st.integers(0, len(raw)))
    length = data.draw(st.integers(0, 80))
    damaged = tmp_path / path.name
    damaged.write_bytes(raw[:start] + data.draw(st.binary(max_size=8)) + raw[start + length :])
    said(reader(path), damaged, [])


@given(text=st.text(max_size=60))
def test_any_override(text: str) -> None:
    said(load_recipe, RECIPES / "micro.toml", [text])


def test_the_recipes_themselves_are_right() -> None:
    for path in RECIPES.glob("*.toml"):
        assert said(reader(path), path, []) is None


class Inner(Section):
    rate: float = 0.5


class Outer(Section):
    inner: Inner = Inner()
    loud: bool | None = None
    counts: dict[str, int] = Field(default={})
    size: int = 1


@pytest.mark.parametrize(
    ("raw", "key"),
    [
        ({"size": True}, "size = true"),
        ({"inner": {"rate": False}}, "inner.rate = false"),
        ({"counts": {"a": True}}, "counts.a = true"),
    ],
)
def test_truth_is_no_number(raw: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError, match=f"^here: {key} cannot be: another kind of value is wanted than true or false$"):
        parsed(raw, Outer, "here")


def test_what_is_too_deep_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "deep.toml"
    path.write_text("size = " + "[" * 20000)
    with pytest.raises(UserError, match="its lists or tables are too deep in each other"):
        read_recipe(path, [], "another")
    path.write_text("")
    with pytest.raises(UserError, match="its lists or tables are too deep in each other"):
        read_recipe(path, ["size=" + "[" * 20000], "another")
    assert read_recipe(path, [".".join("a" * 3) + "=1"], "another") == {"a": {"a": {"a": 1}}}


def test_a_mark_of_the_encoding_is_no_content(tmp_path: Path) -> None:
    path = tmp_path / "marked.toml"
    path.write_text("size = 2", encoding="utf-8-sig")
    assert read_recipe(path, [], "another") == {"size": 2}


def test_a_date_is_said_as_it_was_written() -> None:
    with pytest.raises(UserError, match=r"^here: size = 1979-05-27 cannot be: "):
        parsed(tomllib.loads("size = 1979-05-27"), Outer, "here")


def test_truth_where_it_is_meant() -> None:
    assert parsed({"loud": True, "counts": {"a": 1}}, Outer, "here").loud is True
