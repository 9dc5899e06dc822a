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
from openk2.core.errors import first_invalid
from openk2.core.messages import compact_json
from openk2.core.runs import check_new_file
from openk2.worlds.mcp.infer import infer
from openk2.worlds.mcp.simulated import Simulation
from openk2.worlds.mcp.specs import Names, Spec, checked
from openk2.worlds.mcp.words import tokens

DOUBLE = "a near double of an earlier tool"
INFERRED, MODEL_BACKED, PARTLY = "inferred", "model-backed", "partly inferred"
_ALIKE = 0.9
_LONGEST_LINE = 20_000_000


class _GivenServer(BaseModel):
    model_config = ConfigDict(extra="ignore")

    server: str = Field(min_length=1)
    domain: str | None = None
    tools: list[dict[str, Any]]


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
    refused_servers: dict[int, str] = field(default_factory=dict)
    """Lines that are no server, and why."""

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
            "refused_servers": [{"line": line, "reason": why} for line, why in self.refused_servers.items()],
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
    """The servers of a file, one after the other. A line that is none is noted in the report. Raises UserError if the
    file cannot be read, or if no line is a server."""
    doubles, taken = _Doubles(), Counter[str]()
    for given in _given(path, report):
        names, specs = Names(), list[Spec]()
        for tool in given.tools:
            report.tools += 1
            found = checked(tool.get("name"), tool.get("description"), tool.get("input_schema"), names)
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
        name, category = _name(given.server, taken), given.domain or "Others"
        one = ImportedServer(name, given.server, category, tuple(specs), infer(name, category, given.server, specs))
        report.inferred += len(one.simulation.bridges) if one.simulation is not None else 0
        report.servers[one.label] += 1
        yield one


def _given(path: Path, report: Report) -> Iterator[_GivenServer]:
    found = False
    for number, line in _lines(path):
        server = _server(line)
        if isinstance(server, str):
            if not found and line.lstrip().startswith(b"["):
                raise UserError(f"{path} begins with a JSON array: give one server a line, not a JSON array")
            report.refused_servers[number] = server
        else:
            found = True
            yield server
    if not found and report.refused_servers:
        number, why = next(iter(report.refused_servers.items()))
        raise UserError(f"{path} has no server: line {number} {why}")


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Those that are not empty, with their numbers."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line
    except OSError as e:
        raise UserError(f"{path} cannot be read: {e.strerror}; name a file with a server a line") from None


def _server(line: bytes) -> _GivenServer | str:
    """A server, or what is wrong with its line."""
    if len(line) > _LONGEST_LINE:
        return f"has {len(line)} bytes: give one server a line"
    try:
        raw = json.loads(line)
        return _GivenServer.model_validate(raw) if isinstance(raw, dict) else "is no server: it is not a JSON object"
    except ValidationError as e:
        where, problem = first_invalid(e)
        return f"is no server: {where}: {problem}"
    except (ValueError, RecursionError) as e:
        return f"is not JSON: {str(e)[:120]}"


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
    for line, why in report.refused_servers.items():
        print(f"left out: line {line} {why}")
    print(f"{report.inferred} tools are simulated (inferred), {said['model_backed']} need a model (model-backed)")
    servers = said["servers"]
    print(
        f"of {servers['total']} servers {servers['inferred']} are simulated whole, {servers['partly_inferred']} in "
        f"part,\n{servers['model_backed']} need a model, {servers['without_tools']} have no accepted tool"
    )
