"""`openk2 model`: what a model amounts to, in and out of other formats, and whether two are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from openk2.cli.common import given_path

app = typer.Typer(
    help="Look at a model, take it in, give it away, compare it.", no_args_is_help=True, rich_markup_mode=None
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


SourceArgument = Annotated[Path, typer.Argument(metavar="SRC", help="A model folder.", parser=given_path)]
TargetArgument = Annotated[Path, typer.Argument(metavar="DST", help="The folder to make.", parser=given_path)]
DtypeOption = Annotated[str, typer.Option("--dtype", metavar="TYPE", help="bf16, fp16 or fp32.")]
ShardOption = Annotated[float, typer.Option("--shard-gb", min=0.001, metavar="GB", help="The size of a file.")]


@app.command("import")
def take_in(
    source: SourceArgument, target: TargetArgument, dtype: DtypeOption = "bf16", shard_gb: ShardOption = 4.0
) -> None:
    """Take in a DeepSeek-V3 or Kimi-K2 folder.

    Shards, block-FP8 and other types are read and checked; what comes out is a folder in one type that every command
    here takes for a model. Ctrl-C loses nothing: the same command continues.

    Example: ./k2 model import Kimi-K2-Instruct k2-bf16
    """
    _convert(source, target, dtype, shard_gb)


@app.command("export")
def give_away(
    source: SourceArgument,
    target: TargetArgument,
    form: Annotated[str, typer.Option("--format", metavar="FORMAT", help="hf, a folder, or gguf, a file.")] = "hf",
    dtype: DtypeOption = "bf16",
    shard_gb: ShardOption = 4.0,
) -> None:
    """Write what transformers, vLLM and SGLang (hf) or llama.cpp (gguf) load.

    A folder has safetensors, config, tokenizer and chat template. Ctrl-C loses nothing of it: the same command goes on.

    Example: ./k2 model export runs/nano/instruct nano.gguf --format gguf
    """
    from openk2.core import UserError

    if form == "hf":
        _convert(source, target, dtype, shard_gb)
    elif form == "gguf":
        from openk2.model.gguf_file import export_gguf
        from openk2.train.progress import ConsoleReporter

        reporter = ConsoleReporter()
        with reporter.stage("tensors") as bar:
            remarks = export_gguf(source, target, dtype=dtype, on_tensor=bar)
        for remark in remarks:
            reporter.note(remark)
    else:
        raise UserError(f"there is no format {form!r}: use hf or gguf")


def _convert(source: Path, target: Path, dtype: str, shard_gb: float) -> None:
    from openk2.model.convert import convert
    from openk2.train.progress import ConsoleReporter

    reporter = ConsoleReporter()
    with reporter.stage("shards") as bar:
        manifest = convert(source, target, dtype=dtype, shard_bytes=int(shard_gb * 1e9), on_shard=bar)
    reporter.note(f"{target}: {len(manifest.outputs)} files, their hashes are in manifest.json")


@app.command("verify")
def verify(
    first: Annotated[Path, typer.Argument(metavar="A", help="A model folder.", parser=given_path)],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another one.", parser=given_path)],
    json: Annotated[bool, typer.Option("--json", help="One JSON object, for machines.")] = False,
) -> None:
    """Say whether two model folders compute the same.

    Both run the same tokens, layer by layer on the same activations; that names and shapes agree is not enough.

    Exit status: 0 they do, 1 they differ, 2 bad input.

    Example: ./k2 model verify Kimi-K2-Instruct k2-bf16
    """
    from openk2.model.convert import verify as compare

    found = compare(first, second)
    if json:
        from dataclasses import asdict
        from json import dumps

        typer.echo(dumps(asdict(found)))
    elif found.equal:
        typer.echo(f"equal: the largest difference is {found.max_abs_diff:.3g}")
    else:
        typer.echo(f"different: first in {found.first_difference}, by up to {found.max_abs_diff:.3g}")
    raise typer.Exit(0 if found.equal else 1)
