"""Tools with one intended use each: declaration, arguments, how a request says them, and what the call returns.

`Maker` draws everything of one task from one generator and one split. An `Action` knows the tool's declaration (what
the model reads), the arguments (what it must find out), the phrase (what the user says) and the result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from openk2.core import Split, ToolSpec
from openk2.worlds.families import functions_argument_phrases as say_argument
from openk2.worlds.families import functions_phrases as say
from openk2.worlds.families import lexicon
from openk2.worlds.families.lexicon import Rng
from openk2.worlds.families.phrasing import Book, Phrase, listing, number_word, protect

OF_LIST_COINED = 0.45
VERB_COINED = 0.15
"""The shares of coined words among attributes and parameters, and among verbs (training only)."""

NUMBER_WORDS = """price weight height width length depth size area volume speed distance duration age score rating
    balance cost fee capacity temperature humidity pressure voltage power charge load level altitude
    mileage deposit discount quantity stock budget salary rent tax toll brightness thickness radius
    diameter angle mass density strength frequency latency bandwidth progress priority rank points goals
    votes views likes pages floors seats rooms doors calories sugar dose pulse wage bonus debt profit
    revenue income turnover margin quota limit minimum maximum average count amount share ratio index
    grade level range reach lifespan"""
TEXT_WORDS = """color shape material brand style category genre species flavor status state mood type format texture
    pattern condition origin finish fabric model label tag topic theme title language accent rhythm pace
    rank class family group team sector phase stage mode shade tone habitat diet breed variety scent
    motto slogan nickname purpose function role method technique layout design coating frame cover fuel
    gearbox filling topping garnish"""
PERSON_WORDS = """owner author manager driver teacher captain keeper founder director inventor painter composer editor
    supervisor sponsor mentor landlord guardian nurse coach seller buyer designer builder curator host
    referee tailor operator pilot chef mechanic architect tutor breeder gardener boss chairman ranger
    warden scout donor creator holder"""
PLACE_WORDS = """city location destination birthplace town venue region site village port headquarters storage
    hometown base station area warehouse hub camp district"""
DATE_WORDS = """deadline birthday date expiry anniversary founding release launch opening arrival departure delivery
    pickup renewal inspection checkup closing premiere maturity start end due day signing graduation
    wedding hiring retirement adoption election landing"""
FLAG_WORDS = """available open paid locked active clean urgent insured public private fragile refundable organic
    secure silent empty full ready broken certified shared archived approved verified sold booked
    waterproof electric portable recyclable foldable heated vegan spicy sealed signed visible hidden
    pinned muted recurring express"""
PERSON_PARAMS = """guest customer client user member owner patient student tenant passenger buyer visitor contact
    assignee holder speaker host winner name participant applicant traveler author player renter
    attendee subscriber donor patron resident recruit trainee rider signer payer parent partner worker"""
RECIPIENT_PARAMS = """recipient receiver addressee contact person friend colleague customer manager client reader
    supplier teammate partner subscriber neighbor relative"""
PLACE_PARAMS = """city town location place venue region area site village port district county harbor spot station
    resort zone island valley suburb quarter province state country address"""
TARGET_PARAMS = """destination target place shelf room drawer folder dock hall building floor corner box bay depot yard
    rack goal end site wing aisle bin locker basement level corridor cellar"""
DATE_PARAMS = """date day deadline start due arrival departure checkin delivery pickup opening expiry renewal launch
    visit begin end event session birthday meeting travel return closing"""
AMOUNT_PARAMS = """seats guests nights tickets boxes copies pieces rooms people pages units hours days weeks players
    rounds bottles chairs tables bags cups items slots spots bikes tents lanes lessons meals passengers
    children minutes seconds months years kilos liters miles coins chapters slices"""
TEXT_PARAMS = """text message note comment body content subject caption remark title summary memo greeting wording
    slogan line script paragraph quote phrase sentence reply words reason answer question details"""
SENT_THINGS = """message note letter email memo reminder postcard invitation report greeting notice alert warning
    telegram fax update summary invoice receipt card newsletter complaint apology announcement dispatch
    briefing bulletin wish signal ping poem sms digest handout pamphlet brochure circular flyer survey"""
UNITS = """meters miles feet inches yards grams pounds ounces liters gallons dollars euros yen pesos francs
    rupees kroner pints knots acres hectares joules watts volts bars kelvin minutes seconds hours
    fathoms barrels carats stones rubles crowns dinars shillings bytes bits drams furlongs rods chains
    quarts cups teaspoons bushels cents pennies dimes florins lira baht"""
OPAQUE_TAILS = """run do main call go exec step job op unit flow link core task proc item base set kit act point node
    bit hub key lab map net pad pin tab tap top way zap axis"""
GENERIC_NAMES = """title label item key subject object target entry reference handle identifier tag
    alias nick moniker thing element record query word"""
CONFIRM_WORDS = """confirm force approve agree accept override sure commit proceed final really allow permit verify
    approved confirmed yes allowed ok certain definite accepted forced checked permitted authorize
    endorse"""
ON_ENTITY: dict[str, tuple[str, ...]] = {
    "delete": (),
    "rent": ("amount", "person", "date"),
    "rate": ("stars",),
    "run": ("number",),
    "stop": (),
    "move": ("target",),
}
"""Meanings of verbs that act on one thing -> what may be said beside the thing."""

HINTS = {"person": "who", "recipient": "to whom", "place": "where", "target": "where to"}
"""What the declaration says about a parameter whose name alone may not tell which value is meant."""

Json = dict[str, Any]


@dataclass(slots=True)
class Argument:
    """One parameter and, when `phrase` is there, its value as the request says it."""

    name: str
    schema: Json
    value: Any = None
    phrase: Phrase | None = None
    required: bool = True
    shown: str = ""
    hint: str = ""

    @property
    def words(self) -> str:
        return self.name.replace("_", " ")


@dataclass(slots=True)
class Action:
    """A tool and one use of it.

    `about` is what a request names first of all: the thing, and where one is asked for, its attribute. `purpose` is the
    part of the description that says what the tool does.
    """

    name: str
    description: str
    arguments: list[Argument]
    phrase: Phrase
    result: Json
    noun: str
    kind: str
    about: str
    purpose: str
    key: str = ""
    changes: bool = False
    missing: Argument | None = None

    @property
    def spec(self) -> ToolSpec:
        required = [argument.name for argument in self.arguments if argument.required]
        schema: Json = {
            "type": "object",
            "properties": {argument.name: argument.schema for argument in self.arguments},
        }
        if required:
            schema["required"] = required
        return ToolSpec(self.name, self.description, schema)

    @property
    def call(self) -> Json:
        """The arguments of the intended call, in the order of the declaration, without what nobody named."""
        return {argument.name: argument.value for argument in self.arguments if argument.phrase is not None}

    @property
    def intent(self) -> str:
        """What the call is for, as the demonstrations say before they make it.

        It splits a choice among tools, which a small model does not learn as one step, in steps of copying: what is
        meant from the request, the words about it from the declaration, and then the name that follows them there.
        """
        return f"For {self.about}: {self.purpose}"

    @property
    def subject(self) -> str:
        """What tells this call from its sisters in an answer."""
        return next((argument.shown for argument in self.arguments if argument.shown), "")


def clause(action: Action, subject: bool = False) -> str:
    """The result in words: `the price is 42`, `the hotels are A and B`, `it is open`."""
    value = action.result[action.key]
    words = action.key.replace("_", " ")
    tail = f" for {action.subject}" if subject else ""
    if isinstance(value, bool):
        return f"it is {'' if value else 'not '}{words}{tail}"
    if isinstance(value, list):
        shown = [str(item) for item in value]
        return f"the {words} are {', '.join(shown[:-1])} and {shown[-1]}{tail}"
    return f"the {words} is {value}{tail}"


def must_say(action: Action) -> list[Any]:
    """The values that an answer has to contain."""
    value = action.result[action.key]
    return list(value) if isinstance(value, list) else [value]


class Maker:
    """Draws actions. `opaque` tools have names that say nothing about what they do.

    With `literal` set, a request uses the same verb as the tool's description; `sentence` fixes the kind of sentence
    (`do`, `ask`, ...; see `phrasing`); `clipped` is the share of words that are two to four letters (training only).
    """

    def __init__(self, rng: Rng, split: Split, opaque: bool = False) -> None:
        self.rng = rng
        self.split: Split = split
        self.opaque = opaque
        self.literal = False
        self.sentence: str | None = None
        self.clipped = 0.0
        self.taken: set[str] = set()

    # words

    def clips(self) -> bool:
        """Whether the next word is a clipped one; draws nothing where there are none."""
        return self.clipped > 0 and self.rng.random() < self.clipped

    def of(self, words: str) -> str:
        """A word of a list; in training sometimes one that nobody knows, so that a list is not learned by heart."""
        if self.clips():
            return lexicon.clipped(self.rng)
        if lexicon.coins(self.rng, self.split, OF_LIST_COINED):
            return lexicon.coined(self.rng)
        return self.rng.choice(lexicon.of_split(words, self.split))

    def noun(self) -> str:
        """What a tool is about: a noun, two nouns, or a made-up word; blanks between words."""
        if self.clips():
            return lexicon.clipped(self.rng)
        roll = self.rng.random()
        if roll < 0.72:
            return lexicon.noun(self.rng, self.split)
        if roll < 0.92:
            return f"{lexicon.noun(self.rng, self.split)} {lexicon.noun(self.rng, self.split)}"
        return lexicon.pseudoword(self.rng, self.split)

    def fresh_noun(self, *others: str) -> str:
        """A noun that shares no word with the others."""
        used = {word for other in others for word in other.split()}
        for _ in range(50):
            noun = self.noun()
            if not used & set(noun.split()):
                return noun
        raise AssertionError("the word stock is too small")

    def verb(self, meaning: str) -> str:
        if self.clips():
            return lexicon.clipped(self.rng)
        if lexicon.coins(self.rng, self.split, VERB_COINED):
            return lexicon.coined(self.rng)
        return self.rng.choice(lexicon.verbs(self.split, meaning))

    def asked(self, meaning: str, verb: str) -> str:
        """The verb of a request for a tool whose own verb is given."""
        return self.verb(meaning) if not self.literal and self.rng.random() < 0.4 else verb

    def name(self, *parts: str) -> str:
        """A tool's name that no other tool of the task has."""
        name = "_".join(parts).replace(" ", "_").replace("-", "_")
        for _ in range(50):
            if self.opaque:
                first = lexicon.word(self.rng, self.split)
                second = self.of(OPAQUE_TAILS) if self.rng.random() < 0.6 else lexicon.word(self.rng, self.split)
                name = f"{first}_{second}" if self.rng.random() < 0.7 else f"{second}_{first}"
            if name not in self.taken:
                self.taken.add(name)
                return name
            name = "_".join((*parts, lexicon.noun(self.rng, self.split))).replace(" ", "_")
        raise AssertionError("fifty tool names in a row were taken")

    def text(self) -> str:
        """A short text that somebody might send."""
        rng, split = self.rng, self.split
        a, b, c = lexicon.noun(rng, split), lexicon.noun(rng, split), lexicon.adjective(rng, split)
        return rng.choice(
            (
                f"the {a} is {c}",
                f"{c} {a} today",
                f"bring the {a}",
                f"meet me at the {a}",
                f"no {a} and no {b}",
                f"{a} and {b} are {c}",
                f"the {a} and the {b}",
                f"where is the {c} {a}",
                f"{c} {a} for {lexicon.pseudoword(rng, split)}",
                f"please check the {a}",
            )
        )

    def number(self) -> int | float:
        rng = self.rng
        roll = rng.random()
        if roll < 0.3:
            return rng.randint(2, 20)
        if roll < 0.6:
            return rng.randint(21, 999)
        if roll < 0.75:
            return rng.randint(1000, 99999)
        digits = 1 if rng.random() < 0.6 else 2
        value = round(rng.uniform(0.1, 500), digits)
        return value if value != int(value) else value + 0.5

    def short_text(self) -> str:
        """One or two words as a value."""
        roll = self.rng.random()
        if roll < 0.4:
            return lexicon.adjective(self.rng, self.split)
        if roll < 0.7:
            return lexicon.noun(self.rng, self.split)
        if roll < 0.85:
            return lexicon.pseudoword(self.rng, self.split)
        return f"{lexicon.adjective(self.rng, self.split)} {lexicon.noun(self.rng, self.split)}"

    def proper_name(self) -> str:
        """What something is called: Brosta, Brosta Kelim, amber lion."""
        roll = self.rng.random()
        if roll < 0.55:
            return lexicon.pseudoword(self.rng, self.split).capitalize()
        if roll < 0.75:
            return lexicon.person(self.rng, self.split)
        if roll < 0.9:
            return f"{lexicon.adjective(self.rng, self.split)} {lexicon.noun(self.rng, self.split)}".title()
        return lexicon.place(self.rng, self.split)

    def identifier(self) -> str | int:
        if self.rng.random() < 0.35:
            return self.rng.randint(10, 9999)
        return lexicon.code(self.rng, self.split)

    def generic_name(self) -> str:
        return "name" if self.rng.random() < 0.35 else self.of(GENERIC_NAMES)

    # attributes

    def attribute(self, *avoid: str) -> tuple[str, str]:
        """An attribute's word and the kind of its values."""
        kinds = {
            "number": NUMBER_WORDS,
            "text": TEXT_WORDS,
            "person": PERSON_WORDS,
            "place": PLACE_WORDS,
            "date": DATE_WORDS,
        }
        used = {word for other in avoid for word in other.split()}
        for _ in range(50):
            kind = self.rng.choices(list(kinds), (40, 30, 12, 9, 9))[0]
            word = self.of(kinds[kind])
            if word not in used:
                return word, kind
        raise AssertionError("the word stock is too small")

    def value(self, kind: str) -> Any:
        makers: dict[str, Callable[[], Any]] = {
            "number": self.number,
            "text": self.short_text,
            "person": lambda: lexicon.person(self.rng, self.split),
            "place": lambda: lexicon.place(self.rng, self.split),
            "date": lambda: lexicon.date(self.rng),
            "code": self.identifier,
        }
        return makers[kind]()

    # arguments

    def entity(self, noun: str, by: str = "") -> tuple[Argument, Phrase]:
        """The parameter that names a thing, and the thing in words; `by` is `name` or `id`."""
        rng = self.rng
        by = by or ("name" if rng.random() < 0.6 else "id")
        value: str | int = self.proper_name() if by == "name" else self.identifier()
        base = noun.replace(" ", "_")
        if self.opaque:
            name = "id" if by == "id" else self.generic_name()
        elif by == "id":
            name = f"{base}_id" if rng.random() < 0.75 else "id"
        else:
            roll = rng.random()
            name = base if roll < 0.4 else f"{base}_name" if roll < 0.7 else self.generic_name()
        argument = Argument(name, schema_of(value), value, Phrase(""), shown=str(value))
        return argument, say.ENTITY[by].say(rng, self.split, n=noun, v=value)

    def named(self, avoid: set[str]) -> Argument:
        """An argument that the request introduces by the parameter's name."""
        word, kind = self.attribute(*avoid)
        value = self.value(kind)
        argument = Argument(word, schema_of(value), value)
        argument.phrase = say_argument.NAMED.say(self.rng, self.split, p=word, v=value)
        return argument

    def natural(self, what: str) -> Argument:
        """An argument that the request says as people do: for Mira, in Velmar, on 2025-03-04, 3 seats."""
        rng, split = self.rng, self.split
        books: dict[str, tuple[Book, str]] = {
            "person": (say_argument.PERSON, PERSON_PARAMS),
            "recipient": (say_argument.RECIPIENT, RECIPIENT_PARAMS),
            "place": (say_argument.PLACE, PLACE_PARAMS),
            "target": (say_argument.TARGET, TARGET_PARAMS),
            "date": (say_argument.DATE, DATE_PARAMS),
            "amount": (say_argument.AMOUNT, AMOUNT_PARAMS),
            "text": (say_argument.TEXT, TEXT_PARAMS),
        }
        book, names = books[what]
        name = self.of(names)
        shown: object
        if what == "amount":
            value: Any = rng.randint(2, 30)
            shown = number_word(value) if rng.random() < 0.2 else value
        elif what == "date":
            value = shown = lexicon.date(rng)
        elif what == "text":
            value = shown = self.text()
        elif what == "recipient" and rng.random() < 0.3:
            value = shown = lexicon.email(rng, split)
        else:
            value = shown = self.value({"place": "place", "target": "place"}.get(what, "person"))
        argument = Argument(name, schema_of(value), value, hint=HINTS.get(what, ""))
        argument.phrase = book.say(rng, split, p=argument.words, v=shown)
        return argument

    def stars(self) -> Argument:
        value = self.rng.randint(1, 5)
        name = self.of("stars points score rating grade marks")
        phrase = say_argument.AMOUNT.say(self.rng, self.split, p=name, v=value)
        return Argument(name, {"type": "integer"}, value, phrase)

    def typed(self, what: str, avoid: set[str]) -> Argument:
        """An argument of a richer type: flag, enum, list, numbers, nested, words (a number in words)."""
        rng, split = self.rng, self.split
        used = {word for other in avoid for word in other.split()}
        if what == "flag":
            word = self.pick(FLAG_WORDS, used)
            on = rng.random() < 0.55
            phrase = (say_argument.FLAG_ON if on else say_argument.FLAG_OFF).say(rng, split, p=word)
            return Argument(word, {"type": "boolean"}, on, phrase)
        word = self.pick(NUMBER_WORDS if what in ("words", "numbers") else TEXT_WORDS, used)
        if what == "enum":
            options = list(dict.fromkeys(self.short_text() for _ in range(rng.randint(2, 4))))
            value: Any = rng.choice(options)
            phrase = say_argument.NAMED.say(rng, split, p=word, v=value)
            return Argument(word, {"type": "string", "enum": options}, value, phrase)
        if what == "words":
            value = rng.randint(2, 19) if rng.random() < 0.6 else 10 * rng.randint(2, 9)
            phrase = say_argument.NAMED.say(rng, split, p=word, v=number_word(value))
            return Argument(word, {"type": "integer"}, value, phrase)
        if what == "nested":
            fields = [self.named(avoid | {word})]
            fields.append(self.named(avoid | {word, fields[0].name}))
            inner = listing(rng, [Phrase(f"{protect(f.words)} {protect(f.value)}") for f in fields])
            schema = {
                "type": "object",
                "properties": {f.name: f.schema for f in fields},
                "required": [f.name for f in fields],
            }
            phrase = say_argument.NESTED.say(rng, split, p=word, v=inner)
            return Argument(word, schema, {f.name: f.value for f in fields}, phrase)
        name = word if word.endswith("s") else lexicon.plural(word)
        count = rng.randint(2, 4)
        if what == "numbers":
            value = [rng.randint(1, 99) for _ in range(count)]
        else:
            value = list(dict.fromkeys(self.short_text() for _ in range(count)))
        phrase = say_argument.LIST.say(rng, split, p=name, v=listing(rng, [str(item) for item in value]))
        item = {"type": "integer" if what == "numbers" else "string"}
        return Argument(name, {"type": "array", "items": item}, value, phrase)

    def pick(self, words: str, used: set[str]) -> str:
        for _ in range(50):
            word = self.of(words)
            if word not in used:
                return word
        raise AssertionError("the word stock is too small")

    def optional(self, avoid: set[str]) -> Argument:
        """A parameter that the request does not mention and that need not be given."""
        argument = self.typed("flag", avoid) if self.rng.random() < 0.4 else self.named(avoid)
        argument.phrase, argument.required = None, False
        return argument


def schema_of(value: object) -> Json:
    """The schema of a plain value."""
    if isinstance(value, bool):
        return {"type": "boolean"}
    if isinstance(value, int):
        return {"type": "integer"}
    return {"type": "number" if isinstance(value, float) else "string"}


def said(rng: Rng, arguments: list[Argument], without: Argument | None = None) -> Phrase:
    """The phrases of several arguments, mostly in the order of the declaration."""
    phrases = [argument.phrase for argument in arguments if argument.phrase and argument is not without]
    if len(phrases) > 1 and rng.random() < 0.3:
        rng.shuffle(phrases)
    text = ""
    for i, phrase in enumerate(phrases):
        text += phrase if i == 0 else rng.choice((" ", ", ", " and ", ", ")) + phrase
    return Phrase(text)
