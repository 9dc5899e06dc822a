"""`openk2 rl`: reinforcement learning, its report, and the gym of tasks."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import get_terminal_size
from textwrap import fill, indent
from typing import Annotated

import typer

from openk2.cli.common import DeviceOption, ForceOption, RecipeRunOption, given_path, set_option
from openk2.core import UserError
from openk2.core.runs import check_new_file

app = typer.Typer(
    name="rl",
    help="Reinforcement learning: run, report, and the gym of tasks.",
    no_args_is_help=True,
)
gym = typer.Typer(name="gym", help="The tasks: families, and samples of them.", no_args_is_help=True)
app.add_typer(gym)
JsonOption = Annotated[bool, typer.Option("--json", help="For machines.")]


@app.command()
def run(
    recipe: Annotated[
        Path,
        typer.Argument(metavar="RECIPE", help="A recipe, such as recipes/nano-rl.toml.", parser=given_path),
    ],
    folder: RecipeRunOption = None,
    overrides: Annotated[list[str] | None, set_option("iterations=20")] = None,
    device: DeviceOption = "cpu",
) -> None:
    """Train a model by what it tries, or go on where it stopped.

    From a fine-tuned model folder (`start` in the recipe) to RUN/instruct. The same command again continues from the
    last iteration that was saved and ends in the same bytes. `./k2 rl report RUN` shows what happened, from
    RUN/rl/metrics.jsonl.
    """
    from openk2.rl.recipe import load_rl_recipe
    from openk2.rl.run import run_rl

    loaded = load_rl_recipe(recipe, overrides or [])
    run_rl(loaded, folder or Path("runs") / loaded.name, device=device)


@app.command()
def report(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="The folder that rl run was given as --run.", parser=given_path)
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where to write.", show_default="RUN/rl/report", parser=given_path),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a page with figures and pictures of a run.

    Reward, success on held-out tasks, lengths, divergence, temperature, the critic's accuracy, budgets, and what the
    policy said before and after. The run may still be under way. --json prints lists with an entry for each iteration,
    and writes a page only where --out says.
    """
    from openk2.rl.report import figures_of, summary, write_report

    if as_json and out is None:
        print(json.dumps(figures_of(folder)))
        return
    figures, paths = write_report(folder, out)
    if as_json:
        print(json.dumps(figures))
        return
    for label, value in summary(figures):
        typer.echo(f"{label:<36}{value:>24}")
    for path in paths:
        typer.echo(str(path))


@gym.command("list")
def list_families(as_json: JsonOption = False) -> None:
    """The families of tasks, and what each is about.

    What stands in brackets restricts a family to some of its tasks: functions:ask, math:problems.jsonl. A wrong one is
    answered with those that there are.
    """
    from openk2.rl.gym.catalogue import families

    width = get_terminal_size().columns
    for one in families():
        if as_json:
            print(json.dumps(one))
        else:
            name = one["name"] + (f"[:{one['option']}]" if one["option"] else "")
            typer.echo(fill(one["about"], width, initial_indent=f"{name:<26}", subsequent_indent=" " * 26))


@gym.command()
def sample(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A family, such as math or reasoning:countdown.")],
    count: Annotated[int, typer.Option("-n", "--n", metavar="N", min=1, help="How many tasks.")] = 3,
    seed: Annotated[int, typer.Option("--seed", metavar="S", min=0, help="The first task.")] = 0,
    split: Annotated[str, typer.Option("--split", metavar="SPLIT", help="train, or the held-out test.")] = "train",
    messages: Annotated[
        Path | None,
        typer.Option(
            "--messages", metavar="FILE", help="Write the gold conversations for training instead.",
            parser=given_path, show_default=False,
        ),
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Show tasks, a gold answer to each, and what its verifier says of that answer.

    With --messages FILE the conversations are written as JSON lines, which a recipe of `./k2 train` takes as
    episodes.files.
    """
    from openk2.rl.gym.catalogue import demonstrations, samples, write_messages

    if messages is not None:
        check_new_file(messages, force=force)
        written = write_messages(messages, demonstrations(name, count, seed, split))
        row = {"path": str(messages), "conversations": written}
        typer.echo(json.dumps(row) if as_json else f"{messages}: {written} conversations")
        return
    for one in samples(name, count, seed, split):
        if as_json:
            print(json.dumps(one))
            continue
        verdict = one["verdict"]
        typer.echo(f"# {one['task']} ({one['skill']})\n\n{one['prompt']}\n")
        typer.echo(f"gold    {indent(one['answer'], ' ' * 8).lstrip()}")
        outcome = {True: "passed", False: "not passed", None: "not judged by code"}[verdict["passed"]]
        typer.echo(f"verdict {outcome}{': ' if verdict['reason'] else ''}{verdict['reason']}")
        if verdict["reward"] is not None:
            off = ", ".join(f"{value:g} off for {name}" for name, value in verdict["penalties"].items())
            typer.echo(f"reward  {verdict['reward']:g}{f' ({off})' if off else ''}")
        typer.echo()


@gym.command()
def rate(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A family, such as apps:single.")],
    model: Annotated[str, typer.Option("--model", metavar="MODEL", help="nano or a model folder.")] = "nano",
    count: Annotated[int, typer.Option("-n", "--n", metavar="N", min=1, help="Tasks.")] = 50,
    samples: Annotated[int, typer.Option("-k", metavar="K", min=1, help="Samples of each.")] = 8,
    temperature: Annotated[
        float, typer.Option("--temperature", metavar="T", min=0.0, max=2.0, help="0 tries each task once, greedily.")
    ] = 1.0,
    seed: Annotated[int, typer.Option("--seed", metavar="S", min=0, help="Which tasks.")] = 0,
    split: Annotated[str, typer.Option("--split", metavar="SPLIT", help="train, or the held-out test.")] = "test",
    budget: Annotated[int, typer.Option("--budget", metavar="TOKENS", min=1, help="Of one episode.")] = 512,
    steps: Annotated[int, typer.Option("--steps", metavar="N", min=1, help="Assistant turns.")] = 12,
    as_json: JsonOption = False,
) -> None:
    """How often a model solves a family's tasks: pass@1 and pass@k.

    By this a family and its level are chosen before training: what is never or always solved teaches nothing.
    """
    from openk2.core.progress import ConsoleReporter
    from openk2.policy.local import LocalPolicy
    from openk2.policy.resolve import resolve_policy
    from openk2.rl.gym.catalogue import known_split
    from openk2.rl.gym.rates import AT_ONCE, rates

    policy = resolve_policy(model, grammar=False, max_running=AT_ONCE)
    if not isinstance(policy, LocalPolicy):
        raise UserError(f"{model} is an endpoint: name nano or a model folder")
    total = count * (samples if temperature else 1)
    with ConsoleReporter().stage("sampling") as bar:
        found = rates(
            policy.engine, name, n=count, k=samples, temperature=temperature, seed=seed, split=known_split(split),
            budget=budget, steps=steps, on_share=lambda share: bar(round(share * total), total),
        )  # fmt: skip
    if as_json:
        print(json.dumps(found))
        return
    for key, value in found.items():
        if isinstance(value, dict):
            low, high = value["ci95"]
            tasks = f" of {value['tasks']} tasks" if "tasks" in value else ""
            value = f"{value['rate']:.1%} ({low:.1%} to {high:.1%}), n = {value['n']}{tasks}"
        if value is not None:
            typer.echo(f"{key.replace('_', ' '):<14}{value}")
