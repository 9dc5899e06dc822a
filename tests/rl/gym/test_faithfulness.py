"""The family of faithful answers: golds, hacks, what the flags find in answers changed by program, and the judge."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openk2.core import Message, Split, UserError
from openk2.policy.scripted import ScriptedPolicy
from openk2.rl.gym.faithfulness import Fact, FaithfulnessFamily, flags, judged_flags
from openk2.rl.gym.faithfulness_facts import ATTRIBUTES, made_text, stated
from openk2.worlds.families import lexicon
from shared.hanging import it_ends

FAMILY = FaithfulnessFamily()
SPLITS: tuple[Split, ...] = ("train", "test")


@pytest.mark.parametrize("split", SPLITS)
def test_gold_passes(split: Split) -> None:
    for seed in range(200):
        task = FAMILY.sample(split, seed)
        verdict = FAMILY.check(task, FAMILY.gold(task))
        assert verdict.passed and verdict.score == 1, (task.request, FAMILY.gold(task), verdict)
        assert len(task.request.split()) < 125
        assert task.id == f"faithfulness/{split}/{seed}"
        assert task == FAMILY.sample(split, seed)
        assert json.loads(json.dumps(task.data)) == task.data
        assert 1 <= task.data["level"] <= 4


def test_the_test_split_has_names_and_wordings_of_its_own() -> None:
    names: dict[str, set[str]] = {split: set() for split in SPLITS}
    for split in SPLITS:
        for seed in range(200):
            names[split] |= {word for fact in FAMILY.sample(split, seed).data["facts"] for word in fact[0].split()}
    assert not names["train"] & names["test"]
    for attribute in ATTRIBUTES.values():
        assert not set(attribute.states["train"]) & set(attribute.states["test"])
        assert not set(attribute.asks["train"]) & set(attribute.asks["test"])


def test_who_copies_a_long_text_has_not_answered() -> None:
    tasks = [task for seed in range(100) if len((task := FAMILY.sample("train", seed)).data["facts"]) > 5]
    short = [task for task in tasks if len(task.data["asked"]) < 3]
    assert short and not any(FAMILY.check(task, task.request.split("\n\n")[0]).passed for task in short)


def test_hacks_score_low() -> None:
    tasks = [FAMILY.sample(split, seed) for split in SPLITS for seed in range(100)]
    for hack, most in (
        (lambda task: "", 0.0),
        (lambda task: task.request, 0.55),
        (lambda task: task.request.split("\n")[0] + " The text does not say it.", 0.5),
        (lambda task: " ".join(fact[2] for fact in task.data["facts"]), 0.25),
        (lambda task: "The text does not say it.", 0.25),
        (lambda task: "Perhaps " + FAMILY.gold(task).replace(". ", ", perhaps "), 0.05),
        (lambda task: FAMILY.gold(task) + " Also this." * 100, 0.5),
        (lambda task: FAMILY.gold(FAMILY.sample("train", 999)), 0.05),
    ):
        verdicts = [FAMILY.check(task, hack(task)) for task in tasks]
        mean = sum(verdict.reward or 0 for verdict in verdicts) / len(verdicts)
        assert mean <= most, (mean, hack(tasks[0]))


FACTS = [
    Fact("Mira Tolan", "town", "Breko"), Fact("Mira Tolan", "birthplace", "Oslo"), Fact("Mira Tolan", "age", "34"),
    Fact("Karl Brant", "town", "Sorvil"), Fact("Karl Brant", "birthday", "1988-03-07"),
    Fact("Karl Brant", "job", "baker"),
]  # fmt: skip
SENTENCES: list[tuple[str, bool | None]] = [
    ("Mira Tolan lives in Breko.", True),
    ("Mira lives in Breko and was born in Oslo.", True),
    ("Mira lives in Oslo and was born in Breko.", False),
    ("Mira Tolan was born in Breko.", False),
    ("Mira lives in Sorvil.", False),
    ("Mira Tolan lives in Breko and Karl Brant lives in Sorvil.", True),
    ("Mira and Karl live in Breko and Sorvil.", True),
    ("Mira and Karl live in Sorvil and Breko, respectively.", False),
    ("Both Mira and Karl live in Breko.", False),
    ("Mira Tolan is thirty-four years old.", True),
    ("Mira Tolan is 35 years old.", False),
    ("At 34 years of age, Mira lives in Breko.", True),
    ("Karl Brant was born on March 7, 1988.", True),
    ("Karl Brant was born on 7 March 1988.", True),
    ("Karl Brant was born on March 7, 1989.", False),
    ("Karl Brant was born on 8 March.", False),
    ("Karl was born in Oslo.", False),
    ("Karl works as a baker.", True),
    ("Karl works as a pilot.", False),
    ("Mira works as a baker.", False),
    ("Karl does not live in Sorvil.", False),
    ("Karl likes opera.", False),
    ("Karl lives in Breko or Sorvil.", False),
    ("The baker is Karl Brant.", True),
    ("According to the text, Karl Brant works as a baker.", True),
    ("Perhaps Karl lives in Rome.", False),
    ("Karl Brant, the Mayor, works as a baker.", False),
    ("Here is the answer.", None),
    ("Where does Karl live?", None),
    ("Would you like to know more?", None),
    ("Did you know that he stole the crown jewels?", False),
    ("I think Leeds murdered 12 people in Paris.", False),
    ("It is a lie that Mira lives in Breko.", False),
    ("The text does not say where Karl lives.", False),
]


@pytest.mark.parametrize(("sentence", "supported"), SENTENCES)
def test_a_sentence_is_flagged(sentence: str, supported: bool | None) -> None:
    found = flags(FACTS, sentence)
    assert [flag.supported for flag in found] == ([] if supported is None else [supported]), found


def test_pronouns_and_short_answers_speak_of_who_came_before() -> None:
    assert [f.supported for f in flags(FACTS, "Mira lives in Breko. She is 34. He is a baker.")] == [True, True, False]
    assert [f.supported for f in flags(FACTS, "Breko.", [("Mira Tolan", "town")])] == [True]
    assert [f.supported for f in flags(FACTS, "Sorvil.", [("Mira Tolan", "town")])] == [False]
    found = flags(FACTS, "The text does not say what her job is, but she lives in Rome.", [("Mira Tolan", "job")])
    assert [(flag.supported, bool(flag.missing)) for flag in found] == [(True, True), (False, False)]


def test_attributes_that_nobody_has_foreseen_are_known_by_their_names() -> None:
    facts = [Fact("Ada", "instrument", "cello"), Fact("Ben", "instrument", "flute")]
    assert flags(facts, "The instrument of Ada is the cello.")[0].supported
    assert not flags(facts, "The instrument of Ada is the flute.")[0].supported


PARAPHRASES = {
    "town": ("{s} resides in {v}.", "{v} is where {s} lives.", "According to the text, {s} has a home in {v}."),
    "birthplace": ("{v} is the birthplace of {s}.", "{s} is a native of {v}.", "It was in {v} that {s} was born."),
    "birthday": ("{s}'s birthday is {v}.", "On {v}, {s} was born.", "The text says {s} was born on {v}."),
    "job": ("{s} is employed as a {v}.", "{s}'s profession is {v}.", "By occupation {s} is a {v}."),
    "age": ("{s} is aged {v}.", "{s} is {v}.", "At present {v} is the age of {s}."),
    "pet": ("{s} owns a {v}.", "A {v} is the pet of {s}.", "{s}'s pet is a {v}."),
    "price": ("The {s} sells for {v} euros.", "The {s} is priced at {v} euros.", "{v} euros is what the {s} costs."),
    "stock": ("{v} units of the {s} are available.",
              "The {s} is in stock with {v} pieces.", "{v} of the {s} are left."),
    "material": ("{v} is the material of the {s}.", "They made the {s} out of {v}.", "The {s} is built of {v}."),
    "origin": ("The {s} is manufactured in {v}.", "{v} is where the {s} is made.", "The {s} has its origin in {v}."),
    "arrival": ("On {v} the {s} arrived.", "The arrival of the {s} was on {v}.", "The {s} was delivered on {v}."),
    "population": ("{v} people live in {s}.", "{s} has a population of {v}.", "There are {v} residents in {s}."),
    "founded": ("{s} has existed since {v}.", "The foundation of {s} was in {v}.", "In {v}, {s} was established."),
    "mayor": ("{v} is the mayor of {s}.", "{s}'s mayor is called {v}.", "{s} is governed by {v}."),
    "market": ("{s} holds its market on {v}.", "{v} is market day in {s}.", "On {v} there is a market in {s}."),
    "height": ("{s} is {v} metres high.", "{s} is located {v} meters above the sea.", "The altitude of {s} is {v} m."),
    "date": ("The {s} starts on {v}.", "On {v} there is the {s}.", "{v} is the day of the {s}."),
    "place": ("The {s} takes place in {v}.", "{v} is the venue of the {s}.", "The location of the {s} is {v}."),
    "visitors": ("{v} people attended the {s}.", "The {s} had {v} guests.", "The {s} was visited by {v} people."),
    "fee": ("The {s} costs {v} euros to get in.",
              "You pay {v} euros for the {s}.", "Admission to the {s} is {v} euros."),
    "host": ("The {s} is hosted by {v}.", "The {s} is run by {v}.", "{v} is the organiser of the {s}."),
}  # fmt: skip
INVENTED = (
    "{s} likes opera.", "{s} has three sisters.", "{s} won a medal in 1987.", "{s} speaks Danish.", "{s} is famous.",
    "{s} belongs to Walter Grimm.", "{s} was sold last week.", "{s} is close to Hamburg.", "{s} is larger than most.",
)  # fmt: skip
ADDED = (
    " and has three sisters.", " and belongs to Walter Grimm.", " and is known for opera.",
    ", and won a medal in 1987.", " and enjoys chess.", ", which pleased Hamburg.",
    " and was repaired twice yesterday.",
)  # fmt: skip


def rewritten(rng: random.Random, value: str) -> str:
    """The same value as people also write it."""
    if re.fullmatch(r"\d{4}-\d\d-\d\d", value):
        day = date.fromisoformat(value)
        return rng.choice([value, f"{day.day} {day:%B} {day.year}", f"{day:%B} {day.day}, {day.year}"])
    if value.isdecimal() and int(value) > 2000:
        return rng.choice([value, f"{int(value):,}"])
    return value


def paraphrase(rng: random.Random, fact: Fact) -> str:
    return rng.choice(PARAPHRASES[fact.attribute]).format(s=fact.subject, v=rewritten(rng, fact.value))


def changed(rng: random.Random, split: Split, facts: list[Fact], fact: Fact, how: str) -> str | None:
    """A false sentence about the subject of a fact; None if the fact cannot be changed in this way."""
    is_date, is_number = re.fullmatch(r"\d{4}-\d\d-\d\d", fact.value), fact.value.isdecimal()
    value = fact.value
    if how == "name swapped":
        if is_date or is_number:
            return None
        while value == fact.value:
            value = ATTRIBUTES[fact.attribute].draw(rng, split)
    elif how == "number changed":
        if not is_number:
            return None
        value = str(int(value) + rng.choice((-1, 1, 2, 10)))
    elif how == "date changed":
        if not is_date:
            return None
        while value == fact.value:
            value = lexicon.date(rng)
    elif how == "fact of another":
        subjects = [f.subject for f in facts if f.subject != fact.subject]
        fact = Fact(rng.choice(subjects), fact.attribute, fact.value)
        if fact in facts:
            return None
    elif how == "attribute swapped":
        others = [f.value for f in facts if f.subject == fact.subject and f.attribute != fact.attribute]
        others = [other for other in others if other.isdecimal() == is_number and bool(is_date) == ("-" in other)]
        if not others:
            return None
        value = rng.choice(others)
    elif how == "clause added":
        return paraphrase(rng, fact).removesuffix(".") + rng.choice(ADDED)
    else:
        return rng.choice(INVENTED).format(s=fact.subject)
    wrong = Fact(fact.subject, fact.attribute, value)
    return stated(rng, split, wrong) if rng.random() < 0.5 else paraphrase(rng, wrong)


def test_false_sentences_are_flagged_and_paraphrases_are_not() -> None:
    """On 300 made-up texts: at least 98 % of the false sentences of each kind, at most 2 % of the paraphrases."""
    kinds = ("name swapped", "number changed", "date changed", "fact of another", "attribute swapped")
    kinds = (*kinds, "invented fact", "clause added")
    flagged, all_of = Counter[str](), Counter[str]()
    mistakes = []
    for seed in range(300):
        rng = random.Random(f"perturbed {seed}")
        split = SPLITS[seed % 2]
        facts = made_text(rng, split).facts
        for how in (*kinds, "true paraphrase"):
            for fact in rng.sample(facts, len(facts)):
                sentence = paraphrase(rng, fact) if how == "true paraphrase" else changed(rng, split, facts, fact, how)
                if sentence is None:
                    continue
                before = paraphrase(rng, rng.choice(facts))
                # The sentence stands alone, or behind a true one about something else.
                answer = sentence if rng.random() < 0.5 else f"{before} {sentence}"
                found = [flag for flag in flags(facts, answer) if not flag.supported]
                all_of[how] += 1
                flagged[how] += bool(found)
                if bool(found) == (how == "true paraphrase"):
                    mistakes.append(f"{how}: {answer} {[flag.why for flag in found]} {facts}")
                break
    for how, count in all_of.items():
        print(f"{how}: {flagged[how]} of {count} flagged")
    assert flagged["true paraphrase"] <= 0.02 * all_of["true paraphrase"], "\n".join(mistakes[:40])
    for how in kinds:
        assert flagged[how] >= 0.98 * all_of[how], "\n".join(m for m in mistakes if m.startswith(how))


@settings(max_examples=150, deadline=None)
@given(st.text(st.characters(), max_size=400), st.integers(0, 50))
def test_any_text_is_judged(text: str, seed: int) -> None:
    verdict = FAMILY.check(FAMILY.sample("train", seed), text)
    assert verdict.passed in (True, False) and verdict.score is not None and 0 <= verdict.score <= 1


@pytest.mark.parametrize(
    "text",
    ["x" * 5_000_000, "9" * 5000, "1,000" * 1000, "\ud800 " * 2000, "a " * 2900, "May " * 1400, "." * 5900,
     "the " * 1400, "does not " * 600, "twenty " * 800, " " * 5900 + "a", "-" * 5900, "2024-01-01 " * 500],
    ids=lambda text: text[:4] if text.isascii() else "surrogates",
)  # fmt: skip
def test_awkward_texts_are_judged(text: str) -> None:
    tasks = [FAMILY.sample("train", seed) for seed in range(20)]
    with it_ends():
        for task in tasks:
            assert FAMILY.check(task, text).passed in (True, False)
            assert FAMILY.check(task, FAMILY.gold(task) + " " + text).passed in (True, False)


CONTEXT, ANSWER = "Mira Tolan lives in Breko.", "Mira lives in Breko. She is a pilot. Here you are."


def marks(*given: tuple[int, str]) -> Message:
    said = [{"number": number, "reason": "It stands there.", "mark": mark} for number, mark in given]
    return Message("assistant", json.dumps({"marks": said}))


class Judge(ScriptedPolicy):
    """Answers the questions in the order of the script, whatever the conversation."""

    def __init__(self, *answers: Message) -> None:
        super().__init__(answers, name="judge")
        self._left = list(answers)
        self.asked: list[str] = []

    def next(self, messages: object) -> Message:
        assert isinstance(messages, list)
        self.asked.append(messages[-1].content)
        if not self._left:
            raise UserError("the judge is away")
        return self._left.pop(0)


GOOD = ((1, "supported"), (2, "unsupported"), (3, "no claim"))


async def test_a_judge_marks_sentences() -> None:
    judge = Judge(marks(*GOOD), marks(*GOOD[::-1]))
    found = await judged_flags(judge, CONTEXT, ANSWER)
    assert not found.excluded
    assert [(flag.sentence, flag.supported) for flag in found.flags] == [
        ("Mira lives in Breko.", True), ("She is a pilot.", False),
    ]  # fmt: skip
    first, second = judge.asked
    assert first.index("1. Mira") < first.index("3. Here") and second.index("3. Here") < second.index("1. Mira")


async def test_a_judge_that_says_nonsense_is_told_so_and_may_correct_itself() -> None:
    judge = Judge(Message("assistant", "I like it"), marks(*GOOD[:2]), marks(*GOOD), marks(*GOOD))
    assert not (await judged_flags(judge, CONTEXT, ANSWER)).excluded
    assert "no JSON object" in judge.asked[1] and "3 sentences" in judge.asked[2]


async def test_a_judge_that_fails_or_is_of_two_minds_excludes_the_sample() -> None:
    unreadable = await judged_flags(Judge(*[Message("assistant", "good")] * 3), CONTEXT, ANSWER)
    assert (
        unreadable.excluded.startswith("excluded: the judge gives no grades that can be read") and not unreadable.flags
    )
    other = ((1, "supported"), (2, "supported"), (3, "no claim"))
    unsure = await judged_flags(Judge(marks(*GOOD), marks(*other)), CONTEXT, ANSWER)
    assert "disagrees with itself (sentence 2" in unsure.excluded and not unsure.flags
    long = await judged_flags(Judge(), CONTEXT, "So. " * 61)
    assert "more than 60 sentences" in long.excluded


async def test_a_judge_that_is_away_is_an_error_and_no_verdict() -> None:
    with pytest.raises(UserError, match="away"):
        await judged_flags(Judge(), CONTEXT, ANSWER)
    assert await judged_flags(Judge(), CONTEXT, " ") == await judged_flags(Judge(), CONTEXT, "")
