"""English for what programs put together: names of fields as people say them, articles, requests and their results."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from openk2.core.messages import compact_json
from openk2.worlds.apps.expression import shown

_SPOKEN = {
    "acquired": "acquisition date", "body": "text", "bound": "limit", "day_count": "number of days", "due": "due date",
    "end": "end date", "expires": "expiry date", "expires_on": "expiry date", "first": "first day",
    "joined": "joining date", "joined_on": "joining date", "last": "last day",
    "opened": "opening date", "reorder_at": "reorder point", "seats_taken": "number of taken seats",
    "since": "start date", "spent": "amount spent", "start": "start date", "until": "end time",
    "updated": "date of the last update", "email": "e-mail address", "least": "least value",
    "largest": "largest value", "newest": "newest date", "valid_days": "validity in days",
    "valid_months": "validity in months",
}  # fmt: skip
"""Names that nobody says as they are."""
_UNITS = {
    "kg": "kg", "g": "g", "t": "tonnes", "km": "km", "m": "m", "cm": "cm", "mm": "mm", "m2": "square metres",
    "m3": "cubic metres", "pct": "percent", "percent": "percent", "c": "°C", "kw": "kW", "kwh": "kWh", "kmh": "km/h",
    "eur": "euros", "min": "minutes", "minutes": "minutes", "days": "days", "weeks": "weeks", "months": "months",
    "years": "years", "grams": "grams", "litres": "litres", "gb": "GB", "mb": "MB", "db": "dB", "hz": "Hz",
    "ft": "feet", "a": "amperes", "v": "volts", "w": "watts", "l": "litres", "ha": "hectares",
}  # fmt: skip
_LAST = {"no": "number"}
_BOUNDS = {"max": "maximum", "min": "minimum"}
_PREPOSITIONS = ("at", "by", "for", "from", "in", "of", "on", "to", "until", "with")
_PARTICIPLE = re.compile(r".*ed|done|given|held|left|lost|out|sent|sold")
_COUNTABLE = re.compile(r"(?!.*(ss|us|is)$).*s")
_BARE_DATE = re.compile(r".*\b(date|day|deadline|period|birth|audit|test|service|visit|review)")
_AN = re.compile(
    r"\b([Aa]) (?=(?!uni|use|usu|util|uk|eu|one\b|once)[aeio]|u(?!ni|s[aeu]|til|k)|hour|honest|honor|honour|heir)"
)
_PARTICIPLES = {
    "begin": "begun", "bring": "brought", "cancel": "cancelled", "draw": "drawn", "find": "found", "freeze": "frozen",
    "give": "given", "hold": "held", "let": "let", "make": "made", "pay": "paid", "put": "put", "sell": "sold",
    "send": "sent", "set": "set", "shut": "shut", "spend": "spent", "split": "split", "submit": "submitted",
    "take": "taken", "transfer": "transferred", "unfreeze": "unfrozen", "withdraw": "withdrawn", "write": "written",
}  # fmt: skip
_DOUBLED = re.compile(r"[^aeiou]*[aeiou][bdgklmnprt]")
_BRACES = re.compile(r"\{(\w+)\}")
_OPTIONAL = re.compile(r"\[([^\[\]|]*)(?:\|([^\[\]]*))?\]")
_MINE = re.compile(r"\b(the|all) ((?:(?!the\b|all\b)\S+ )+)of me\b")


def label(name: str, kind: str = "") -> str:
    """What people call a field or an argument of a type: `number of pens`, `weight in kg`."""
    if name in _SPOKEN:
        return _SPOKEN[name]
    parts = name.removeprefix("new_").split("_")
    if len(parts) > 1 and parts[-1] in _UNITS and kind in ("integer", "number"):
        return f"{' '.join(parts[:-1])} in {_UNITS[parts[-1]]}"
    if len(parts) > 1 and parts[0] in _BOUNDS:
        return f"{_BOUNDS[parts[0]]} {label('_'.join(parts[1:]), kind)}"
    words = " ".join([*parts[:-1], _LAST.get(parts[-1], parts[-1])])
    if kind == "integer" and (is_plural(words) or (is_plural(parts[0]) and _PARTICIPLE.fullmatch(parts[-1]))):
        return f"number of {words}"
    if kind == "date" and not _BARE_DATE.fullmatch(words):
        return f'"{words}" date'
    return f'"{words}"' if parts[-1] in _PREPOSITIONS else words


def is_plural(words: str) -> bool:
    return _COUNTABLE.fullmatch(words) is not None


def articles(text: str) -> str:
    """The text with `an` where it is said."""
    return _AN.sub(r"\1n ", text)


def said(value: Any) -> str:
    """A value in a sentence."""
    if isinstance(value, float) and value == int(value):
        return str(int(value))
    if isinstance(value, list | dict):
        return compact_json(value)
    return re.sub(r"(?<=\d)_(?=\d)", "-", shown(value)).replace("_", " ")


def stated(words: str, value: Any) -> str:
    """A sentence that says what something is."""
    if isinstance(value, bool) or (is_plural(words.partition(" in ")[0]) and not words.startswith("number of")):
        return f"{capital(words)}: {said(value)}."
    return f"The {words} is {said(value)}."


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def phrased(ask: str, words: Mapping[str, str]) -> str:
    """A request in which the arguments stand that have words; what depends on others is left out."""

    def part(match: re.Match[str]) -> str:
        told = all(name in words for name in _BRACES.findall(match[1]))
        return match[1] if told else match[2] or ""

    text = _OPTIONAL.sub(part, ask).replace("; )", ")").replace(" ()", "")
    return _BRACES.sub(lambda match: words.get(match[1], f"a certain {label(match[1])}"), text)


def mentioned(ask: str) -> set[str]:
    """The arguments that a request has places for."""
    return set(_BRACES.findall(ask))


def in_first_person(text: str) -> str:
    """`my credit` for `the credit of me`."""
    return _MINE.sub(lambda match: f"{'all ' if match[1] == 'all' else ''}my {match[2].rstrip()}", text)


def in_second_person(text: str) -> str:
    """What the user says of themselves, as the agent says it."""
    return re.sub(r"\bmy\b", "your", re.sub(r"\bme\b", "you", text))


def done(request: str) -> str:
    """`sent it to repair` for `send it to repair`."""
    verb, _, rest = request.partition(" ")
    if verb in _PARTICIPLES:
        past = _PARTICIPLES[verb]
    elif verb.endswith("e"):
        past = f"{verb}d"
    elif verb.endswith("y") and verb[-2:-1] not in "aeiou":
        past = f"{verb[:-1]}ied"
    else:
        past = f"{verb}{verb[-1] if _DOUBLED.fullmatch(verb) else ''}ed"
    return f"{past} {rest}"
