"""How users talk: styles that change the words of a request and no fact, and people for models to play."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from openk2.worlds.apps.user import Fact

StyleName = Literal["plain", "short", "polite", "terse", "chatty"]


@dataclass(frozen=True, slots=True)
class Style:
    """Sentences around requests: those that begin a conversation, those that go on, and further ones of a turn. What is
    put before and behind, and how a fact is told; `manner` is what a model is told of all that."""

    manner: str
    firsts: tuple[str, ...]
    nexts: tuple[str, ...]
    also: tuple[str, ...]
    before: tuple[str, ...] = ("",)
    after: tuple[str, ...] = ("",)
    facts: tuple[str, ...] = ("{answer}",)


STYLES: dict[str, Style] = {
    "plain": Style(
        "in plain words",
        ("Please {}.", "Could you {}?", "I'd like you to {}.", "Can you {}?", "{}, please.", "I need you to {}."),
        ("Thanks. Now {}.", "Good. Next, {}.", "One more thing: {}.", "Great. And {}.", "Thank you. Please {}."),
        ("Also, {}.", "And {}.", "After that, {}.", "Then {}."),
    ),
    "short": Style(
        "in short sentences, without small talk",
        ("{}.", "{}, please.", "Please {}."),
        ("Next, {}.", "Now {}.", "OK. {}."),
        ("Also {}.", "Then {}."),
        facts=("{value}.", "{answer}"),
    ),
    "polite": Style(
        "very politely",
        (
            "Would you kindly {}?", "Could you please {}?", "I would be grateful if you could {}.",
            "May I ask you to {}?",
        ),
        (
            "Thank you very much. Would you also {}?", "That is kind of you. Could you now {}, please?",
            "Many thanks. May I also ask you to {}?",
        ),
        ("Would you also {}, please?", "After that, could you please {}?"),
        ("", "Good day. ", "Hello, I hope you are well. "),
        ("", " Thank you.", " Many thanks."),
        ("Of course. {answer}", "Certainly. {answer}", "{answer} Thank you for asking."),
    ),
    "terse": Style(
        "as tersely as possible, like a note typed in a hurry",
        ("{}", "{}.", "need you to {}"),
        ("now {}", "next: {}", "{}."),
        ("and {}", "then {}", "also {}"),
        facts=("{value}", "{value}."),
    ),
    "chatty": Style(
        "chattily, with remarks about your day that say nothing of the matter",
        (
            "So, what I'd need is this: {}.", "I was hoping you could {}, if that's alright.",
            "Could you do me a favour and {}?",
        ),
        ("Lovely, that helps a lot. Now, could you {}?", "Perfect, you are quick! Next I'd like you to {}."),
        ("Oh, and while you are at it, {}.", "And before I forget: {}."),
        ("", "Hi there! Busy morning here. ", "Hello again, it's me. ", "Phew, what a day. "),
        ("", " No rush, I'm having my coffee.", " You are a star."),
        ("Oh right, I should have said that. {answer}", "Sure thing! {answer}", "Ah, good question. {answer}"),
    ),
}  # fmt: skip
_PEOPLE = (
    "a careful bookkeeper", "a manager between two meetings", "somebody new in the job", "an old hand in the app",
    "a person on a bad phone line", "a student who helps out", "somebody who is a little worried", "a patient clerk",
    "a night-shift worker", "somebody who writes in their second language", "a friendly neighbour", "an engineer",
    "somebody who likes lists", "a parent in a hurry", "a volunteer", "somebody who doubts that machines can help",
)  # fmt: skip


def drawn_style(styles: Sequence[StyleName], seed: str) -> StyleName:
    """One of the styles, for the seed."""
    return random.Random(f"style {seed}").choice(styles)


def person(style: str, seed: int) -> str:
    """Somebody for a model to play."""
    return f"{random.Random(f'person {seed}').choice(_PEOPLE)}, who talks {STYLES[style].manner}"


def told(fact: Fact, style: Style, rng: random.Random) -> Fact:
    """A fact in the words of a style."""
    answer = rng.choice(style.facts).format(answer=fact.answer, value=fact.value)
    return fact.model_copy(update={"answer": answer})
