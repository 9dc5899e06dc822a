"""From the command line's words to a running server."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import uvicorn
from sse_starlette.sse import AppStatus

from openk2.core import UserError
from openk2.policy.addresses import is_key
from openk2.policy.endpoint import OpenAIPolicy
from openk2.policy.local import LocalPolicy
from openk2.policy.resolve import resolve_policy
from openk2.policy.scripted import ScriptedPolicy
from openk2.serve.app import create_app
from openk2.serve.local import LocalService
from openk2.serve.proxy import Proxy
from openk2.serve.scripted import ScriptedService
from openk2.serve.service import K2_SCALE, Service, Settings

_KEEP_ALIVE = 75
"""Seconds that a connection without a request is kept: longer than clients and what is between keep theirs, so that
none is closed just when one sends again on it."""
_GRACE = 20.0
"""Seconds that running answers get at shutdown."""
_MOMENT = 1.0
"""Seconds in which a client that is there has read what it is told of the end."""


@dataclass(frozen=True, slots=True)
class ServeOptions:
    model: str
    host: str
    port: int
    api_key_file: Path | None
    max_running: int
    max_queued: int
    context: int | None
    cache_gb: float | None = None
    device: str = "cpu"
    compiled: bool = False


def read_keys(path: Path) -> frozenset[str]:
    """One key a line, behind # a remark; warns if others may read them. Raises UserError if the file cannot be read or
    has none."""
    try:
        lines = map(str.strip, path.read_text(encoding="utf-8-sig").splitlines())
        keys = frozenset(line for line in lines if line and not line.startswith("#"))
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"the key file {path} cannot be read ({e}): name a text file with one key a line") from e
    if not keys:
        raise UserError(f"the key file {path} is empty: write one key a line")
    if not all(map(is_key, keys)):
        raise UserError(f"the key file {path} has a key that is not plain ASCII, or more than a word: change it")
    if os.name == "posix" and path.stat().st_mode & 0o077:
        print(f"other users of this machine may read the key file {path}: chmod 600 {path}", file=sys.stderr)
    return keys


def make_service(options: ServeOptions) -> Service:
    """Load the model. Raises UserError for options that cannot be."""
    if options.model.partition(":")[0] in ("openai", "moonshot") and (
        options.context or options.cache_gb or options.compiled
    ):
        raise UserError("--context, --cache-gb and --compile are for a model that runs here: leave them out")
    if not options.host:
        raise UserError("--host is empty: name an address, 0.0.0.0 for all of this machine's")
    if options.cache_gb is not None and not math.isfinite(options.cache_gb):
        raise UserError(f"--cache-gb {options.cache_gb} is no amount of memory: leave it out for no bound")
    keys = frozenset[str]() if options.api_key_file is None else read_keys(options.api_key_file)
    policy = resolve_policy(
        options.model,
        device=options.device,
        max_running=options.max_running,
        context=options.context,
        cache_bytes=None if options.cache_gb is None else int(options.cache_gb * 1e9),
        compiled=options.compiled,
    )
    limits = {"max_running": options.max_running, "max_queued": options.max_queued}
    if isinstance(policy, OpenAIPolicy):
        endpoint = policy.endpoint
        scale = K2_SCALE if "kimi" in endpoint.model.lower() else 1.0
        settings = Settings(name=endpoint.model, temperature=None, anthropic_scale=scale, keys=keys, **limits)
        return Proxy(endpoint, settings)
    if isinstance(policy, ScriptedPolicy):
        return ScriptedService(policy, Settings(name=Path(options.model).name, keys=keys, **limits))
    if not isinstance(policy, LocalPolicy):
        raise UserError(
            f"{options.model} cannot be served: name nano, a model folder, random:PRESET, openai:NAME@URL, "
            "moonshot:NAME or script:FILE"
        )
    name = "openk2-nano" if options.model == "nano" else Path(options.model).name or options.model
    # Nano's numbers are those of greedy decoding, and models of its kind are as small.
    temperature = 0.0 if policy.engine.tokenizer.of_nano else 0.6
    return LocalService(policy.engine, Settings(name=name, temperature=temperature, keys=keys, **limits))


def serve(options: ServeOptions) -> None:
    """Serve until interrupted. Prints one line with the URL when ready."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("openk2").setLevel(logging.INFO)
    # It warns of every write to a client that has gone.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    service = make_service(options)
    listener = _listen(options.host, options.port)
    config = uvicorn.Config(
        create_app(service),
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=int(_GRACE) + 5,
        timeout_keep_alive=_KEEP_ALIVE,
        lifespan="off",
    )
    server = _Server(config, service, listener)
    # Streams end by themselves, when the service closes.
    cast(Any, AppStatus).disable_automatic_graceful_drain()
    # The signal that ends it comes once more behind the shutdown.
    with suppress(KeyboardInterrupt):
        asyncio.run(server.serve(sockets=[listener]))


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as e:
        listener.close()
        reason = e.strerror if isinstance(e, OSError) and e.strerror else e
        raise UserError(f"cannot listen on {host}:{port} ({reason}): use another --port or --host") from e
    return listener


class _Server(uvicorn.Server):
    """Says when it is ready; at the end lets answers finish."""

    def __init__(self, config: uvicorn.Config, service: Service, listener: socket.socket) -> None:
        super().__init__(config)
        self._service = service
        self._listener = listener

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        host, port = self._listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        print(f"openk2 serves {self._service.settings.name} at http://{shown}:{port}", flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # What the service has done with may still be on its way to a slow reader.
        if busy := self._service.busy or len(self.server_state.tasks):
            print(f"{busy} running: {_GRACE:.0f} s to finish, Ctrl-C again ends at once", file=sys.stderr, flush=True)
        closing = asyncio.ensure_future(self._close())
        await super().shutdown(sockets)
        await closing

    async def _close(self) -> None:
        """Let answers finish and be read, until that takes too long or is interrupted."""
        finishing = asyncio.ensure_future(self._service.close(_GRACE))
        await _until(lambda: self.force_exit or (finishing.done() and self._all_read()), _GRACE)
        if not finishing.done():
            finishing.cancel()
            await asyncio.wait({finishing})
            await self._service.close(0)
        await _until(self._all_read, _MOMENT)
        # Requests whose client has gone end without a word; what the end of the loop cancels, with a traceback.
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        # They need no more than a turn each, but on a busy machine that may be a while.
        await _until(self._all_read, _GRACE)

    def _all_read(self) -> bool:
        return not (self.server_state.connections or self.server_state.tasks)


async def _until(done: Callable[[], bool], seconds: float) -> None:
    """Wait for something, and not longer."""
    deadline = time.monotonic() + seconds
    while not done() and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
