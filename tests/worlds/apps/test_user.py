"""The user says what the task says, when it is due, and nothing else."""

from __future__ import annotations

import pytest

from openk2.worlds.apps.user import NOTHING_MORE, Fact, ScriptedUser, UserTurn

DATE = Fact(words=("date", "day", "when"), answer="The date is 2026-05-03.")
TIME = Fact(words=("time", "when"), answer="The time is 10:00.")
FIRST, LAST = UserTurn(say="Book a visit.", facts=(DATE, TIME)), UserTurn(say="And cancel my order.")


def user() -> ScriptedUser:
    return ScriptedUser((FIRST, LAST))


@pytest.mark.parametrize(
    ("question", "answers"),
    [
        ("On which day?", [DATE]),
        ("What TIME do you want?", [TIME]),
        ("When?", [DATE, TIME]),
        ("What date and time?", [DATE, TIME]),
        # It names nothing: the first thing that was held back.
        ("What else do I need to know?", [DATE]),
        # A word inside of another one is another word.
        ("Any updates on your sometimes?", [DATE]),
    ],
)
def test_facts_are_told_if_asked_for(question: str, answers: list[Fact]) -> None:
    asked = user()
    assert asked.reply(question) == " ".join(fact.answer for fact in answers)
    assert asked.at == 0


def test_the_next_turn_comes_when_this_one_is_over() -> None:
    asked = user()
    assert asked.opening() == FIRST.say
    assert asked.reply("On which day?") == DATE.answer
    assert asked.reply("It is booked.") == LAST.say and asked.at == 1
    # What was held back in the turn before is no longer there.
    assert asked.reply("On which day?") == NOTHING_MORE
    assert asked.reply("It is cancelled.") is None and asked.at == 2


@pytest.mark.parametrize(
    "message",
    [
        "I'm sorry, I cannot do that. Is there anything else I can do for you?",
        "It is booked. May I do anything else for you today?",
    ],
)
def test_a_courtesy_at_the_end_is_no_question(message: str) -> None:
    assert user().reply(message) == LAST.say


def test_what_was_told_in_one_turn_can_be_asked_in_the_next() -> None:
    asked = ScriptedUser((FIRST, FIRST))
    for _ in range(2):
        assert asked.reply("What else do I need to know?") == DATE.answer
        asked.reply("It is booked.")


def test_the_same_question_has_the_same_answer() -> None:
    asked = user()
    assert asked.reply("On which day?") == asked.reply("Which day again?") == DATE.answer
    assert asked.reply("Anything else?") == TIME.answer
    assert asked.reply("Anything else?") == NOTHING_MORE


def test_a_user_has_enough_of_empty_questions() -> None:
    asked = ScriptedUser((LAST, FIRST))
    assert [asked.reply("Why?") for _ in range(5)] == [NOTHING_MORE] * 4 + [FIRST.say]
    # A new turn, new patience.
    assert asked.reply("On which day?") == DATE.answer
