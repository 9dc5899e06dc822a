"""What an answer tells: values in whatever form people write them, a no, and numbers that nothing says.

An agent is not told how to write a number, a date or a time, so all usual forms of it count.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import date
from functools import lru_cache
from typing import Any

_DO = (
    r"(?:do|go|proceed|be able|use|help|comply|fulfil|process|perform|carry out|complete|execute|run|try|attempt|act|"
    r"make|change|edit|modify|update|correct|revise|rename|set|switch|toggle|mark|flag|clear|raise|lower|add|create|"
    r"record|register|write|submit|sign|approve|confirm|accept|reject|grant|allow|permit|let|issue|assign|transfer|move|"
    r"shift|merge|split|redirect|forward|send|ship|order|buy|sell|pay|refund|spend|top up|return|restock|book|reserve|"
    r"schedule|plan|extend|renew|upgrade|postpone|start|begin|open|reopen|resume|reinstate|pause|suspend|freeze|unfreeze|"
    r"end|finish|resolve|escalate|close|cancel|withdraw|retire|archive|delete|remove|override|ignore|break|bypass|exceed)"
)
_DONE = (
    r"(?:done|gone ahead|processed|performed|carried out|completed|executed|fulfilled|handled|arranged|sorted|taken|"
    r"made|changed|edited|modified|updated|corrected|revised|renamed|set|switched|toggled|marked|flagged|cleared|raised|"
    r"lowered|added|created|recorded|registered|written|submitted|signed|approved|confirmed|accepted|granted|issued|"
    r"assigned|transferred|moved|shifted|merged|split|redirected|forwarded|sent|shipped|ordered|bought|sold|paid|"
    r"refunded|spent|topped up|returned|restocked|booked|reserved|scheduled|planned|extended|renewed|upgraded|"
    r"postponed|started|begun|opened|reopened|resumed|reinstated|paused|suspended|frozen|unfrozen|ended|finished|"
    r"resolved|escalated|closed|cancel+ed|withdrawn|retired|archived|deleted|removed|put)"
)
_MEANS = r"(?:tool|way|permission|means|right|access|authority|ability|option|possibility)s?"
_REFUSAL = re.compile(
    "|".join(
        (
            r"\b(?:(?:can|could) not|unable|impossible|unsuccessful|insufficient|off limits|out of the question)\b",
            r"\b(?:i|we) (?:will|may|must) not(?=[.,!;]|$)",
            r"\b(?:prohibit|forbid)\w*|\b(?:against|violate|break) (?:the |our |my )?(?:polic|rule)\w*",
            # Other verbs also say what will not hurt, or may not be seen at once.
            rf"\b(?:i|we) (?:\w+ly )?(?:will|would|shall) not (?:\w+ly )?{_DO}\b(?! anything else)",
            rf"\b(?:may|must|shall) not (?:\w+ly )?(?:{_DO}|be (?:{_DONE}|used))\b(?! anything else)",
            r"\bnot (?:(?:\w+ly|yet|even|going to) )?(?:be |been )?(?:able|possible|allowed|permitted|eligible|"
            r"available|accepted|supported|authori[sz]ed|feasible|an option)\b",
            r"\b(?:do|does|did|will|would) not (?:\w+ly )?(?:allow|permit|support|accept|work|succeed|let me)\b",
            r"\bnot (?:go|gone|going) through\b|\bnot (?:have |got |quite )?enough\b",
            rf"\bnot (?:\w+ly )?(?:have|see) (?:(?:a|any|the) )?(?:\w+ )?{_MEANS}\b",
            rf"\bnot (?:a|any) (?:\w+ )?{_MEANS} (?:to|of|for)\b",
            r"\bno (?:tool|permission)\b",
            rf"(?<!\bby )\bno means\b|\bno {_MEANS} (?:to|of|for|that|i|we|around)\b",
            r"\bnot something [^.,;:!?]{0,40}?\b(?:can|could|may|able|do|(?:allow|permit|support|offer)\w*)\b",
            r"\b(?:nothing|(?:outside|beyond)(?: of)? what) (?:that )?(?:i|we) (?:can|may) do\b",
            r"\bsay no\b|\bno can do\b|\ba no from\b|\brule[sd] (?:\w+ )?out\b|\bprevent(?:s me|ed) from\b",
            rf"\black (?:the |a |any )?{_MEANS}\b",
            r"\b(?:i|we|me to|must|have to|had to|need to) (?:\w+ly )?(?:refuse|decline)\b",
            r"\b(?:is|was|were|been|be|got) (?:denied|declined|refused|rejected)\b",
            r"\b(?:app|system|tool|policy|rules?|call) (?:has |have )?(?:denie|decline|refuse|reject)(?:d|s|ed)\b",
            r"\b(?:request|attempt|call|purchase|payment|booking|order|change|it|that|this) (?:has )?failed\b",
            r"\b(?:afraid|sorry)[,:]? (?:but )?not\b",
            r"(?:^|(?:sorry|afraid|unfortunately|but|is)[,:]? (?:a )?|[.!?;:]\s(?=no[.!]|no$))no(?=[.,!;:]|$)",
        )
    )
)
"""A no, in small letters and with every `not` a word by itself."""
_NO_REFUSAL = re.compile(
    r"\b(?:if|in case) (?:you|that|this|it|there)\b[^.,;:!?]*|"
    r"\b(?:i|we) (?:can|could) not (?:wait|resist|refuse|thank you enough|see why not)\b|"
    r"\b(?:can|could) not (?:find|see|think of) (?:a|any) (?:reason|problem|objection|obstacle)s?\b|"
    r"\byou (?:can|could) not (?:see|miss|lose|go wrong)\b|"
    r"\b(?:can|could) not (?:be|agree|have been|ask for)(?: \w+)? (?:more|better|easier|simpler|happier)\b|"
    r"\bcan not be (?:undone|reversed|taken back)\b|"
    r"\b(?:(?:is|was|does|did|would) not|nothing (?:is|was|has been)) (?:\w+ )?"
    r"(?:against|violate|break|impossible|prohibited|forbidden|denied|declined|refused|rejected)\b"
)
"""What has the words of a no and is none."""
_CLAIM = re.compile(
    r"(?:^|[.!?;:]\s)(?:(?:okay|ok|all right|sure|great|yes|right|certainly|of course|no problem)[,.!:;] )?"
    r"(?:(?:all )?done|all set)(?=\s*(?:[.,!;:-]|$)| now\b| as you\b| for you\b)|"
    r"\b(?:it|that|this|everything)(?:'s| is| has been|'s been)(?: all| now)? (?:done|taken care of|all set)"
    r"(?=\s*(?:[.,!;:-]|$)| now\b| as you\b| for you\b)|"
    rf"\b(?:i|we)(?:'ve| have) (?:(?:now|just|also|therefore|\w+ly) )?{_DONE}\b"
    r"(?! (?:\w+ )?(?:nothing|no|none|neither|nobody|sure|a look|note|that|with)\b|"
    r" (?:all|everything|what) (?:i|we)\b)|"
    rf"\b(?:{_DONE}|\w+ed)(?: now)?,? as you (?:asked|wished|wanted|requested)\b|"
    r"\b(?:is|are|was|were|been) (?:now )?successfully\b"
)
"""That something is done."""
_AS_IF = re.compile(r"\b(?:once|when|after|until|before|if|unless|how|whether|as though|say|that|not) (?:\w+ )?$")
"""What stands before a claim that is none."""
_DIGITS = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?")
_A_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
_WHOLE = re.compile(r"(?<![\w.-])-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?!-?\d|\.\d)")
_NUMBER = re.compile(r"(?<![\w.:#-])-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?![\w:-]*\d)(?!\w)")
_LINE_NUMBER = re.compile(r"^\s*\d+[.)]\s", re.M)
_DENIED = re.compile(r"\b(no|not|never|none|neither|cannot|un(?:available|able|used|paid))\b|n't\b", re.I)
_SENTENCE = 3
"""Fewer words say neither yes nor no without the word."""
_NOT = re.compile(
    r"(?:\b(?:not(?! only)|no longer|never|rather than|instead of|except|excluding|neither|nor|other than)|n't) "
    r"(?:(?:yet|fully|currently|really|exactly|at|in|a|an|the|all|any) ){0,3}(?:\w+ )?$"
)
"""What stands before a value that is denied."""
_BEFORE = 100
"""So many letters before a value are looked at."""
_WORDS = (
    "no|none|nothing|zero", "one|a single|once", "two|twice", "three", "four", "five", "six", "seven", "eight", "nine",
    "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
    "twenty",
)  # fmt: skip
_MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december",
)  # fmt: skip
_HOURS = 12
_CLOCK = re.compile(r"\b(\d?\d):(\d\d)\b")
_DOTTED_DATE = re.compile(r"(?<![\w.])(\d?\d)\.(\d?\d)\.(\d{4})(?!\w|\.\d)")
_AS_TYPED = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "\u2212": "-", "\u00a0": " ", "\u202f": " "})
_MARKUP = re.compile(r"[*`\"]+|(?<!\w)_+|_+(?!\w)")
_THOUSANDS = re.compile(r"(?<=\d)[\u00a0\u202f\u2009](?=\d{3}(?!\d))")
_MINUS = re.compile(r"\b(?:minus|negative) (?=\d)|-[$€£](?=\d)", re.I)
_YES_OR_NO = {"yes": re.compile(r"\b(?:yes|true)\b", re.I), "no": re.compile(r"\b(?:no|false)\b", re.I)}


@lru_cache(maxsize=256)
def plain(text: str) -> str:
    """A text without emphasis and quotes, with the apostrophes, blanks and signs that keyboards have."""
    text = _THOUSANDS.sub("", text).translate(_AS_TYPED)
    return _MINUS.sub("-", _MARKUP.sub("", text))


def refuses(texts: Sequence[str]) -> bool:
    """Whether one of the answers of a turn is a no, and none says that it is done all the same."""
    spelled = [_spelled(text) for text in texts]
    return any(_REFUSAL.search(_NO_REFUSAL.sub("", text)) for text in spelled) and not any(map(_claims, spelled))


def _claims(text: str) -> bool:
    return any(not _AS_IF.search(text[max(0, one.start() - _BEFORE) : one.start()]) for one in _CLAIM.finditer(text))


def _spelled(text: str) -> str:
    """In small letters, on one line, and with every `not` as a word by itself."""
    text = re.sub(r"\s+", " ", plain(text).lower()).strip()
    return re.sub(r"n't\b", " not", re.sub(r"\bwon't\b", "will not", re.sub(r"\bcan(?:'t|not)\b", "can not", text)))


def names(text: str, value: str) -> bool:
    """Whether a text names a value, and does not deny it.

    A number in digits or, up to twenty, in words (0 also as `no` or `none`); `2026-02-27` also as February 27 or
    27/2/2026; `13:45` also as 1:45 PM; words as words, `in_repair` also as `in repair`; and `yes` and `no` by whether
    something is denied.
    """
    text, value = plain(text), plain(value)
    if value in _YES_OR_NO:
        if _YES_OR_NO[value].search(text):
            return True
        if _YES_OR_NO["no" if value == "yes" else "yes"].search(text):
            return False
        return bool(_DENIED.search(text)) == (value == "no") and len(text.split()) >= _SENTENCE
    for match in found(text, value):
        before = text[max(0, match.start() - _BEFORE) : match.start()]
        if not _NOT.search(_spaced(before) + " "):
            return True
    return False


def found(text: str, value: str) -> Iterator[re.Match[str]]:
    """Where a value stands in a text, denied or not; both are `plain`."""
    # Not whatever Python reads as a number: an infinity edge is none.
    if not _A_NUMBER.fullmatch(value):
        yield from _pattern(value).finditer(text)
        return
    wanted = float(value)
    # The parts of a date or of an id are no numbers.
    for match in _WHOLE.finditer(text):
        if abs(float(match[0].replace(",", "")) - wanted) < 0.005:
            yield match
    if wanted.is_integer() and 0 <= wanted < len(_WORDS):
        yield from re.finditer(rf"\b(?<!-)(?:{_WORDS[int(wanted)]})\b(?!-)", text, re.I)


@lru_cache(maxsize=4096)
def _pattern(value: str) -> re.Pattern[str]:
    """A value that is no number, in its forms."""
    forms = [r"[\s_-]+".join(map(re.escape, re.split(r"[\s_-]+", value.strip())))]
    with suppress(ValueError):
        forms += _dates(date.fromisoformat(value))
    if match := re.fullmatch(r"(\d\d):(\d\d)(?::00)?", value):
        forms = _times(int(match[1]), match[2])
    return re.compile(rf"(?<!\w)(?:{'|'.join(forms)})(?!\w)", re.I)


def _times(hour: int, minute: str) -> list[str]:
    """How people write a time."""
    half, other = "ap" if hour < _HOURS else "pa"
    short = rf"(?:[:.]{minute}(?::00)?)" + ("?" if minute == "00" else "")
    named = {(0, "00"): ["midnight"], (_HOURS, "00"): ["noon"]}.get((hour, minute), [])
    # Nobody reads 14:00 PM as another time, and everybody 9:00 PM.
    not_half = f"[{other if hour > _HOURS or hour == 0 else 'ap'}]"
    return [
        *named,
        rf"(?<!\d[:.])0?{(hour - 1) % _HOURS + 1}{short}\s*{half}\.?m\b",
        rf"(?<!\d[:.])0?{hour}[:.]{minute}(?::00)?(?!(?::\d\d)?\s*{not_half}\.?m\b)",
    ]


def _dates(day: date) -> list[str]:
    """How people write a day. Without a year it is any, and with another one another day."""
    name = _MONTHS[day.month - 1]
    month, number = rf"(?:{name}|{name[:3]}t?\.?)", day.day
    ending = r"(?:st|nd|rd|th)?"
    year = rf"(?:,? {day.year}(?!\w)|(?!,? (?:(?:in|of) )?(?:19|20)\d\d(?!\w)))"
    return [
        rf"{month} 0?{number}{ending}{year}",
        rf"0?{number}{ending} (?:of )?{month}{year}",
        rf"0?{day.month}[/.]0?{number}[/.]{day.year}",
        rf"0?{number}[/.]0?{day.month}[/.]{day.year}",
        rf"{day.year}/0?{day.month}/0?{number}",
    ]


def _spaced(text: str) -> str:
    return re.sub(r"[\s_-]+", " ", text.lower()).rstrip()


class Numbers:
    """The numbers of a conversation so far, with how many there are in lists, and which of a text are not among them.

    An answer with a number that neither the user nor a tool has said is invented, also where nobody asked for it. Taken
    for said are a number rounded, as a share or in percent, and 13.45 or 1.45 where 13:45 was. Ids, dates, times and
    the numbers of a list's lines are no numbers; of a date with a month's name, with slashes or dots each part is one.
    """

    def __init__(self) -> None:
        self._found: set[float] = set()
        self._clocks: set[str] = set()
        self._unread: list[tuple[str, bool]] = []
        """What was not looked through yet: most answers have no numbers."""

    def add(self, text: str) -> None:
        """All numbers in a text, also parts of other things."""
        self._unread.append((text, False))

    def add_result(self, text: str) -> None:
        """As `add`, and the lengths of the lists in it, which is JSON."""
        self._unread.append((text, True))

    def _read(self) -> None:
        for text, is_json in self._unread:
            self._found.update(float(number.replace(",", "")) for number in _DIGITS.findall(text))
            for hour, minute in _CLOCK.findall(text):
                twelve = (int(hour) - 1) % _HOURS + 1
                self._found.add(twelve)
                self._clocks.update(f"{form}.{minute}" for form in (hour, int(hour), twelve, f"{twelve:02}"))
            if is_json:
                with suppress(ValueError, RecursionError):
                    self._count(json.loads(text))
        self._unread.clear()

    def _count(self, value: Any) -> None:
        if isinstance(value, dict):
            for part in value.values():
                self._count(part)
        elif isinstance(value, list):
            self._found.add(len(value))
            for part in value:
                self._count(part)

    def others(self, text: str) -> list[str]:
        """The numbers in a text that are none of these."""
        text = _DOTTED_DATE.sub(r"\1 \2 \3", _LINE_NUMBER.sub("", plain(text)))
        return [number for number in _NUMBER.findall(text) if not self._said(number)]

    def _said(self, number: str) -> bool:
        self._read()
        plain = number.replace(",", "")
        value, digits = abs(float(plain)), len(plain.partition(".")[2])
        if value in self._found or number in self._clocks:
            return True
        close = 0.5 * 10**-digits + 1e-9
        return any(abs(abs(one) * scale - value) <= close for one in self._found for scale in (1, 100, 0.01))
