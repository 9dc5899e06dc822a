"""What the benchmarks of reinforcement learning share: runs that are made once, and tasks that a checkpoint tries."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openk2.core import Task
    from openk2.rl.episodes import Episode

ROOT = Path(__file__).parent.parent
Player = Callable[["Sequence[Task]", int, int, float], "list[list[Episode]]"]
"""Lets a checkpoint try tasks within so many tokens, each so often, at a temperature."""


def made(run: Path, command: Sequence[str], settings: dict[str, Any]) -> float:
    """Run a command of this project; its seconds, also if it ran before."""
    note = run / "seconds.json"
    sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    if note.exists():
        seconds, of = json.loads(note.read_text())
        if of != [*command, *sets]:
            sys.exit(f"{run} was made with other settings: choose another --work")
    else:
        print(f"{run} ...", file=sys.stderr, flush=True)
        begun = time.monotonic()
        call = [sys.executable, "-m", "openk2", *command, "--run", str(run), *sets]
        if subprocess.run(call, check=False, cwd=ROOT).returncode:
            sys.exit(f"{run} could not be made: what is wrong stands above")
        seconds = time.monotonic() - begun
        note.write_text(json.dumps([seconds, [*command, *sets]]))
    return float(seconds)


def player(model: Path, family: str, steps: int) -> Player:
    """Tries tasks of that family with at most so many turns."""
    from openk2.chat import Tokenizer
    from openk2.engine import Engine
    from openk2.model import load
    from openk2.rl.recipe import FamilyConfig, RolloutConfig
    from openk2.rl.rollouts import Rollouts, new_group

    config = RolloutConfig()
    engine = Engine(load(model), Tokenizer.load(model), max_batch=config.at_once, prefixes=config.at_once)

    def play(tasks: Sequence[Task], budget: int, k: int, temperature: float) -> list[list[Episode]]:
        groups = [new_group(i, family, task, k) for i, task in enumerate(tasks)]
        limits = FamilyConfig(prompts=1, budget=budget, turn_tokens=budget, steps=steps)
        Rollouts(engine, config, 0).finish(groups, temperature, {family: limits})
        return [group.episodes for group in groups]

    return play
