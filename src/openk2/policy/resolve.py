"""What `--model` means: a name or address to a policy. torch is there only for models that run here."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import openk2
from openk2.core import Policy, UserError, command
from openk2.policy.addresses import check_address, environment_key
from openk2.policy.scripted import ScriptedPolicy

if TYPE_CHECKING:
    import torch

    from openk2.engine import Engine

_FORMS = (
    "nano, a model folder, random:test, random:nano, openai:NAME@URL, anthropic:NAME[@URL], moonshot:NAME or "
    "script:FILE"
)
_MOONSHOT = "https://api.moonshot.ai/v1"
_RANDOM = ("test", "nano")
_SHOWN = 80
"""So much of a name is repeated: somebody may have put the task in its place."""


def resolve_policy(
    spec: str,
    *,
    device: str = "cpu",
    grammar: bool = True,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    max_running: int = 64,
    context: int | None = None,
    cache_bytes: int | None = None,
    compiled: bool = False,
) -> Policy:
    """`nano` | FOLDER | `random:PRESET` | `openai:NAME@URL` | `anthropic:NAME[@URL]` | `moonshot:NAME` | `script:FILE`.

    The other arguments go to the local policies; endpoints get temperature, top_p and seed, and their keys from
    OPENAI_API_KEY, ANTHROPIC_API_KEY and MOONSHOT_API_KEY. Raises UserError for anything else, and when a folder is not
    a complete model.
    """
    scheme, colon, rest = spec.partition(":")
    if colon and scheme == "script":
        return _script(rest)
    if colon and scheme in ("openai", "anthropic", "moonshot"):
        return _endpoint(scheme, rest, temperature=temperature, top_p=top_p, seed=seed)
    where = check_device(device)
    options: dict[str, Any] = {
        "max_batch": max_running,
        "context": context,
        "cache_bytes": cache_bytes,
        "compiled": compiled,
    }
    if colon and scheme == "random":
        engine = _elsewhere(lambda: random_engine(rest, device=where, seed=seed, **options))
    elif spec == "nano":
        with resources.as_file(resources.files(openk2) / "weights" / "nano") as folder:
            if not (folder / "config.json").exists():
                raise UserError(
                    "this installation has no embedded nano weights: train them "
                    f"({command.typed} train recipes/nano.toml) and name the folder"
                )
            engine = _elsewhere(lambda: load_engine(folder, device=where, **options))
    elif _is_folder(spec):
        engine = _elsewhere(lambda: load_engine(Path(spec), device=where, **options))
    else:
        shown = spec if len(spec) <= _SHOWN else f"{spec[:_SHOWN]}..."
        raise UserError(f"there is no model {shown!r}: use {_FORMS}")
    from openk2.policy.local import LocalPolicy

    return LocalPolicy(engine, grammar=grammar, temperature=temperature, top_p=top_p, seed=seed, name=spec)


def _script(path: str) -> Policy:
    """A policy that reads from a file. Raises UserError for one that says nothing."""
    policy = ScriptedPolicy.from_file(path)
    try:
        policy.next([])
    except UserError as e:
        raise UserError(f"{path} has no message of the assistant's: write one chat message a line") from e
    return policy


def _endpoint(scheme: str, rest: str, *, temperature: float, top_p: float, seed: int) -> Policy:
    """A policy behind an address. Raises UserError for one that is incomplete."""
    from openk2.policy.endpoint import AnthropicPolicy, OpenAIPolicy

    # Some names have an @ in them.
    name, at, url = rest.rpartition("@http")
    name, url = (name, f"http{url}") if at else (rest, "")
    if not name or (scheme == "moonshot" and at):
        raise UserError(f"{scheme}:{rest[:_SHOWN]} is incomplete: use {_FORMS}")
    if at:
        check_address(url)
    variable = f"{scheme.upper()}_API_KEY"
    if not os.environ.get(variable) and not at and scheme != "openai":
        raise UserError(f"{scheme}:{name[:_SHOWN]} needs a key: set {variable} in the environment")
    key = environment_key(variable)
    if scheme == "anthropic":
        return AnthropicPolicy(name, url or None, key=key, temperature=temperature, top_p=top_p)
    if scheme == "openai" and not at:
        raise UserError(f"openai:{name[:_SHOWN]} has no address that begins with http: write openai:NAME@URL")
    # An address without a path means the usual one.
    address = _MOONSHOT if not at else url if urlsplit(url).path.strip("/") else f"{url.rstrip('/')}/v1"
    return OpenAIPolicy(
        name, address, key=key, temperature=temperature, top_p=top_p, seed=seed, name=f"{scheme}:{rest}"
    )


def _is_folder(spec: str) -> bool:
    try:
        return spec != "" and Path(spec).is_dir()
    except (OSError, ValueError):
        # Too long for a name, or with a zero character.
        return False


def _elsewhere(make: Callable[[], Engine]) -> Engine:
    """Make it in a thread that ends.

    An engine computes in a thread of its own. OpenMP counts the threads of every pool, and where they are more than
    the cores it lets them sleep between two loops; a pool of the main thread, from loading a model, would make every
    step three times as slow.
    """
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(make).result()


def load_engine(folder: Path, *, device: torch.device, **options: Any) -> Engine:
    """The engine of a model folder with its tokenizer. Raises UserError naming the file that is missing or damaged."""
    from openk2.chat import Tokenizer
    from openk2.engine import Engine
    from openk2.model import load

    return Engine(load(folder, dtype=engine_dtype(device), device=device), Tokenizer.load(folder), **options)


def random_engine(preset: str, *, device: torch.device, seed: int, **options: Any) -> Engine:
    """An untrained model of a small preset, with a tokenizer learned from this package's own text.

    Raises UserError for a preset that is too large to be filled with random numbers for fun.
    """
    import torch

    from openk2.chat import Tokenizer
    from openk2.engine import Engine
    from openk2.model import ModelConfig, Transformer

    if preset not in _RANDOM:
        raise UserError(f"there is no model 'random:{preset[:_SHOWN]}': use random:{' or random:'.join(_RANDOM)}")
    config = ModelConfig.preset(preset)
    sources = sorted(Path(openk2.__file__).parent.rglob("*.py"))
    tokenizer = Tokenizer.train((p.read_text(encoding="utf-8") for p in sources), vocab_size=config.vocab_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Transformer(config)
    return Engine(model.to(device, engine_dtype(device)).eval(), tokenizer, **options)


def check_device(name: str) -> torch.device:
    """The torch device of that name. Raises UserError if this machine has none."""
    import torch

    try:
        device = torch.device(name)
        # The device "meta" makes tensors too, but there is nothing in them.
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as e:
        # A build without the device's library asserts.
        reason = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        if reason.startswith("Expected one of"):
            # All of torch's device types follow.
            reason = "torch does not know it"
        raise UserError(f"device {name[:_SHOWN]!r} cannot be used here ({reason}): try --device cpu") from e
    return device


def engine_dtype(device: torch.device) -> torch.dtype:
    """fp32 on a CPU, where bf16 does not make small models decode faster; bf16 elsewhere."""
    import torch

    return torch.float32 if device.type == "cpu" else torch.bfloat16
