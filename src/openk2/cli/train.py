"""`openk2 train`: run a recipe, every stage of it, or go on where it stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe, such as recipes/nano.toml or recipes/micro.toml.")],
    run: Annotated[
        Path | None, typer.Option("--run", help="The run folder. Default: runs/NAME, by the recipe's name.")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", help="Stop after this stage.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe key, e.g. sft.lr=0.004.")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, mps. Not yet run on a GPU.")] = "cpu",
) -> None:
    """Train from scratch: corpus, tokenizer, pre-training, episodes, fine-tuning.

    The same command again continues: finished stages are skipped, a stopped one goes on from its last checkpoint and
    ends in the same bytes. Each stage leaves a manifest.json and the trained ones a metrics.jsonl in the run folder.
    """
    from openk2.train.recipe import load_recipe
    from openk2.train.stages import run_recipe

    loaded = load_recipe(recipe, overrides or [])
    run_recipe(loaded, run or Path("runs") / loaded.name, until=until, device=device)
