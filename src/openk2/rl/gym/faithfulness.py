"""Answering from a text and saying nothing that it does not say.

A short made-up text, and one to four questions. Where the text has no answer, the right thing is to say so. The score
is the share of what was asked that is told, times the share of the claiming sentences that the text supports, times how
much of what is told was asked for: who copies the whole text has told everything and little of it was wanted. The test
split is held out by its names and words (the lexicon's test split) and by its wordings of facts and questions; numbers,
dates and days of the week are drawn from the same ranges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

from openk2.core import Split, Task, Verdict
from openk2.rl.gym.faithfulness_facts import Fact, asked, made_text, stated, unknown
from openk2.rl.gym.faithfulness_flags import Flag, Pair, flags
from openk2.rl.gym.faithfulness_judge import JudgedFlags, judged_flags
from openk2.rl.gym.question import QuestionFamily
from openk2.worlds.families import lexicon

__all__ = ["Fact", "FaithfulnessFamily", "Flag", "JudgedFlags", "flags", "judged_flags"]

MOST = 4
_UNANSWERABLE = 0.15
"""The share of the questions that the text does not answer."""
_LETTERS = 6_000
_WORDS = 30
"""So many words, and as many again for each question, cost nothing."""
_MORE = 1
"""So many facts beyond those asked for may be told: who copies the text has not answered."""


class FaithfulnessFamily(QuestionFamily):
    """Questions about a text. The level is the number of questions."""

    name = "faithfulness"
    skills: Sequence[str] = ("unanswerable", *(f"facts-{n}" for n in range(1, MOST + 1)))
    system = "Answer from the text alone, in short sentences. If the text does not say it, say so."

    def sample(self, split: Split, seed: int) -> Task:
        rng = lexicon.Rng(f"{self.name} {split} {seed}")
        text = made_text(rng, split)
        level = rng.randint(1, MOST)
        known = [(fact.subject, fact.attribute) for fact in text.facts]
        pairs = rng.sample(known, min(level, len(known)))
        pairs = [rng.choice(text.missing) if rng.random() < _UNANSWERABLE else pair for pair in pairs]
        pairs = list(dict.fromkeys(pairs))
        questions = " ".join(asked(rng, split, *pair) for pair in pairs)
        facts = {(fact.subject, fact.attribute): fact for fact in text.facts}
        gold = [stated(rng, split, facts[pair]) if pair in facts else unknown(*pair) for pair in pairs]
        open_question = any(pair not in facts for pair in pairs)
        data: dict[str, Any] = {
            "level": len(pairs),
            "facts": [list(astuple(fact)) for fact in text.facts],
            "asked": [list(pair) for pair in pairs],
            "gold": " ".join(gold),
        }
        skill = "unanswerable" if open_question else f"facts-{len(pairs)}"
        request = f"{' '.join(text.sentences)}\n\n{questions}"
        return Task(f"{self.name}/{split}/{seed}", self.name, skill, seed, request, data, split)

    def gold(self, task: Task) -> str:
        return str(task.data["gold"])

    def check(self, task: Task, answer: str) -> Verdict:
        """Passed if all that was asked is told, hardly more, and nothing unsupported; without end it scores 0."""
        facts = [Fact(*raw) for raw in task.data["facts"]]
        wanted: list[Pair] = [(subject, attribute) for subject, attribute in task.data["asked"]]
        if not answer[:_LETTERS].strip():
            return Verdict(False, "there is no answer", 0.0)
        if len(answer) > _LETTERS:
            return Verdict(False, f"the answer has more than {_LETTERS} letters", 0.0)
        found = flags(facts, answer, wanted)
        told = {(facts[n].subject, facts[n].attribute) for flag in found if flag.supported for n in flag.told}
        told |= {pair for flag in found for pair in flag.missing}
        right = [pair for pair in wanted if pair in told]
        if not right:
            return Verdict(False, _why(found) or "nothing that was asked is told", 0.0)
        supported = sum(flag.supported for flag in found) / len(found)
        allowed = _WORDS * (1 + len(wanted))
        relevant = len(right) / len(told) * min(1.0, allowed / len(answer.split()))
        score = len(right) / len(wanted) * supported * relevant
        passed = len(right) == len(wanted) and supported == 1 and len(told) <= len(wanted) + _MORE
        reasons = [
            f"{len(right)} of {len(wanted)} told",
            _why(found),
            "" if relevant == 1 else "more is told than asked",
        ]
        return Verdict(passed, "; ".join(filter(None, reasons)), score)


def _why(found: Sequence[Flag]) -> str:
    return next((f"{flag.sentence[:100]!r}: {flag.why}" for flag in found if not flag.supported), "")
