"""Recipes: TOML files that are read with overrides, and whose mistakes are each one sentence."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Sequence
from datetime import date, time
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from openk2.core.errors import UserError
from openk2.core.runs import read_small_text


class Section(BaseModel):
    """A section of a recipe: no key that is unknown, no infinity (it has no JSON, which jobs and manifests are in), and
    true or false only for a key that is one of them."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, raw: Any) -> Any:
        # Pydantic takes true for 1, which nobody means.
        for key, value in raw.items() if isinstance(raw, dict) else ():
            field = cls.model_fields.get(key)
            if field is not None and bool in (field.annotation, *get_args(field.annotation)):
                continue
            for path, one in [(key, value), *((f"{key}.{k}", v) for k, v in _items(value, field))]:
                if isinstance(one, bool):
                    problem = "another kind of value is wanted than true or false"
                    raise PydanticCustomError("truth", problem, {"key": path, "value": one})
        return raw


R = TypeVar("R", bound=Section)


def _items(value: Any, field: FieldInfo | None) -> list[tuple[str, Any]]:
    """What is in a table that is no section, which looks after itself."""
    section = field is not None and isinstance(field.annotation, type) and issubclass(field.annotation, Section)
    return list(value.items()) if isinstance(value, dict) and not section else []


def parsed(raw: dict[str, Any], recipe: type[R], where: str | Path) -> R:
    """The content of a recipe, checked; `where` names it in errors. Raises UserError with the first mistake."""
    try:
        return recipe.model_validate(raw)
    except ValidationError as e:
        raise UserError(f"{where}: {explain(e, recipe)}") from e


def read_recipe(path: Path, overrides: Sequence[str], examples: str) -> dict[str, Any]:
    """The content of a recipe; `overrides` are `key.path=value` with values in TOML syntax (bare words are text).

    Raises UserError for a missing or malformed file, which names `examples`, and for what is no override.
    """
    try:
        # Some editors begin a file with a mark of its encoding.
        raw = tomllib.loads(read_small_text(path).removeprefix("\ufeff"))
    except FileNotFoundError as e:
        raise UserError(f"there is no recipe {path}: try {examples}") from e
    except OSError as e:
        raise UserError(f"the recipe {path} cannot be read: {e.strerror}") from e
    except UnicodeDecodeError as e:
        raise UserError(f"the recipe {path} cannot be read: it is not UTF-8 text (byte {e.start})") from e
    except tomllib.TOMLDecodeError as e:
        raise UserError(f"the recipe {path} is not valid TOML: {e}") from e
    except RecursionError as e:
        raise UserError(f"the recipe {path} cannot be read: its lists or tables are too deep in each other") from e
    except ValueError as e:
        raise UserError(f"the recipe {path} cannot be read: {e}") from e
    for override in overrides:
        _apply(raw, override)
    return raw


def _apply(raw: dict[str, Any], override: str) -> None:
    try:
        override.encode()
    except UnicodeEncodeError as e:
        raise UserError(f"--set {override!r} has bytes that are not UTF-8: write it in UTF-8") from e
    key, equals, text = override.partition("=")
    parts = _parts(key)
    if not equals or not all(parts):
        raise UserError(f"--set {override!r} is not of the form key.path=value, for example seed=1")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    except RecursionError as e:
        raise UserError(f"--set {key}: its lists or tables are too deep in each other") from e
    section = raw
    for part in parts[:-1]:
        section = section.setdefault(part, {})
        if not isinstance(section, dict):
            raise UserError(f"--set {override!r}: {part} is a value, not a section")
    section[parts[-1]] = value


def _parts(key: str) -> list[str]:
    """The parts of a key as TOML reads it, or parted by its dots where it is no key of TOML, such as `a.b:c.d`."""
    try:
        section: Any = tomllib.loads(f"{key} = 0")
    except (tomllib.TOMLDecodeError, RecursionError):
        return [part.strip() for part in key.split(".")]
    parts = []
    while isinstance(section, dict):
        if len(section) != 1:  # a comment, or several lines
            return [part.strip() for part in key.split(".")]
        ((part, section),) = section.items()
        parts.append(part)
    return parts


def explain(error: ValidationError, recipe: type[BaseModel]) -> str:
    """The first problem in one sentence; an unknown key first, since a misspelt one is also missing."""
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    location = first["loc"]
    key = ".".join(str(part) for part in location)
    match first["type"]:
        case "extra_forbidden":
            return f"unknown key {key!r}: {hint(str(location[-1]), location[:-1], _valid_keys(recipe, location[:-1]))}"
        case "missing":
            return f"{key!r} is missing: add it"
        case "value_error":
            return str(first["ctx"]["error"]) + (f" (in [{key}])" if key else "")
        case "truth":
            path, value = ".".join([*map(str, location), first["ctx"]["key"]]), str(first["ctx"]["value"]).lower()
            return f"{path} = {value} cannot be: {first['msg']}"
        case _:
            given = first["input"]
            given = given.isoformat() if isinstance(given, date | time) else repr(given)
            return f"{key} = {given} cannot be: {first['msg'][0].lower()}{first['msg'][1:]}"


def hint(key: str, section: Sequence[int | str], valid: list[str]) -> str:
    """What to do about a key that is none of the valid ones."""
    near = difflib.get_close_matches(key, valid, n=1, cutoff=0.5)
    return f"did you mean {'.'.join([*map(str, section), near[0]])!r}?" if near else "remove it"


def _valid_keys(model: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    for part in location:
        annotation = model.model_fields[str(part)].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)
