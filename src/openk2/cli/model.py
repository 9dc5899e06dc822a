"""`openk2 model`: what a model amounts to, in and out of other formats, and whether two are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from openk2.cli.common import given_model, given_path

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

    NAME is a preset or a folder with a config.json (a folder called like a preset needs a path, such as models/nano);
    nothing else is read, nothing downloaded, no weight allocated.
    FLOPs are those of one token's forward pass at the end of a context.

    Example: ./k2 model describe k2 --heads 128
    """
    from openk2.deploy.describe import print_description

    print_description(name, heads=heads, as_json=json)


SourceArgument = Annotated[Path, typer.Argument(metavar="SRC", help="nano or a model folder.", parser=given_model)]
TargetArgument = Annotated[
    Path, typer.Argument(metavar="DST", help="What to make; it must be new or an empty folder.", parser=given_path)
]
DtypeOption = Annotated[str, typer.Option("--dtype", metavar="TYPE", help="bf16, fp16 or fp32.")]
ShardOption = Annotated[float, typer.Option("--shard-gb", metavar="GB", help="The size of a file, from 0.001 to 1000.")]


@app.command("import")
def take_in(
    source: SourceArgument, target: TargetArgument, dtype: DtypeOption = "bf16", shard_gb: ShardOption = 4.0
) -> None:
    """Take in a DeepSeek-V3 or Kimi-K2 folder.

    Shards, block-FP8 and other types are read and checked; what comes out is a folder in one type that every command
    here takes for a model. Whenever it is stopped, the same command continues.

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
    """Write a folder or a file that others load.

    hf is for transformers, vLLM and SGLang: a folder with safetensors, config, tokenizer and chat template; whenever it
    is stopped, the same command continues. gguf is for llama.cpp: one file.

    Example: ./k2 model export runs/nano/instruct nano.gguf --format gguf
    """
    from openk2.core import UserError

    if form == "hf":
        _convert(source, target, dtype, shard_gb)
    elif form == "gguf":
        from openk2.core.progress import ConsoleReporter
        from openk2.deploy.gguf_file import export_gguf

        reporter = ConsoleReporter()
        with reporter.stage("tensors") as bar:
            remarks = export_gguf(source, target, dtype=dtype, on_tensor=bar)
        for remark in remarks:
            reporter.note(remark)
    else:
        raise UserError(f"there is no format {form!r}: use hf or gguf")


def _convert(source: Path, target: Path, dtype: str, shard_gb: float) -> None:
    from openk2.core import UserError
    from openk2.core.progress import ConsoleReporter
    from openk2.deploy.convert import LEFT_OUT, convert, left_out_remark, tokenizer_remark

    # Also false for NaN, which a range of typer's takes.
    if not 0.001 <= shard_gb <= 1000:
        raise UserError(f"--shard-gb is {shard_gb}: give a number from 0.001 to 1000")
    reporter = ConsoleReporter()
    with reporter.stage("shards") as bar:
        manifest = convert(source, target, dtype=dtype, shard_bytes=int(shard_gb * 1e9), on_shard=bar)
    for remark in [*left_out_remark(manifest.results[LEFT_OUT]), *tokenizer_remark(source)]:
        reporter.note(remark)
    reporter.note(f"{target} is complete: {len(manifest.outputs)} files, their hashes are in manifest.json")


@app.command("verify")
def verify(
    first: Annotated[Path, typer.Argument(metavar="A", help="nano or a model folder.", parser=given_model)],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another one.", parser=given_model)],
    json: Annotated[bool, typer.Option("--json", help="One JSON object, for machines.")] = False,
) -> None:
    """Say whether two model folders are the same model.

    Layer by layer, every weight is compared, and what comes out for the same tokens. Where one of them stores 16 bits,
    the other is rounded to the same type first: an import in bf16 equals its source in FP8 or fp32. The tokenizer,
    what only generation reads, and multi-token prediction heads are not compared.

    Exit status: 0 they are, 1 they differ, 2 bad input.

    Example: ./k2 model verify Kimi-K2-Instruct k2-bf16
    """
    from openk2.deploy.convert import verify as compare

    found = compare(first, second)
    if json:
        from dataclasses import asdict
        from json import dumps

        typer.echo(dumps(asdict(found), allow_nan=False))
    elif found.equal:
        typer.echo(f"equal: the largest difference is {found.max_abs_diff:.3g}")
    else:
        amount = "" if found.max_abs_diff is None else f", by up to {found.max_abs_diff:.3g}"
        typer.echo(f"different: first in {found.first_difference}{amount}")
    if found.not_compared and not json:
        typer.echo(f"not compared: {found.not_compared} tensors of multi-token prediction heads")
    raise typer.Exit(0 if found.equal else 1)
