"""Users that a model plays, and the detection of their mistakes.

The model is told who it is, the request under way with the facts it may tell if asked, and the request that follows;
it says whether the request under way is dealt with, and what it says. It knows nothing else of the task, and every
answer is compared with it. A mistake of the user's says nothing of the agent: the attempt is excluded, never failed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

from openk2.core import Message, Task
from openk2.synth.ask import Asker, NoAnswer, fitting
from openk2.synth.personas import person
from openk2.worlds.apps.told import names
from openk2.worlds.apps.user import MOST_QUESTIONS, Fact, PlayedUser, Reply, UserTurn
from openk2.worlds.apps.world import Apps, AppTask, AppWorld

EXCLUDED = "excluded: the user's model "
"""How the reason of an attempt begins that its user has spoiled."""
CONTRADICTS = "contradicts a fact"
REVEALS = "says what it cannot know yet"
LEAVES_OUT = "leaves out what the task says"
EARLY, LATE = "ends a request early", "ends a request late"
NOTHING = "gives no answer that can be read"

_SYSTEM = (
    "You play a user who talks to an assistant. You are {person}. Stay in this role, write only what the user says, "
    "and use no names, numbers, dates, times or ids besides those that you are given here or were told."
)
_OPEN = "Begin the conversation with this request, in your own words. Keep every value in it exactly: {say}"
_REPLY = """The request under way: {say}
{facts}
The conversation so far:
{heard}

Decide. If the assistant asks for something that you know, tell only that, exactly, and set done to false. If it asks \
and you know nothing of it, say so, and set done to false. If it does not ask for anything that you know (it says that \
it is done, or that it cannot be), the request is over: set done to true, and {then}"""
_VALUES = (
    re.compile(r"[\w.+-]+@[\w-]+\.\w[\w.]*"),
    re.compile(r"\b\d{4}-\d{2}-\d{2}\b"),
    re.compile(r"\b\d{1,2}:\d{2}\b"),
    re.compile(r"\b[A-Z]{1,6}-\d+\b"),
    re.compile(r"(?<![\w.-])-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?![\w-])"),
)
_QUOTED = re.compile(r'"([^"]{1,200})"')
_NAMES = re.compile(r"(?<=[a-z,;:] )[A-Z][a-z]+(?: [A-Z][a-z]+)*")


class _Opening(BaseModel):
    model_config = ConfigDict(extra="forbid")

    say: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=4000)]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    done: bool
    say: Annotated[str, StringConstraints(strip_whitespace=True, max_length=4000)]


@dataclass(frozen=True, slots=True)
class Fault:
    """What a user's model did wrong: its kind, and how that is seen."""

    kind: str
    detail: str


class PlayedWorld(AppWorld):
    """A rollout's world whose user is played by a model. After it `played` is the task with the words that were said,
    and `fault` what is wrong with them."""

    def __init__(self, apps: Apps, made: AppTask, asker: Asker, seed: int) -> None:
        super().__init__(apps, made)
        self._asker, self._seed = asker, seed
        self._system = Message("system", _SYSTEM.format(person=person(made.style, seed)))
        self._heard: list[str] = []
        self._told: set[int] = set()
        self._empty = 0
        self.fault: Fault | None = None

    @property
    def played(self) -> AppTask:
        """The task with the user's words."""
        assert isinstance(self.user, PlayedUser)
        return self.task.model_copy(update={"replies": self.user.replies})

    async def start(self, task: Task) -> list[Message]:
        made = self._made or AppTask.model_validate(task.data)
        first = made.turns[0]
        try:
            said = await self._asker.ask(
                [self._system, Message("user", _OPEN.format(say=first.say))],
                _Opening,
                fitting(_Opening),
                seed=self._seed,
            )
            opening = said.say
            self.fault = fault_of_request(opening, first) or fault_of_words(opening, [first.say])
        except NoAnswer as e:
            opening, self.fault = first.say, Fault(NOTHING, str(e))
        self._heard.append(f"You: {opening}")
        return self.begin(made.model_copy(update={"replies": (Reply(say=opening),)}))

    async def reply(self, message: Message) -> Message | None:
        assert isinstance(self.user, PlayedUser)
        self._heard.append(f"Assistant: {message.content}")
        if self.fault is None:
            await self._say(message.content, self.user)
        # With a fault there is nothing to be said, and that ends the conversation.
        said = self.answer(message.content)
        return None if said is None else Message("user", said)

    async def _say(self, message: str, user: PlayedUser) -> None:
        turns, at = self.task.turns, user.at
        following = turns[at + 1] if at + 1 < len(turns) else None
        facts = "\n".join(f"- {fact.answer}" for fact in turns[at].facts)
        then = "say nothing: it was the last one." if following is None else (
            "go on with your next request in your own words, with every value in it exactly as it is here: "
            f"{following.say}"
        )  # fmt: skip
        asked = _REPLY.format(
            say=turns[at].say,
            facts=f"What you know besides, and tell only if you are asked for it:\n{facts}\n" if facts else "",
            heard="\n".join(self._heard),
            then=then,
        )
        try:
            said = await self._asker.ask(
                [self._system, Message("user", asked)], _Answer, fitting(_Answer), seed=self._seed
            )
        except NoAnswer as e:
            self.fault = Fault(NOTHING, str(e))
            return
        self.fault = self._fault_of(message, said, turns[at], following)
        if self.fault is not None:
            return
        new = {i for i, fact in enumerate(turns[at].facts) if names(said.say, fact.value or fact.answer)} - self._told
        self._empty = 0 if new else self._empty + 1
        self._told |= new
        if said.done:
            self._told, self._empty = set(), 0
        self._heard.append(f"You: {said.say}")
        user.add(Reply(say=said.say, done=said.done))

    def _fault_of(self, message: str, said: _Answer, turn: UserTurn, following: UserTurn | None) -> Fault | None:
        asked = [fact for i, fact in enumerate(turn.facts) if i not in self._told and fact.is_asked(message)]
        known = [*self._heard, turn.say]
        if said.done:
            if asked:
                return Fault(EARLY, f"it was asked for {asked[0].value or asked[0].answer!r}")
            if following is None:
                return None
            return (
                fault_of_request(said.say, following)
                or _revealed(said.say, turn.facts, [*known, following.say])
                or fault_of_words(said.say, [*known, following.say])
            )
        if "?" not in message:
            return Fault(LATE, "nothing was asked")
        if self._empty >= MOST_QUESTIONS:
            return Fault(LATE, f"{self._empty} questions had no new answer")
        for fact in asked:
            if not names(said.say, fact.value or fact.answer):
                return Fault(CONTRADICTS, f"it says {said.say[:80]!r}, and should say {fact.value or fact.answer!r}")
        if asked and (found := _revealed(said.say, [f for f in turn.facts if f not in asked], known)):
            return found
        answers = [fact.answer for fact in turn.facts] + [fact.value for fact in turn.facts]
        found = fault_of_words(said.say, [*known, *answers])
        return Fault(CONTRADICTS, found.detail) if found and asked else found


def fault_of_request(said: str, turn: UserTurn) -> Fault | None:
    """A request in other words that has lost or changed a value."""
    for value in [*values_in(turn.say), *_QUOTED.findall(turn.say), *_NAMES.findall(turn.say)]:
        if not names(said, value):
            return Fault(LEAVES_OUT, f"{value!r} is not said")
    return None


def fault_of_words(said: str, known: Sequence[str]) -> Fault | None:
    """A value in what is said that nobody has told the user."""
    everything = "\n".join(known)
    for value in values_in(said):
        if not names(everything, value):
            return Fault(REVEALS, f"nobody has told it {value!r}")
    return None


def _revealed(said: str, facts: Sequence[Fact], known: Sequence[str]) -> Fault | None:
    """A fact that is told and was not asked for."""
    everything = "\n".join(known)
    for fact in facts:
        if fact.value and names(said, fact.value) and not names(everything, fact.value):
            return Fault(REVEALS, f"it was not asked for {fact.value!r}")
    return None


def values_in(text: str) -> Iterator[str]:
    """Addresses, dates, times, ids and numbers in a text."""
    for pattern in _VALUES:
        yield from (found.replace(",", "") for found in pattern.findall(text))
        text = pattern.sub(" ", text)
