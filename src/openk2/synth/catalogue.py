"""Simulated apps by their names: those of the lexicon, and declarations in files."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from openk2.core import UserError, command
from openk2.synth.evolve import evolve, made
from openk2.synth.lexicon import sketches
from openk2.worlds.apps.declaration import Domain, Effect, EntityField, Parameter, Returns, Tool, read_domain

DECLARATIONS = (".json", ".toml")
_LARGEST_FILE = 10_000_000


@dataclass(frozen=True, slots=True)
class Listed:
    """A line of the list."""

    name: str
    category: str
    title: str
    tools: int


def listed(seed: int) -> Iterator[Listed]:
    """All domains of the lexicon. How many tools one has follows only when they are made."""
    for sketch in sketches():
        yield Listed(sketch.name, sketch.category, sketch.title, len(made(sketch, seed).tools))


def domain_of(name: str, seed: int) -> Domain:
    """A domain of the lexicon, made with a seed, or that of a declaration file. Raises UserError if there is none."""
    if name.endswith(DECLARATIONS):
        return _from_file(Path(name))
    for sketch in sketches():
        if sketch.name == name:
            return evolve(sketch, seed)
    close = get_close_matches(name, [sketch.name for sketch in sketches()], n=1)
    hint = f"did you mean {close[0]}?" if close else f"`{command.typed} worlds list` names them all"
    raise UserError(f"there is no world {name[:80]!r}: {hint} (a declaration file ends in .json or .toml)")


def _from_file(path: Path) -> Domain:
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise UserError(f"{path} has more than {_LARGEST_FILE // 1_000_000} MB: that is no declaration of a world")
        text = path.read_text(encoding="utf-8")
    except OSError as e:
        raise UserError(f"{path} cannot be read: {e.strerror}; name a declaration file") from None
    except ValueError:
        raise UserError(f"{path} is not UTF-8 text: name a declaration file") from None
    if path.suffix == ".json":
        return read_domain(text, str(path))
    try:
        return read_domain(tomllib.loads(text), str(path))
    except (tomllib.TOMLDecodeError, RecursionError) as e:
        raise UserError(f"{path} is not TOML: {e}") from None


def described(domain: Domain) -> dict[str, Any]:
    """A domain as JSON, its tools' guards and effects in readable form."""
    return {
        "name": domain.name,
        "category": domain.category,
        "title": domain.title,
        "users": domain.users,
        "policy": list(domain.policy),
        "entities": {
            name: {field: _field(declared) for field, declared in entity.fields.items()}
            for name, entity in domain.entities.items()
        },
        "tools": [asdict(readable(tool)) for tool in domain.tools],
    }


@dataclass(frozen=True, slots=True)
class Readable:
    """A tool in words."""

    name: str
    description: str
    parameters: dict[str, str]
    requires: list[str]
    effects: list[str]
    returns: str


def readable(tool: Tool) -> Readable:
    """A tool with its guards and effects as people read them."""
    return Readable(
        tool.name,
        tool.description,
        {name: _parameter(parameter) for name, parameter in tool.parameters.items()},
        [f"{guard.that}, or else: {guard.error}" for guard in tool.requires],
        [_effect(effect) for effect in tool.effects],
        _returns(tool.returns),
    )


def _field(field: EntityField) -> str:
    return _kind(field, " (unique)" if field.unique else "")


def _parameter(parameter: Parameter) -> str:
    return _kind(parameter, "")


def _kind(declared: EntityField | Parameter, more: str) -> str:
    if declared.ref is not None:
        kind = f"id of {declared.ref}"
    elif declared.values is not None:
        kind = "|".join(declared.values)
    else:
        kind = declared.type
    if declared.minimum is not None:
        kind += f" from {declared.minimum:g}"
    if declared.maximum is not None:
        kind += f" to {declared.maximum:g}"
    return kind + more + (" (optional)" if declared.optional else "")


def _effect(effect: Effect) -> str:
    if effect.create:
        text = f"create one of {effect.create}"
    else:
        what = "update" if effect.update else "delete"
        target = effect.update or effect.delete
        text = f"{what} {f'each {target} of {effect.each}' if effect.each else target}"
    if effect.where:
        text += f" where {effect.where}"
    return text + (": " + _assigned(effect.values) if effect.values else "")


def _returns(returns: Returns) -> str:
    if returns.values:
        return _assigned(returns.values)
    text = returns.row or f"{returns.rows}{f' where {returns.where}' if returns.where else ''}"
    if returns.sort:
        text += f" by {returns.sort}{', last first' if returns.descending else ''}"
    if returns.limit:
        text += f", at most {returns.limit}"
    return text + (f" ({', '.join(returns.fields)})" if returns.fields else "")


def _assigned(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name} = {text}" for name, text in values.items())


def print_list(seed: int, *, as_json: bool) -> None:
    """All domains, on stdout: a table, or an object of JSON for each."""
    if as_json:
        for one in listed(seed):
            print(json.dumps(asdict(one)))
        return
    from rich.table import Table

    from openk2.core.progress import new_console

    table = Table(box=None, padding=(0, 1), collapse_padding=True, pad_edge=False)
    table.add_column("name", no_wrap=True)
    table.add_column("category")
    table.add_column("title")
    table.add_column("tools", justify="right", no_wrap=True)
    for one in listed(seed):
        table.add_row(one.name, one.category, one.title, str(one.tools))
    new_console().print(table)


def print_description(name: str, seed: int, *, as_json: bool) -> None:
    """One domain, on stdout."""
    domain = domain_of(name, seed)
    whole = described(domain)
    if as_json:
        print(json.dumps(whole))
        return
    for line in _in_words(domain, whole):
        indent = len(line) - len(line.lstrip())
        print(_folded(line, " " * (indent + 4)) if sys.stdout.isatty() else line)


def _in_words(domain: Domain, whole: Mapping[str, Any]) -> Iterator[str]:
    """The lines of a description."""
    yield f"{domain.title} ({domain.name}; {domain.category})"
    yield f"{len(domain.entities)} entities, {len(domain.tools)} tools"
    for sentence in domain.policy:
        yield f"policy: {sentence}"
    for entity, fields in whole["entities"].items():
        yield from ("", entity)
        for field, kind in fields.items():
            yield f"  {field}: {kind}"
    for tool in whole["tools"]:
        yield from ("", f"{tool['name']}({', '.join(tool['parameters'])})")
        yield f"  {tool['description']}"
        for parameter, kind in tool["parameters"].items():
            yield f"  takes {parameter}: {kind}"
        for label in ("requires", "effects"):
            for line in tool[label]:
                yield f"  {label.removesuffix('s') if label == 'effects' else label}: {line}"
        yield f"  returns: {tool['returns']}"


def _folded(line: str, indent: str) -> str:
    """A line at the width of the screen."""
    width = shutil.get_terminal_size().columns
    return textwrap.fill(line, width, subsequent_indent=indent, break_on_hyphens=False, drop_whitespace=True)
