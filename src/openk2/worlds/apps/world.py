"""A simulated app as a world: tools over a state, a user, faults, and a rubric whose executable part decides.

A task's data (`AppTask`) are JSON and all that is needed: the domain's name, the seed of the state, the tools on offer
(those of other domains among them), what the user says, which faults happen, and what must be so at the end.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from openk2.core import Message, Task, ToolCall, ToolResult, ToolSpec, Verdict
from openk2.core.messages import compact_json
from openk2.worlds.apps.declaration import Domain
from openk2.worlds.apps.filling import fill, today_of
from openk2.worlds.apps.interpreter import Interpreter
from openk2.worlds.apps.lists import added
from openk2.worlds.apps.state import State
from openk2.worlds.apps.told import Numbers, names, refuses
from openk2.worlds.apps.user import PlayedUser, Reply, ScriptedUser, UserTurn

_FAULTS = ("timeout", "rate_limit", "stale")
_STATES = 64


class Faults(BaseModel):
    """Chances of a fault at each call, between 0 and 1: a time-out and a refusal for too many calls change nothing and
    may be tried again, and who does that gets through; a stale read shows what was so before the last change."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = 0
    timeout: float = Field(default=0.0, ge=0, le=1)
    rate_limit: float = Field(default=0.0, ge=0, le=1)
    stale: float = Field(default=0.0, ge=0, le=1)


class Rubric(BaseModel):
    """What is asked of a trajectory. `checkpoints` are the hashes of the state behind each turn of the user's, the last
    of which is the end; `forbidden` are tools that must not succeed; `pattern` are those that a direct way uses."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    checkpoints: tuple[str, ...]
    forbidden: tuple[str, ...] = ()
    pattern: tuple[str, ...] = ()
    weights: dict[str, float] = Field(default_factory=lambda: {"state": 0.6, "told": 0.3, "checkpoints": 0.1})


class PlannedCall(BaseModel):
    """A call of a plan."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    arguments: dict[str, Any]


class PlanTurn(BaseModel):
    """A way through one turn of the user's, that an expert goes and nobody else is held to: a question, waves of calls
    that do not depend on each other, and the answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    question: str = ""
    waves: tuple[tuple[PlannedCall, ...], ...] = ()
    answer: str


class AppTask(BaseModel):
    """The data of a task. `style` is how its user talks. `replies` are the user's words where no program says them:
    then they are a part of the task, so that it can be done again without whoever has said them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    domain: str
    state_seed: int
    user: str
    system: str
    tools: tuple[str, ...]
    distractors: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    turns: tuple[UserTurn, ...]
    style: str = "plain"
    replies: tuple[Reply, ...] = ()
    faults: Faults = Field(default_factory=Faults)
    rubric: Rubric
    plan: tuple[PlanTurn, ...] = ()


@dataclass(frozen=True, slots=True)
class Grade:
    """What came of a rubric: points from 0 to 1, whether all that decides is right, and what was not."""

    score: float
    passed: bool
    wrong: tuple[str, ...]


class Apps:
    """Interpreters and begun states of many domains, which rollouts share."""

    def __init__(self, domain: Callable[[str], Domain]) -> None:
        self._domain = domain
        self._interpreters: dict[str, Interpreter] = {}
        self._states: dict[tuple[str, int], State] = {}
        self._specs: dict[tuple[str, str], ToolSpec] = {}

    @classmethod
    def declared(cls, declarations: Mapping[str, str]) -> Apps:
        """Of domains that are declared in JSON, by their names."""
        return cls(lambda name: Domain.model_validate_json(declarations[name]))

    def interpreter(self, name: str) -> Interpreter:
        if name not in self._interpreters:
            self._interpreters[name] = Interpreter(self._domain(name))
        return self._interpreters[name]

    def state(self, name: str, seed: int) -> State:
        """A state of one's own."""
        key = name, seed
        if key not in self._states:
            if len(self._states) >= _STATES:
                self._states.pop(next(iter(self._states))).close()
            self._states[key] = fill(self.interpreter(name).domain, seed)
        return self._states[key].copy()

    def spec(self, domain: str, tool: str) -> ToolSpec:
        key = domain, tool
        if key not in self._specs:
            self._specs[key] = self.interpreter(domain).domain.by_name[tool].spec()
        return self._specs[key]


class AppWorld:
    """One rollout's world, for a task that is read already (`made`) or comes with `start`. After `verify`, `grade` has
    the points."""

    def __init__(self, apps: Apps, made: AppTask | None = None) -> None:
        self._apps, self._made = apps, made
        self.tools: Sequence[ToolSpec] = ()
        self.states: dict[str, State] = {}
        self.grade: Grade | None = None

    async def start(self, task: Task) -> list[Message]:
        return self.begin(self._made or AppTask.model_validate(task.data))

    def begin(self, task: AppTask) -> list[Message]:
        """Set up the state, and say what opens the conversation."""
        self.task = task
        self._given = {"today": today_of(task.state_seed), "user": task.user}
        self._home = dict.fromkeys(task.tools, task.domain)
        for domain, others in task.distractors.items():
            self._home |= {name: domain for name in others if name not in self._home}
        self.tools = [self._apps.spec(domain, name) for name, domain in sorted(self._home.items())]
        self.states = {task.domain: self._apps.state(task.domain, task.state_seed)}
        self._before: State | None = None
        self.user: ScriptedUser | PlayedUser = (
            PlayedUser(len(task.turns), task.replies) if task.replies else ScriptedUser(task.turns)
        )
        self._reached: list[str] = []
        self._said: list[list[str]] = [[] for _ in task.turns]
        self._heard = [task.system, self.user.opening()]
        self._known = Numbers()
        self._known.add(task.system)
        self._known.add(self.user.opening())
        self._invented: list[str] = []
        self._done: set[str] = set()
        self._stopped: set[tuple[str, str]] = set()
        self._faults = random.Random(f"faults {task.faults.seed}")
        return [Message("system", task.system), Message("user", self.user.opening())]

    @property
    def state(self) -> State:
        """The state of the task's own domain."""
        return self.states[self.task.domain]

    async def call(self, call: ToolCall) -> ToolResult:
        return self.execute(call)

    def execute(self, call: ToolCall) -> ToolResult:
        """One call, unless a fault comes between."""
        result = self._executed(call)
        self._heard.append(result.content)
        self._known.add_result(call.arguments)
        self._known.add_result(result.content)
        return result

    def _executed(self, call: ToolCall) -> ToolResult:
        domain = self._home.get(call.name)
        if domain is None:
            return ToolResult.failure(f"there is no tool {call.name!r}")
        if domain not in self.states:
            self.states[domain] = self._apps.state(domain, self.task.state_seed)
        state, interpreter = self.states[domain], self._apps.interpreter(domain)
        fault, key = self._fault(), (call.name, call.arguments)
        if fault in ("timeout", "rate_limit") and key not in self._stopped:
            self._stopped.add(key)
            words = "the app did not answer in time" if fault == "timeout" else "too many calls"
            return ToolResult(
                compact_json({"error": f"{words}: nothing was changed, try again", "retry": True}), error=True
            )
        self._stopped.discard(key)
        writes = interpreter.domain.by_name[call.name].writes
        if fault == "stale" and not writes and self._before is not None and domain == self.task.domain:
            return interpreter.execute(self._before, call, self._given)
        if writes and self.task.faults.stale and domain == self.task.domain:
            self._before = state.copy()
        result = interpreter.execute(state, call, self._given)
        if not result.error:
            self._done.add(call.name)
        return result

    def _fault(self) -> str | None:
        rates = self.task.faults
        drawn = self._faults.random()
        for name in _FAULTS:
            drawn -= getattr(rates, name)
            if drawn < 0:
                return name
        return None

    async def reply(self, message: Message) -> Message | None:
        said = self.answer(message.content)
        return None if said is None else Message("user", said)

    def answer(self, text: str) -> str | None:
        """What the user says to a message."""
        at = self.user.at
        self._said[at].append(text)
        for value in self.task.turns[at].tell:
            self._known.add(value)
        self._invented += [
            f"in turn {at + 1} the user was told {number}, which nothing says" for number in self._known.others(text)
        ]
        said = self.user.reply(text)
        if said is not None:
            self._heard.append(said)
            self._known.add(said)
        if self.user.at > at:
            self._reached.append(self.state.hash())
        return said

    async def verify(self, messages: Sequence[Message]) -> Verdict:
        self.grade = self.judge()
        return Verdict(self.grade.passed, "; ".join(self.grade.wrong))

    def judge(self) -> Grade:
        """The executable part of the rubric."""
        rubric, wrong = self.task.rubric, []
        right_end = len(self._reached) == len(self.task.turns) and self.state.hash() == rubric.checkpoints[-1]
        if not right_end:
            wrong.append("the state at the end is another one" if self._reached else "the conversation did not end")
        elsewhere = [
            number
            for number, (mine, theirs) in enumerate(zip(self._reached, rubric.checkpoints, strict=False), 1)
            if mine != theirs
        ]
        if right_end and elsewhere:
            # What is made good later was not so when the user was told.
            wrong.append(f"behind turn {elsewhere[0]} the state was another one")
        touched = [
            name for name, state in self.states.items() if name != self.task.domain and self._changed(name, state)
        ]
        if touched:
            wrong.append(f"something was changed in {', '.join(touched)}, which was not asked for")
        broken = sorted(self._done.intersection(rubric.forbidden))
        wrong += [f"{name} was called, which must not be" for name in broken]
        told = 0
        for number, (turn, said) in enumerate(zip(self.task.turns, self._said, strict=True), 1):
            missing = [value for value in turn.tell if not any(names(text, value) for text in said)]
            if missing:
                wrong.append(f"in turn {number} the user was not told {missing[0]}")
            elif wrongly := [value for value in turn.others if any(names(text, value) for text in said)]:
                wrong.append(f"in turn {number} the user was told {wrongly[0]}, which is none of them")
            elif turn.others and (more := self._added(said, turn.tell)):
                wrong.append(f"in turn {number} the user was told {more}, which nothing says")
            elif turn.refuse and not refuses(said):
                wrong.append(f"in turn {number} the user was not told that it cannot be")
            elif said:
                told += 1
        wrong += self._invented[:1]
        reached = len(self._reached) - len(elsewhere)
        parts: Mapping[str, float] = {
            "state": float(right_end and not touched and not broken),
            "told": told / len(self.task.turns),
            "checkpoints": reached / len(rubric.checkpoints),
        }
        score = sum(weight * parts.get(name, 0.0) for name, weight in rubric.weights.items())
        return Grade(round(score / sum(rubric.weights.values()), 4), not wrong, tuple(wrong))

    def _all_heard(self) -> str:
        """What the agent can know names from."""
        return "\n".join([*self._heard, *(compact_json(tool.to_openai()) for tool in self.tools)])

    def _added(self, said: Sequence[str], values: Sequence[str]) -> str | None:
        """What an answer lists that is nowhere."""
        return next((more for text in said if (more := added(text, values, self._all_heard)) is not None), None)

    def _changed(self, name: str, state: State) -> bool:
        begun = self._apps.state(name, self.task.state_seed)
        try:
            return begun.hash() != state.hash()
        finally:
            begun.close()

    async def close(self) -> None:
        for state in self.states.values():
            state.close()
