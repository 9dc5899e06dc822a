"""Tools with the same meaning are found, whatever they are called."""

from __future__ import annotations

import re
from typing import Any

import pytest

from openk2.synth.semantics import Doubles, structure, structures
from openk2.worlds.apps.declaration import GIVEN, Guard, Parameter, Returns, Tool
from openk2.worlds.apps.expression import FUNCTIONS
from synth.made import domains

WORDS = {*GIVEN, *FUNCTIONS, "any", "all", "count", "sum", "min", "max", "and", "or", "not", "in", "is", "if", "else"}
WORDS |= {"for", "None", "True", "False", "id"}
DOMAIN = next(iter(domains().values()))


def renamed(tool: Tool) -> Tool:
    """All names and texts in a tool by others, and other numbers."""

    def name(text: str) -> str:
        return text if text in WORDS else f"z{text}"

    def words(text: str) -> str:
        text = re.sub(r"(?<![\w.])\d+(\.\d+)?", lambda match: f"{float(match[0]) + 1}", text)
        return re.sub(r"\b[a-z_]\w*", lambda match: name(match[0]), text)

    def values(raw: dict[str, str]) -> dict[str, str]:
        return {name(key): words(text) for key, text in raw.items()}

    raw: dict[str, Any] = tool.model_dump(exclude_none=True)
    raw["name"], raw["description"] = name(tool.name), words(tool.description)
    raw["parameters"] = {
        name(key): one | ({"ref": name(one["ref"])} if "ref" in one else {}) for key, one in raw["parameters"].items()
    }
    raw["requires"] = [{"that": words(one["that"]), "error": "No."} for one in raw["requires"]]
    for part in (*raw["effects"], raw["returns"]):
        for key in ("create", "update", "delete", "each", "name", "row", "rows"):
            if key in part:
                part[key] = name(part[key])
        part["values"] = values(part["values"])
        if "where" in part:
            part["where"] = words(part["where"])
        part.pop("fields", None)
    return Tool.model_validate(raw)


@pytest.mark.parametrize("tool", DOMAIN.tools, ids=lambda tool: tool.name)
def test_names_and_numbers_are_no_structure(tool: Tool) -> None:
    other = renamed(tool)
    assert other != tool and structure(other) == structure(tool)


def test_guards_and_effects_are_structure() -> None:
    guarded = [tool for tool in DOMAIN.tools if tool.requires and tool.effects]
    assert len(guarded) > 10
    for tool in guarded:
        fewer = tool.model_copy(update={"requires": tool.requires[1:]})
        other = Guard(that=f"not ({tool.requires[0].that})", error="No.")
        another = tool.model_copy(update={"requires": (other, *tool.requires[1:])})
        no_effect = tool.model_copy(update={"effects": tool.effects[1:]})
        assert len({structure(one) for one in (tool, fewer, another, no_effect)}) == 4


def test_structures_are_counted() -> None:
    tool = DOMAIN.tools[0]
    twice = DOMAIN.model_copy(update={"tools": (tool, renamed(tool))})
    assert structures([twice]) == {structure(tool): 2}


def tool_of(name: str, description: str, kind: str = "text") -> Tool:
    parameter = Parameter.model_validate({"type": kind})
    return Tool(name=name, description=description, parameters={"x": parameter}, returns=Returns(values={"y": "x"}))


LONG = " ".join(f"word{n}" for n in range(60))


@pytest.mark.parametrize(
    ("tool", "reason"),
    [
        (tool_of("echo_text", "Something else."), "name"),
        (tool_of("text_echo", "Something else."), "meaning"),
        (tool_of("repeat_text", f"{LONG}."), "description"),
        (tool_of("repeat_text", "Say it again."), None),
        (tool_of("echo_text", f"{LONG}.", "integer"), None),
    ],
)
def test_doubles(tool: Tool, reason: str | None) -> None:
    doubles = Doubles()
    assert doubles.reason(tool_of("echo_text", f"{LONG}.")) is None
    assert doubles.reason(tool) == reason
    # What was dropped is no earlier tool, what was new is one.
    assert doubles.reason(tool) == (reason or "name")
