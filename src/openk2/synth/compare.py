"""A run's tools beside those of real MCP servers, on the same axes and by the same code.

A file of specs has one server a line: {"server", "domain", "tools": [{"name", "description", "input_schema"}]}.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openk2.core import UserError
from openk2.core.messages import compact_json
from openk2.data.lake import Lake
from openk2.synth.figures import distribution

DATA_FILE = "toucan_mcp/servers.jsonl"
AXES = ("tools per domain or server", "parameters", "required parameters", "depth", "words of description")
_NESTED = ("anyOf", "oneOf", "allOf")


def specs_file(given: Path | None) -> Path | None:
    """The file to compare with: the given one, or that of OPENK2_DATA if it is there."""
    if given is not None:
        return given
    folder = os.environ.get("OPENK2_DATA")
    path = Path(folder) / DATA_FILE if folder else None
    return path if path is not None and path.exists() else None


@dataclass(slots=True)
class ToolCounts:
    """Figures of a set of tools, counted one by one."""

    axes: dict[str, Counter[int]] = field(default_factory=lambda: {axis: Counter() for axis in AXES})
    tools: int = 0
    servers: int = 0
    described: int = 0
    parameters: int = 0
    names: set[str] = field(default_factory=set)
    schemas: set[str] = field(default_factory=set)
    pairs: set[str] = field(default_factory=set)

    def add(self, name: str, description: str, schema: Mapping[str, Any]) -> None:
        properties = _properties(schema)
        required = schema.get("required")
        shape = compact_json(plain(schema))
        self.tools += 1
        self.parameters += len(properties)
        self.described += sum(bool(_described(one)) for one in properties.values())
        self.names.add(name)
        self.schemas.add(shape)
        self.pairs.add(f"{name} {shape}")
        self.axes["parameters"][len(properties)] += 1
        self.axes["required parameters"][len(required) if isinstance(required, list) else 0] += 1
        self.axes["depth"][depth(schema)] += 1
        self.axes["words of description"][len(description.split())] += 1

    def add_server(self, tools: int) -> None:
        self.servers += 1
        self.axes["tools per domain or server"][tools] += 1

    def to_json(self, name: str) -> dict[str, Any]:
        return {
            "name": name,
            "servers": self.servers,
            "tools": self.tools,
            "distinct_names": len(self.names),
            "distinct_schemas": len(self.schemas),
            "distinct_names_with_schemas": len(self.pairs),
            "name_schema_ratio": round(len(self.pairs) / self.tools, 4) if self.tools else 0.0,
            "schema_ratio": round(len(self.schemas) / self.tools, 4) if self.tools else 0.0,
            "described_parameters": round(self.described / self.parameters, 4) if self.parameters else 0.0,
            "axes": {axis: distribution(counts) for axis, counts in self.axes.items()},
        }


def plain(schema: Any) -> Any:
    """A schema without what is only said: descriptions, titles, examples, the draft."""
    if isinstance(schema, list):
        return [plain(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found: dict[str, Any] = {}
    for key, value in sorted(schema.items()):
        # A parameter may be called like a keyword: below `properties` are names.
        if key == "properties" and isinstance(value, dict):
            found[key] = {name: plain(one) for name, one in sorted(value.items())}
        elif key == "required" and isinstance(value, list):
            found[key] = sorted(map(str, value))
        elif key not in ("description", "title", "examples", "example", "$schema", "additionalProperties"):
            found[key] = plain(value)
    return found


def depth(schema: Any) -> int:
    """How deep arguments are nested: 0 without parameters, 1 with plain ones, one more for each object or list in
    them."""
    if not isinstance(schema, Mapping):
        return 0
    below = [*_properties(schema).values()]
    own = int(bool(below))
    if "items" in schema:
        own = 1
        below.append(schema["items"])
    for key in _NESTED:
        options = schema.get(key)
        if isinstance(options, list):
            own = max([own, *map(depth, options)])
    return max([own, *(own + depth(one) for one in below)])


def _properties(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    found = schema.get("properties")
    return found if isinstance(found, Mapping) else {}


def _described(parameter: Any) -> bool:
    return isinstance(parameter, Mapping) and bool(parameter.get("description"))


def compare(run: Path, specs: Path) -> list[dict[str, Any]]:
    """The figures of a run's tools, and of those in a file. Raises UserError naming the line that is no server."""
    lake = Lake(run)
    own, other = ToolCounts(), ToolCounts()
    for name, description, schema in lake.stream("SELECT name, description, schema FROM tools WHERE dropped = ''"):
        own.add(name, description, json.loads(schema))
    for (tools,) in lake.stream("SELECT tools FROM domains"):
        own.add_server(tools)
    for server in read_servers(specs):
        other.add_server(len(server["tools"]))
        for tool in server["tools"]:
            try:
                other.add(str(tool["name"]), str(tool.get("description") or ""), tool.get("input_schema") or {})
            except RecursionError as e:
                raise UserError(f"the schema of {tool['name']!r} in {specs} is too deep: take the tool out") from e
    return [own.to_json("this run"), other.to_json("MCP servers")]


def read_servers(path: Path) -> Iterator[dict[str, Any]]:
    """The servers of a file. Raises UserError if it cannot be read, naming the line."""
    advice = 'give JSON lines {"server", "domain", "tools": [{"name", "description", "input_schema"}]}'
    try:
        with open(path, encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    server = json.loads(line)
                except (ValueError, RecursionError) as e:
                    raise UserError(f"line {number} of {path} is not JSON: {advice}") from e
                if not _is_server(server):
                    raise UserError(f"line {number} of {path} is not a server with tools: {advice}")
                yield server
    except (OSError, UnicodeDecodeError) as e:
        reason = e.strerror if isinstance(e, OSError) else "it is not UTF-8"
        raise UserError(f"{path} cannot be compared with ({reason}): {advice}") from e


def _is_server(raw: Any) -> bool:
    return (
        isinstance(raw, dict)
        and isinstance(raw.get("tools"), list)
        and all(
            isinstance(tool, dict) and tool.get("name") and isinstance(tool.get("input_schema") or {}, dict)
            for tool in raw["tools"]
        )
    )
