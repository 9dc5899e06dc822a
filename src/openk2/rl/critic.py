"""The policy as its own critic: which of two answers is better, asked in both orders.

Self-critique (K2 report, section 3.2.2): answers that no code can verify are compared in pairs under core, prescriptive
and per-task rubrics; how often an answer wins is its reward, and one that breaks a mandatory rubric that a program can
check gets nothing. The loop is closed by training the critic on pairs whose truth is known: on-policy rollouts of
verifiable tasks, one that passed beside one that failed.

The critic says one token, A or B; its log-odds are read, not sampled. What it prefers for the place alone cancels when
the pair is shown in both orders.

Shapes: P prompts, T time, D hidden.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from openk2.chat import Tokenizer, render
from openk2.core import Message, Trajectory
from openk2.data.batches import IGNORED
from openk2.model import Transformer
from openk2.rl.episodes import Group
from openk2.rl.rubrics import CORE, PRESCRIPTIVE, Rubric, task_rubric, vetoes

SYSTEM = "You compare two answers and say which one is better: A or B."
SOLVED = task_rubric("The answer does what was asked, and what it says is right.", "It is right.")
"""The rubric of tasks that a program verifies."""
_LONG_CONTEXT = 8192
_MICRO_TOKENS = 16384
"""Of prompts that are computed at once."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one request, of which `better` is. `request` and both are text."""

    request: str
    rubric: str
    better: str
    worse: str


def shown(trajectory: Trajectory) -> str:
    """What a critic sees of a rollout: calls with their results, and what was said."""
    lines: list[str] = []
    for message in trajectory.messages:
        if message.role == "assistant":
            lines += [message.content] if message.content else []
            lines += [f"{call.name}({call.arguments})" for call in message.tool_calls]
        elif message.role == "tool":
            lines.append(f"-> {message.content}")
        elif message.role == "user" and lines:
            lines.append(f"User: {message.content}")
    return "\n".join(lines)


class Critic:
    """Compares with a model of that context; where it is small, by the rubrics' short forms."""

    def __init__(self, tokenizer: Tokenizer, context: int) -> None:
        self._tokenizer, self._context = tokenizer, context
        self.choices = [tokenizer.encode(letter)[0] for letter in "AB"]

    def prompt(self, request: str, rubric: Rubric, a: str, b: str) -> list[int]:
        """The ids after which A or B is said."""
        rubrics = [*CORE, *PRESCRIPTIVE, rubric]
        criteria = "\n".join(f"- {one.short if self._context < _LONG_CONTEXT else one.text}" for one in rubrics)

        def asked(request: str, a: str, b: str) -> list[int]:
            text = f"What counts:\n{criteria}\n\nAsked:\n{request}\n\nA:\n{a}\n\nB:\n{b}\n\nWhich is better?"
            messages = [Message("system", SYSTEM), Message("user", text)]
            return render(messages, tokenizer=self._tokenizer, add_generation_prompt=True).ids

        ids = asked(request, a, b)
        if len(ids) < self._context:
            return ids
        room = self._context - 1 - len(asked("", "", ""))
        # Pieces of text may have some more ids than the text as a whole.
        return asked(*self._cut([request, a, b], room))[-self._context + 1 :]

    def _cut(self, texts: Sequence[str], room: int) -> list[str]:
        """The ends of the texts, together at most `room` ids: short ones whole, the others equally long."""
        ids = [self._tokenizer.encode(text) for text in texts]
        kept = [0] * len(ids)
        for left, i in zip(range(len(ids), 0, -1), sorted(range(len(ids)), key=lambda i: len(ids[i])), strict=True):
            kept[i] = min(len(ids[i]), max(0, room - sum(kept)) // left)
        return [
            text if keep == len(one) else self._tokenizer.decode(one[len(one) - keep :])
            for text, one, keep in zip(texts, ids, kept, strict=True)
        ]

    @torch.no_grad()
    def margins(self, model: Transformer, pairs: Sequence[tuple[str, Rubric, str, str]]) -> list[float]:
        """For each (request, rubric, a, b) how much rather a than b: the log-odds, the mean over both orders."""
        prompts = [self.prompt(*pair) for pair in pairs]
        prompts += [self.prompt(request, rubric, b, a) for request, rubric, a, b in pairs]
        odds = self._log_odds(model, prompts)
        half = len(pairs)
        return [(odds[i] - odds[half + i]) / 2 for i in range(half)]

    def _log_odds(self, model: Transformer, prompts: Sequence[Sequence[int]]) -> list[float]:
        """log p(A) - log p(B) behind each prompt."""
        odds = [0.0] * len(prompts)
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        while order:
            width = len(prompts[order[-1]])
            chosen = order[-max(1, _MICRO_TOKENS // width) :]
            del order[-len(chosen) :]
            ids_PT = torch.zeros(len(chosen), width, dtype=torch.long)
            for row, i in enumerate(chosen):
                ids_PT[row, : len(prompts[i])] = torch.tensor(prompts[i])
            last_P = torch.tensor([len(prompts[i]) - 1 for i in chosen])
            x_PD = model.hidden(ids_PT.to(model.lm_head.weight.device))[torch.arange(len(chosen)), last_P]
            logits_P2: Tensor = (x_PD @ model.lm_head.weight[self.choices].T).float()
            for i, (a, b) in zip(chosen, logits_P2.tolist(), strict=True):
                odds[i] = a - b
        return odds

    def rewards(
        self, model: Transformer, request: str, rubric: Rubric, answers: Sequence[str], opponents: int, seed: str
    ) -> list[float]:
        """The reward of each answer in [0, 1]: how probably it wins, the mean over its `opponents`; 0.5 without any.

        A mandatory rubric that a program can check vetoes: who breaks it has 0.
        """
        rng = random.Random(f"critic {seed}")
        pairs: dict[tuple[int, int], float] = {}
        for i in range(len(answers)):
            others = [j for j in range(len(answers)) if j != i]
            for j in rng.sample(others, min(opponents, len(others))):
                pairs[min(i, j), max(i, j)] = 0.0
        margins = self.margins(model, [(request, rubric, answers[i], answers[j]) for i, j in pairs])
        won: list[list[float]] = [[] for _ in answers]
        for (i, j), margin in zip(pairs, margins, strict=True):
            chance = torch.tensor(margin).sigmoid().item()
            won[i].append(chance)
            won[j].append(1 - chance)
        means = [sum(w) / len(w) if w else 0.5 for w in won]
        return [0.0 if vetoes(answer) else mean for answer, mean in zip(answers, means, strict=True)]

    def accuracy(self, model: Transformer, pairs: Sequence[Pair]) -> list[bool]:
        """Of each pair whether the better one is preferred."""
        asked = [(pair.request, task_rubric(pair.rubric), pair.better, pair.worse) for pair in pairs]
        return [margin > 0 for margin in self.margins(model, asked)]

    def lessons(self, pairs: Sequence[Pair]) -> list[tuple[list[int], list[int]]]:
        """Ids and targets to learn from: each pair in both orders, only the last id is a target."""
        found = []
        for pair in pairs:
            rubric = task_rubric(pair.rubric)
            for a, b, choice in ((pair.better, pair.worse, 0), (pair.worse, pair.better, 1)):
                ids = self.prompt(pair.request, rubric, a, b)
                found.append((ids, [IGNORED] * (len(ids) - 1) + [self.choices[choice]]))
        return found


def pairs_of(groups: Sequence[Group], seed: str) -> list[Pair]:
    """For each passed episode of a verified group a failed one of nearly the same length.

    Of the pairs of one family and skill, those in which the better one is longer are as many as those in which it is
    shorter, so that length tells nothing, not even to who knows what kind of task it is; where both are as long it
    cannot.
    """
    kinds: dict[tuple[str, str], tuple[list[Pair], list[Pair], list[Pair]]] = {}
    for group in groups:
        judged = [e for e in group.judged if e.trajectory is not None and e.trajectory.verdict.passed is not None]
        passed = [shown(e.trajectory) for e in judged if e.passed and e.trajectory is not None]
        failed = [shown(e.trajectory) for e in judged if not e.passed and e.trajectory is not None]
        shorter, alike, longer = kinds.setdefault((group.episodes[0].family, group.task.skill), ([], [], []))
        for better in passed:
            if failed:
                worse = min(failed, key=lambda text: abs(len(text) - len(better)))
                failed.remove(worse)
                if worse != better:
                    pair = Pair(group.task.request, SOLVED.short, better, worse)
                    gap = len(better) - len(worse)
                    (longer if gap > 0 else shorter if gap < 0 else alike).append(pair)
    rng = random.Random(f"pairs {seed}")
    chosen: list[Pair] = []
    for _, (shorter, alike, longer) in sorted(kinds.items()):
        count = min(len(longer), len(shorter))
        chosen += rng.sample(longer, count) + rng.sample(shorter, count) + alike
    rng.shuffle(chosen)
    return chosen


def report_pairs(count: int) -> list[Pair]:
    """Pairs of reports whose order the hidden program knows, to measure a critic that was never taught with it.

    The better one is the longer one in every second pair. Nothing here may reach the training: the truth of reports is
    only for measuring (`rl.gym.reports`).
    """
    from openk2.rl.gym.reports import ReportsFamily, hidden, variants

    family = ReportsFamily()
    rng = random.Random("report pairs")
    found: list[Pair] = []
    seed = 0
    while len(found) < count:
        task = family.sample("test", seed)
        graded = [(hidden(task, text).quality, text) for text in dict.fromkeys(variants(task, seed))]
        longer = len(found) % 2 == 0
        chosen = [(a, b) for a in graded for b in graded if a[0] > b[0] and (len(a[1]) > len(b[1])) == longer]
        if chosen:
            (_, better), (_, worse) = rng.choice(chosen)
            found.append(Pair(task.request, str(task.data["rubric"]), better, worse))
        seed += 1
    return found


def right_by_length(pairs: Sequence[Pair]) -> int:
    """How many a critic that prefers the longer answer would have right; half of those that are as long."""
    gaps = [len(pair.better) - len(pair.worse) for pair in pairs]
    return sum(gap > 0 for gap in gaps) + sum(gap == 0 for gap in gaps) // 2
