"""A policy without a model: regular expressions and word overlap. What it passes, a test does not measure.

It picks the declared tool that shares most words with the request, fills parameters by their names, by their types and
by what looks like a value, follows results whose keys are parameters of an unused tool, and reads results back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from openk2.core import Message, ToolCall, ToolSpec, Turn, compact_json

STOP = frozenset(
    re.findall(r"\w+", "a an the of for to in on at by is it if do me my our go and get with i you please can")
)
VALUE = r'"[^"]+"|[A-Z][a-z]+(?: [A-Z][a-z]+)*|[A-Z]{2}-\d+|\d{4}-\d\d-\d\d|\S+@\S+|-?\d+(?:\.\d+)?'


class BaselinePolicy:
    """Answers by overlap of words."""

    name = "baseline"

    async def act(self, messages: Sequence[Message], tools: Sequence[ToolSpec], *, max_tokens: int) -> Turn:
        message = self.answer(messages, tools)
        return Turn(message, "tool_calls" if message.tool_calls else "stop", model=self.name)

    async def close(self) -> None:
        return None

    def answer(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> Message:
        """The next turn."""
        request = " ".join(m.content for m in messages if m.role == "user")
        calls = [call for m in messages for call in m.tool_calls]
        if messages[-1].role == "tool":
            return self._after_result(messages, tools, calls)
        best = max(tools, key=lambda tool: overlap(request, tool), default=None)
        if best is None or overlap(request, best) < 1:
            return Message("assistant", "I have no tool for that.")
        arguments = fill(request, best)
        missing = [name for name in best.parameters.get("required", ()) if name not in arguments]
        if missing and messages[-1].role == "user" and not any(m.content.startswith("Which") for m in messages):
            return Message("assistant", f"Which {missing[0].replace('_', ' ')}?")
        return call_message(best.name, arguments, len(calls))

    def _after_result(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec], calls: Sequence[ToolCall]
    ) -> Message:
        results = [m.content for m in messages if m.role == "tool"]
        try:
            result = json.loads(results[-1])
        except ValueError:
            result = {"result": results[-1]}
        if isinstance(result, Mapping) and "error" in result and len(calls) < 3:
            arguments = calls[-1].parsed()
            suggestion = re.search(r"(?:mean|use|try|match:|similar:|to|called) ([A-Z][\w ]*)", str(result["error"]))
            if suggestion and arguments:
                arguments[next(iter(arguments))] = suggestion[1]
            return call_message(calls[-1].name, arguments, len(calls))
        used = {call.name for call in calls}
        for tool in tools:
            properties = tool.parameters.get("properties", {})
            if tool.name not in used and isinstance(result, Mapping) and len(calls) < 6:
                known = {name: result[name] for name in properties if name in result and name.endswith("_id")}
                if known:
                    return call_message(tool.name, known, len(calls))
        if isinstance(result, Mapping):
            return Message("assistant", ". ".join(f"The {key} is {value}" for key, value in result.items()) + ".")
        return Message("assistant", results[-1])


def call_message(name: str, arguments: Mapping[str, Any], index: int) -> Message:
    return Message("assistant", tool_calls=(ToolCall(f"functions.{name}:{index}", name, compact_json(arguments)),))


def words(text: str) -> set[str]:
    found = set(re.findall(r"[a-z]+", text.lower().replace("_", " "))) - STOP
    return {word[:-1] if word.endswith("s") else word for word in found}


def overlap(request: str, tool: ToolSpec) -> float:
    """How many words the request shares with a tool; words of parameters count less."""
    said = words(request)
    parameters = " ".join(tool.parameters.get("properties", {}))
    return len(said & words(f"{tool.name} {tool.description}")) + 0.3 * len(said & words(parameters))


def fill(request: str, tool: ToolSpec) -> dict[str, Any]:
    """Arguments from a request: a value behind the parameter's name, or else the next value of the right type."""
    taken: set[int] = set()
    arguments: dict[str, Any] = {}
    properties = tool.parameters.get("properties", {})
    for named in (True, False):
        for name, schema in properties.items():
            if name in arguments or (not named and name not in tool.parameters.get("required", ())):
                continue
            label = re.escape(name.replace("_", " "))
            pattern = rf"\b{label}\b(?: is| are| of|:| =| has)? ?({VALUE}|\w+)" if named else rf"({VALUE})"
            for match in re.finditer(pattern, request):
                value = convert(match[1].strip('"'), schema)
                if match.start(1) not in taken and (match.start(1) > 0 or named) and value is not None:
                    arguments[name] = value
                    taken.add(match.start(1))
                    break
    return {name: arguments[name] for name in properties if name in arguments}


def convert(text: str, schema: Mapping[str, Any]) -> Any:
    """The text as a value of the schema's type, or None."""
    kind = schema.get("type")
    if "enum" in schema:
        return text if text in schema["enum"] else None
    if kind == "boolean":
        return {"yes": True, "on": True, "true": True, "no": False, "off": False, "false": False}.get(text.lower())
    if kind in ("integer", "number"):
        number = re.fullmatch(r"-?\d+(\.\d+)?", text)
        return None if number is None else float(text) if number[1] else int(text)
    return text if kind == "string" else None
