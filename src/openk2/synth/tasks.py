"""Tasks made backwards: a plan is executed first, so that its end is known and can be reached, and then put into words.

A turn of the user's is one or more goals (see `goals`). Around that: facts that have to be asked for, changes of mind,
requests that fail and are made in another way, requests that the policy forbids, and requests for which the agent has
no tool.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from openk2.synth.agents import Agent
from openk2.synth.goals import TRIES, Goal, Goals
from openk2.synth.locate import Call
from openk2.synth.personas import STYLES, StyleName, drawn_style, told
from openk2.synth.wording import articles, capital, in_second_person, label, said
from openk2.worlds.apps.expression import Row
from openk2.worlds.apps.filling import today_of
from openk2.worlds.apps.interpreter import Refused
from openk2.worlds.apps.state import State
from openk2.worlds.apps.told import names
from openk2.worlds.apps.user import UserTurn
from openk2.worlds.apps.world import Apps, AppTask, Faults, PlannedCall, PlanTurn, Rubric

_T = TypeVar("_T")
_STATES = 40
"""States that the tasks of a domain begin with: few, so that they are filled once and copied."""
_TURNS = ((1, 0.12), (2, 0.36), (3, 0.32), (4, 0.20))
_GOALS = ((1, 0.45), (2, 0.38), (3, 0.17))
_SPECIAL = (("", 0.44), ("forbidden", 0.12), ("impossible", 0.1), ("recovery", 0.16), ("change", 0.18))
_ASKS = (
    "What should the {} be?",
    "Could you tell me the {}?",
    "I need to know the {} for that. Could you tell me?",
)
_OPENINGS = ("", "", "Done. ", "All right. ")
_CHANGED = (
    "On second thought, make the {} {} instead of {}.",
    "Sorry, I was wrong: the {} should be {}, not {}.",
    "Wait, please change the {} to {} instead of {}.",
)
_INSTEAD = (
    "Then take {value} as the {label}.",
    "All right, use {value} for the {label} instead.",
    "What about {value} as the {label}?",
)


@dataclass(frozen=True, slots=True)
class _Rule:
    """A rule of the policy, why it says no, and the call that shows that it applies."""

    words: str
    reason: str
    look: PlannedCall


class TaskMaker:
    """Makes one task of an agent."""

    def __init__(
        self, apps: Apps, agent: Agent, seed: int, *, most_turns: int = 4, styles: Sequence[StyleName] = ("plain",)
    ) -> None:
        self.agent = agent
        self.most_turns = most_turns
        self.style = drawn_style(styles, f"{agent.name} {seed}")
        self._style = STYLES[self.style]
        self.rng = random.Random(f"task {agent.name} {seed}")
        self.state_seed = self.rng.randrange(1 << 30) % _STATES
        interpreter = apps.interpreter(agent.domain)
        self.domain = interpreter.domain
        self.tools = {name: self.domain.by_name[name] for name in agent.tools}
        state = apps.state(agent.domain, self.state_seed)
        self.today = today_of(self.state_seed)
        users = state.rows(str(self.domain.users)) if self.domain.users else []
        self.user = str(self.rng.choice(users)["id"]) if users else ""
        self.goals = Goals(interpreter, self.tools, state, {"today": self.today, "user": self.user}, self.rng)
        self.turns: list[UserTurn] = []
        self.plan: list[PlanTurn] = []
        self.checkpoints: list[str] = []
        self.rules: list[str] = []
        self.forbidden: set[str] = set()
        self.removed: set[str] = set()
        self.used: set[str] = set()
        self.kinds: list[str] = []
        """What each turn is, for statistics."""

    def make(self) -> AppTask | None:
        """A task; None if nothing was found that can be done."""
        rng = self.rng
        count, special = min(_drawn(rng, _TURNS), self.most_turns), _drawn(rng, _SPECIAL)
        makers = {
            "": self._plain, "forbidden": self._forbidden, "impossible": self._impossible,
            "recovery": self._recovery, "change": self._change,
        }  # fmt: skip
        at = rng.randrange(count)
        for number in range(count):
            made = number == at and special != "" and makers[special]()
            if not made and not self._plain():
                break
        if not self.turns:
            return None
        faults = Faults()
        if rng.random() < 0.2:
            faults = Faults(
                seed=rng.randrange(1 << 30), timeout=rng.choice([0, 0.05, 0.1]), rate_limit=rng.choice([0, 0.05])
            )
        return AppTask(
            domain=self.agent.domain,
            state_seed=self.state_seed,
            user=self.user,
            system=self.agent.system(self.domain, self.today, self.user, self.rules),
            tools=tuple(name for name in self.agent.tools if name not in self.removed),
            distractors=self.agent.distractors,
            turns=tuple(self.turns),
            style=self.style,
            faults=faults,
            rubric=Rubric(
                checkpoints=tuple(self.checkpoints),
                forbidden=tuple(sorted(self.forbidden)),
                pattern=tuple(sorted(self.used)),
            ),
            plan=tuple(self.plan),
        )

    def _add(self, kind: str, turn: UserTurn, plan: PlanTurn) -> None:
        """A turn behind which the state is as it is now."""
        self.kinds.append(kind)
        if self.style != "plain":
            say = self.rng.choice(self._style.before) + turn.say + self.rng.choice(self._style.after)
            facts = tuple(told(fact, self._style, self.rng) for fact in turn.facts)
            turn = turn.model_copy(update={"say": say, "facts": facts})
        self.turns.append(turn)
        self.plan.append(plan)
        self.checkpoints.append(self.goals.state.hash())
        self.used.update(call.name for wave in plan.waves for call in wave)

    def _add_goals(self, before: State, goals: Sequence[Goal]) -> None:
        say = self._joined([goal.words + goal.also for goal in goals])
        facts = tuple(fact for goal in goals for fact in goal.facts)
        tell = tuple(value for goal in goals for value in goal.tell)
        held = [name for goal in goals for name in goal.held]
        question = self.rng.choice(_ASKS).format(" and the ".join(held)) if held else ""
        answer = " ".join(goal.answer for goal in goals)
        if goals[0].tool.writes:
            answer = self.rng.choice(_OPENINGS) + answer
        plan = PlanTurn(question=question, waves=self._waves(before, goals), answer=answer)
        # What may come up for another reason is no wrong answer.
        open_to = " ".join([say, answer, *(fact.answer for fact in facts)])
        others = tuple(dict.fromkeys(one for goal in goals for one in goal.others if not names(open_to, one)))
        self._add("goals", UserTurn(say=say, facts=facts, tell=tell, others=others), plan)

    def _waves(self, before: State, goals: Sequence[Goal]) -> tuple[tuple[PlannedCall, ...], ...]:
        """What finds the rows first, the goals behind: side by side where nothing waits for a result."""
        waves: list[list[Call]] = []
        known: list[Call] = []
        ways = [found.calls for goal in goals for found in goal.found]
        for level in range(max(map(len, ways), default=0)):
            wave: list[Call] = []
            for way in ways:
                if level < len(way) and way[level] not in known:
                    wave.append(way[level])
                    known.append(way[level])
            waves.append(wave)
        last = [(goal.tool.name, goal.arguments) for goal in goals]
        if self.rng.random() < 0.5 and self.goals.independent(before, goals):
            waves.append(last)
        else:
            waves += [[call] for call in last]
        return tuple(
            tuple(PlannedCall(name=name, arguments=arguments) for name, arguments in wave) for wave in waves if wave
        )

    def _joined(self, requests: Sequence[str]) -> str:
        """What the user says."""
        first = self.rng.choice(self._style.nexts if self.turns else self._style.firsts).format(requests[0])
        rest = [self.rng.choice(self._style.also).format(request) for request in requests[1:]]
        return " ".join([capital(first), *rest])

    # What a turn may be. Each says whether it was made; if not, the state is as before.

    def _plain(self) -> bool:
        """One to three goals."""
        before = self.goals.state.copy()
        goals: list[Goal] = []
        for _ in range(_drawn(self.rng, _GOALS)):
            goal = self.goals.find(before, others=goals)
            if goal is not None:
                goals.append(goal)
        if not goals:
            return False
        if self.rng.random() < 0.35:
            self.goals.hold_back(self.rng.choice(goals))
        self._add_goals(before, goals)
        return True

    def _forbidden(self) -> bool:
        """The policy has a rule against what would be possible."""
        for _ in range(TRIES):
            before = self.goals.state.copy()
            goal = self.goals.find(before, reads=0.0)
            self.goals.state = before
            if goal is None:
                return False
            if goal.tool.name in self.used or (rule := self._rule(goal, before)) is None:
                continue
            self.rules.append(rule.words)
            self.forbidden.add(goal.tool.name)
            self.goals.withheld.add(goal.tool.name)
            turn = UserTurn(say=self._joined([goal.words]), refuse=True)
            waves = (*self._waves(before, [goal])[:-1], (rule.look,))
            self._add("forbidden", turn, PlanTurn(waves=waves, answer=f"I'm sorry, I cannot do that: {rule.reason}"))
            return True
        return False

    def _rule(self, goal: Goal, before: State) -> _Rule | None:
        """A rule that a goal breaks, of which an agent can see that it does."""
        for name, parameter in self.rng.sample(list(goal.tool.parameters.items()), len(goal.tool.parameters)):
            row = before.row(parameter.ref, goal.arguments.get(name)) if parameter.ref is not None else None
            if parameter.ref is None or row is None:
                continue
            entity = self.domain.entities[parameter.ref]
            keys = [
                key for key, own in entity.fields.items() if own.values and row[key] is not None and key != "status"
            ]
            for key in self.rng.sample(keys, len(keys)):
                look = self._look(parameter.ref, row, key)
                if look is None:
                    continue
                what = f"{entity.singular.replace('_', ' ')} {{}} the {label(key)} {said(row[key])}"
                return _Rule(
                    f"Do not use {goal.tool.name} if the {what.format('has')}, whoever asks for it.",
                    articles(f"our policy does not allow it for a {what.format('with')}."),
                    look,
                )
        return None

    def _look(self, entity: str, row: Row, key: str) -> PlannedCall | None:
        """A call that shows what a row has in a field: of the row, or of all with that value."""
        for tool in self.tools.values():
            if tool.writes or len(tool.parameters) != 1:
                continue
            ((name, parameter),) = tool.parameters.items()
            if tool.returns.fields is not None and key not in tool.returns.fields:
                continue
            if tool.returns.row and parameter.ref == entity:
                return PlannedCall(name=tool.name, arguments={name: row["id"]})
            if tool.returns.rows == entity and name == key:
                return PlannedCall(name=tool.name, arguments={name: row[key]})
        return None

    def _impossible(self) -> bool:
        """What the agent has no tool for."""
        candidates = [tool for tool in self.tools.values() if tool.writes and tool.name not in self.used]
        for tool in self.rng.sample(candidates, min(len(candidates), 6)):
            before = self.goals.state.copy()
            goal = self.goals.find(before, only=tool)
            self.goals.state = before
            if goal is None:
                continue
            self.removed.add(tool.name)
            self.goals.withheld.add(tool.name)
            answer = f"I'm sorry, I cannot {in_second_person(goal.words)}: I have no tool for that."
            self._add("impossible", UserTurn(say=self._joined([goal.words]), refuse=True), PlanTurn(answer=answer))
            return True
        return False

    def _recovery(self) -> bool:
        """A request that fails, and the same with another value."""
        for _ in range(TRIES):
            before = self.goals.state.copy()
            goal = self.goals.find(before, reads=0.0)
            if goal is None:
                return False
            after = self.goals.state
            for name, wrong in self.goals.variants(goal):
                refused = self.goals.outcome(before, goal.tool, wrong)
                if not isinstance(refused, Refused):
                    continue
                first = Goal(goal.tool, wrong, self.goals.worded(goal.tool, wrong, goal.found), goal.found)
                self.goals.state = before
                turn = UserTurn(say=self._joined([first.words]), refuse=True)
                answer = f"I'm sorry, that is not possible. {_sentence(refused)}"
                self._add("recovery", turn, PlanTurn(waves=self._waves(before, [first]), answer=answer))
                self.goals.state = after
                say = self.rng.choice(_INSTEAD).format(value=said(goal.arguments[name]), label=_label(goal, name))
                call = PlannedCall(name=goal.tool.name, arguments=goal.arguments)
                answer = self.goals.closing(goal)
                self._add("recovered", UserTurn(say=say), PlanTurn(waves=((call,),), answer=answer))
                return True
            self.goals.state = before
        return False

    def _change(self) -> bool:
        """A change of mind behind what is done."""
        for _ in range(TRIES):
            before = self.goals.state.copy()
            goal = self.goals.find(before, reads=0.0)
            if goal is None:
                return False
            effects = goal.tool.effects
            changes = any(effect.update for effect in effects) and not any(effect.create for effect in effects)
            for name, arguments in self.goals.variants(goal) if changes else ():
                other = arguments[name]
                if other == goal.arguments[name]:
                    continue
                changed = self.goals.outcome(self.goals.state, goal.tool, arguments)
                again = self.goals.outcome(before, goal.tool, arguments)
                # Amounts add up: only what sets a value can be set again.
                if isinstance(changed, Refused) or isinstance(again, Refused) or again.hash() != changed.hash():
                    continue
                self._add_goals(before, [self.goals.silent(goal)])
                self.goals.state = changed
                called = _label(goal, name)
                say = self.rng.choice(_CHANGED).format(called, said(other), said(goal.arguments[name]))
                call = PlannedCall(name=goal.tool.name, arguments=arguments)
                answer = f"I have changed the {called} to {said(other)}."
                self._add("change", UserTurn(say=say), PlanTurn(waves=((call,),), answer=answer))
                return True
            self.goals.state = before
        return False


def _label(goal: Goal, name: str) -> str:
    return label(name, goal.tool.parameters[name].type)


def _sentence(refused: Refused) -> str:
    return capital(str(refused)).rstrip(".").replace("_", " ") + "."


def _drawn(rng: random.Random, weighted: Sequence[tuple[_T, float]]) -> _T:
    return rng.choices([value for value, _ in weighted], [weight for _, weight in weighted])[0]
