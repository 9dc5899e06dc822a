"""`openk2 eval`: held-out success rates."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer


def evaluate(
    model: Annotated[str, typer.Argument(help="nano, a model FOLDER, random:PRESET, script:FILE, or 'baseline'.")],
    family: Annotated[
        list[str] | None,
        typer.Option("--family", help="functions, notebook, shell, real, handwritten. Default: all; repeatable."),
    ] = None,
    n: Annotated[
        int, typer.Option("--n", min=1, help="Tasks per family; real and handwritten have a fixed set.")
    ] = 300,
    seed: Annotated[int, typer.Option("--seed", help="Another seed draws fresh held-out tasks.")] = 1,
    grammar: Annotated[
        bool, typer.Option("--grammar/--no-grammar", help="Decode tool calls under the grammar, or freely.")
    ] = True,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, help="Rollouts at the same time.")] = 24,
    save: Annotated[
        str | None, typer.Option("--save", metavar="DIR", help="Keep every trajectory here (ATIF).")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Go on without a question where no sandbox is available.")] = False,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, mps. Not yet run on a GPU.")] = "cpu",
    json: Annotated[bool, typer.Option("--json", help="One JSON object per family, for machines.")] = False,
) -> None:
    """Success rates on held-out tasks, with n, 95 % intervals and a row per sub-skill.

    Verdicts are computed by code from the final state and the answer. Names, values and phrasings of these tasks never
    occur in the training episodes.
    """
    from openk2.evals.run import evaluate_families

    asyncio.run(
        evaluate_families(
            model,
            family or [],
            n=n,
            seed=seed,
            grammar=grammar,
            concurrency=concurrency,
            save=save,
            device=device,
            assume_yes=yes,
            as_json=json,
        )
    )
