"""A run of reinforcement learning: from a recipe and a model folder to a model folder.

RUN/rl/                 metrics.jsonl, timings.jsonl, examples.json, checkpoints/, model/ (fp32 weights)
RUN/instruct/           the model, as others load it (Hugging Face names, bf16, with the tokenizer)
"""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

from openk2.core.errors import Interrupted
from openk2.core.progress import Bar, ConsoleReporter, Reporter
from openk2.core.runs import Manifest, locked, sha256_file, sha256_text
from openk2.rl.recipe import RLRecipe
from openk2.train.stages import Stage, check_training_device, export_stage, run_stage, start_folder, weights_of

BEGUN_FROM = ("weights", "own_families")
"""What a run's record says beside its recipe."""
_WITHOUT_EFFECT = {"checkpoint_every"}


def run_rl(recipe: RLRecipe, run: Path, *, device: str = "cpu", reporter: Reporter | None = None) -> dict[str, Any]:
    """Run a recipe in the folder `run`, or go on where it stopped; the results of the stage.

    Raises UserError for a folder that holds another recipe's results, for a start that is no model, and for whatever
    goes wrong in the run; Interrupted on Ctrl-C, after the iteration that was under way has been saved.
    """
    reporter = reporter or ConsoleReporter()
    check_training_device(device, recipe.workers)
    start = start_folder(recipe.start, recipe.name).resolve()
    config = config_of(recipe) | begun_from(recipe, start)
    with locked(run, "choose another with --run"):
        done: dict[str, Manifest] = {}
        make = partial(_train, recipe, start, config, device, reporter)
        try:
            done["rl"] = run_stage(Stage("rl", config, (), make, ("model/*",), ("checkpoints",)), run, done, reporter)
            run_stage(export_stage("instruct", recipe.name, run / "rl", start, ("rl",)), run, done, reporter)
        except KeyboardInterrupt:
            if done or (run / "rl" / "checkpoints").exists():
                raise Interrupted(f"interrupted: nothing is lost in {run}, the same command goes on") from None
            # Then the folder is still open to another recipe.
            (run / "rl" / "begun.json").unlink(missing_ok=True)
            raise Interrupted(f"interrupted before anything was measured, so nothing is kept in {run}") from None
    return done["rl"].results


def config_of(recipe: RLRecipe) -> dict[str, Any]:
    """What of a recipe makes its results, with every default as it is meant."""
    meant = recipe.model_copy(update={"critic": recipe.critic.model_copy(update={"valid": recipe.critic_pairs})})
    return meant.model_dump(mode="json", exclude=_WITHOUT_EFFECT)


def begun_from(recipe: RLRecipe, start: Path) -> dict[str, Any]:
    """The hashes of what a run's results depend on beside its recipe, by the names in `BEGUN_FROM`."""
    own = {name: sha256_file(path) for name, path in recipe.own_files.items()}
    # A run without families of its own says nothing of them.
    return {"weights": weights_of(start)} | ({"own_families": own} if own else {})


def _train(
    recipe: RLRecipe, start: Path, config: dict[str, Any], device: str, reporter: Reporter, folder: Path, bar: Bar
) -> dict[str, Any]:
    from openk2.rl.worker import RLJob
    from openk2.train.launch import SCRATCH_PREFIX, train_in_workers

    begun, at, success, reward = False, 0, "", ""

    def on_event(event: dict[str, Any]) -> None:
        nonlocal begun, at, success, reward
        match event["event"]:
            case "start":
                if event["resumed"]:
                    reporter.note(f"rl: goes on from iteration {event['iteration']} of {event['iterations']}")
                else:
                    reporter.note(f"rl: computes in {event['dtype']}")
                at = event["iteration"]
                bar(at, recipe.iterations)
            case "begun":
                begun = True
            case "progress":
                bar(at, recipe.iterations, f"{reward} {event['text']}".strip())
            case "note":
                reporter.note(f"rl: {event['text']}")
            case "iteration":
                if event["success"] is not None:
                    success = f" held out {event['success']:.1%}"
                reward = "" if event["reward"] is None else f"reward {event['reward']:.3f}"
                speed = f"{event['episodes_per_second']:.1f} episodes/s"
                at = event["iteration"]
                bar(at, recipe.iterations, f"{reward}{success} {speed}")
            case "stopping":
                if not begun:
                    # Nothing is saved yet, and to measure the start may take minutes.
                    raise KeyboardInterrupt
                reporter.note("rl: stopping after this iteration ...")

    where = folder.resolve()
    end = train_in_workers(
        RLJob(
            folder=where,
            workers=recipe.workers,
            device=device,
            identity=sha256_text(json.dumps(config, sort_keys=True)),
            # The process number keeps a dying worker of a killed run from meeting the new ones.
            scratch=where / f"{SCRATCH_PREFIX}{os.getpid()}",
            recipe=recipe,
            start_from=start,
        ),
        on_event,
        "openk2.rl.worker",
    )
    return {"iterations": end["iteration"]}
