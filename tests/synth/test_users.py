"""What of a user's words is wrong is found by comparison with the task, in whatever words it is said."""

from __future__ import annotations

import pytest

from openk2.synth.personas import STYLES, StyleName, person
from openk2.synth.tasks import TaskMaker
from openk2.synth.users import LEAVES_OUT, REVEALS, fault_of_request, fault_of_words, values_in
from openk2.worlds.apps.told import names
from openk2.worlds.apps.user import Fact, PlayedUser, Reply, UserTurn
from synth.made import agents, apps

TURN = UserTurn(
    say='Please move the visit of Bella Haas to 2026-05-03 at 09:30, with 1,200.50 euros and "Late arrival".'
)


def test_values() -> None:
    found = list(values_in("At 09:30 on 2026-05-03 give ORD-1001 to a.b@example.org: 1,200.50 or -3 of 4th and B2."))
    assert found == ["a.b@example.org", "2026-05-03", "09:30", "ORD-1001", "1200.50", "-3"]


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ('On 2026-05-03 at 09:30 please, for Bella Haas: 1200.5 euros, "late arrival".', None),
        ('On 2026-05-04 at 09:30 please, for Bella Haas: 1200.5 euros, "late arrival".', LEAVES_OUT),
        ('On 2026-05-03 please, for Bella Haas: 1200.5 euros, "late arrival".', LEAVES_OUT),
        ('On 2026-05-03 at 09:30 please, for Bella: 1200.5 euros, "late arrival".', LEAVES_OUT),
        ("On 2026-05-03 at 09:30 please, for Bella Haas: 1200.5 euros.", LEAVES_OUT),
    ],
)
def test_a_request_in_other_words(said: str, kind: str | None) -> None:
    fault = fault_of_request(said, TURN)
    assert (fault.kind if fault else None) == kind


def test_words_that_nobody_has_told() -> None:
    assert fault_of_words("It is 12, as I said.", ["The number is 12."]) is None
    fault = fault_of_words("It is 13.", ["The number is 12."])
    assert fault is not None and fault.kind == REVEALS


def test_played_users_end_turns_as_they_say() -> None:
    user = PlayedUser(2, [Reply(say="a"), Reply(say="b"), Reply(say="c", done=True)])
    assert user.opening() == "a"
    assert (user.reply("?"), user.at) == ("b", 0)
    assert (user.reply("?"), user.at) == ("c", 1)
    assert (user.reply("?"), user.at) == (None, 1)
    user.add(Reply(say="thanks", done=True))
    assert (user.reply("."), user.at) == (None, 2)


def test_facts_are_asked_for_by_their_words() -> None:
    fact = Fact(words=("pens", "number"), answer="The number of pens is 3.", value="3")
    assert fact.is_asked("How many pens?") and not fact.is_asked("Pens.") and not fact.is_asked("What else?")


def test_styles_change_no_fact() -> None:
    """The same task in every style: the values of what is said, and all besides words, are the same."""
    others = 0
    for number, agent in enumerate(agents()[:10]):
        plain = TaskMaker(apps(), agent, number).make()
        assert plain is not None and plain.style == "plain"
        styles: tuple[StyleName, ...] = ("short", "polite", "terse", "chatty")
        for style in styles:
            styled = TaskMaker(apps(), agent, number, styles=(style,)).make()
            assert styled is not None and styled.style == style
            # Words are drawn as well, so that only what comes first is drawn alike.
            assert styled.state_seed == plain.state_seed and styled.user == plain.user
            for turn in styled.turns:
                assert "{" not in turn.say
                for fact in turn.facts:
                    assert names(fact.answer, fact.value)
            others += styled.turns[0].say != plain.turns[0].say
    assert others > 30


def test_people() -> None:
    assert person("terse", 1) == person("terse", 1) and STYLES["terse"].manner in person("terse", 1)
    assert len({person("plain", seed) for seed in range(60)}) > 10
