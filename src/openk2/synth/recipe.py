"""Recipes of the data factory: one TOML file that says everything a run depends on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from openk2.core import UserError
from openk2.core.recipes import Section, parsed, read_recipe
from openk2.synth.personas import StyleName

PLANNER = "planner"


class AskConfig(Section):
    """How models are asked that invent domains, play users and judge. `seconds` and `tokens` are for one answer."""

    temperature: float = Field(default=0.7, ge=0, le=2)
    tokens: int = Field(default=8192, ge=1)
    seconds: float = Field(default=300.0, gt=0)
    concurrency: int = Field(default=32, ge=1, le=1000)


_BY_MODEL: tuple[Literal["domains", "users", "judge"], ...] = ("domains", "users", "judge")
SAME = "same"
"""Stands for the model that tries the tasks."""


class DomainsConfig(Section):
    """How many domains programs make, how many a model invents besides, and at most how many tools each may have.
    `held_out = "left out"` keeps to those that the task family `apps` does not test on."""

    count: int = Field(default=10_000, ge=0)
    held_out: Literal["used", "left out"] = "used"
    tools: int = Field(default=200, ge=4, le=1000)
    by_model: int = Field(default=0, ge=0, le=100_000)
    model: str = SAME


class UsersConfig(Section):
    """Who plays the users: programs that say what the task says, in one of these `styles`, or a model."""

    by_model: bool = False
    model: str = SAME
    styles: tuple[StyleName, ...] = Field(default=("plain",), min_length=1)


class AgentsConfig(Section):
    """Agents of each domain: how many, with how many tools (as far as there are so many about the same things), and
    how many of another domain at most besides."""

    per_domain: int = Field(default=3, ge=1, le=100)
    tools: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(le=100)]] = (12, 24)
    distractors: int = Field(default=8, ge=0, le=50)

    @field_validator("tools")
    @classmethod
    def _in_order(cls, tools: tuple[int, int]) -> tuple[int, int]:
        if tools[0] > tools[1]:
            raise ValueError(f"the least, {tools[0]}, is more than the most, {tools[1]}")
        return tools


class TasksConfig(Section):
    """How many tasks, of how many things that a user asks for at most, and how many of one agent come in a row: a
    domain that is loaded is used."""

    count: int = Field(default=1000, ge=1, le=10**9)
    turns: int = Field(default=4, ge=1, le=4)
    in_a_row: int = Field(default=25, ge=1)
    per_shard: int = Field(default=500, ge=1, le=10_000)


class AttemptsConfig(Section):
    """Who tries, how often, and within which limits. `model` is `planner` or what `--model` means elsewhere; prices are
    for a million tokens, in dollars."""

    model: str = PLANNER
    per_task: int = Field(default=1, ge=1, le=100)
    temperature: float = Field(default=1.0, ge=0, le=2)
    steps: int = Field(default=60, ge=1)
    tokens: int = Field(default=1024, ge=1)
    seconds: float = Field(default=600.0, gt=0)
    concurrency: int = Field(default=512, ge=1, le=10_000)
    prompt_price: float = Field(default=0.0, ge=0)
    completion_price: float = Field(default=0.0, ge=0)


class JudgeConfig(Section):
    """A model that judges the manner of what has passed; none if `model` is empty. What it grades below `least`, from 1
    to 5, is dropped."""

    model: str = ""
    least: float = Field(default=4.0, ge=1, le=5)


class FilterConfig(Section):
    """What is kept of what has passed. `against` names folders with benchmark texts, beside OPENK2_DATA if that is
    set: a trajectory that shares 13 words in a row with one of them is dropped."""

    same_calls: int = Field(default=1, ge=1, description="trajectories with the same tools and calls that are kept")
    against: tuple[str, ...] = ()


class RealConfig(Section):
    """The share of the tasks that are small programming jobs on a real machine (`synth.real`), in a sandbox."""

    share: float = Field(default=0.0, ge=0, le=1)


class SynthRecipe(Section):
    """A run of the factory."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    seed: int = 0
    domains: DomainsConfig = Field(default_factory=DomainsConfig)
    agents: AgentsConfig = Field(default_factory=AgentsConfig)
    tasks: TasksConfig = Field(default_factory=TasksConfig)
    attempts: AttemptsConfig = Field(default_factory=AttemptsConfig)
    real: RealConfig = Field(default_factory=RealConfig)
    filter: FilterConfig = Field(default_factory=FilterConfig)
    users: UsersConfig = Field(default_factory=UsersConfig)
    judge: JudgeConfig = Field(default_factory=JudgeConfig)
    ask: AskConfig = Field(default_factory=AskConfig)

    @property
    def tried_by_program(self) -> bool:
        return self.attempts.model == PLANNER

    @property
    def tried_without_model(self) -> bool:
        """Whether nothing of an attempt costs anything."""
        return self.tried_by_program and not self.users.by_model

    def check_models(self) -> None:
        """Raises UserError if a stage is to have a model and none is named."""
        wanted = {"domains": self.domains.by_model, "users": self.users.by_model, "judge": self.judge.model}
        for section in _BY_MODEL:
            if wanted[section]:
                self.model_of(section)

    def model_of(self, section: Literal["domains", "users", "judge"]) -> str:
        """The model of a stage. Raises UserError if it is that of the attempts, and they need none."""
        named: str = getattr(self, section).model
        if named != SAME:
            return named
        if self.tried_by_program:
            raise UserError(
                f"{section}.model is that of the attempts, and they are made by a program: give --model, or name one "
                f"as {section}.model"
            )
        return self.attempts.model


def load_synth_recipe(path: Path, overrides: Sequence[str] = ()) -> SynthRecipe:
    """Read and check a recipe; `overrides` are `key.path=value`. Raises UserError naming the file and what is wrong."""
    raw = read_recipe(path, overrides, "recipes/synth-offline.toml")
    return parsed(raw, SynthRecipe, path)
