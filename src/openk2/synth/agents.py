"""Agents: who answers the users of a domain, with which tools and in which words of the system message."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from openk2.worlds.apps.declaration import Domain

_OPENINGS = (
    'You are the assistant in the app "{title}".',
    'You work at the desk of "{title}" and help its users with the tools.',
    'You are an agent for "{title}". Use the tools to do what is asked.',
    'As the operations assistant of "{title}" you carry out requests.',
    "{title}: you answer requests and act through the tools.",
)
_RULES = (
    "Ask if something that you need was not told.",
    "Look things up before you change them.",
    "Never guess an id.",
    "Say plainly what cannot be done, and why.",
    "Do only what is asked for.",
    "Answer in one or two sentences.",
)
_TRIES = 20
_WITH_DISTRACTORS = 0.6


@dataclass(frozen=True, slots=True)
class Agent:
    """A system message and a set of tools, some of them of other domains."""

    name: str
    domain: str
    opening: str
    rules: tuple[str, ...]
    tools: tuple[str, ...]
    distractors: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def system(self, domain: Domain, today: str, user: str, policy: Sequence[str]) -> str:
        """The system message of a session."""
        lines = [self.opening.format(title=domain.title), f"Today is {today}."]
        if user:
            singular = domain.entities[str(domain.users)].singular.replace("_", " ")
            lines.append(f"You talk to the {singular} {user}.")
        lines += self.rules
        if policy or domain.policy:
            lines.append("Policy: " + " ".join((*domain.policy, *policy)))
        return " ".join(lines)


def agents_of(
    domain: Domain,
    count: int,
    seed: int,
    others: Mapping[str, Sequence[str]],
    *,
    tools: tuple[int, int] = (12, 24),
    distractors: int = 8,
) -> list[Agent]:
    """Agents of a domain, each with a part of its tools that belongs together: so many at least and at most. Most have
    some of another domain besides, at most `distractors`; `others` are the names of their tools by domain."""
    rng = random.Random(f"agents {seed} {domain.name}")
    agents = []
    for number in range(count):
        # Of some entities all tools were doubles.
        chosen = next(filter(None, (_tool_set(domain, rng, tools) for _ in range(_TRIES))), ())
        strange: dict[str, tuple[str, ...]] = {}
        if others and distractors and rng.random() < _WITH_DISTRACTORS:
            other = rng.choice(sorted(others))
            if other != domain.name:
                extra = [name for name in others[other] if name not in domain.by_name]
                strange[other] = tuple(
                    sorted(rng.sample(extra, min(len(extra), rng.randint(min(2, distractors), distractors))))
                )
        agents.append(
            Agent(
                name=f"{domain.name}-{number}",
                domain=domain.name,
                opening=rng.choice(_OPENINGS),
                rules=tuple(rng.sample(_RULES, rng.randint(1, 4))),
                tools=chosen,
                distractors=strange,
            )
        )
    return agents


def _tool_set(domain: Domain, rng: random.Random, bounds: tuple[int, int]) -> tuple[str, ...]:
    """Tools around some of the entities: what changes them, and what finds them."""
    chosen = rng.sample(sorted(domain.entities), min(len(domain.entities), rng.randint(2, 4)))
    about = {
        tool.name
        for tool in domain.tools
        if tool.returns.rows in chosen
        or any(parameter.ref in chosen for parameter in tool.parameters.values())
        or any(effect.create in chosen for effect in tool.effects)
    }
    names = sorted(about)
    rng.shuffle(names)
    writes = [name for name in names if domain.by_name[name].writes]
    finders = [name for name in names if domain.by_name[name].returns.rows]
    others = [name for name in names if name not in writes and name not in finders]
    size = rng.randint(*bounds)
    found = max(1, size // 3)
    tools = writes[: size // 2] + finders[:found] + others[: size - size // 2 - found]
    return tuple(sorted(set(tools)))
