"""`openk2 eval`: held-out success rates."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from openk2.cli.common import MODEL_HELP, DeviceOption, YesOption, given_path
from openk2.core import UserError, command
from openk2.policy.addresses import environment_key


def evaluate(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help=f"{MODEL_HELP[:-1]}, or baseline; or stream, to test a server's streams."),
    ],
    family: Annotated[
        list[str] | None,
        typer.Option(
            "--family",
            metavar="NAME",
            help="What rl gym list names, real, handwritten, or FILE.py:CLASS; may be repeated. Default: functions, "
            "notebook, shell, apps, real, handwritten.",
            show_default=False,
        ),
    ] = None,
    n: Annotated[
        int,
        typer.Option("-n", "--n", min=1, metavar="N", help="Tasks per family; real and handwritten have a fixed set."),
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
    base_url: Annotated[
        str | None,
        typer.Option("--base-url", metavar="URL", help="stream: the server, such as http://127.0.0.1:8000."),
    ] = None,
    served_model: Annotated[
        str, typer.Option("--served-model", metavar="NAME", help="stream: the model's name there.")
    ] = "default",
    json: Annotated[bool, typer.Option("--json", help="One JSON object per family, for machines.")] = False,
) -> None:
    """Success rates on held-out tasks, with 95 % intervals.

    There is a row for every sub-skill. Verdicts are computed by code from the final state and the answer. The words of
    names and values and the wordings of requests are kept out of the training episodes (the model card has the few
    exceptions).

    `stream` is no model: it asks a server with OpenAI's chat route every question twice, once as a stream, and says
    whether both answers are the same message and all calls are right (key in OPENAI_API_KEY; exit status 1: not all),
    as in ./k2 eval stream --base-url http://127.0.0.1:8000

    Example: ./k2 eval nano --family shell --n 100 --seed 7
    """
    if model == "stream":
        _stream(base_url, served_model, n, seed, concurrency, json)
        return
    if base_url is not None:
        raise UserError(f"--base-url goes with stream: {command.typed} eval stream --base-url URL")
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


def _stream(base_url: str | None, served_model: str, n: int, seed: int, concurrency: int, json: bool) -> None:
    if base_url is None:
        raise UserError("the server is missing: name it with --base-url URL")
    from openk2.evals.stream import run_stream_test

    key = environment_key("OPENAI_API_KEY")
    passed = run_stream_test(
        base_url, model=served_model, n=n, seed=seed, concurrency=concurrency, key=key, as_json=json
    )
    raise typer.Exit(0 if passed else 1)
