"""`openk2 deploy`: the command that serves a folder on another engine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from openk2.cli.common import HOST_HELP, given_host, given_path


def deploy(
    engine: Annotated[
        str, typer.Argument(metavar="ENGINE", help="vllm, sglang, ktransformers or tensorrt-llm.", show_default=False)
    ],
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="A model folder: Kimi K2, DeepSeek-V3 or one of our own. For a plan it needs no weights yet.",
            parser=given_path,
        ),
    ],
    gpus: Annotated[
        int | None,
        typer.Option("--gpus", min=0, max=64, metavar="N", help="GPUs of a node; 0 plans for CPU.", show_default="all"),
    ] = None,
    gpu_memory: Annotated[
        float | None,
        typer.Option(
            "--gpu-memory",
            metavar="GB",
            help="Plan for another machine, whose GPUs are sold with so many GB.",
            show_default="looked at",
        ),
    ] = None,
    nodes: Annotated[int, typer.Option("--nodes", min=1, max=64, metavar="N", help="Equal machines.")] = 1,
    cpu_memory: Annotated[
        float | None,
        typer.Option("--cpu-memory", metavar="GB", help="Of a node.", show_default="looked at"),
    ] = None,
    cores: Annotated[
        int | None,
        typer.Option("--cores", min=1, max=4096, metavar="N", help="Physical CPU cores.", show_default="looked at"),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(
            "--context", min=16, metavar="N", help="Most tokens of a request.", show_default="as much as fits"
        ),
    ] = None,
    requests: Annotated[
        int,
        typer.Option(
            "--requests", min=1, max=100000, metavar="N", help="Requests of that length the cache must hold at once."
        ),
    ] = 1,
    layout: Annotated[
        str,
        typer.Option(
            "--layout",
            metavar="L",
            help="auto: tensor parallel, then pipeline stages. data: attention whole on every GPU and experts divided, "
            "for many requests at once.",
        ),
    ] = "auto",
    kv_dtype: Annotated[str, typer.Option("--kv-dtype", metavar="TYPE", help="Of the cache: bf16 or fp8.")] = "bf16",
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="What clients call the model.", show_default="the folder's name"),
    ] = None,
    host: Annotated[str, typer.Option("--host", metavar="H", parser=given_host, help=HOST_HELP)] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, metavar="P", help="The port.")] = 8000,
    head: Annotated[
        str, typer.Option("--head", metavar="H", help="The first of several nodes, as the others reach it.")
    ] = "NODE0",
    python: Annotated[
        str | None,
        typer.Option(
            "--python",
            metavar="F",
            help="The Python of the engine's environment.",
            show_default="this one, or that of the engine on PATH",
        ),
    ] = None,
    start: Annotated[bool, typer.Option("--start", help="Run the command here, in the foreground.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object, for machines.")] = False,
) -> None:
    """Print the command that serves a model on another engine.

    The engines are vLLM, SGLang, KTransformers and TensorRT-LLM. The numbers in the command are worked out for this
    machine, or for one that you describe: how the weights are spread, what context and how much cache fit. A table says
    why. Where the engine is installed, its own parser checks every option; else the options are those of the versions
    that are named.

    Exit status: 0 it fits, 1 it does not and the sentence says what it takes, 2 bad input.

    Example: ./k2 deploy vllm Kimi-K2-Instruct --gpus 8 --gpu-memory 141
    """
    from openk2.deploy.run import DeployOptions, run

    run(
        DeployOptions(
            engine=engine,
            folder=folder,
            gpus=gpus,
            gpu_memory=gpu_memory,
            nodes=nodes,
            cpu_memory=cpu_memory,
            cores=cores,
            context=context,
            requests=requests,
            layout=layout,
            kv_dtype=kv_dtype,
            name=name,
            host=host,
            port=port,
            head=head,
            python=python,
            start=start,
            as_json=json,
        )
    )
