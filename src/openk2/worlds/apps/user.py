"""The user of a simulated app as a program: says what the task says, answers what it knows, and nothing else.

A task is a list of turns. In each the user says something and perhaps holds facts back until they are asked for. A
message of the agent's with a question is answered with the facts that it asks for, by their words; any other message
ends the turn. So the user never contradicts the task, and a failure is the agent's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

NOTHING_MORE = "I don't know more than what I told you."
MOST_QUESTIONS = 4
"""So many questions without a new fact, and the user has enough."""
_COURTESY = re.compile(
    r"[^.!?]*\b(?:anything|something) else\b[^.!?]*\b(?:I|we) (?:can|could|may)\b[^.!?]*\?|"
    r"[^.!?]*\b(?:can|may|could) (?:I|we)\b[^.!?]*\b(?:anything|something) else\b[^.!?]*\?",
    re.I,
)
"""Asks for nothing that a user knows: the next thing is what comes next."""
_WORD = re.compile(r"[a-z0-9]+")


class Fact(BaseModel):
    """What a user tells if asked: words that a question for it has one of, the answer, and the value in it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    words: tuple[str, ...]
    answer: str
    value: str = ""

    def is_asked(self, message: str) -> bool:
        """Whether a message asks for it, by its words."""
        return "?" in message and not asked_words(message).isdisjoint(self.words)


class UserTurn(BaseModel):
    """What a user says, what they hold back, and what they want to hear: `tell` are values that an answer has to name,
    `others` those that it must not, `refuse` says that the right answer is a no."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    say: str
    facts: tuple[Fact, ...] = ()
    tell: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    refuse: bool = False


class Reply(BaseModel):
    """What a user who is no program has said: `done` if it ended the turn that was under way."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    say: str
    done: bool = False


class ScriptedUser:
    """Plays the turns of one task."""

    def __init__(self, turns: tuple[UserTurn, ...]) -> None:
        self._turns = turns
        self._at = 0
        self._told: set[int] = set()
        self._empty = 0

    @property
    def at(self) -> int:
        """The turn that is under way; as many as there are when all are over."""
        return self._at

    def opening(self) -> str:
        return self._turns[0].say

    def reply(self, message: str) -> str | None:
        """The answer to a message without calls; None when there is nothing left to say."""
        facts = self._turns[self._at].facts
        message = _COURTESY.sub("", message) if "?" in message else ""
        if "?" in message and self._empty < MOST_QUESTIONS:
            asked = asked_words(message)
            wanted = [i for i, fact in enumerate(facts) if asked.intersection(fact.words)]
            new = [i for i in wanted if i not in self._told]
            # A question that names nothing: what is still held back is what it can be about.
            if not wanted:
                new = [i for i in range(len(facts)) if i not in self._told][:1]
            self._empty = 0 if new else self._empty + 1
            chosen = new or wanted
            self._told.update(chosen)
            return " ".join(facts[i].answer for i in chosen) or NOTHING_MORE
        self._at, self._told, self._empty = self._at + 1, set(), 0
        return self._turns[self._at].say if self._at < len(self._turns) else None


class PlayedUser:
    """A user whose words are recorded, or come from elsewhere one by one. Has nothing to say when there are none."""

    def __init__(self, turns: int, replies: Sequence[Reply]) -> None:
        self._turns, self._replies = turns, list(replies)
        self._at, self._next = 0, 1

    @property
    def at(self) -> int:
        """As ScriptedUser's."""
        return self._at

    @property
    def replies(self) -> tuple[Reply, ...]:
        """All that was and will be said."""
        return tuple(self._replies)

    def add(self, reply: Reply) -> None:
        """What is said next."""
        self._replies.append(reply)

    def opening(self) -> str:
        return self._replies[0].say

    def reply(self, message: str) -> str | None:
        """What is said to a message, whatever it is; None when there is nothing left to say."""
        if self._next >= len(self._replies):
            return None
        reply = self._replies[self._next]
        self._next += 1
        self._at += reply.done
        return reply.say if self._at < self._turns else None


def asked_words(message: str) -> set[str]:
    """The words of a message."""
    return set(_WORD.findall(message.lower()))
