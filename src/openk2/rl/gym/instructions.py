"""Following instructions that a program can verify, and not claiming to have followed what was not.

One to four constraints stand behind a simple request; the score is the share of them that hold. The test split is held
out by its topics and keywords (the words of the lexicon's test split), and by phrasings of the requests and constraints
that training never has; numbers are drawn from the same ranges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from openk2.core import Split, Task, UserError, Verdict
from openk2.rl.gym.constraint_base import Subject, times
from openk2.rl.gym.constraint_claims import claims
from openk2.rl.gym.constraints import KINDS, compose, degenerate, read, restates
from openk2.rl.gym.question import QuestionFamily
from openk2.worlds.families import lexicon

MOST = 4
FALSE_CLAIM = 0.5
"""The penalty for saying that a constraint was kept that was not."""
_TOPICS = ("animal", "home", "tool", "clothing", "vehicle", "nature", "fruit")
_REQUESTS: dict[Split, tuple[str, ...]] = {
    "train": (
        "Write about {topic}.",
        "Tell me about {topic}.",
        "Say something about {topic}.",
        "Describe {topic}.",
        "What do you know about {topic}?",
        "Give me a few words on {topic}.",
        "I want to hear about {topic}.",
        "Explain {topic} to me.",
        "A short text about {topic}, please.",
        "Think of {topic} and write down what comes to your mind.",
        "I need some lines on {topic}.",
        "Can you tell me a bit about {topic}?",
        "How would you describe {topic} to a child?",
        "What comes to your mind with {topic}?",
        "Make a note on {topic}.",
        "Please write on {topic}.",
        "I am curious about {topic}.",
        "Let me know something of {topic}.",
    ),
    "test": ("I would like to read about {topic}.", "What can be said of {topic}?"),
}
_OFF_TOPIC = 0.5


class InstructionsFamily(QuestionFamily):
    """Requests with constraints that a program can verify.

    `option` fixes how many, from `"1"` to `"4"`, or names the kind of a single one, such as `"lower-case"`; without it
    the seed draws.

    Raises UserError for another option.
    """

    option = "N or KIND"
    skills: Sequence[str] = tuple(f"constraints-{n}" for n in range(1, MOST + 1))

    def __init__(self, option: str = "") -> None:
        self._count = int(option) if option in map(str, range(1, MOST + 1)) else None
        self._kinds = [kind for kind in KINDS if kind.replace(" ", "-") == option] if option else []
        if option and not self._count and not self._kinds:
            raise UserError(
                f"instructions: {option!r} is neither a number of constraints from 1 to {MOST} nor a kind: use one of "
                f"{', '.join(kind.replace(' ', '-') for kind in KINDS)}"
            )
        # Tasks of a kind are other tasks than the seed's own, those of a number are not.
        self.name = f"instructions:{option}" if self._kinds else "instructions"

    def sample(self, split: Split, seed: int) -> Task:
        rng = lexicon.Rng(f"{self.name} {split} {seed}")
        drawn = rng.randint(1, MOST)
        level = 1 if self._kinds else self._count or drawn
        noun = rng.choice([noun for name in _TOPICS for noun in lexicon.nouns(split, name)])
        topic = lexicon.plural(noun)
        subject = Subject(topic, rng.choice(_REQUESTS[split]).format(topic=topic))
        while True:
            constraints, gold = compose(rng, split, subject, level, self._kinds or tuple(KINDS))
            said = [subject.request, *(one.say(rng, split) for one in constraints)]
            if not restates(gold, said, constraints):
                break
        data: dict[str, Any] = {"level": level, "topic": [noun, topic], "gold": gold, "said": said}
        data["constraints"] = [one.dump() for one in constraints]
        skill = f"constraints-{level}"
        return Task(f"{self.name}/{split}/{seed}", self.name, skill, seed, " ".join(said), data, split)

    def gold(self, task: Task) -> str:
        return str(task.data["gold"])

    def check(self, task: Task, answer: str) -> Verdict:
        """Share of the constraints that hold, half of it off the topic, less a penalty for a false claim.

        An answer that says nothing, the same over and over, very much, or the request again, scores 0.
        """
        constraints = [read(raw) for raw in task.data["constraints"]]
        if problem := degenerate(answer) or restates(answer, task.data["said"], constraints):
            return Verdict(False, problem, 0.0)
        broken = [one.kind for one in constraints if not one.holds(answer)]
        score = 1 - len(broken) / len(constraints)
        reasons = [f"not kept: {', '.join(broken)}"] if broken else []
        on_topic = any(times(answer, word) for word in task.data["topic"])
        if not on_topic and all(one.names_topic for one in constraints):
            score *= _OFF_TOPIC
            reasons.append(f"not about {task.data['topic'][1]}")
        false = [claim for claim in claims(constraints, answer) if not claim.true]
        if false:
            reasons.append(f"false claim: {false[0].sentence[:100]!r}")
        return Verdict(
            not broken and score == 1,
            "; ".join(reasons) or "all constraints hold",
            score,
            {"false claim": FALSE_CLAIM} if false else {},
        )


def phrased(task: Task, split: Split) -> Task:
    """The task in the phrasings of another split, to tell new words and new phrasings apart."""
    rng = lexicon.Rng(f"phrased {split} {task.id}")
    constraints = [read(raw) for raw in task.data["constraints"]]
    request = rng.choice(_REQUESTS[split]).format(topic=task.data["topic"][1])
    said = [request, *(one.say(rng, split) for one in constraints)]
    return replace(task, request=" ".join(said), data={**task.data, "said": said})
