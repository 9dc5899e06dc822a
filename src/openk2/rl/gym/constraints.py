"""All kinds of verifiable constraints, how several are set together, and what no answer gets anything for."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from openk2.core import Split
from openk2.rl.gym.constraint_base import Constraint, Subject, bare, lines, sentences, words
from openk2.rl.gym.constraint_counts import COUNTS
from openk2.rl.gym.constraint_draft import Draft
from openk2.rl.gym.constraint_forms import FORMS
from openk2.rl.gym.constraint_words import WORDS
from openk2.worlds.families.lexicon import Rng

KINDS: dict[str, type[Constraint]] = {kind.kind: kind for kind in (*COUNTS, *WORDS, *FORMS)}
"""By name."""
LONGEST = 400
"""So many words no constraint asks for."""
_LETTERS = 8_000
_REPEATED, _FROM = 0.4, 8
_PROPOSALS = 25
_RESTATED, _FEWEST_RESTATED = 0.75, 3
"""Of a sentence, so much within a little more than its length is the sentence again."""


def read(raw: Mapping[str, Any]) -> Constraint:
    """A constraint as `Constraint.dump` wrote it."""
    return KINDS[raw["kind"]](**{name: value for name, value in raw.items() if name != "kind"})


def compose(
    rng: Rng, split: Split, subject: Subject, count: int, kinds: Sequence[str] = tuple(KINDS)
) -> tuple[list[Constraint], str]:
    """So many constraints of these kinds that do not contradict each other, and an answer that keeps to all of them."""
    while True:
        chosen: list[Constraint] = []
        for name in rng.sample(kinds, len(kinds)):
            one = KINDS[name].draw(rng, split, subject)
            if not any(one.contradicts(other) for other in chosen):
                chosen.append(one)
            if len(chosen) == count:
                break
        if len(chosen) == count and (answer := satisfied(rng, chosen, subject)):
            return chosen, answer


def satisfied(rng: Rng, constraints: Sequence[Constraint], subject: Subject) -> str:
    """An answer that keeps to all constraints and says something; empty if none was found."""
    for _ in range(_PROPOSALS):
        draft = Draft(rng, subject.topic, subject.request)
        for constraint in constraints:
            constraint.satisfy(draft)
        try:
            answer = draft.write()
        except LookupError:
            continue
        if all(one.holds(answer) for one in constraints) and not degenerate(answer):
            return answer
    return ""


def degenerate(answer: str) -> str:
    """Why an answer is none, whatever it keeps to; empty if it is one."""
    if not any(map(str.isalnum, answer[:_LETTERS])):
        return "there is no answer"
    if len(answer) > _LETTERS or len(found := words(answer)) > LONGEST:
        return f"the answer has more than {LONGEST} words, which nothing asks for"
    spoken = [bare(word) for word in found]
    word, often = Counter(spoken).most_common(1)[0]
    if len(found) >= _FROM and often > _REPEATED * len(found):
        return f"{often} of the {len(found)} words are {word[:40]!r}"
    if len(found) >= 2 * _FROM and len(set(spoken)) < 0.25 * len(found):
        return f"the {len(found)} words are the same {len(set(spoken))} over and over"
    for parts in (lines(answer), sentences(answer)):
        said = {" ".join(map(bare, words(part))) for part in parts}
        if len(parts) >= 3 and len(said) <= len(parts) // 2:
            return "the same is said over and over"
    return ""


def restates(answer: str, said: Sequence[str], constraints: Sequence[Constraint]) -> str:
    """Which sentence of the request stands in the answer again, in nearly the same words; empty if none does.

    Of `said` the first is what the constraints are about. An answer in which the constraints are copied keeps to many
    of them by that alone: the words that it must use are in them.
    """
    repeated = any(one.kind == "repeat" for one in constraints)
    spoken = [bare(word) for word in words(answer)]
    for sentence in said[1:] if repeated else said:
        # Who has to repeat the request quotes it.
        own = sentence.replace(said[0], "") if repeated else sentence
        needed = Counter(bare(word) for word in words(own))
        count = needed.total()
        window = math.ceil(count / _RESTATED) + len(words(sentence)) - len(words(own))
        for start in range(max(1, len(spoken) - window + 1)):
            if (needed & Counter(spoken[start : start + window])).total() >= max(_FEWEST_RESTATED, _RESTATED * count):
                return f"the request stands in it again: {sentence[:60]!r}"
    return ""
