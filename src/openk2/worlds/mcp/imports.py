"""Specs of MCP servers, taken in by thousands without running one: accepted or refused, simulated where that can be.

A line of the file is a server: {"server", "domain", "tools": [{"name", "description", "input_schema"}]}. Each tool is
accepted, or refused for one reason. An accepted one is `inferred`, which means that the interpreter simulates it, or
`model-backed`, which means that a model must play it.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from openk2.core import UserError
from openk2.core.messages import compact_json
from openk2.core.runs import check_new_file
from openk2.worlds.mcp.infer import infer, tokens
from openk2.worlds.mcp.simulated import Simulation
from openk2.worlds.mcp.specs import Names, Spec, checked

DOUBLE = "a near double of an earlier tool"
INFERRED, MODEL_BACKED, PARTLY = "inferred", "model-backed", "partly inferred"
_ALIKE = 0.9
_LONGEST_LINE = 20_000_000


class _GivenTool(BaseModel):
    model_config = ConfigDict(extra="ignore")

    name: Any = None
    description: Any = None
    input_schema: Any = None


class _GivenServer(BaseModel):
    model_config = ConfigDict(extra="ignore")

    server: str = Field(min_length=1)
    domain: str = "Others"
    tools: list[_GivenTool]


@dataclass(frozen=True, slots=True)
class ImportedServer:
    """A server with its accepted tools and, where there is one, a simulation."""

    name: str
    server: str
    category: str
    specs: tuple[Spec, ...]
    simulation: Simulation | None

    @property
    def label(self) -> str:
        """Of the whole: inferred if every tool is."""
        if self.simulation is None:
            return MODEL_BACKED
        return INFERRED if len(self.simulation.bridges) == len(self.specs) else PARTLY

    def label_of(self, spec: Spec) -> str:
        inferred = self.simulation is not None and spec.name in self.simulation.bridges
        return INFERRED if inferred else MODEL_BACKED

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "server": self.server,
            "domain": self.category,
            "label": self.label,
            "tools": [
                {
                    "name": spec.name,
                    **({"original": spec.original} if spec.original != spec.name else {}),
                    "description": spec.description,
                    "input_schema": spec.schema,
                    "label": self.label_of(spec),
                }
                for spec in self.specs
            ],
            "simulation": None if self.simulation is None else self.simulation.model_dump(mode="json"),
        }


@dataclass(slots=True)
class Report:
    """What came of an import."""

    tools: int = 0
    accepted: int = 0
    inferred: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    servers: Counter[str] = field(default_factory=Counter)

    def as_json(self) -> dict[str, Any]:
        return {
            "tools": self.tools,
            "accepted": self.accepted,
            "refused": dict(self.refused.most_common()),
            "inferred": self.inferred,
            "model_backed": self.accepted - self.inferred,
            "servers": {
                "total": sum(self.servers.values()),
                "inferred": self.servers[INFERRED],
                "partly_inferred": self.servers[PARTLY],
                "model_backed": self.servers[MODEL_BACKED],
                "without_tools": self.servers[""],
            },
        }


class _WrittenTool(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    original: str = ""
    description: str
    input_schema: dict[str, Any]
    label: str


class _Written(BaseModel):
    """A line of what an import writes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    server: str
    domain: str
    label: str
    tools: tuple[_WrittenTool, ...]
    simulation: Simulation | None


def read_imported(path: Path, name: str) -> ImportedServer:
    """A server that an import has written, by its name. Raises UserError."""
    for number, line in _lines(path):
        try:
            raw = json.loads(line)
            if not isinstance(raw, dict) or name not in (raw.get("name"), raw.get("server")):
                continue
            written = _Written.model_validate(raw)
        except (ValueError, RecursionError):
            raise UserError(f"{path}, line {number} is not what `worlds mcp import` writes: import anew") from None
        specs = (Spec(one.name, one.original or one.name, one.description, one.input_schema) for one in written.tools)
        return ImportedServer(written.name, written.server, written.domain, tuple(specs), written.simulation)
    raise UserError(f"{path} has no server {name[:80]!r}: name one by its name or server there")


class _Doubles:
    """Tools that were seen, by what they take. Within those that take the same, words are compared."""

    def __init__(self) -> None:
        self._seen: dict[str, list[frozenset[str]]] = defaultdict(list)

    def has(self, spec: Spec) -> bool:
        """Whether a tool takes the same and is described in nearly the same words as one before. If not, it is seen."""
        key = compact_json(_bare(spec.schema))
        words = frozenset([*tokens(spec.original), *re.findall(r"\w+", spec.description.lower())])
        if any(len(words & other) >= _ALIKE * len(words | other) for other in self._seen[key]):
            return True
        self._seen[key].append(words)
        return False


def _bare(schema: Any) -> Any:
    """A schema without its words."""
    if isinstance(schema, dict):
        words = ("description", "title", "$schema", "examples", "default")
        # A property may be called like a word of JSON Schema: then a schema is behind it.
        return {
            key: _bare(value) for key, value in sorted(schema.items()) if key not in words or isinstance(value, dict)
        }
    return [_bare(one) for one in schema] if isinstance(schema, list) else schema


def imported(path: Path, report: Report) -> Iterator[ImportedServer]:
    """The servers of a file, one after the other. Raises UserError naming a line that cannot be read."""
    doubles, taken = _Doubles(), Counter[str]()
    for given in _given(path):
        names, specs = Names(), list[Spec]()
        for tool in given.tools:
            report.tools += 1
            found = checked(tool.name, tool.description, tool.input_schema, names)
            if isinstance(found, Spec) and doubles.has(found):
                found = DOUBLE
            if isinstance(found, Spec):
                specs.append(found)
            else:
                report.refused[found] += 1
        report.accepted += len(specs)
        if not specs:
            report.servers[""] += 1
            continue
        name = _name(given.server, taken)
        one = ImportedServer(
            name, given.server, given.domain, tuple(specs), infer(name, given.domain or "Others", given.server, specs)
        )
        report.inferred += len(one.simulation.bridges) if one.simulation is not None else 0
        report.servers[one.label] += 1
        yield one


def _given(path: Path) -> Iterator[_GivenServer]:
    for number, line in _lines(path):
        yield _server(path, number, line)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Those that are not empty, with their numbers."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if len(line) > _LONGEST_LINE:
                    raise UserError(f"{path}, line {number} has {len(line)} bytes: give one server a line")
                if line.strip():
                    yield number, line
    except OSError as e:
        raise UserError(f"{path} cannot be read: {e.strerror}; name a file with a server a line") from None


def _server(path: Path, number: int, line: bytes) -> _GivenServer:
    try:
        return _GivenServer.model_validate(json.loads(line))
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise UserError(f"{path}, line {number} is no server: {where}: {first['msg']}") from None
    except (ValueError, RecursionError) as e:
        raise UserError(f"{path}, line {number} is not JSON: {str(e)[:120]}") from None


def _name(server: str, taken: Counter[str]) -> str:
    """A name for a domain that no other has."""
    name = "_".join(tokens(server))[:50] or "server"
    name = name if name[0].isalpha() else f"s_{name}"
    taken[name] += 1
    return f"{name}_server{'' if taken[name] == 1 else f'_{taken[name]}'}"


def import_file(path: Path, out: Path | None, *, as_json: bool, force: bool = False) -> None:
    """Import a file, write the accepted servers to `out`, and say on stdout what came of it. Raises UserError, also if
    `out` is there without `force`."""
    from openk2.worlds.mcp.world import write_whole

    if out is not None:
        check_new_file(out, path, force=force)
    report = Report()
    lines = []
    for server in imported(path, report):
        if out is not None:
            lines.append(json.dumps(server.as_json()) + "\n")
    if out is not None:
        write_whole(out, "".join(lines))
    if as_json:
        print(json.dumps(report.as_json()))
        return
    said = report.as_json()
    print(f"{report.tools} tools, {report.accepted} accepted")
    for reason, count in said["refused"].items():
        print(f"refused {count}: {reason}")
    print(f"{report.inferred} tools are simulated (inferred), {said['model_backed']} need a model (model-backed)")
    servers = said["servers"]
    print(
        f"of {servers['total']} servers {servers['inferred']} are simulated whole, {servers['partly_inferred']} in "
        f"part,\n{servers['model_backed']} need a model, {servers['without_tools']} have no accepted tool"
    )
