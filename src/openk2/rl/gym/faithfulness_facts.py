"""The short texts that answers have to be faithful to: invented things, what is said of them, and how it is asked for.

Four kinds of things with five or six attributes each. Attributes of one thing share a type where they can (a town to
live in and one to be born in), as a right value in the wrong place is the mistake that is easily overlooked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from openk2.core import Split
from openk2.worlds.families import lexicon
from openk2.worlds.families.lexicon import Rng


@dataclass(frozen=True, slots=True)
class Fact:
    """That `subject` has `value` as its `attribute`. A date is written as in ISO 8601, a number in digits."""

    subject: str
    attribute: str
    value: str


@dataclass(frozen=True, slots=True)
class Attribute:
    """How something is said and asked: frames with `{s}` for the subject and `{v}` for the value, of each split.

    `cue` matches, in lower case, what shows that a sentence speaks of it; `unknown` follows "does not say".
    """

    draw: Callable[[Rng, Split], str]
    states: dict[Split, tuple[str, ...]]
    asks: dict[Split, tuple[str, ...]]
    unknown: str
    cue: str


def _said(train: tuple[str, ...], test: tuple[str, ...]) -> dict[Split, tuple[str, ...]]:
    return {"train": train, "test": test}


def _number(low: int, high: int) -> Callable[[Rng, Split], str]:
    return lambda rng, split: str(rng.randint(low, high))


def _noun(topic: str) -> Callable[[Rng, Split], str]:
    return lambda rng, split: rng.choice([noun for noun in lexicon.nouns(split, topic) if noun not in _CUE_NOUNS])


def _date(rng: Rng, split: Split) -> str:
    return lexicon.date(rng)


def _thing(topics: tuple[str, ...]) -> Callable[[Rng, Split], str]:
    def draw(rng: Rng, split: Split) -> str:
        return f"{lexicon.pseudoword(rng, split).capitalize()} {_noun(rng.choice(topics))(rng, split)}"

    return draw


_CUE_NOUNS = frozenset({"guest", "visitor", "owner", "member", "tin", "lead", "seal", "market", "date"})
"""Nouns that would be taken for another word."""
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def _weekday(rng: Rng, split: Split) -> str:
    return rng.choice(_DAYS)


PERSON = {
    "town": Attribute(
        lexicon.place,
        _said(("{s} lives in {v}.", "The home of {s} is in {v}."), ("{s} is at home in {v}.",)),
        _said(("Where does {s} live?", "In which town does {s} live?"), ("Where is {s} at home?",)),
        "where {s} lives",
        r"\b(?:lives?|living in|lived|home|hometown|resides?|resident|based|settled|(?<!comes )(?<!come )from)\b",
    ),
    "birthplace": Attribute(
        lexicon.place,
        _said(("{s} was born in {v}.", "The birthplace of {s} is {v}."), ("{s} comes from {v}.",)),
        _said(("Where was {s} born?", "What is the birthplace of {s}?"), ("Where does {s} come from?",)),
        "where {s} was born",
        r"\b(?:born|birthplace|comes? from|from|native|birth)\b",
    ),
    "birthday": Attribute(
        _date,
        _said(("{s} was born on {v}.", "The birthday of {s} is {v}."), ("The day of birth of {s} is {v}.",)),
        _said(("When was {s} born?", "What is the birthday of {s}?"), ("What is the day of birth of {s}?",)),
        "when {s} was born",
        r"\b(?:born|birthday|birth|birthdate)\b",
    ),
    "job": Attribute(
        _noun("person"),
        _said(("{s} works as a {v}.", "The job of {s} is {v}."), ("{s} is a {v} by trade.",)),
        _said(("What is the job of {s}?", "What does {s} work as?"), ("What is {s} by trade?",)),
        "what {s} works as",
        r"\b(?:works?|working|job|profession|occupation|employed|trade|earns?|career)\b",
    ),
    "age": Attribute(
        _number(18, 90),
        _said(("{s} is {v} years old.", "The age of {s} is {v}."), ("{s} has an age of {v} years.",)),
        _said(("How old is {s}?", "What is the age of {s}?"), ("How many years old is {s}?",)),
        "how old {s} is",
        r"\b(?:years?|years old|old|aged?)\b",
    ),
    "pet": Attribute(
        _noun("animal"),
        _said(("{s} keeps a {v}.", "The pet of {s} is a {v}."), ("{s} has a {v} as a pet.",)),
        _said(("What animal does {s} keep?", "What is the pet of {s}?"), ("What pet does {s} have?",)),
        "what pet {s} has",
        r"\b(?:keeps?|keeping|owns?|owner|pets?)\b",
    ),
}
GOODS = {
    "price": Attribute(
        _number(2, 900),
        _said(("The {s} costs {v} euros.", "The price of the {s} is {v} euros."), ("For the {s} you pay {v} euros.",)),
        _said(("What does the {s} cost?", "What is the price of the {s}?"), ("How much do you pay for the {s}?",)),
        "what the {s} costs",
        r"\b(?:costs?|price|priced|euros?|pay|paid|sells? for|sold for|eur)\b|€",
    ),
    "stock": Attribute(
        _number(2, 99),
        _said(("There are {v} pieces of the {s} in stock.", "Of the {s} {v} are in stock."),
              ("The shop has {v} pieces of the {s}.",)),
        _said(("How many pieces of the {s} are in stock?",), ("How many of the {s} does the shop have?",)),
        "how many pieces of the {s} are in stock",
        r"\b(?:stock|pieces?|left|available|units?|shop has|shop holds)\b",
    ),
    "material": Attribute(
        _noun("material"),
        _said(("The {s} is made of {v}.", "The material of the {s} is {v}."), ("The {s} consists of {v}.",)),
        _said(("What is the {s} made of?", "What is the material of the {s}?"), ("What does the {s} consist of?",)),
        "what the {s} is made of",
        r"\b(?:made (?:\w+ )?of|out of|material|consists?|built of|(?<!comes )(?<!come )from)\b",
    ),
    "origin": Attribute(
        lexicon.place,
        _said(("The {s} is made in {v}.", "The {s} comes from {v}."), ("The {s} is produced in {v}.",)),
        _said(("Where is the {s} made?", "Where does the {s} come from?"), ("Where is the {s} produced?",)),
        "where the {s} is made",
        r"\b(?:made in|(?:is|was) made(?! (?:\w+ )?of| from)|comes? from|from|produced|manufactured|origin|factory)\b",
    ),
    "arrival": Attribute(
        _date,
        _said(("The {s} arrived on {v}.", "The {s} came in on {v}."), ("The {s} was delivered on {v}.",)),
        _said(("When did the {s} arrive?", "On what day did the {s} come in?"), ("When was the {s} delivered?",)),
        "when the {s} arrived",
        r"\b(?:arrived?|arrives|arrival|came in|come in|delivered|delivery)\b",
    ),
}  # fmt: skip
TOWN = {
    "population": Attribute(
        _number(1000, 90_000),
        _said(("{s} has {v} inhabitants.", "The population of {s} is {v}."), ("In {s} there are {v} inhabitants.",)),
        _said(("How many inhabitants does {s} have?", "What is the population of {s}?"),
              ("How large is the population of {s}?",)),
        "how many inhabitants {s} has",
        r"\b(?:inhabitants?|people|population|live|residents?|populated)\b",
    ),
    "founded": Attribute(
        _number(1150, 1960),
        _said(("{s} was founded in {v}.", "The founding year of {s} is {v}."), ("{s} was established in {v}.",)),
        _said(("When was {s} founded?", "What is the founding year of {s}?"), ("In what year was {s} established?",)),
        "when {s} was founded",
        r"\b(?:founded|founding|established|year|since|foundation|exist\w*)\b",
    ),
    "mayor": Attribute(
        lexicon.person,
        _said(("The mayor of {s} is {v}.", "{s} has {v} as its mayor."), ("{v} is mayor of {s}.",)),
        _said(("Who is the mayor of {s}?", "What is the name of the mayor of {s}?"), ("Who is mayor in {s}?",)),
        "who the mayor of {s} is",
        r"\b(?:mayor|governed|governs?|heads?|headed)\b",
    ),
    "market": Attribute(
        _weekday,
        _said(("The market of {s} is on {v}.", "{s} has its market on {v}."), ("In {s} the market day is {v}.",)),
        _said(("On what day is the market of {s}?", "When does {s} have its market?"),
              ("What is the market day in {s}?",)),
        "when the market of {s} is",
        r"\bmarkets?\b",
    ),
    "height": Attribute(
        _number(3, 990),
        _said(("{s} lies {v} metres above the sea.", "The height of {s} is {v} metres."),
              ("{s} is at {v} metres above the sea.",)),
        _said(("How many metres above the sea does {s} lie?", "What is the height of {s}?"), ("How high is {s}?",)),
        "how high {s} lies",
        r"\b(?:met(?:re|er)s?|high|height|sea|altitude|elevation|elevated|m)\b",
    ),
}  # fmt: skip
EVENT = {
    "date": Attribute(
        _date,
        _said(("The {s} is on {v}.", "The date of the {s} is {v}."), ("The {s} takes place on {v}.",)),
        _said(("When is the {s}?", "What is the date of the {s}?"), ("When does the {s} take place?",)),
        "when the {s} is",
        r"\b(?:date|day|when|takes? place on|held on|begins?|starts?)\b",
    ),
    "place": Attribute(
        lexicon.place,
        _said(("The {s} is held in {v}.", "The place of the {s} is {v}."), ("For the {s} one goes to {v}.",)),
        _said(("Where is the {s} held?", "What is the place of the {s}?"), ("Where does one go for the {s}?",)),
        "where the {s} is held",
        r"\b(?:held in|takes? place in|place of|where|venue|location|goes|located|hosted in|held)\b",
    ),
    "visitors": Attribute(
        _number(30, 9000),
        _said(("{v} visitors came to the {s}.", "The {s} had {v} visitors."), ("The {s} drew {v} visitors.",)),
        _said(("How many visitors came to the {s}?", "How many visitors did the {s} have?"),
              ("How many visitors did the {s} draw?",)),
        "how many visitors the {s} had",
        r"\b(?:visitors?|guests?|attended|attendance|people|visited|drew|draws?|attracted)\b",
    ),
    "fee": Attribute(
        _number(2, 80),
        _said(("Entry to the {s} costs {v} euros.", "The fee of the {s} is {v} euros."),
              ("A ticket for the {s} is {v} euros.",)),
        _said(("What does entry to the {s} cost?", "What is the fee of the {s}?"),
              ("How much is a ticket for the {s}?",)),
        "what entry to the {s} costs",
        r"\b(?:fee|entry|tickets?|costs?|euros?|pay|price|admission|eur)\b|€",
    ),
    "host": Attribute(
        lexicon.person,
        _said(("The host of the {s} is {v}.", "{v} leads the {s}."), ("{v} runs the {s}.",)),
        _said(("Who is the host of the {s}?", "Who leads the {s}?"), ("Who runs the {s}?",)),
        "who leads the {s}",
        r"\b(?:host|hosts|hosted by|leads?|led|runs?|run by|organi[sz]e[sd]?|organi[sz]er)\b",
    ),
}  # fmt: skip
_THINGS: tuple[tuple[dict[str, Attribute], Callable[[Rng, Split], str]], ...] = (
    (PERSON, lexicon.person),
    (GOODS, _thing(("kitchen", "tool", "clothing"))),
    (TOWN, lexicon.place),
    (EVENT, _thing(("event",))),
)
ATTRIBUTES: dict[str, Attribute] = {**PERSON, **GOODS, **TOWN, **EVENT}
"""All attributes by name."""


def cues(names: Sequence[str]) -> dict[str, re.Pattern[str]]:
    """What shows that a sentence speaks of these attributes, or of others that things of their kind have.

    An attribute that is none of `ATTRIBUTES` is recognised by its name.
    """
    kin = {name: one.cue for kind, _ in _THINGS if kind.keys() & set(names) for name, one in kind.items()}
    others = {name: rf"\b{re.escape(name.lower())}\b" for name in names if name not in kin}
    return {name: re.compile(cue) for name, cue in {**kin, **others}.items()}


@dataclass(frozen=True, slots=True)
class Text:
    """A made-up text: its facts in order, the sentences that say them, and what its things could have but do not."""

    facts: list[Fact]
    sentences: list[str]
    missing: list[tuple[str, str]]


def made_text(rng: Rng, split: Split) -> Text:
    """Two or three things of a kind with two or three facts each; no two names or values share a word."""
    attributes, name = rng.choice(_THINGS)
    taken: set[str] = set()

    def fresh(draw: Callable[[Rng, Split], str]) -> str:
        while True:
            text = draw(rng, split)
            parts = set(re.findall(r"\w+", text.lower())) | {text.lower()}
            if not parts & taken and not any(re.search(one.cue, text.lower()) for one in ATTRIBUTES.values()):
                if draw is not _date:
                    taken.update(parts)
                return text

    facts, said, missing = [], [], []
    for _ in range(rng.randint(2, 3)):
        subject = fresh(name)
        chosen = rng.sample(list(attributes), rng.randint(2, 3))
        for attribute in chosen:
            fact = Fact(subject, attribute, fresh(attributes[attribute].draw))
            facts.append(fact)
            said.append(stated(rng, split, fact))
        missing += [(subject, attribute) for attribute in attributes if attribute not in chosen]
    return Text(facts, said, missing)


def stated(rng: Rng, split: Split, fact: Fact) -> str:
    """A sentence that says a fact."""
    attribute = ATTRIBUTES[fact.attribute]
    frame = rng.choice(attribute.states[split])
    value = fact.value
    if frame.partition("{v}")[0].endswith(" a ") and lexicon.article(value) == "an":
        frame = frame.replace(" a {v}", " an {v}")
    return frame.format(s=fact.subject, v=value)


def asked(rng: Rng, split: Split, subject: str, attribute: str) -> str:
    """A question for it."""
    return rng.choice(ATTRIBUTES[attribute].asks[split]).format(s=subject)


def unknown(subject: str, attribute: str) -> str:
    """A sentence that says that it is not known."""
    return f"The text does not say {ATTRIBUTES[attribute].unknown.format(s=subject)}."
