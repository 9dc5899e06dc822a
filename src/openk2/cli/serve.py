"""`openk2 serve`: the model behind OpenAI's API."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from openk2.cli.common import HOST_HELP, DeviceOption, given_host, given_path


def serve(
    model: Annotated[
        str,
        typer.Option(
            "--model",
            metavar="MODEL",
            help="nano, a model folder, random:PRESET, one behind another server (openai:NAME@URL, moonshot:NAME) or "
            "script:FILE.",
        ),
    ] = "nano",
    host: Annotated[str, typer.Option("--host", metavar="H", parser=given_host, help=HOST_HELP)] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, metavar="P", help="0 takes any free one.")] = 8000,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            "--api-key-file", metavar="F", parser=given_path, help="One key a line; without it no key is asked for."
        ),
    ] = None,
    max_running: Annotated[
        int, typer.Option("--max-running", min=1, metavar="N", help="Requests that are generated at the same time.")
    ] = 64,
    max_queued: Annotated[
        int, typer.Option("--max-queued", min=0, metavar="N", help="Requests that may wait; more are refused with 429.")
    ] = 256,
    context: Annotated[
        int | None,
        typer.Option("--context", min=2, metavar="N", help="Most tokens of a request.", show_default="the model's"),
    ] = None,
    cache_gb: Annotated[
        float | None,
        typer.Option(
            "--cache-gb",
            min=0.0,
            max=1e6,
            metavar="GB",
            help="Most memory for what the model has read, in requests that run and in those that are remembered. "
            "Requests wait for room; when it is used up, those that came last wait again and go on later.",
            show_default="no bound",
        ),
    ] = None,
    device: DeviceOption = "cpu",
    compiled: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Compile the decoding step, which makes it 1.5 to 1.8 times as fast on a CPU (nano on two cores). "
            "Needs g++ and takes six seconds more to start, half a minute the first time.",
        ),
    ] = False,
) -> None:
    """Serve a model to any client of OpenAI's or Anthropic's API.

    A model behind another server is given our API: Anthropic's messages, K2's ids, and tool calls that were checked
    against their schemas, repaired, asked for again or refused. Its key is taken from OPENAI_API_KEY or
    MOONSHOT_API_KEY. script:FILE answers with the assistant's messages of a file, to try a client.

    Prints one line with the URL when it is ready, and one line of JSON per request on stderr. Ctrl-C lets running
    answers finish, a second one does not.

    \b
    Example: ./k2 serve --port 8000, then
    curl http://127.0.0.1:8000/v1/chat/completions \\
      -d '{"messages": [{"role": "user", "content": "hello"}]}'
    """
    from openk2.serve.server import ServeOptions, serve

    serve(
        ServeOptions(
            model=model,
            host=host,
            port=port,
            api_key_file=api_key_file,
            max_running=max_running,
            max_queued=max_queued,
            context=context,
            cache_gb=cache_gb,
            device=device,
            compiled=compiled,
        )
    )
