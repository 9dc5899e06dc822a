"""What a user may want, made backwards: a call is tried first, so that it is known to work, and then put into words.

A goal is looked for in the state as it is now, and said in terms of the state at the beginning of the user's turn: an
agent looks for all that a turn is about before it changes anything.
"""

from __future__ import annotations

import itertools
import math
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Any

from openk2.core.messages import compact_json
from openk2.synth.locate import Found, Locator
from openk2.synth.wording import (
    done,
    in_first_person,
    in_second_person,
    label,
    mentioned,
    phrased,
    said,
    stated,
)
from openk2.worlds.apps.declaration import Parameter, Tool, row_name
from openk2.worlds.apps.expression import Row
from openk2.worlds.apps.interpreter import Interpreter, Refused
from openk2.worlds.apps.state import State
from openk2.worlds.apps.told import names
from openk2.worlds.apps.user import Fact

TRIES = 24
"""So often something that can be done is drawn before a kind of turn is given up."""
_VALUES = 6
_REFERENCE = re.compile(r"[A-Z]+-\d+")
_NOTES = (
    "please check the papers", "the customer will call back", "use the north entrance", "handle with care",
    "paid in advance", "bring a copy", "see the last message", "no hurry", "two people come along", "keep it cool",
)  # fmt: skip
_TITLES = ("Second opinion", "Spring check", "Late arrival", "Missing label", "New layout", "Wrong size", "Quiet hours",
           "Spare key", "Loose cable", "Evening shift", "Open invoice", "Cold room")  # fmt: skip
_FIRST = ("Alma", "Boris", "Cleo", "Darius", "Edda", "Felix", "Gaia")
_LAST = ("Brandt", "Costa", "Diaz", "Engel", "Falk")
_MAILBOXES = ("info", "post", "desk", "hello", "team")
_ASKED_WITH = {"date": ("day", "when"), "time": ("when",), "integer": ("many", "number"), "number": ("much", "amount")}
"""Words that a question for a value of a type may have besides its name."""
_OWN_VALUES = re.compile(r" \([^()]*: [^()]*\)$")


@dataclass(slots=True)
class Goal:
    """A call that is wanted, in words: what is held back of it, and what the user wants to hear of its result."""

    tool: Tool
    arguments: dict[str, Any]
    words: str
    found: list[Found] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    tell: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    answer: str = ""
    also: str = ""


class Goals:
    """Finds goals in one session, each once. `state` is what the goals that were found so far have made of it,
    `withheld` are tools that no goal may need and nothing may be found with."""

    def __init__(
        self,
        interpreter: Interpreter,
        tools: Mapping[str, Tool],
        state: State,
        given: Mapping[str, str],
        rng: random.Random,
    ) -> None:
        self.interpreter, self.domain, self.tools, self.state = interpreter, interpreter.domain, tools, state
        self.withheld: set[str] = set()
        self._found: set[str] = set()
        self._given, self._rng = given, rng
        self._begun = {entity: [row["id"] for row in rows] for entity, rows in state.content().items()}
        """Rows that are new are called by other ids if an agent makes them in another order: no goal is about them."""
        self._user, self._today = given["user"], date.fromisoformat(given["today"])

    def find(
        self, before: State, *, reads: float = 0.35, only: Tool | None = None, others: Sequence[Goal] = ()
    ) -> Goal | None:
        """Something that can be done now, and is: `before` is the state at the beginning of the turn, in which what it
        is about can be found; `others` are goals of the same turn, which use other tools."""
        taken = {other.tool.name for other in others}
        for _ in range(TRIES):
            tool = only or self._drawn(reads)
            if tool is None or tool.name in self.withheld or tool.name in taken:
                continue
            arguments = self._arguments(tool)
            if any(value is None for value in arguments.values()) or (key := _about(tool, arguments)) in self._found:
                continue
            # Before the attempt, so that it is still known when that is taken back.
            was = self.state.hash() if tool.writes else ""
            try:
                with self.state.transaction():
                    goal = self._tried(before, tool, arguments, was)
            except Refused:
                continue
            self._found.add(key)
            return goal
        return None

    def _tried(self, before: State, tool: Tool, arguments: dict[str, Any], was: str) -> Goal:
        """A goal whose call was executed. Raises Refused where it may not be, changes nothing, or cannot be told."""
        result = self.interpreter.run(self.state, tool, arguments, self._given)
        if tool.writes and self.state.hash() == was:
            raise Refused("nothing has changed")
        found = self._locate(before, tool, arguments)
        if found is None:
            raise Refused("it is about what was not there")
        goal = Goal(tool, arguments, self.worded(tool, arguments, found), found)
        if not self._report(goal, result):
            raise Refused("nothing can be said of it")
        if not tool.writes and goal.tell and all(names(goal.words, value) for value in goal.tell):
            raise Refused("the user has said it already")
        return goal

    def refusal(self, tool: Tool) -> str | None:
        """Why a tool cannot be called, whatever is tried in this state; None if it can."""
        why = "there are no rows for it"
        for _ in range(TRIES):
            arguments = self._arguments(tool)
            if any(value is None for value in arguments.values()):
                continue
            after = self.state.copy()
            try:
                self.interpreter.run(after, tool, arguments, self._given)
                return None
            except Refused as e:
                why = str(e)
            finally:
                after.close()
        return why

    def _arguments(self, tool: Tool) -> dict[str, Any]:
        return {
            name: self._value(tool, name, parameter)
            for name, parameter in tool.parameters.items()
            if not (parameter.optional and self._rng.random() < 0.5)
        }

    def _drawn(self, reads: float) -> Tool | None:
        """A tool that reads, with the chance of `reads`, or one that writes."""
        wants_read = self._rng.random() < reads
        choices = [tool for tool in self.tools.values() if tool.writes != wants_read]
        return self._rng.choice(choices) if choices else None

    def _locate(self, before: State, tool: Tool, arguments: Mapping[str, Any]) -> list[Found] | None:
        """Words for the rows that a call is about; None if one is not there at the beginning of the turn."""
        offered = {name: one for name, one in self.tools.items() if name not in self.withheld}
        locator = Locator(self.interpreter, before, offered, self._given, self._rng)
        found: list[Found] = []
        for name, parameter in tool.parameters.items():
            if parameter.ref is None or name not in arguments:
                continue
            row = before.row(parameter.ref, arguments[name])
            if row is None:
                return None
            found.append(locator.find(parameter.ref, row))
        return found

    def outcome(self, state: State, tool: Tool, arguments: Mapping[str, Any]) -> State | Refused:
        """What a call would make of a state, which stays as it is, or why it may not be."""
        after = state.copy()
        try:
            self.interpreter.run(after, tool, arguments, self._given)
        except Refused as e:
            return e
        return after

    def independent(self, before: State, goals: Sequence[Goal]) -> bool:
        """Whether their calls give the same in any order: one that has to be tried again comes behind the others."""
        if len(goals) == 1:
            return True
        outcomes = set()
        for order in itertools.permutations(goals):
            state = before.copy()
            try:
                told = {
                    goal.tool.name: compact_json(self.interpreter.run(state, goal.tool, goal.arguments, self._given))
                    for goal in order
                }
                outcomes.add((state.hash(), *(told[goal.tool.name] for goal in goals)))
            except Refused:
                return False
            finally:
                state.close()
        return len(outcomes) == 1

    def variants(self, goal: Goal) -> Iterator[tuple[str, dict[str, Any]]]:
        """The arguments of a goal with another value in one place, and the name of that place."""
        for name in self._free_parameters(goal.tool):
            for _ in range(_VALUES):
                yield name, goal.arguments | {name: self._value(goal.tool, name, goal.tool.parameters[name])}

    def hold_back(self, goal: Goal) -> None:
        """Some of what a goal needs is told only if it is asked for."""
        names = self._free_parameters(goal.tool)
        if not names or not goal.tool.writes:
            return
        chosen = self._rng.sample(names, 1 if len(names) == 1 or self._rng.random() < 0.6 else 2)
        for name in chosen:
            kind = goal.tool.parameters[name].type
            called = label(name, kind)
            words = {*re.findall(r"[a-z]{3,}", called.lower()), *_ASKED_WITH.get(kind, ())} - {"the"}
            value = goal.arguments[name]
            goal.facts.append(Fact(words=tuple(sorted(words)), answer=stated(called, value), value=said(value)))
            goal.held.append(called)
        goal.words = self.worded(goal.tool, goal.arguments, goal.found, chosen)

    def _free_parameters(self, tool: Tool) -> list[str]:
        """Those whose value is the user's to choose, in any order."""
        names = [
            name
            for name, parameter in tool.parameters.items()
            if parameter.ref is None and not parameter.optional and parameter.type != "boolean"
        ]
        return self._rng.sample(names, len(names))

    # Words.

    def worded(self, tool: Tool, arguments: Mapping[str, Any], found: Sequence[Found], held: Sequence[str] = ()) -> str:
        """How a person asks for a call."""
        refs = iter(found)
        words = {
            name: said(arguments[name]) if parameter.ref is None else next(refs).words
            for name, parameter in tool.parameters.items()
            if name in arguments and name not in held
        }
        ask = tool.ask or tool.description[:1].lower() + tool.description[1:].rstrip(".")
        text, spoken = phrased(ask, words), mentioned(ask)
        rest = [f"the {label(name)} {value}" for name, value in words.items() if name not in spoken]
        return in_first_person(text + (f", with {' and '.join(rest)}" if rest else ""))

    def closing(self, goal: Goal) -> str:
        """What is said of something that was done, the minor details left out."""
        words = _OWN_VALUES.sub("", self.worded(goal.tool, goal.arguments, goal.found))
        return f"I have {done(in_second_person(words))}."

    def silent(self, goal: Goal) -> Goal:
        """The same where the user does not want to hear more than that it was done."""
        return replace(goal, tell=[], also="", answer=self.closing(goal))

    def _report(self, goal: Goal, result: Any) -> bool:
        """What the user wants to hear of a result; False if nothing can be said of it."""
        if goal.tool.writes:
            self._report_write(goal, result)
            return True
        if isinstance(result, list):
            return self._report_rows(goal, result)
        values = {key: value for key, value in (result or {}).items() if value is not None and key != "id"}
        if goal.tool.returns.row is not None:
            return self._report_row(goal, values)
        goal.tell = [said(value) for value in values.values()]
        goal.answer = " ".join(stated(_label_of(key, value), value) for key, value in values.items())
        return bool(values)

    def _report_write(self, goal: Goal, result: Any) -> None:
        numbers = {}
        if isinstance(result, dict) and self._rng.random() < 0.3:
            numbers = {
                key: value
                for key, value in result.items()
                if isinstance(value, int | float)
                and not isinstance(value, bool)
                and not {key, f"new_{key}"} & goal.arguments.keys()
            }
        if not numbers:
            goal.answer = self.closing(goal)
            return
        key = self._rng.choice(sorted(numbers))
        called = _label_of(key, numbers[key])
        goal.also = f", and tell me the {called} afterwards"
        goal.tell.append(said(numbers[key]))
        goal.answer = f"{self.closing(goal)} {stated(called, numbers[key])}"

    def _report_rows(self, goal: Goal, rows: list[Row]) -> bool:
        # A row without its id cannot be spoken of.
        if not 1 <= len(rows) <= 4 or "id" not in rows[0]:
            return False
        entity = self.domain.entities[str(goal.tool.returns.rows)]
        key = str(entity.label) if entity.label and all(row.get(entity.label) for row in rows) else "id"
        if len({row[key] for row in rows}) < len(rows):
            key = "id"
        goal.tell = [str(row[key]) for row in rows]
        listed = {row["id"] for row in rows}
        if key == "id" and not listed.issubset(self._begun[str(goal.tool.returns.rows)]):
            return False
        # Called as the others are: who looks up more of those that are listed may also say that.
        left = [row for row in self.state.rows(str(goal.tool.returns.rows)) if row["id"] not in listed and row[key]]
        goal.others = [called for row in left if (called := str(row[key])) not in goal.tell]
        goal.answer = f"There {'is one' if len(rows) == 1 else f'are {len(rows)}'}: {', '.join(goal.tell)}."
        return True

    def _report_row(self, goal: Goal, values: Mapping[str, Any]) -> bool:
        """Nobody wants to hear a whole row: one value of it."""
        plain = {
            key: value
            for key, value in values.items()
            if not isinstance(value, bool) and not _REFERENCE.fullmatch(str(value))
        }
        if not plain:
            return False
        key = self._rng.choice(sorted(plain))
        refs = [name for name, parameter in goal.tool.parameters.items() if parameter.ref and name in goal.arguments]
        at = [row_name(name) for name in refs].index(str(goal.tool.returns.row))
        entity = self.domain.entities[str(goal.tool.parameters[refs[at]].ref)]
        called = label(key, entity.fields[key].type)
        goal.words = in_first_person(f"tell me the {called} of {goal.found[at].words}")
        goal.tell = [said(plain[key])]
        goal.answer = stated(called, plain[key])
        return True

    # Values.

    def _value(self, tool: Tool, name: str, parameter: Parameter) -> Any:
        """Something that a person may want there."""
        rng = self._rng
        if parameter.ref is not None:
            if parameter.ref == self.domain.users and rng.random() < 0.5:
                return self._user
            begun = self._begun[parameter.ref]
            return rng.choice(begun) if begun else None
        if parameter.values is not None:
            return rng.choice(parameter.values)
        match parameter.type:
            case "boolean":
                return rng.random() < 0.5
            case "date":
                return (self._today + timedelta(days=rng.randrange(-5, 60))).isoformat()
            case "time":
                return f"{rng.randrange(8, 20):02}:{rng.choice((0, 30)):02}"
            case "integer":
                high = math.floor(parameter.maximum) if parameter.maximum is not None else None
                low = math.ceil(parameter.minimum) if parameter.minimum is not None else min(0, high or 0)
                return rng.randint(low, low + 20 if high is None else high)
            case "number":
                bottom = parameter.minimum or 0.0
                top = parameter.maximum if parameter.maximum is not None else bottom + 200
                return round(rng.uniform(bottom, min(top, bottom + 400)), rng.choice((0, 0, 1, 2)))
        return self._text(tool, name)

    def _text(self, tool: Tool, name: str) -> str:
        rng = self._rng
        # What is new is called like others of its kind.
        created = [self.domain.entities[effect.create].fields for effect in tool.effects if effect.create]
        examples = [example for fields in created if name in fields for example in fields[name].examples]
        if examples:
            return f"{rng.choice(examples)} {rng.randrange(11, 60)}"
        match name:
            case "email":
                return f"{rng.choice(_MAILBOXES)}{rng.randrange(10, 99)}@example.org"
            case "title" | "subject":
                return rng.choice(_TITLES)
            case "name":
                return f"{rng.choice(_FIRST)} {rng.choice(_LAST)}"
            case "query":
                labels = [
                    row[entity.label]
                    for key, entity in self.domain.entities.items()
                    if entity.label
                    for row in self.state.rows(key)
                ]
                return str(rng.choice(labels)) if labels else "a"
        return rng.choice(_NOTES)


def _about(tool: Tool, arguments: Mapping[str, Any]) -> str:
    """What a call does to what: nobody asks for that twice."""
    rows = {name: value for name, value in arguments.items() if tool.parameters[name].ref is not None}
    return f"{tool.name} {compact_json(rows or dict(arguments))}"


def _label_of(key: str, value: Any) -> str:
    return label(key, "integer" if isinstance(value, int) and not isinstance(value, bool) else "")
