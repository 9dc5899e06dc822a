"""Reads an answer sentence by sentence against structured facts, and flags what they do not support.

Every name, number, date and attribute word of a sentence must be of the facts, and what stands together must belong
together: a value belongs to the subject before it (or, in front of all subjects, to the next one), and to the attribute
that the words around it speak of. Questions, hedged sentences and talk about the text claim nothing, but may not bring
in anything that is not there.

It is strict: a true sentence in words that are far from the facts' own may be flagged. It is meant for texts whose
facts are known; for others there is `judged_flags`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from openk2.rl.gym.faithfulness_facts import Fact, cues
from openk2.rl.rubrics import sentences
from openk2.worlds.apps.told import found, plain
from openk2.worlds.families import lexicon

Pair = tuple[str, str]
"""A subject and an attribute."""


def _words(text: str) -> list[str]:
    return text.split()


_HEDGE = re.compile(
    r"\b(?:[Mm]aybe|[Pp]erhaps|might|may|[Pp]ossibly|[Pp]robably|could be|seems?|[Ll]ikely|[Pp]resumably|not sure|"
    r"I (?:guess|think|believe|assume|suppose))\b"
)
_ABSTAINS = re.compile(
    r"\b(?:(?:does|do|did|is|are|was|were)(?: not|n't)|cannot|can't|can not|never|not|nowhere)(?: \w+){0,2}? "
    r"(?:say|says|said|state|stated|mention|mentioned|mentions|tell|told|give|given|gives|know|known|specif\w+|include|"
    r"included|found|find|contain|provided?|written|stand|answer\w*|in the (?:text|context))\b|"
    r"\bunknown\b|\bno (?:information|mention|word|answer|data)\b|\bnothing (?:is said|about)\b|"
    r"\bleaves? (?:it )?open\b|\bsays? nothing\b|\bi don't know\b",
    re.I,
)
_DENIES = re.compile(
    r"\b(?:not|never|no longer|neither|nor|nobody|none|without|except|a lie|wrong|false|untrue|incorrect|fools?|myth|"
    r"rumou?r)\b|n't\b",
    re.I,
)
_IDLE_WORDS = 2
"""So many words of its own a question or a hedged sentence may have."""
_PRONOUN = re.compile(
    r"\b(?:he|she|it(?! (?:was|is) .{1,60} that\b)|they|his|her|hers|its|their|him|them|both)\b", re.I
)
_PARTS = re.compile(
    r"[;,]? (?:but|although|though|while)\b,? |; |,? and (?=(?:it|the (?:text|context)|there|nothing|this)\b)", re.I
)
_MONTH = _words("january february march april may june july august september october november december")
_DATE = re.compile(
    rf"\b\d{{4}}[-/]\d\d?[-/]\d\d?\b|\b\d\d?[./]\d\d?[./]\d{{4}}\b|"
    rf"\b(?:{'|'.join(_MONTH)}|(?:jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec)\.?)(?!\w)"
    r"(?: \d+(?:st|nd|rd|th)?)?(?:,? \d{4})?",
    re.I,
)
_DIGITS = re.compile(r"(?<![\w.,-])[-−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?!\w)")
_ANY_DIGIT = re.compile(r"(?<!\S)\S*\d\S*")
_TENS = _words("twenty thirty forty fifty sixty seventy eighty ninety")
_ONES = _words(
    """one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen"""
)
_GLUE = re.compile(r"[\s-]*(?:(?:are|is|were|was|of them|still) )?(?:in )?")
"""What may stand between a value and its unit."""
_SPELLED = re.compile(
    rf"\b(?:(?P<tens>{'|'.join(_TENS)})(?:[- ](?P<unit>{'|'.join(_ONES[:9])}))?|(?P<small>{'|'.join(_ONES[1:])})|"
    r"(?P<large>(?:a )?(?:dozen|hundred|thousand|million)s?))\b",
    re.I,
)
_COMMON = frozenset(
    _words(
        """present moment presently a an the this that these those there here and or as so also too then thus therefore
        hence well while with of in on at to for from by into about than over above after before between within
        during per each every all both one ones other another same such own only just exactly precisely he she it
        they we you i me us him her his hers its their them my your our who whom whose which what when where why how
        is are was were be been being am do does did done has have had having can will would shall say says said
        state states stated tell tells told mention mentions mentioned give gives given read reads written write
        according text context passage information facts fact answer answers question asked ask find found know
        known see seen show shows shown call called name named names goes go went come comes came take takes took
        place places held hold holds get gets amount amounts total number count sum value figure equal equals lie
        lies located situated stands stand work works working man woman person town city village shop item items
        product products article thing things goods piece pieces animal event day days date dates time year years
        month old age aged currently current now today still summary short briefly first second third last finally
        lastly next regarding concerning respectively namely meaning means person's people for's is's sure okay yes
        please thanks hello following listed list below based make makes made use used keep keeps owns if because
        since like details detail data source provided provides provide let's let much many long set up out down
        away back off again very would could whether more like want
        there's it's that's he's she's what's who's where's i've"""
    )
)
"""Words that claim nothing by themselves."""


@dataclass(frozen=True, slots=True)
class Flag:
    """Whether a sentence that claims something is supported, and if not why.

    `told` are the numbers of the facts that it tells, `missing` what it rightly says to be unknown.
    """

    sentence: str
    supported: bool
    why: str = ""
    told: tuple[int, ...] = ()
    missing: tuple[Pair, ...] = ()


@dataclass(slots=True)
class _Mention:
    start: int
    end: int
    facts: frozenset[int]
    text: str


def flags(facts: Sequence[Fact], answer: str, asked: Sequence[Pair] = ()) -> list[Flag]:
    """A flag for each sentence of an answer that claims something.

    `asked` is what was asked for: an answer need not repeat its subject.
    """
    reader = _Reader(facts, asked)
    result = []
    for sentence in sentences(answer):
        parts = _PARTS.split(sentence) if _ABSTAINS.search(sentence) else [sentence]
        result += [flag for part in parts if (flag := reader.read(part)) is not None]
    return result


@cache
def _value_words() -> frozenset[str]:
    nouns = _words(" ".join(lexicon.NOUNS.values()))
    return frozenset(nouns) | {lexicon.plural(noun) for noun in nouns}


class _Reader:
    """Reads one answer. Of whom the last sentence spoke is remembered for the pronouns of the next."""

    def __init__(self, facts: Sequence[Fact], asked: Sequence[Pair]) -> None:
        self._facts, self._asked = facts, asked
        self._subjects = list(dict.fromkeys([fact.subject for fact in facts] + [subject for subject, _ in asked]))
        self._last: list[str] = list(dict.fromkeys(subject for subject, _ in asked))
        names = list(dict.fromkeys([fact.attribute for fact in facts] + [attribute for _, attribute in asked]))
        self._cues = cues(names)
        self._allowed = {word for name in names for word in re.findall(r"\w+", name.lower())}

    def read(self, sentence: str) -> Flag | None:
        """The flag of a sentence; None if it claims nothing."""
        text = plain(sentence)
        if text.rstrip().endswith("?") or _HEDGE.search(text):
            return self._idle(sentence, text)
        subjects, masked = self._find_subjects(text)
        if _ABSTAINS.search(text):
            named = re.search(r"(?<=[a-z,] )[A-Z][a-z]\w*", masked)
            mentions, masked, stranger = self._find_values(masked)
            if mentions or stranger or (named and named[0].lower() not in _COMMON):
                return Flag(sentence, False, "it says that something is not known, and yet names a value or a stranger")
            return self._abstention(sentence, text, [subject for _, subject in subjects])
        mentions, masked, stranger = self._find_values(masked)
        stranger = stranger or self._strange_word(masked, len(mentions))
        if stranger:
            return Flag(sentence, False, f"{stranger!r} is not in the context")
        if not mentions:
            return None
        if _DENIES.search(masked):
            return Flag(sentence, False, "it denies what the context says, or says what the context does not")
        return self._together(sentence, text.lower(), subjects, mentions)

    def _idle(self, sentence: str, text: str) -> Flag | None:
        """Of a sentence that claims nothing only what it brings in can be wrong."""
        _, masked = self._find_subjects(_HEDGE.sub(lambda match: " " * len(match[0]), text))
        mentions, masked, stranger = self._find_values(masked)
        stranger = stranger or self._strange_word(masked, len(mentions) + _IDLE_WORDS)
        return Flag(sentence, False, f"{stranger!r} is not in the context") if stranger else None

    def _find_subjects(self, text: str) -> tuple[list[tuple[int, str]], str]:
        hits: list[tuple[int, str]] = []
        for subject in sorted(self._subjects, key=len, reverse=True):
            text = self._mask(text, re.compile(rf"(?<!\w){re.escape(plain(subject))}(?!\w)", re.I), subject, hits)
        for subject in self._subjects:
            for part in subject.split():
                if part[:1].isupper() and sum(part in other.split() for other in self._subjects) == 1:
                    text = self._mask(text, re.compile(rf"(?<!\w){re.escape(part)}(?!\w)"), subject, hits)
        return sorted(hits), text

    @staticmethod
    def _mask(text: str, pattern: re.Pattern[str], subject: str, hits: list[tuple[int, str]]) -> str:
        hits += [(match.start(), subject) for match in pattern.finditer(text)]
        return pattern.sub(lambda match: " " * len(match[0]), text)

    def _find_values(self, text: str) -> tuple[list[_Mention], str, str]:
        """The values of facts that are mentioned, what is left, and the first value that is none of them."""
        mentions: list[_Mention] = []

        def take(match: re.Match[str], value: str) -> None:
            nonlocal text
            numbers = frozenset(i for i, fact in enumerate(self._facts) if fact.value == value)
            mentions.append(_Mention(match.start(), match.end(), numbers, match[0]))
            text = text[: match.start()] + " " * len(match[0]) + text[match.end() :]

        values = sorted(dict.fromkeys(fact.value for fact in self._facts), key=len, reverse=True)
        plain_values = [value for value in values if not re.fullmatch(r"-?\d+(?:\.\d+)?", value)]
        for value in plain_values:
            for match in list(found(text, plain(value))):
                take(match, value)
        for value in plain_values:
            for part in value.split() if " " in value else [f"{value}s"] if value.islower() else []:
                if part[:1].isupper() or part == f"{value}s":
                    for match in list(re.finditer(rf"(?<!\w){re.escape(part)}(?!\w)", text)):
                        take(match, value)
        # "May" and "March" alone are dates only as names.
        if (strange := _DATE.search(text)) and (re.search(r"\d", strange[0]) or strange[0][:1].isupper()):
            return mentions, text, strange[0]
        numeric = {float(value): value for value in values if value not in plain_values}
        for match in list(_DIGITS.finditer(text)):
            said = float(match[0].replace(",", "").replace("−", "-"))
            if said not in numeric:
                return mentions, text, match[0]
            take(match, numeric[said])
        for match in list(_SPELLED.finditer(text)):
            said = _spelled(match)
            if said not in numeric:
                return mentions, text, match[0]
            take(match, numeric[said])
        strange = _ANY_DIGIT.search(text)
        return sorted(mentions, key=lambda one: one.start), text, strange[0] if strange else ""

    def _strange_word(self, masked: str, tolerated: int) -> str:
        """A word that says what no fact says; so many others are let pass, as words of the same can differ.

        Names and the nouns that values are made of are never let pass.
        """
        strangers = []
        low = masked.lower()
        for cue in self._cues.values():
            low = cue.sub(lambda match: " " * len(match[0]), low)
        for match in re.finditer(r"[^\W\d_]+(?:['-][^\W\d_]+)*", low):
            word = match[0].removesuffix("'s")
            if word not in _COMMON and word not in self._allowed and not _DENIES.fullmatch(match[0]) and len(word) > 1:
                written = masked[match.start() : match.end()]
                if word in _value_words() or (written[:1].isupper() and masked[: match.start()].strip()):
                    return written
                strangers.append(written)
        return strangers[0] if len(strangers) > tolerated else ""

    def _together(
        self, sentence: str, low: str, subjects: list[tuple[int, str]], mentions: list[_Mention]
    ) -> Flag | None:
        told: list[int] = []
        groups = self._grouped(low, subjects, mentions)
        self._last = groups[-1][0] if not subjects else list(dict.fromkeys(self._after(subjects, mentions)))
        for owners, group in groups:
            paired = len(owners) == len(group) > 1
            for i, mention in enumerate(group):
                cued = self._cued(low, mention, mentions)
                mine = [owners[i]] if paired else owners
                fits = [
                    [n for n in sorted(mention.facts) if self._facts[n].subject == owner and
                     (not cued or self._facts[n].attribute in cued)]
                    for owner in mine
                ]  # fmt: skip
                # Several subjects and one value: it is said of all of them. More values: each is some one's.
                enough = all(fits) if paired or len(group) == 1 else any(fits)
                if not enough:
                    about = " and ".join(mine) or "anything"
                    return Flag(
                        sentence, False, f"the context does not say {mention.text.strip()!r} of {about} like this"
                    )
                wanted = [n for fit in fits for n in fit if self._pair(n) in self._asked]
                told += wanted or [fit[0] for fit in fits if fit]
        return Flag(sentence, True, "", tuple(dict.fromkeys(told)))

    def _after(self, subjects: list[tuple[int, str]], mentions: list[_Mention]) -> list[str]:
        """The last subjects of a sentence: those that no value stands between."""
        border = max((m.start for m in mentions if m.start < subjects[-1][0]), default=-1)
        return [subject for start, subject in subjects if start > border]

    def _grouped(
        self, low: str, subjects: list[tuple[int, str]], mentions: list[_Mention]
    ) -> list[tuple[list[str], list[_Mention]]]:
        """Values with those that they are said of."""
        groups: list[tuple[list[str], list[_Mention]]] = []
        pronoun = _PRONOUN.search(low)
        first = subjects[0][0] if subjects else len(low)
        owners: list[str] = self._last if not subjects or (pronoun and pronoun.start() < first) else []
        events = sorted([(start, name, None) for start, name in subjects] + [(m.start, "", m) for m in mentions],
                        key=lambda event: event[0])  # fmt: skip
        open_group = False
        waiting: list[_Mention] = []
        for _, name, mention in events:
            if mention is None:
                if not open_group:
                    owners, open_group = [], True
                if name not in owners:
                    owners = [*owners, name]
                continue
            if open_group or not groups:
                groups.append((owners, []))
                open_group = False
            if owners:
                groups[-1] = (owners, groups[-1][1])
            groups[-1][1].append(mention)
            if not owners:
                waiting.append(mention)
        if waiting:
            after = next((i for i, (whose, _) in enumerate(groups) if whose), None)
            owner = groups[after][0] if after is not None else self._after(subjects, mentions)
            groups[0] = (owner, groups[0][1])
        return groups

    def _cued(self, low: str, mention: _Mention, mentions: list[_Mention]) -> frozenset[str]:
        """The attributes that the words around a value speak of; empty if none."""
        before = max((m.end for m in mentions if m.end <= mention.start), default=0)
        behind = min((m.start for m in mentions if m.start >= mention.end), default=len(low))
        hits = [
            (match.start(), match.end(), name)
            for name, cue in self._cues.items()
            for match in cue.finditer(low[:behind], before)
            if match.end() <= mention.start or match.start() >= mention.end
        ]
        unit = {name for start, _, name in hits if start >= mention.end and _GLUE.fullmatch(low[mention.end : start])}
        if unit:
            return frozenset(unit)
        earlier = [hit for hit in hits if hit[1] <= mention.start]
        if earlier:
            nearest = max(start for start, _, _ in earlier)
            return frozenset(name for start, end, name in earlier if end > nearest)
        later = [hit for hit in hits if hit[0] >= mention.end]
        nearest = min((end for _, end, _ in later), default=0)
        return frozenset(name for start, _, name in later if start < nearest)

    def _pair(self, number: int) -> Pair:
        return self._facts[number].subject, self._facts[number].attribute

    def _abstention(self, sentence: str, text: str, named: list[str]) -> Flag | None:
        """That something is not known: right where no fact says it."""
        owners = named or self._last
        if named:
            self._last = list(dict.fromkeys(named))
        cued = {name for name, cue in self._cues.items() if cue.search(text.lower())}
        pairs = [pair for pair in self._asked if pair[0] in owners and (not cued or pair[1] in cued)]
        known = {self._pair(i) for i in range(len(self._facts))}
        if cued and named and not pairs:
            pairs = [(owner, name) for owner in owners for name in cued if (owner, name) in known]
        missing = tuple(pair for pair in pairs if pair not in known)
        if missing:
            return Flag(sentence, True, missing=missing)
        return Flag(sentence, False, "the context does say it") if pairs else None


def _spelled(match: re.Match[str]) -> float:
    """The value of a number in words."""
    if match["large"]:
        word = match["large"].lower().removeprefix("a ").rstrip("s")
        return {"dozen": 12, "hundred": 100, "thousand": 1000, "million": 1_000_000}[word]
    if match["small"]:
        return _ONES.index(match["small"].lower()) + 1
    unit = _ONES.index(match["unit"].lower()) + 1 if match["unit"] else 0
    return 20 + 10 * _TENS.index(match["tens"].lower()) + unit
