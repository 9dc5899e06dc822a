"""Each kind of constraint by examples, the compositions, degenerate answers, and the table of claims."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openk2.core import Split
from openk2.rl.gym.constraint_base import Constraint, Subject, sentences, words
from openk2.rl.gym.constraint_claims import claims
from openk2.rl.gym.constraints import KINDS, compose, degenerate, read, satisfied

SPLITS: tuple[Split, ...] = ("train", "test")
RIVERS = Subject("rivers", "Write about rivers.")

EXAMPLES: list[tuple[dict[str, object], str, str]] = [
    ({"kind": "words", "least": 3, "most": 3}, "1. Rivers are long.", "Rivers are very long."),
    ({"kind": "sentences", "least": 2, "most": 2}, 'Mr. Li saw it. He said "No."', "One sentence, e.g. this."),
    ({"kind": "sentences", "least": 1, "most": 1}, "Cats weigh 3.5 kg in the U.S. today.", "Cats sleep. Dogs bark."),
    ({"kind": "sentences", "least": 1, "most": 1}, 'He said: "Go!" and left.', 'He said: "Go!" He left.'),
    ({"kind": "sentences", "least": 2, "most": 2}, "Well... cats sleep. Yes.", "Well... Cats sleep. Yes."),
    ({"kind": "sentences", "least": 2, "most": 2}, "cats sleep. dogs bark.", "Cats sleep, dogs bark."),
    ({"kind": "lines", "least": 2, "most": None}, "a\n\nb", "a b"),
    ({"kind": "paragraphs", "least": 2, "most": 3}, "a\n \nb", "a\nb"),
    ({"kind": "bullets", "least": 2, "most": 2}, "- a\n* b", "- a\n-b"),
    ({"kind": "numbered", "least": 2, "most": 2}, "1. a\n2) b", "1. a\n3. b"),
    ({"kind": "keyword", "least": 2, "most": 2, "word": "cup"}, "Cup, cup.", "cup cups"),
    ({"kind": "keywords", "needed": ["cup", "jar"]}, "A jar, a cup.", "jars and a cup"),
    ({"kind": "letter", "least": 1, "most": 2, "letter": "e"}, "Every", "Eve here"),
    ({"kind": "questions", "least": 1, "most": 1}, 'Is it "so?" Yes.', "It is."),
    ({"kind": "palindromes", "least": 2, "most": None, "stock": []}, "Noon, a radar.", "noon Noon a I aaa"),
    ({"kind": "placeholders", "least": 2, "most": 2, "example": "name"}, "[name] of [town]", "[name] [name]"),
    ({"kind": "highlights", "least": 1, "most": 1, "stock": []}, "* a *so* b", "* a b **so** 2*3*4"),
    ({"kind": "capitals", "least": 1, "most": 1, "stock": []}, "I see RIVERS.", "I A O"),
    ({"kind": "forbidden", "word": "old"}, "Golden", "so Old."),
    ({"kind": "no letter", "letter": "z"}, "river", "Zoo"),
    ({"kind": "lower case"}, "so, 12", "So"),
    ({"kind": "upper case"}, "SO, 12", "So"),
    ({"kind": "title case"}, "Rivers Are 'Long'", "Rivers are Long"),
    ({"kind": "first word", "word": "cup"}, '"Cup, here.', "A cup"),
    ({"kind": "last word", "word": "cup"}, 'The "cup".', "cup it"),
    ({"kind": "ending", "phrase": "That is all."}, 'So. "That is all."', "That is all. So"),
    ({"kind": "ending", "phrase": "That is all."}, "**So. That is all.**", "xThat is all."),
    ({"kind": "no commas"}, "a b", "a, b"),
    ({"kind": "no digits"}, "two", "a 2"),
    ({"kind": "short words", "most": 4}, "long it", "longer"),
    ({"kind": "date", "shape": "DD.MM.YYYY"}, "On 29.02.2024.", "On 30.02.2024, 2024-02-29"),
    ({"kind": "json", "keys": {"a": "text", "b": "number"}}, '```json\n{"a": "x", "b": 1}```', '{"a": "x", "b": true}'),
    ({"kind": "json", "keys": {"a": "number"}}, '{"a": 1}', '{"a": NaN}'),
    ({"kind": "csv", "fields": 3}, 'a,"b, c",d', "a,,d"),
    ({"kind": "alphabetical", "least": 3}, "Ant bee, cow", "ant ant bee cow"),
    ({"kind": "only digits", "length": 3}, " 123\n", "1234"),
    ({"kind": "quotes"}, '"So it is."', '"So" it is.'),
    ({"kind": "quotes"}, '"He said so."', '"cats" are nice, unlike "dogs"'),
    ({"kind": "sections", "titles": ["Cup", "Jar"]}, "# cup\na\n## Jar:\nb", "# Cup\n# Jar\nb"),
    ({"kind": "heading"}, "<<So>>\na", "<<>> a"),
    ({"kind": "heading"}, "# **<<So>>**\na", "a <<So>>"),
    ({"kind": "two answers"}, "a\n***\nb", "a *** A."),
    ({"kind": "repeat", "sentence": "Write about rivers."}, "Write about rivers. So long.", "Write about rivers."),
    ({"kind": "postscript", "mark": "P.S."}, "a\nP.S. Thank you", "a P.S. Thank you"),
    ({"kind": "acrostic", "word": "cup"}, "Cows\nUp\n- pots", "Cows\nUp"),
]  # fmt: skip


def test_all_kinds_have_an_example() -> None:
    assert len(KINDS) >= 25
    assert {raw["kind"] for raw, _, _ in EXAMPLES} == set(KINDS)


@pytest.mark.parametrize(("raw", "good", "bad"), EXAMPLES, ids=[str(raw["kind"]) for raw, _, _ in EXAMPLES])
def test_holds(raw: dict[str, object], good: str, bad: str) -> None:
    constraint = read(raw)
    assert constraint.holds(good)
    assert not constraint.holds(bad)
    assert not constraint.holds("") or raw["kind"] == "letter"


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_said_read_back_and_satisfied_in_both_splits(kind: str) -> None:
    for split in SPLITS:
        for seed in range(20):
            rng = random.Random(f"{kind} {split} {seed}")
            one = KINDS[kind].draw(rng, split, RIVERS)
            assert read(one.dump()) == one
            assert "{" not in one.say(rng, split)
            assert satisfied(rng, [one], RIVERS), one
    assert not set(KINDS[kind].said["train"]) & set(KINDS[kind].said["test"])


def test_compositions_do_not_contradict_each_other_and_all_kinds_come() -> None:
    seen: set[str] = set()
    for seed in range(300):
        chosen, answer = compose(random.Random(seed), "train", RIVERS, 1 + seed % 4)
        assert len(chosen) == 1 + seed % 4
        assert all(one.holds(answer) for one in chosen)
        assert not any(a.contradicts(b) for a in chosen for b in chosen if a is not b)
        seen.update(one.kind for one in chosen)
    assert seen == set(KINDS)


@pytest.mark.parametrize(
    "answer",
    ["", " \n", "...", "river " * 20, "a river " * 30, "the old river " * 30, "word number " * 300, "x" * 9000,
     "- Rivers\n- Rivers\n- Rivers", "It is. It is. It is. It is."],
)  # fmt: skip
def test_degenerate(answer: str) -> None:
    assert degenerate(answer)


def test_not_degenerate() -> None:
    assert not degenerate("Rivers are long. The Nile is a river and the Rhine is a river.")
    assert not degenerate("river river river")


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(), max_size=300), st.integers(0, 10_000))
def test_any_text_is_measured(text: str, seed: int) -> None:
    rng = random.Random(seed)
    drawn: list[Constraint] = [kind.draw(rng, "train", RIVERS) for kind in KINDS.values()]
    for one in drawn:
        assert one.holds(text) in (True, False)
    claims(drawn, text)
    assert len(sentences(text)) <= len(text)
    assert len(words(text)) <= len(text)


BULLETS = {"kind": "bullets", "least": 3, "most": 3}
SHORT = {"kind": "words", "least": 5, "most": 12}
LOWER = {"kind": "lower case"}
COMMAS = {"kind": "no commas"}
DIGITS = {"kind": "no digits"}
CUP = {"kind": "keyword", "least": 2, "most": 2, "word": "cup"}
OLD = {"kind": "forbidden", "word": "old"}
LINES = {"kind": "lines", "least": 2, "most": None}
TWO = {"kind": "sentences", "least": 2, "most": 2}
FIRST = {"kind": "first word", "word": "cup"}
JSON = {"kind": "json", "keys": {"cup": "text"}}
LIST = "- a big one\n- so it is\n- here too"
UPPER = {"kind": "upper case"}
FEW = {"kind": "words", "least": 5, "most": 9}
QUOTES = {"kind": "quotes"}
LAST = {"kind": "last word", "word": "cup"}
MANY = {"kind": "forbidden", "word": "many"}
CLAIMS: list[tuple[list[dict[str, object]], str, bool | None]] = [
    # An answer, and whether what it claims is true; None if it claims nothing.
    ([BULLETS], f"As requested, here are exactly 3 bullets:\n{LIST}", True),
    ([BULLETS], "As requested, here are exactly 3 bullets:\n- a\n- b", False),
    ([BULLETS], f"Here are three bullet points about rivers:\n{LIST}", True),
    ([BULLETS], "Here are three bullet points about rivers:\nRivers are long.", False),
    ([BULLETS], f"Here are 4 bullets:\n{LIST}", False),
    ([BULLETS], f"Here is the list in at least 2 bullets:\n{LIST}", True),
    ([BULLETS], "I have used 3 bullets. Rivers are long.", False),
    ([BULLETS], "I could not keep it to 3 bullets.\n- a\n- b", None),
    ([BULLETS], "Sorry, here are not 3 bullets but 2:\n- a\n- b", None),
    ([BULLETS], "I tried to write 3 bullets.\n- a", None),
    ([BULLETS], "Do you want 3 bullets?\n- a", None),
    ([BULLETS], "You asked for 3 bullets.\n- a", None),
    ([BULLETS], "The hunter had 3 bullets in his gun.", None),
    ([BULLETS], "Use exactly 3 bullets.", None),
    ([SHORT], "In 6 words: Rivers flow down to the sea.", True),
    ([SHORT], "In 20 words: Rivers flow down to the sea.", False),
    ([SHORT], "Here is an answer of at most 12 words: Rivers flow down to the sea.", True),
    ([SHORT], "Here are exactly 7 words: Rivers are long.", False),
    ([SHORT], "He said no words and left for the river.", None),
    ([LOWER], "rivers are long. all in lower case, as you asked.", True),
    ([LOWER], "Rivers are long. All in lower case, as you asked.", False),
    ([LOWER], "I wrote everything in lower case. Rivers are long.", False),
    ([LOWER], "Lower case letters are small.", None),
    ([COMMAS], "I used no commas. Rivers are long.", True),
    ([COMMAS], "I used no commas. Rivers are long, wide, deep.", False),
    ([COMMAS], "Without commas: Rivers are long, wide, deep.", False),
    ([COMMAS], "I did not use any commas. Rivers, lakes.", False),
    ([COMMAS], "I could not do without commas. Rivers, lakes.", None),
    ([COMMAS], "Commas are hard to avoid, rivers are not.", None),
    ([DIGITS], "This answer has no digits. Rivers are long.", True),
    ([DIGITS], "This answer has no digits. The river is 9 miles long.", False),
    ([CUP], "I used the word cup twice. A cup.", True),
    ([CUP], "I used the word cup 2 times. A jar.", False),
    ([CUP], "The word cup is used 3 times. A cup.", False),
    ([CUP], "I drank a cup of tea twice.", None),
    ([OLD], "I avoided the word old. Rivers are long.", True),
    ([OLD], "Without using the word old: Rivers are old, very old.", False),
    ([LINES], "Here are 2 lines:\nRivers are long.\nThey flow.", True),
    ([LINES], "This answer has 2 lines.", False),
    ([LINES], "The river has 2 lines of trees at its banks.", None),
    ([TWO], "Rivers are long. They flow. (Exactly 3 sentences.)", True),
    ([TWO], "Here is my answer in two sentences: Rivers are long.", False),
    ([FIRST], "Cup is how it starts. I started with the word cup.", True),
    ([FIRST], "Rivers are long. I started with the word cup.", False),
    ([JSON], 'Here is the JSON object:\n{"cup": "full"}', True),
    ([JSON], "Here is the JSON object you asked for:\ncup: full", False),
    ([BULLETS, LOWER], "I have followed all your instructions. Rivers are long.", False),
    ([BULLETS, LOWER], f"{LIST}\nall constraints are met.", True),
    ([COMMAS, DIGITS], "As requested, rivers are long.", False),
    ([BULLETS, COMMAS], f"Every instruction was followed:\n{LIST}", True),
    ([BULLETS, LOWER], "Not all of the instructions were followed.", None),
    ([BULLETS, LOWER], "Rivers are long and wide.", None),
    ([BULLETS, LOWER], "All rivers meet the sea.", None),
    # These came later, and led to changes of the patterns; the word count is still not seen.
    ([BULLETS], "Sure! Three bullets as you wished:\n- a\n- b", False),
    ([BULLETS], "My answer consists of three bullets.\n- a", False),
    ([BULLETS], f"This list has exactly three bullet points:\n{LIST}", True),
    ([BULLETS], "I managed to fit it in three bullets.\n- a", False),
    ([BULLETS], "That makes 3 bullets in total.", False),
    ([BULLETS], "Only two bullets came to my mind.\n- a\n- b", None),
    ([UPPER], "EVERYTHING IS IN CAPITAL LETTERS. RIVERS.", True),
    ([UPPER], "The text is written in capitals. Rivers.", False),
    ([UPPER], "Capital letters start names.", None),
    ([UPPER], "All caps, just like you wanted: rivers are long.", False),
    ([DIGITS], "You will find no digits here. 12 rivers.", False),
    ([DIGITS], "There are no digits in this answer. Two rivers.", True),
    ([DIGITS], "Note: no digits were used. 12.", False),
    ([DIGITS], "There is no river here.", None),
    ([FEW], "My response is under 10 words. Rivers flow.", True),
    ([FEW], "My response has fewer than 10 words, and here it goes on and on about rivers.", False),
    ([FEW], "Word count: 7. Rivers are very long and wide things that flow.", False),
    ([FEW], "In other words: rivers flow.", None),
    ([QUOTES], "I put the answer in quotation marks. Rivers.", False),
    ([LAST], "My last word is cup. Rivers flow.", False),
    ([LAST], "It ends with the word cup: I have a cup", True),
    ([LAST], "I ended the day with a cup of tea.", None),
    ([MANY], "I never used the word many. Many rivers.", False),
    ([MANY], "Not many rivers are short.", None),
    ([BULLETS, UPPER], "Your requirements have all been satisfied.", False),
    ([BULLETS, UPPER], "I complied with every instruction.", False),
    ([BULLETS, UPPER], "This fully meets your request.", False),
]


def test_claims_are_read_and_judged() -> None:
    """Precision and recall of the false ones, which cost something, and how many of all are read rightly."""
    right = caught = wrong = missed = 0
    mistakes = []
    for raws, answer, expected in CLAIMS:
        found = claims([read(raw) for raw in raws], answer)
        verdict = all(claim.true for claim in found) if found else None
        right += verdict == expected
        caught += verdict is False and expected is False
        wrong += verdict is False and expected is not False
        missed += verdict is not False and expected is False
        if verdict != expected:
            mistakes.append(f"{answer!r}: read as {verdict}, is {expected}")
    precision, recall = caught / (caught + wrong), caught / (caught + missed)
    print(f"{len(CLAIMS)} answers, {right} right; false claims: precision {precision:.3f}, recall {recall:.3f}")
    assert len(CLAIMS) >= 40
    assert precision >= 0.95 and recall >= 0.95, "\n".join(mistakes)
