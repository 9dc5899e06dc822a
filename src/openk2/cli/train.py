"""`openk2 train`: run a recipe, every stage of it, or go on where it stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from openk2.cli.common import DeviceOption, RecipeRunOption, given_path, set_option
from openk2.core.errors import Interrupted


def train(
    recipe: Annotated[
        Path,
        typer.Argument(
            metavar="RECIPE", help="A recipe, such as recipes/nano.toml or recipes/micro.toml.", parser=given_path
        ),
    ],
    run: RecipeRunOption = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="STAGE", help="Stop after this stage.", show_default=False)
    ] = None,
    overrides: Annotated[list[str] | None, set_option("sft.lr=0.004")] = None,
    device: DeviceOption = "cpu",
) -> None:
    """Train or fine-tune, every stage, or go on where it stopped.

    The same command again continues: finished stages are skipped, a stopped one goes on from its last checkpoint and
    ends in the same bytes.

    Each stage leaves a manifest.json in the run folder, the trained ones a metrics.jsonl. The stages are corpus,
    tokenizer, tokens, pretrain, base, episodes, sft, instruct.

    A recipe with `start = "nano"` or a model folder fine-tunes that model, with the stages tokenizer, episodes, sft,
    instruct. What it learns from are task families (episodes.train), JSON lines of conversations as
    `./k2 export --to openai` writes them (episodes.files), or both: recipes/tune.toml.
    """
    from openk2.train.recipe import load_recipe
    from openk2.train.stages import run_recipe

    loaded = load_recipe(recipe, overrides or [])
    folder = run or Path("runs") / loaded.name
    try:
        run_recipe(loaded, folder, until=until, device=device)
    except KeyboardInterrupt as e:
        raise Interrupted(f"interrupted: all that was finished is kept in {folder}") from e
