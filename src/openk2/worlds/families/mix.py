"""The frozen test mix: what share of each family's tasks belongs to which skill, and a digest over all that defines it.

The training mix differs on purpose: skills that are learned late get more episodes, and `pick`, the smallest choice of
a tool, is a drill that only training has. `digest` covers a family's test
proportions and whole test tasks of fixed seeds, so word stock, frames, schemas and code that makes tasks are all behind
it; a test compares it with the committed constant, and nothing about the held-out tasks can change unnoticed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from openk2.core import Split, compact_json
from openk2.core.families import get_family
from openk2.worlds.families.lexicon import Rng

FUNCTIONS = {
    "single": (8, 10),
    "choose": (18, 32),
    "types": (12, 14),
    "parallel": (9, 9),
    "chain2": (11, 12),
    "chain3": (9, 8),
    "chain4": (8, 9),
    "repair": (8, 6),
    "none": (8, 9),
    "ask": (9, 11),
    "pick": (0, 50),
}
NOTEBOOK = {
    "count": (10, 10),
    "mean": (10, 10),
    "sum": (10, 10),
    "minmax": (10, 10),
    "groupby": (14, 14),
    "filter": (14, 20),
    "topk": (8, 12),
    "correlation": (6, 6),
    "missing": (8, 8),
    "argmax": (10, 10),
}
SHELL = {
    "find": (9, 9),
    "count": (9, 9),
    "sum": (9, 9),
    "search": (9, 9),
    "rename": (9, 9),
    "edit": (10, 13),
    "create": (8, 8),
    "sort": (8, 12),
    "delete": (7, 7),
    "move": (6, 6),
    "copy": (5, 8),
    "largest": (5, 5),
    "lines": (6, 6),
}
MIX: dict[str, dict[str, tuple[int, int]]] = {"functions": FUNCTIONS, "notebook": NOTEBOOK, "shell": SHELL}
"""Family -> skill -> weight in (test, train)."""


def proportions(family: str, split: Split) -> Mapping[str, float]:
    """The share of every skill of a family; sums to 1."""
    column = 0 if split == "test" else 1
    weights = {skill: pair[column] for skill, pair in MIX[family].items() if pair[column]}
    total = sum(weights.values())
    return {skill: weight / total for skill, weight in weights.items()}


def draw_skill(rng: Rng, family: str, split: Split) -> str:
    """A skill of the family, drawn by the proportions of the split."""
    shares = proportions(family, split)
    return rng.choices(list(shares), list(shares.values()))[0]


DIGEST_SEEDS = range(200)
GENERATOR_SEEDS = range(40)


def digest(family: str) -> str:
    """The hash of a family's test mix: proportions and the tasks of the first seeds, without what only shows them."""
    maker = get_family(family)
    state = hashlib.sha256(compact_json(sorted(proportions(family, "test").items())).encode())
    for seed in DIGEST_SEEDS:
        task = maker.sample("test", seed)
        data = {key: value for key, value in task.data.items() if key != "intents"}
        state.update(compact_json([task.id, task.skill, task.request, data]).encode())
    return state.hexdigest()


def generator_digest(family: str) -> str:
    """The hash of a family's first training demonstrations: changes with the code that makes them."""
    maker = get_family(family)
    state = hashlib.sha256()
    for seed in GENERATOR_SEEDS:
        shown = maker.demonstrate(maker.sample("train", seed))
        tools = [tool.to_openai() for tool in shown.tools]
        state.update(compact_json([tools, [message.to_openai() for message in shown.messages]]).encode())
    return state.hexdigest()


FROZEN: dict[str, str] = {
    "functions": "c36777b9690f8279fc8c2010eed3aebf02815660d53a8c6da72170d6da845237",
    "notebook": "45aaf8745be5f61a6245d6d58186a3eed15fab6a862b3b81cf06a55bd0426495",
    "shell": "eb7813d1410400a70c7b092f15d65cee611c34960e57111546c1b91c92e175f1",
}
"""Family -> digest at the freeze."""
