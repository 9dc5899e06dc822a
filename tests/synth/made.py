"""Domains, agents and tasks that the tests of synthetic data share: made once."""

from __future__ import annotations

from functools import cache

from openk2.synth.agents import Agent, agents_of
from openk2.synth.evolve import evolve
from openk2.synth.lexicon import sketches
from openk2.synth.tasks import TaskMaker
from openk2.worlds.apps.declaration import Domain
from openk2.worlds.apps.world import Apps, AppTask


@cache
def domains() -> dict[str, Domain]:
    return {sketch.name: evolve(sketch, 1) for sketch in sketches()[7::43]}


@cache
def apps() -> Apps:
    return Apps(domains().__getitem__)


@cache
def agents() -> list[Agent]:
    names = {domain.name: [tool.name for tool in domain.tools] for domain in domains().values()}
    return [agent for domain in domains().values() for agent in agents_of(domain, 2, 1, names)]


@cache
def tasks() -> list[tuple[AppTask, tuple[str, ...]]]:
    """Tasks and what their turns are."""
    made = []
    for number in range(60):
        maker = TaskMaker(apps(), agents()[number % len(agents())], number)
        task = maker.make()
        assert task is not None
        made.append((task, tuple(maker.kinds)))
    return made
