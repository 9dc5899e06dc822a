"""`openk2 model`: what a configuration amounts to."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(
    help="Look at a model: its shapes, parameters, cache and FLOPs.", no_args_is_help=True, rich_markup_mode=None
)


@app.command("describe")
def describe(
    name: Annotated[str, typer.Argument(metavar="NAME", help="k2, deepseek-v3, moonlight, nano, test or a folder.")],
    heads: Annotated[
        int | None,
        typer.Option("--heads", metavar="N", help="Describe it with so many attention heads.", show_default=False),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object, for machines.")] = False,
) -> None:
    """Shapes, parameters, cache, FLOPs and bytes of a model.

    NAME is a preset or a folder with a config.json; nothing else is read, nothing downloaded, no weight allocated.
    FLOPs are those of one token's forward pass at the end of a context.

    Example: ./k2 model describe k2 --heads 128
    """
    from openk2.model.describe import print_description

    print_description(name, heads=heads, as_json=json)
