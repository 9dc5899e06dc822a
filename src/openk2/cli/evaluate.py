"""`openk2 eval`: held-out success rates."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from openk2.cli.common import MODEL_HELP, DeviceOption, YesOption, given_path


def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=f"{MODEL_HELP[:-1]}, or baseline.")],
    family: Annotated[
        list[str] | None,
        typer.Option(
            "--family",
            metavar="NAME",
            help="functions, notebook, shell, real or handwritten; may be repeated. Default: all.",
            show_default=False,
        ),
    ] = None,
    n: Annotated[
        int, typer.Option("--n", min=1, metavar="N", help="Tasks per family; real and handwritten have a fixed set.")
    ] = 300,
    seed: Annotated[int, typer.Option("--seed", metavar="S", help="Another seed draws fresh held-out tasks.")] = 1,
    grammar: Annotated[
        bool, typer.Option("--grammar/--no-grammar", help="Decode tool calls under the grammar, or freely.")
    ] = True,
    concurrency: Annotated[
        int, typer.Option("--concurrency", min=1, metavar="N", help="Rollouts at the same time.")
    ] = 8,
    save: Annotated[
        Path | None,
        typer.Option(
            "--save",
            metavar="DIR",
            help="Keep every trajectory there (ATIF).",
            show_default=False,
            parser=given_path,
        ),
    ] = None,
    yes: YesOption = False,
    device: DeviceOption = "cpu",
    json: Annotated[bool, typer.Option("--json", help="One JSON object per family, for machines.")] = False,
) -> None:
    """Success rates on held-out tasks, with 95 % intervals.

    There is a row for every sub-skill. Verdicts are computed by code from the final state and the answer. The words of
    names and values and the wordings of requests are kept out of the training episodes (the model card has the few
    exceptions).

    Example: ./k2 eval nano --family shell --n 100 --seed 7
    """
    from openk2.evals.run import evaluate_families

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
