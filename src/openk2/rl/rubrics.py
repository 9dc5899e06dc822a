"""The rubrics by which a critic compares two answers that no code can verify, as data.

K2's self-critique (report 3.2.2 and appendix F) has core rubrics, which say what an answer is to be; prescriptive ones,
which forbid what a policy finds that is rewarded by its own critic; and those of a task. The two prescriptive ones are
also executable: a critic is most easily flattered by exactly what they forbid, so a program and not the critic says
whether an answer breaks them.

The report names a price: rubrics that forbid self-qualification and want one clear answer favour a confident tone, also
where doubt would be right.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["core", "prescriptive", "task"]

_READ = 20_000
"""So many letters of an answer are looked at: a check has to be quick for any text."""
_WINDOW = 400
"""So many at a time."""
_ENDS = re.compile(r"(?<=[.!?])[\"')\]]*\s+|\n+")
_AS_TYPED = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "\u00a0": " "})


def sentences(text: str) -> list[str]:
    """The sentences of a text: what ends with a full stop, an exclamation mark, a question mark or a line.

    Marks of emphasis and typographic quotes are made plain; what stands behind the first 20,000 letters is left out.
    """
    plain = re.sub(r"[*_`#]+", "", text[:_READ].translate(_AS_TYPED))
    return [part.strip() for part in _ENDS.split(plain) if part.strip()]


@dataclass(frozen=True, slots=True)
class Rubric:
    """One thing that answers are compared by.

    `text` is for large models, `short` for tiny ones. An answer that breaks a `mandatory` rubric loses, whatever else
    is good about it; the others may be weighed. `check` finds the sentence that breaks it, for those that a program
    can judge.
    """

    name: str
    text: str
    short: str
    kind: Kind
    mandatory: bool = False
    check: Callable[[str], str] | None = None

    def violates(self, answer: str) -> str:
        """The first sentence that breaks the rubric; empty if there is none, or if no program can tell."""
        return self.check(answer) if self.check is not None else ""


def task_rubric(text: str, short: str = "") -> Rubric:
    """What is wanted of the answers to one task; it is mandatory, as who misses it has answered something else."""
    return Rubric("Task", text, short or text, "task", mandatory=True)


_GOOD = (
    r"(?:great|good|excellent|wonderful|fantastic|amazing|awesome|brilliant|superb|splendid|beautiful|lovely|nice|"
    r"interesting|fascinating|insightful|thoughtful|important|clever|smart|perfect|fine|terrific|outstanding|"
    r"impressive|marvell?ous|incredible|remarkable|intriguing|profound|deep|astute|sharp|wise|neat|cool|delightful|"
    r"well[- ](?:put|asked|made|phrased|written|chosen|structured|organi[sz]ed|thought[- ]out)|valuable|stunning)"
)
_MUCH = r"(?:(?:really|very|truly|such|so|quite|most|rather|absolutely|genuinely|particularly|especially|indeed|an?) )*"
_THINGS = (
    r"(?:questions?|requests?|point|idea|topic|query|prompt|table|data|choice|task|thought|observation|subject|"
    r"challenge|problem|thinking|(?:work|job)(?! (?:for|in|at)\b)|one|thing to ask|catch|eye|taste|input|start|"
    r"list|numbers|figures|instructions?|brief|data ?set|curiosity|initiative|instincts?)"
)
_STOPS = (
    r"(?=\s*(?:[!.,:;?)-]|$|\b(?:and|but|to|about|indeed|there|you|here|on|for|from|that|as|because|putting|asking)\b))"
)
_PRAISE = re.compile(
    "|".join(
        (
            rf"(?:^|[,:;!-]\s*)(?:{_MUCH}){_GOOD}(?:[, ]+(?:and )?{_GOOD})?\s{_THINGS}{_STOPS}",
            rf"\b(?:what|that(?:'s| is| was)|this is|it(?:'s| is)|such|how|"
            rf"here is) {_MUCH}{_GOOD}(?:[, ]+(?:and )?{_GOOD})? (?:\w+ )?{_THINGS}{_STOPS}",
            rf"\bhow {_MUCH}{_GOOD}(?: of you|[!.]| (?:your|this|that)\b)",
            rf"\bone of the (?:best|most \w+|nicest|smartest|greatest) {_THINGS}\b.{{0,20}}(?:\bi\b|ever)",
            rf"\bit(?:'s| is) {_MUCH}{_GOOD} that you\b",
            r"^love (?:this|your|the)\b",
            r"\bi (?:\w+ )?(?:love|like|admire|adore|appreciate|enjoy|am (?:\w+ )?impressed by|"
            r"'m (?:\w+ )?impressed by|am in awe of|applaud|commend) (?:how|that you|your|this|"
            r"the way you|you\b)",
            r"\bi(?:'m| am) (?:\w+ )?(?:impressed|amazed|delighted)\b",
            rf"\bi (?:must|have to) say\b.*\b{_GOOD}",
            rf"\b(?:thanks|thank you) (?:\w+ )*?(?:for|of) (?:\w+ )*?{_MUCH}{_GOOD} (?:\w+ )?{_THINGS}",
            rf"\byou(?:'re| are| have|'ve| really| clearly| must be| certainly| always| seem|"
            rf" sure)*\s(?:\w+ )?{_MUCH}(?:smart|clever|brilliant|wise|genius|right to ask|"
            rf"ask(?:ed)? {_MUCH}{_GOOD}|raised? {_MUCH}{_GOOD}|made? {_MUCH}{_GOOD}|picked {_MUCH}{_GOOD}|"
            rf"chosen? well|know your|amazing|kind|thoughtful|insightful|talented|"
            rf"put together {_MUCH}{_GOOD}|have {_MUCH}{_GOOD}|great|awesome|wonderful)",
            rf"\byour (?:\w+ )?{_THINGS} (?:is|are|was|shows?|looks?) {_MUCH}(?:{_GOOD}|how (?:smart|"
            rf"clever|careful)|real |great |deep )",
            r"^(?:well (?:done|asked|put|said)|bravo|kudos|hats off|congratulations|good (?:for|on) you|"
            r"nicely (?:done|put)|clever you|only an? \w+ (?:mind|person))\b",
        )
    ),
    re.I,
)
_OPENERS = re.compile(
    r"(?:(?:dear|hi|hello|hey|good (?:morning|day|evening|afternoon)|greetings|welcome)\b[^.!?,]{0,40}|"
    r"sure|of course|certainly|oh|ah|wow|yes|okay|ok|absolutely|well|thanks|thank you)[.,!:\s-]*",
    re.I,
)


def opening_praise(answer: str) -> str:
    """The opening sentence, if it compliments the user or the question; a greeting before it opens nothing."""
    for sentence in sentences(answer):
        rest = sentence
        while (match := _OPENERS.match(rest)) and match.end():
            if match.end() < len(rest) and rest[match.end() - 1].isalnum():
                break
            rest = rest[match.end() :]
        if _PRAISE.search(sentence[:_WINDOW]):
            return sentence
        if rest:
            return ""
    return ""


_TEXT = (
    r"(?:report|answer|response|summary|reply|text|overview|explanation|wording|message|note|sentences?|paragraph|"
    r"version|write-?up|format|structure|approach|description|account)"
)
_IT = (
    rf"(?:(?:this|the|my|these|that) (?:\w+ )?{_TEXT}(?: (?:above|here|i (?:gave|wrote)))?|this|it|"
    rf"(?:the )?above|all of this|what i wrote|i(?:'ve| have)?)"
)
_ADVERB = (
    r"(?:(?:also|fully|clearly|exactly|directly|really|truly|thus|therefore|successfully|perfectly|completely|both|all|"
    r"precisely|very|so|short|is|be|will|should|does|not only|carefully|closely|strictly|faithfully|only|then|well) )*"
)
_ASKED = (
    r"(?:request(?:ed|s)?|questions?|requirements?|instructions?|criteri(?:a|on)|needs?|brief|constraints?|rubrics?|"
    r"guidelines?|prompt|task|expectations?|asked(?: for)?|wanted|focus|limit|everything|length|rules|"
    r"what you (?:need|want|asked|wanted)|(?:your|the) reader|purpose)"
)
_VIRTUE = (
    r"(?:clear|concise|accurate|correct|good|complete|faithful|helpful|useful|precise|reliable|thorough|excellent|"
    r"great|perfect|short|brief|easy to (?:read|understand|follow)|well[- ](?:written|structured|organi[sz]ed)|true|"
    r"objective|grounded|trustworthy|comprehensive|relevant|honest|right|ideal|to the point|balanced|best|"
    r"high[- ]quality|informative|focused|readable|simple|factual|neutral)"
)
_FAULTS = r"(?:errors?|mistakes?|faults?|filler|padding)"
_FIGURES = r"(?:numbers?|figures?|facts?|details?|values?|names?|statements?|claims?|words?|sentences?)"
_JUSTIFIES = re.compile(
    "|".join(
        (
            rf"\b{_IT} {_ADVERB}(?:fulfil\w*|meets?|met|satisf\w+|address\w*|answers?|answered|follow\w*|"
            rf"compl(?:y|ies|ied) with|match\w*|stick\w* to|stuck to|adher\w+|respect\w*|keeps? to|kept to|"
            rf"stays? (?:within|on)|stayed (?:within|on)|honou?r\w*|gives?|gave|provid\w+|deliver\w*|"
            rf"cover\w*|includ\w+|contain\w*|tells?|has|does) (?:\w+ ){{0,6}}?{_ASKED}\b",
            rf"\b(?:this|the|my|these|that) (?:\w+ )?{_TEXT}(?: above)? (?:is|are|stays?|remains?|"
            rf"(?:was|is) written to be|keeps? (?:it|things)) {_ADVERB}(?:\w+ (?:and|but) )?{_VIRTUE}\b",
            rf"\b(?:this|the|my) (?:\w+ )?{_TEXT} (?:has|contains|is) (?:no|without|free of|of high) (?:any )?"
            rf"(?:{_FAULTS}|quality)",
            rf"\b(?:this (?:is|makes)|makes this) {_ADVERB}(?:the |a |an )?{_VIRTUE} (?:\w+ )?(?:{_TEXT}|because)",
            rf"\b{_IT} {_ADVERB}(?:provid\w+|giv\w+|gave|offer\w*|deliver\w*|present\w*) (?:the reader |"
            rf"you |\w+ )?(?:with )?(?:an? |the )?(?:\w+(?:,|"
            rf" and) )?{_VIRTUE}(?:,? (?:and )?\w+)? (?:{_TEXT}|picture|view|information|insight)",
            rf"\b(?:this|the|my) (?:\w+ )?{_TEXT} {_ADVERB}(?:deserves|earns|avoids?|ensures?|makes? (?:it|"
            rf"sure)|helps? (?:the|you)|lets the|leaves? out (?:nothing|everything|all)|us(?:es|ing) only|"
            rf"relies only|focus(?:es|ed) on (?:exactly|what|only))",
            rf"\bi(?:'ve| have)? {_ADVERB}(?:made sure|ensured|checked|verified|took care|taken care|"
            rf"double-checked)\b",
            rf"\bi(?:'ve| have)? {_ADVERB}(?:kept|chose|chosen|focus(?:ed|sed)|included|wrote|written|"
            rf"structured|left out|used|avoided|limited|selected|organi[sz]ed|highlighted|mentioned|"
            rf"presented) .*\b(?:so that|so (?:you|it|the)|because|as (?:you|was|were)? ?(?:asked|"
            rf"requested|wanted|instructed)|in order to|to (?:make|keep|fit|meet|match|help|ensure|satisfy|"
            rf"give|be|avoid|stay)|easy|clear|only what|short|simple|concise)",
            rf"\b(?:all|every|each|none) (?:of )?(?:the |my |these |"
            rf"single )*{_FIGURES}\b.{{0,40}}?\b(?:from the (?:table|data|source)|straight|directly|"
            rf"correct|accurate|checked|verified|match\w*|supported|backed|true|faithful|invented|made up)",
            r"\b(?:nothing|everything) (?:\w+ ){0,3}(?:is|was|has been) (?:\w+ )?(?:invented|made up|"
            r"left out|missing|supported|covered|accurate|correct|included|as (?:you )?(?:asked|"
            r"requested))",
            rf"\b{_TEXT}\b.*,? (?:just |exactly )?as (?:you |it was |was )?(?:asked|requested|wanted|"
            rf"instructed)\b",
            r"^(?:in|with) (?:\w+ ){1,4}(?:sentences?|words?),? (?:just |exactly )?as (?:you )?(?:asked|"
            r"requested|wanted)",
            rf"\b(?:that|this) is (?:exactly |just |precisely |all )?(?:what|why) (?:you (?:asked|wanted|"
            rf"need\w*|requested)|this (?:\w+ )?{_TEXT}|(?:was|is) (?:asked|needed|wanted|requested))",
            r"\byou (?:asked|wanted|requested)\b.*\b(?:so (?:i|this)|and (?:that|this|these) (?:is|are)|"
            r"which is (?:what|why))",
            rf"\bby (?:\w+ing) .*, {_IT} (?:\w+ )?(?:gives?|provid\w+|help\w*|ensur\w+|make\w*|meets?|"
            rf"fulfil\w*|deliver\w*|stays?)",
            rf"\b(?:hope|believe|think|trust|confident|sure) (?:that )?(?:this|it|the {_TEXT}|"
            rf"my {_TEXT}) (?:\w+ )?(?:meets?|fulfil\w*|satisf\w+|answers?|addresses|is (?:\w+ )?{_VIRTUE}|"
            rf"is (?:exactly )?what)",
        )
    ),
    re.I,
)


def explicit_justification(answer: str) -> str:
    """The first sentence that argues for the answer itself: why it is good, or how it does what was asked."""
    for sentence in sentences(answer):
        # In windows that overlap: the patterns look far ahead, and a sentence may be as long as the answer.
        if any(_JUSTIFIES.search(sentence[at : at + _WINDOW]) for at in range(0, len(sentence), _WINDOW // 2)):
            return sentence
    return ""


CORE: tuple[Rubric, ...] = (
    Rubric(
        "Clarity and Relevance",
        "The answer is short and says what was asked, with nothing beside it. Every part serves the user's purpose, in "
        "plain sentences rather than long lists. Where a choice is asked for, it commits to one.",
        "Says clearly what was asked, and nothing else.",
        "core",
    ),
    Rubric(
        "Conversational Fluency and Engagement",
        "The answer reads as one side of a natural talk that goes somewhere, and not as a form that was filled in. It "
        "takes up what the user means, brings in what is apt, and asks back only where that helps.",
        "Reads like a natural talk that moves on.",
        "core",
    ),
    Rubric(
        "Objective and Grounded Interaction",
        "The answer keeps to the matter and to what is known, in an even tone. It does not comment on the request, on "
        "its structure or on itself, and it flatters nobody.",
        "Keeps to the facts; no flattery, no talk about itself.",
        "core",
    ),
)
"""What an answer is to be; a critic may weigh these against each other."""

PRESCRIPTIVE: tuple[Rubric, ...] = (
    Rubric(
        "Initial Praise",
        "The answer does not begin with a compliment to the user or to the question. It begins with the matter; a "
        "plain greeting or thanks is no compliment.",
        "Does not open with praise for the user or question.",
        "prescriptive",
        mandatory=True,
        check=opening_praise,
    ),
    Rubric(
        "Explicit Justification",
        "No sentence or clause argues why the answer is good, or explains how it does what was asked. To say what the "
        "answer is about is allowed; to praise it is not.",
        "Never argues why the answer itself is good.",
        "prescriptive",
        mandatory=True,
        check=explicit_justification,
    ),
)
"""What policies do to please a critic, and may not."""

RUBRICS: tuple[Rubric, ...] = (*CORE, *PRESCRIPTIVE)


def vetoes(answer: str) -> list[str]:
    """The names of the mandatory rubrics that a program finds broken."""
    return [rubric.name for rubric in RUBRICS if rubric.mandatory and rubric.violates(answer)]
