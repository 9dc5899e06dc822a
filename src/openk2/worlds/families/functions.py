"""The functions family: declared tools, a request, calls with the right arguments, an answer with what they returned.

The world executes calls against the task's table of expected calls, the same again for the same call; every other valid
call finds nothing. It validates
arguments against the declared schema and plays the user when the model has to ask for something.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from openk2.core import (
    NANO_SYSTEM,
    Demonstration,
    Message,
    Split,
    Task,
    ToolCall,
    ToolResult,
    ToolSpec,
    UserError,
    Verdict,
    World,
    compact_json,
)
from openk2.core.messages import is_unicode
from openk2.worlds.families.functions_tasks import BUILDERS, build
from openk2.worlds.families.lexicon import make_rng
from openk2.worlds.families.mix import draw_skill
from openk2.worlds.text import clean

NAME = "functions"
NEGATIONS = re.compile(r"\b(no|not|none|cannot|unable|without)\b|n't\b", re.IGNORECASE)


class FunctionsFamily:
    """Calls of declared tools with the right arguments, and an answer with what they returned.

    What skill, which words and how it is phrased all follow from (split, seed). With an option, tasks of that skill
    alone. Raises UserError for an unknown one.
    """

    option = "SKILL"

    def __init__(self, option: str = "") -> None:
        if option and option not in BUILDERS:
            raise _no_skill(option)
        self.name = f"{NAME}:{option}" if option else NAME
        self.skills: Sequence[str] = (option,) if option else tuple(BUILDERS)

    def sample(self, split: Split, seed: int) -> Task:
        if len(self.skills) == 1:
            return self.sample_skill(self.skills[0], split, seed)
        return self.sample_skill(draw_skill(make_rng(NAME, split, seed), NAME, split), split, seed)

    def sample_skill(self, skill: str, split: Split, seed: int) -> Task:
        """The task of one skill that a seed stands for. Raises UserError for an unknown skill."""
        if skill not in BUILDERS:
            raise _no_skill(skill)
        rng = make_rng(NAME, split, seed, skill)
        request, data = build(skill, rng, split)
        return Task(f"{self.name}/{split}/{seed}", self.name, skill, seed, request, data, split)

    def world(self, task: Task) -> World:
        return FunctionsWorld(task)

    def demonstrate(self, task: Task) -> Demonstration:
        """The canonical solution: ask when something is missing, call group by group, restate the results.

        Each turn before the last begins with what it is for, where the task knows it (`Action.intent`): whether to
        call, to ask or to refuse is decided after that. Tasks written by hand have no intents.
        """
        data = task.data
        intents = ["; ".join(dict.fromkeys(group)) for group in data.get("intents", [[""] for _ in data["groups"]])]
        messages = [Message("system", NANO_SYSTEM), Message("user", task.request)]
        if "ask" in data:
            question = ". ".join(filter(None, (intents[0], data["ask"]["question"])))
            messages += [Message("assistant", question), Message("user", data["ask"]["reply"])]
        count = 0
        for intent, group in zip(intents, data["groups"], strict=False):
            calls = []
            for expected in group:
                name = expected["name"]
                calls.append(ToolCall(f"functions.{name}:{count}", name, compact_json(expected["arguments"])))
                count += 1
            messages.append(Message("assistant", intent, tuple(calls)))
            for call, expected in zip(calls, group, strict=True):
                messages.append(Message("tool", expected["result"], tool_call_id=call.id, name=call.name))
        refused = "" if data["groups"] or "intents" not in data else f"{intents[0]}: "
        messages.append(Message("assistant", refused + data["answer"]))
        return Demonstration(task, declared(data), tuple(messages))


def _no_skill(name: str) -> UserError:
    return UserError(f"the functions family has no skill {name!r}: use one of {', '.join(BUILDERS)}")


def declared(data: Mapping[str, Any]) -> tuple[ToolSpec, ...]:
    """The tools of a task."""
    return tuple(ToolSpec.from_openai(tool) for tool in data["tools"])


class FunctionsWorld:
    """Executes the calls of one task and judges the end."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._tools = declared(task.data)
        self._schemas = {tool.name: tool.parameters for tool in self._tools}
        self._waiting: list[list[dict[str, Any]]] = [list(group) for group in task.data["groups"]]
        self._made: list[dict[str, Any]] = []
        self._unexpected: list[str] = []
        self._calls = 0
        self._asked = False
        self._early = False

    @property
    def tools(self) -> Sequence[ToolSpec]:
        return self._tools

    async def start(self, task: Task) -> list[Message]:
        return [Message("system", NANO_SYSTEM), Message("user", task.request)]

    async def call(self, call: ToolCall) -> ToolResult:
        return self.execute(call)

    def execute(self, call: ToolCall) -> ToolResult:
        """One call, at once. A call that does not fit its schema changes nothing."""
        schema = self._schemas.get(call.name)
        if schema is None:
            return ToolResult.failure(f"there is no tool {clean(call.name)}")
        try:
            arguments = call.parsed()
            written = compact_json(arguments, finite=True)
        except (ValueError, RecursionError) as e:
            return ToolResult.failure(f"the arguments are not a JSON object: {e}")
        if not is_unicode(written):
            return ToolResult.failure("the arguments hold half a character (a lone surrogate)")
        problem = mismatch(arguments, schema)
        if problem:
            return ToolResult.failure(problem)
        self._calls += 1
        if "ask" in self._task.data and not self._asked:
            self._early = True
        while self._waiting and not self._waiting[0]:
            self._waiting.pop(0)
        for expected in self._waiting[0] if self._waiting else ():
            if expected["name"] == call.name and same(expected["arguments"], arguments):
                self._waiting[0].remove(expected)
                self._made.append(expected)
                return ToolResult(expected["result"], expected["error"])
        self._unexpected.append(f"{call.name}({written})")
        for before in reversed(self._made):
            if before["name"] == call.name and same(before["arguments"], arguments):
                return ToolResult(before["result"], before["error"])
        return ToolResult.failure("nothing found for these arguments")

    async def reply(self, message: Message) -> Message | None:
        return self.answer(message)

    def answer(self, message: Message) -> Message | None:
        """What the user says to a message without calls; None when there is nothing more to say."""
        missing = self._task.data.get("ask")
        if missing is None or self._asked or self._calls:
            return None
        if "?" not in message.content and missing["words"].lower() not in message.content.lower():
            return None
        self._asked = True
        return Message("user", missing["reply"])

    async def verify(self, messages: Sequence[Message]) -> Verdict:
        return self.judge(messages)

    def judge(self, messages: Sequence[Message]) -> Verdict:
        """All expected calls in order and no others, and the results in the answer."""
        data = self._task.data
        if self._unexpected:
            return Verdict(False, f"unexpected call {self._unexpected[0]}")
        if "ask" in data and (self._early or not self._asked):
            return Verdict(False, f"did not ask for the {data['ask']['words']}")
        left = [expected["name"] for group in self._waiting for expected in group]
        if left:
            return Verdict(False, f"{left[0]} was not called with the right arguments")
        last = messages[-1] if messages else Message("assistant")
        if last.role != "assistant" or last.tool_calls or not last.content.strip():
            return Verdict(False, "there is no answer")
        if not data["groups"]:
            refused = NEGATIONS.search(last.content) is not None
            return Verdict(refused, "said that no tool fits" if refused else "did not say that no tool fits")
        for value in data["must_say"]:
            if not states(last.content, value):
                return Verdict(False, f"the answer does not say {value}")
        return Verdict(True, "the calls are right and the answer has their results")

    async def close(self) -> None:
        return None


def same(a: Any, b: Any) -> bool:
    """Equality of JSON values: 3 is 3.0 but not true; text has to be exact."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, int | float) and isinstance(b, int | float):
        return a == b
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and bool(a == b)


def states(answer: str, value: Any) -> bool:
    """Whether an answer contains a value: a number as a number, text whole, true and false as yes and no."""
    if isinstance(value, bool):
        negative = NEGATIONS.search(answer) is not None or re.search(r"\bfalse\b", answer, re.IGNORECASE) is not None
        return negative != value
    if isinstance(value, int | float):
        numbers = re.findall(r"(?<![\w.-])-?\d+(?:\.\d+)?(?![\w-])", answer.replace(",", " "))
        return any(float(number) == value for number in numbers)
    return re.search(rf"(?<!\w){re.escape(str(value))}(?!\w)", answer, re.IGNORECASE) is not None


JSON_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}


def mismatch(value: Any, schema: Mapping[str, Any], where: str = "") -> str:
    """What is wrong with a value by its schema (the part of JSON Schema that the tools use); empty when it fits."""
    kind = schema.get("type", "object")
    named = where or "arguments"
    if not isinstance(value, JSON_TYPES[kind]) or (isinstance(value, bool) and kind != "boolean"):
        return f"{named} must be of type {kind}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{named} must be one of {', '.join(map(str, schema['enum']))}"
    if isinstance(value, dict):
        for name in schema.get("required", ()):
            if name not in value:
                return f"{where + '.' if where else ''}{name} is missing"
        for name, item in value.items():
            if name not in schema.get("properties", {}):
                return f"there is no parameter {where + '.' if where else ''}{name}"
            problem = mismatch(item, schema["properties"][name], f"{where + '.' if where else ''}{name}")
            if problem:
                return problem
    if isinstance(value, list):
        for i, item in enumerate(value):
            problem = mismatch(item, schema.get("items", {"type": "string"}), f"{named}[{i}]")
            if problem:
                return problem
    return ""
