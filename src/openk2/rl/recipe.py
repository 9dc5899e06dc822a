"""Recipes of reinforcement learning: TOML in, checked settings out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from openk2.core import UserError
from openk2.core.families import get_family, identity, is_verified, own_file, trainable
from openk2.core.recipes import Section, parsed, read_recipe

Count = Annotated[int, Field(ge=1, le=10**9)]
Weight = Annotated[float, Field(ge=0, le=1000)]


class FamilyConfig(Section):
    """One family of the gym in this run."""

    prompts: Count = Field(description="tasks for each iteration")
    budget: Count = Field(default=512, description="tokens that the policy may say in one episode")
    over_budget: Weight = Field(default=0.2, description="penalty of an episode that the budget or a circle cut")
    steps: Count = Field(default=8, description="assistant turns")
    turn_tokens: Count = Field(default=256, description="tokens of one turn")
    fresh: float = Field(default=0.5, ge=0, le=1, description="share of the tasks that were never tried before")
    drop_after: Count = Field(default=64, description="a task whose reward was the same in so many samples is dropped")


class RolloutConfig(Section):
    """How episodes are sampled."""

    samples: int = Field(default=8, ge=2, le=1024, description="K, samples of each task")
    temperature: float = Field(default=1.0, gt=0, le=2)
    final_temperature: float = Field(default=1.0, gt=0, le=2)
    decay: Literal["linear", "cosine"] = "linear"
    grammar: bool = Field(default=False, description="hold calls to their schemas while sampling")
    at_once: Count = Field(default=256, description="episodes of one worker that run at the same time")
    iteration_tokens: Count = Field(
        default=10**6, description="an episode that said so many tokens goes on in the next iteration"
    )
    world_seconds: float = Field(default=30.0, gt=0, description="for each thing that a world does")
    episode_seconds: float = Field(default=600.0, gt=0)


class ObjectiveConfig(Section):
    """K2's objective and how it is optimised."""

    tau: float = Field(default=0.05, gt=0, le=100)
    updates: Count = Field(default=2, description="optimiser steps of one iteration, each on its part of the groups")
    micro_tokens: int = Field(default=4096, ge=16, le=10_000_000)
    lr: float = Field(gt=0, le=1)
    warmup_steps: int = Field(default=2, ge=0)
    weight_decay: float = Field(default=0.0, ge=0, le=1)
    momentum: float = Field(default=0.95, ge=0, lt=1)
    qk_clip_threshold: float = Field(default=100.0, gt=0)
    router_bias_rate: float = Field(default=0.0, ge=0, le=1)
    dtype: Literal["auto", "bfloat16", "float32"] = Field(
        default="auto", description="computed in; auto: what the machine is fastest in"
    )


class PtxConfig(Section):
    """The auxiliary loss on demonstrations, held back from the tasks that are rolled out."""

    weight: Weight = 0.0
    families: dict[str, Count] = Field(default={}, description="family -> demonstrations of each update")
    valid: Count = Field(default=100, description="demonstrations of each family for the held-out loss")


class CriticConfig(Section):
    """The policy as its own judge."""

    weight: Weight = Field(default=0.0, description="of its training pairs' loss; 0: the loop is open")
    pairs: Count = Field(default=64, description="training pairs of each update")
    opponents: Count = Field(default=3, description="comparisons of each answer that it has to judge")
    valid: int | None = Field(
        default=None,
        ge=0,
        le=100_000,
        description="held-out pairs; 0: not measured; default: 200 where the critic is taught or judges, else 0",
    )
    families: tuple[str, ...] = Field(default=(), description="whose rollouts teach it; default: all with a verifier")


class EvalConfig(Section):
    """What is measured on held-out tasks, greedily."""

    every: Count = 10
    n: Count = 100
    families: tuple[str, ...] = Field(default=(), description="default: those that are trained on")


class RLRecipe(Section):
    """A run: from a model folder to a model folder."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    seed: int = Field(default=0, ge=0, le=2**31)
    start: str = Field(min_length=1, description="nano or a model folder")
    workers: int = Field(default=2, ge=1, le=64, description="data-parallel processes of one thread each")
    iterations: Count
    families: dict[str, FamilyConfig] = Field(min_length=1)
    rollout: RolloutConfig = RolloutConfig()
    objective: ObjectiveConfig
    ptx: PtxConfig = PtxConfig()
    critic: CriticConfig = CriticConfig()
    eval: EvalConfig = EvalConfig()
    checkpoint_every: Count = Field(default=1, description="iterations")

    @model_validator(mode="after")
    def _fits(self) -> RLRecipe:
        trained = [*self.families, *self.ptx.families, *self.critic.families]
        try:
            for name in trained:
                trainable(name)
            for name in self.eval.families:
                get_family(name)
        except UserError as e:
            raise ValueError(str(e)) from e
        same: dict[tuple[Path | None, str], str] = {}
        for name in (*trained, *self.eval.families):
            # The loop tells families apart by their names.
            if (first := same.setdefault(identity(name), name)) != name:
                raise ValueError(f"families {first!r} and {name!r} are the same: write one of them everywhere")
        for name, family in self.families.items():
            if family.prompts < self.workers:
                raise ValueError(
                    f"families.{name}.prompts = {family.prompts} is less than workers = {self.workers}: change one"
                )
        if self.ptx.weight and not self.ptx.families:
            raise ValueError("ptx.weight is set and ptx.families is empty: name families, or set ptx.weight = 0")
        return self

    @property
    def own_files(self) -> dict[str, Path]:
        """The file of each family with one that the recipe names anywhere."""
        names = {*self.families, *self.ptx.families, *self.critic.families, *self.eval.families}
        return {name: path for name in sorted(names) if (path := own_file(name))}

    @property
    def critic_pairs(self) -> int:
        """How many held-out pairs the critic is measured on. To find them takes as long as some iterations."""
        if self.critic.valid is not None:
            return self.critic.valid
        judges = not all(is_verified(name) for name in self.families)
        return 200 if self.critic.weight or judges else 0

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.iterations * self.objective.updates

    def temperature(self, iteration: int) -> float:
        """The sampling temperature of an iteration (from 0), high at the start (K2 report, section 3.2.3)."""
        high, low = self.rollout.temperature, self.rollout.final_temperature
        progress = iteration / max(1, self.iterations - 1)
        if self.rollout.decay == "cosine":
            progress = 0.5 * (1 - math.cos(math.pi * progress))
        return high + (low - high) * progress


def load_rl_recipe(path: Path, overrides: Sequence[str] = ()) -> RLRecipe:
    """Read and check a recipe; `overrides` are `key.path=value`. Raises UserError as `read_recipe`, and for each
    unknown key, value of the wrong kind, unknown family, and numbers that cannot work together."""
    raw = read_recipe(path, overrides, "recipes/micro-rl.toml or recipes/nano-rl.toml")
    return parsed(raw, RLRecipe, path)
