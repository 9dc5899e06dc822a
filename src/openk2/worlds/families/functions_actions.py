"""The kinds of calls: look something up, create, update, delete, send, search, count, convert, rent, rate, run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from openk2.worlds.families import functions_phrases as say
from openk2.worlds.families import functions_tool_words as tool_words
from openk2.worlds.families import lexicon
from openk2.worlds.families.functions_tools import (
    FLAG_WORDS,
    ON_ENTITY,
    SENT_THINGS,
    UNITS,
    Action,
    Argument,
    Maker,
    said,
    schema_of,
)
from openk2.worlds.families.phrasing import Book, Phrase

KINDS = {
    "get": 30,
    "local": 7,
    "plain": 3,
    "whether": 6,
    "create": 14,
    "update": 10,
    "delete": 7,
    "send": 8,
    "search": 8,
    "count": 4,
    "convert": 3,
    "rent": 4,
    "rate": 3,
    "run": 3,
    "stop": 3,
    "move": 4,
}
"""Kind -> weight."""

OMITTING = ("get", "create", "send", "rate", "move", "delete", "run")
"""Kinds whose request can leave an argument out."""

Given = tuple[Argument, Phrase]

TYPES = ("flag", "enum", "words", "list", "numbers", "nested", "optional", "flag", "enum")


def spoken(verb: str) -> str:
    """A verb as people write it."""
    return "look up" if verb == "lookup" else verb.replace("_", " ")


def describe(maker: Maker, book: Book, verb: str, **slots: str) -> str:
    """A description from a book; never a typo, capital first letter."""
    verb = spoken(verb)
    text = book.say(maker.rng, maker.split, Verb=Phrase(verb.capitalize()), verb=Phrase(verb), **as_phrases(slots))
    return text[:1].upper() + text[1:]


def purpose(description: str, *starts: str) -> str:
    """A description from the first of some words on, without its full stop."""
    found = [re.search(rf"\b{re.escape(start)}\b", description, re.IGNORECASE) for start in starts]
    first = min((match.start() for match in found if match), default=0)
    text = description[first:].rstrip(".?! ")
    return text[:1].lower() + text[1:]


def as_phrases(slots: dict[str, str]) -> dict[str, Phrase]:
    return {name: Phrase(text) for name, text in slots.items()}


def an(noun: str) -> str:
    return f"{lexicon.article(noun)} {noun}"


def make(
    maker: Maker,
    kind: str = "",
    noun: str = "",
    *,
    typed: int = 0,
    given: Given | None = None,
    avoid: Sequence[str] = (),
    omit: bool = False,
) -> Action:
    """One action of a kind (drawn when empty) about a noun (drawn when empty).

    `typed` asks for that many arguments of richer types, `given` is the parameter for the thing itself with its words,
    words of `avoid` are not used as attributes, and with `omit` the request leaves out one required argument
    (`Action.missing`; kinds of `OMITTING` only).
    """
    kind = kind or maker.rng.choices(list(KINDS), list(KINDS.values()))[0]
    noun = noun or maker.noun()
    if kind == "get":
        action = _get(maker, noun, given or _thing(maker, noun, omit), avoid, omit)
    elif kind == "local":
        action = _local(maker)
    elif kind == "plain":
        action = _plain(maker, noun)
    elif kind == "whether":
        action = _whether(maker, noun, given or maker.entity(noun), avoid)
    elif kind == "create":
        action = _create(maker, noun, typed, omit)
    elif kind == "update":
        action = _update(maker, noun, given or maker.entity(noun), avoid)
    elif kind == "send":
        action = _send(maker, omit)
    elif kind in ("search", "count"):
        action = _many(maker, kind, noun, typed)
    elif kind == "convert":
        action = _convert(maker)
    else:
        action = _act(maker, kind, noun, given or _thing(maker, noun, omit and not ON_ENTITY[kind]), typed, omit)
    if maker.rng.random() < 0.12 and not omit:
        action.arguments.append(maker.optional(names(action.arguments) | {noun}))
    explain(action.arguments)
    return action


def explain(arguments: Sequence[Argument]) -> None:
    """Describe parameters that could be taken for one another: two or more that are plain text."""
    texts = [argument for argument in arguments if argument.schema == {"type": "string"}]
    for argument in texts if len(texts) > 1 else ():
        if argument.hint:
            argument.schema = {**argument.schema, "description": argument.hint}


def _thing(maker: Maker, noun: str, bare: bool) -> Given:
    """The parameter for a thing and its words; a bare one is mentioned without its name."""
    argument, entity = maker.entity(noun)
    if bare:
        entity = say.ENTITY_BARE.say(maker.rng, maker.split, n=noun, an=an(noun), ns=lexicon.plural(noun))
    return argument, entity


def names(arguments: Sequence[Argument]) -> set[str]:
    return {word for argument in arguments for word in argument.words.split()}


def tool_name(maker: Maker, verb: str, noun: str, attribute: str = "") -> str:
    roll = maker.rng.random()
    if attribute:
        if roll < 0.5:
            return maker.name(verb, noun, attribute)
        return maker.name(noun, attribute) if roll < 0.8 else maker.name(verb, attribute, "of", noun)
    return maker.name(verb, noun) if roll < 0.8 else maker.name(noun, verb)


def outcome(maker: Maker, noun: str) -> tuple[dict[str, Any], str]:
    """What an action that changes something returns: a status, or the number of what was made."""
    if maker.rng.random() < 0.5:
        return {"status": lexicon.adjective(maker.rng, maker.split)}, "status"
    key = maker.rng.choice(("id", "code", f"{noun.split()[-1]}_id"))
    return {key: maker.identifier()}, key


def _get(maker: Maker, noun: str, given: Given, avoid: Sequence[str], omit: bool) -> Action:
    rng, split = maker.rng, maker.split
    attribute, kind = maker.attribute(noun, *avoid)
    verb = maker.verb("get")
    argument, entity = given
    arguments = [argument]
    phrase = say.ATTRIBUTE.say(rng, split, kind=maker.sentence, a=attribute, e=entity, verb=spoken(maker.verb("get")))
    if rng.random() < 0.1 and kind != "date" and not omit:
        when = maker.natural(rng.choice(("date", "place")))
        arguments.append(when)
        phrase = Phrase(f"{phrase} {when.phrase}", phrase.kind)
    result = {attribute: maker.value(kind)}
    if rng.random() < 0.2:
        other, other_kind = maker.attribute(noun, attribute, *avoid)
        result[other] = maker.value(other_kind)
        if rng.random() < 0.5:
            result = dict(reversed(list(result.items())))
    if rng.random() < 0.1:
        result = {argument.name: argument.value, **result}
    description = describe(maker, tool_words.DESCRIBE_GET, verb, a=attribute, an=an(noun), n=noun)
    name = tool_name(maker, verb, noun, attribute)
    missing = argument if omit else None
    about, why = f"{noun} {attribute}", purpose(description, noun, attribute)
    return Action(name, description, arguments, phrase, result, noun, "get", about, why, attribute, missing=missing)


def _local(maker: Maker) -> Action:
    """Something about a place, perhaps on a day: the weather kind of tool."""
    rng, split = maker.rng, maker.split
    place = maker.natural("place")
    place.shown = str(place.value)
    attribute, kind = maker.attribute(place.words)
    if rng.random() < 0.4:
        attribute, kind = lexicon.noun(rng, split, "weather"), rng.choice(("number", "text"))
    verb = maker.verb("get")
    arguments = [place]
    day = maker.natural("date")
    if rng.random() < 0.35 and not names([day]) & {attribute, *names([place])}:
        arguments.append(day)
    phrase = say.LOCAL.say(
        rng, split, kind=maker.sentence, a=attribute, s=said(rng, arguments), verb=spoken(maker.verb("get"))
    )
    description = describe(maker, tool_words.DESCRIBE_LOCAL, verb, a=attribute, an=an(place.words), n=place.words)
    name = maker.name(verb, attribute) if rng.random() < 0.7 else maker.name(place.words, attribute)
    result = {attribute: maker.value(kind)}
    why = purpose(description, attribute)
    return Action(name, description, arguments, phrase, result, attribute, "local", attribute, why, attribute)


def _plain(maker: Maker, noun: str) -> Action:
    """A tool without parameters."""
    attribute, kind = maker.attribute(noun)
    verb = maker.verb("get")
    phrase = say.PLAIN.say(
        maker.rng, maker.split, kind=maker.sentence, a=attribute, n=noun, verb=spoken(maker.verb("get"))
    )
    description = describe(maker, tool_words.DESCRIBE_PLAIN, verb, a=attribute, n=noun)
    name = tool_name(maker, verb, noun, attribute)
    about, why = f"{noun} {attribute}", purpose(description, noun, attribute)
    return Action(name, description, [], phrase, {attribute: maker.value(kind)}, noun, "plain", about, why, attribute)


def _whether(maker: Maker, noun: str, given: Given, avoid: Sequence[str]) -> Action:
    rng, split = maker.rng, maker.split
    word = maker.pick(FLAG_WORDS, {w for other in (noun, *avoid) for w in other.split()})
    argument, entity = given
    verb = rng.choice(("check", "is", "check"))
    phrase = say.WHETHER.say(rng, split, kind=maker.sentence, a=word, e=entity)
    description = describe(maker, tool_words.DESCRIBE_WHETHER, "check", a=word, an=an(noun), n=noun)
    name = tool_name(maker, verb, noun, word)
    about, why = f"{noun} {word}", purpose(description, noun, word)
    return Action(name, description, [argument], phrase, {word: rng.random() < 0.5}, noun, "whether", about, why, word)


def _extras(maker: Maker, noun: str, typed: int, low: int, high: int) -> list[Argument]:
    """Arguments beside the thing itself: `typed` of richer types, the others natural or named."""
    rng = maker.rng
    arguments: list[Argument] = []
    kinds = ["person", "place", "date", "amount"]
    rng.shuffle(kinds)
    for _ in range(max(0, rng.randint(low, high) - typed)):
        if kinds and rng.random() < 0.5:
            argument = maker.natural(kinds.pop())
        else:
            argument = maker.named(names(arguments) | set(noun.split()))
        if not names([argument]) & names(arguments):
            arguments.append(argument)
    for _ in range(typed):
        what = rng.choice(TYPES)
        avoid = names(arguments) | set(noun.split())
        argument = maker.optional(avoid) if what == "optional" else maker.typed(what, avoid)
        if not names([argument]) & names(arguments):
            arguments.append(argument)
    rng.shuffle(arguments)
    if not any(argument.phrase for argument in arguments):
        arguments.append(maker.named(names(arguments) | set(noun.split())))
    return arguments


def _create(maker: Maker, noun: str, typed: int, omit: bool) -> Action:
    verb = maker.verb("create")
    arguments = _extras(maker, noun, typed, 1, 3)
    missing = maker.rng.choice(arguments) if omit else None
    asked = maker.asked("create", verb)
    phrase = say.CREATE.say(
        maker.rng,
        maker.split,
        kind=maker.sentence,
        verb=spoken(asked),
        n=noun,
        an=an(noun),
        s=said(maker.rng, arguments, missing),
    )
    result, key = outcome(maker, noun)
    description = describe(maker, tool_words.DESCRIBE_ACT, verb, an=an(noun), n=noun)
    name = tool_name(maker, verb, noun)
    why = purpose(description, noun)
    return Action(name, description, arguments, phrase, result, noun, "create", noun, why, key, True, missing)


def _update(maker: Maker, noun: str, given: Given, avoid: Sequence[str]) -> Action:
    attribute, kind = maker.attribute(noun, *avoid)
    verb = maker.verb("update")
    argument, entity = given
    value = maker.value(kind)
    asked = maker.asked("update", verb)
    phrase = say.UPDATE.say(
        maker.rng, maker.split, kind=maker.sentence, verb=spoken(asked), a=attribute, e=entity, v=value
    )
    name = attribute if maker.rng.random() < 0.6 and attribute != argument.name else "value"
    arguments = [argument, Argument(name, schema_of(value), value, Phrase(""))]
    result, key = outcome(maker, noun)
    description = describe(maker, tool_words.DESCRIBE_UPDATE, verb, a=attribute, an=an(noun), n=noun)
    name = tool_name(maker, verb, noun, attribute)
    about, why = f"{noun} {attribute}", purpose(description, noun, attribute)
    return Action(name, description, arguments, phrase, result, noun, "update", about, why, key, changes=True)


def _send(maker: Maker, omit: bool) -> Action:
    noun = maker.of(SENT_THINGS)
    verb = maker.verb("send")
    arguments = [maker.natural("recipient"), maker.natural("text")]
    while arguments[1].name in (arguments[0].name, noun):
        arguments[1] = maker.natural("text")
    arguments[0].shown = str(arguments[0].value)
    missing = maker.rng.choice(arguments) if omit else None
    if maker.rng.random() < 0.25 and not omit:
        arguments.append(maker.typed("flag", names(arguments) | {noun}))
    asked = maker.asked("send", verb)
    extra = said(maker.rng, arguments, missing)
    phrase = say.SEND.say(maker.rng, maker.split, kind=maker.sentence, verb=spoken(asked), n=noun, an=an(noun), s=extra)
    result, key = outcome(maker, noun)
    description = describe(maker, tool_words.DESCRIBE_ACT, verb, an=an(noun), n=noun)
    name = tool_name(maker, verb, noun)
    why = purpose(description, noun)
    return Action(name, description, arguments, phrase, result, noun, "send", noun, why, key, True, missing)


def _many(maker: Maker, kind: str, noun: str, typed: int) -> Action:
    """Search and count: filters in, a list or a number out."""
    rng = maker.rng
    verb = maker.verb(kind)
    many = lexicon.plural(noun)
    arguments = _extras(maker, noun, typed, 1, 2)
    asked = maker.asked(kind, verb)
    book = say.SEARCH if kind == "search" else say.COUNT
    phrase = book.say(rng, maker.split, kind=maker.sentence, verb=spoken(asked), ns=many, s=said(rng, arguments))
    key = many.replace(" ", "_") if rng.random() < 0.6 or kind == "count" else "results"
    if kind == "search":
        found = list(dict.fromkeys(maker.proper_name() for _ in range(rng.randint(2, 4))))
        result: dict[str, Any] = {key: found if len(found) > 1 else [*found, maker.identifier()]}
    else:
        key = "count" if rng.random() < 0.6 else "total"
        result = {key: rng.randint(0, 500)}
    description = describe(maker, tool_words.DESCRIBE_MANY, verb, ns=many)
    name = tool_name(maker, verb, many if rng.random() < 0.7 else noun)
    why = purpose(description, many)
    return Action(name, description, arguments, phrase, result, noun, kind, many, why, key)


def _convert(maker: Maker) -> Action:
    rng, split = maker.rng, maker.split
    verb = maker.verb("convert")
    units = list(lexicon.of_split(UNITS, split))
    rng.shuffle(units)
    options = units[: rng.randint(2, min(4, len(units)))]
    source, target = rng.sample(options, 2)
    amount = maker.number()
    asked = maker.asked("convert", verb)
    phrase = say.CONVERT.say(rng, split, kind=maker.sentence, verb=spoken(asked), x=amount, f=source, t=target)
    unit = {"type": "string", "enum": options}
    arguments = [
        Argument("amount", schema_of(amount), amount, Phrase(""), shown=f"{amount} {source}"),
        Argument("from", unit, source, Phrase("")),
        Argument("to", unit, target, Phrase("")),
    ]
    key = rng.choice(("result", "value", target))
    description = f"{spoken(verb).capitalize()} {listed(options)}."
    name = maker.name(verb, rng.choice(("units", "amount", source)))
    why = purpose(description, source)
    return Action(name, description, arguments, phrase, {key: maker.number()}, "unit", "convert", source, why, key)


def listed(words: Sequence[str]) -> str:
    return ", ".join(words[:-1]) + " and " + words[-1] if len(words) > 1 else words[0]


def _act(maker: Maker, kind: str, noun: str, given: Given, typed: int, omit: bool) -> Action:
    """Verbs that act on one thing."""
    rng = maker.rng
    verb = maker.verb(kind)
    argument, entity = given
    extras: list[Argument] = []
    for what in ON_ENTITY[kind]:
        if what in ("target", "stars", "number") or rng.random() < 0.6:
            avoid = names([argument, *extras]) | set(noun.split())
            extra = (
                maker.stars() if what == "stars" else maker.named(avoid) if what == "number" else maker.natural(what)
            )
            if not names([extra]) & avoid:
                extras.append(extra)
    for _ in range(typed):
        avoid = names([argument, *extras]) | set(noun.split())
        extra = maker.typed(rng.choice(TYPES[:5]), avoid)
        if not names([extra]) & avoid:
            extras.append(extra)
    asked = maker.asked(kind, verb)
    missing = (rng.choice(extras) if extras else argument) if omit else None
    phrase = say.ACT.say(
        rng, maker.split, kind=maker.sentence, verb=spoken(asked), e=entity, s=said(rng, extras, missing)
    )
    result, key = outcome(maker, noun)
    description = describe(maker, tool_words.DESCRIBE_ACT, verb, an=an(noun), n=noun)
    name = tool_name(maker, verb, noun)
    why = purpose(description, noun)
    return Action(name, description, [argument, *extras], phrase, result, noun, kind, noun, why, key, True, missing)
