"""Print the command that serves a folder, say why its numbers are what they are, and start it if wanted."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from openk2.core import UserError
from openk2.core.progress import new_console
from openk2.deploy.engines import Address, Engine, Launch, Programs, engine_named, make_plan
from openk2.deploy.folder import ModelFolder, read_folder
from openk2.deploy.hardware import GIB, Hardware, hardware
from openk2.deploy.installed import Checked, Installed, check, find
from openk2.deploy.plan import DoesNotFit, Goal, Plan, roomier

HEAD = "NODE0"
FP8_CAPABILITY = 8.9
"""Of Ada; Hopper has 9.0."""


@dataclass(frozen=True)
class DeployOptions:
    """What the command line takes."""

    engine: str
    folder: Path
    gpus: int | None = None
    gpu_memory: float | None = None
    nodes: int = 1
    cpu_memory: float | None = None
    cores: int | None = None
    context: int | None = None
    requests: int = 1
    layout: str = "auto"
    kv_dtype: str = "bf16"
    name: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    head: str = HEAD
    python: str | None = None
    start: bool = False
    as_json: bool = False


@dataclass(frozen=True)
class Deployment:
    """All that is printed."""

    engine: Engine
    folder: ModelFolder
    machine: Hardware
    goal: Goal
    plan: Plan
    launches: list[Launch]
    installed: Installed | None
    checked: Checked | None
    warnings: list[str]

    @property
    def checked_against(self) -> str:
        if self.checked is not None:
            return f"{self.engine.name} {self.checked.version}, which is installed here"
        return f"{self.engine.name} {self.engine.verified}, which is not installed here"


def run(options: DeployOptions) -> None:
    """Print the plan, and start the command if wanted. Raises UserError; DoesNotFit where more hardware is needed."""
    try:
        found = deployment(options)
    except DoesNotFit as e:
        if options.as_json:
            print(json.dumps({"engine": options.engine, "fits": False, "reason": str(e), "command": None}))
        raise
    if options.start:
        _startable(found)
    if options.as_json:
        print(json.dumps(as_json(found)))
    else:
        _print(found)
    if options.start:
        (launch,) = found.launches
        sys.stdout.flush()
        os.execvpe(launch.program[0], launch.command, os.environ | launch.environment)


def deployment(options: DeployOptions) -> Deployment:
    """The command and everything that is known about it; nothing is printed or started."""
    engine = engine_named(options.engine)
    goal = _goal(options)
    for option, size in (("--gpu-memory", options.gpu_memory), ("--cpu-memory", options.cpu_memory)):
        # Also false for NaN, which a range of typer's takes.
        if size is not None and not 1 <= size <= 1e6:
            raise UserError(f"{option} is {size}: give a number of GB from 1 to 1,000,000")
    for option, text in (("--name", options.name), ("--host", options.host), ("--head", options.head)):
        if text is not None and not _takeable(text):
            raise UserError(f"{option} is {text!r}: give a name that is not empty and does not begin with -")
    folder = read_folder(options.folder)
    if options.name is None and engine.names_model and not _takeable(folder.name):
        raise UserError(f"the folder's name is {folder.name!r}, which cannot be the model's: give one with --name")
    machine = hardware(
        gpus=options.gpus,
        gpu_memory=options.gpu_memory,
        nodes=options.nodes,
        cpu_memory=options.cpu_memory,
        cores=options.cores,
    )
    plan = make_plan(engine, folder, machine, goal)
    installed = find(engine, options.python)
    if installed is None and options.python is not None:
        raise UserError(f"{options.python} has no {engine.package}: name the python of {engine.name}'s environment")
    address = Address(options.host, options.port, options.name or folder.name, options.head)
    launches = engine.build(folder, machine, goal, plan, address, Programs(scripts=bool(machine.gpus)))
    checked = None
    if installed is not None:
        checked = check(engine, installed, launches)
        # Where the engine is on another machine is not known, and how that build starts neither.
        if options.start or not machine.described:
            programs = Programs(installed.python, scripts=checked.named)
            launches = engine.build(folder, machine, goal, plan, address, programs)
    remarks = _warnings(engine, folder, machine, goal, plan, options)
    return Deployment(engine, folder, machine, goal, plan, launches, installed, checked, remarks)


def _takeable(text: str) -> bool:
    """Whether an engine takes a word as a value, and not for an option of its own."""
    return bool(text.strip()) and not text.startswith("-")


def _goal(options: DeployOptions) -> Goal:
    if options.layout not in ("auto", "data"):
        raise UserError(f"--layout is {options.layout!r}: use auto or data")
    if options.kv_dtype not in ("bf16", "fp8"):
        raise UserError(f"--kv-dtype is {options.kv_dtype!r}: use bf16 or fp8")
    return Goal(
        context=options.context,
        requests=options.requests,
        layout="data" if options.layout == "data" else "auto",
        cache_fp8=options.kv_dtype == "fp8",
    )


def _startable(found: Deployment) -> None:
    """Raises UserError for a command that cannot be started here and now."""
    name = found.engine.name
    if found.installed is None:
        raise UserError(f"{name} is not installed here: install it, or name its environment with --python")
    if found.machine.nodes > 1:
        raise UserError("--start starts one node and this plan has more: run each printed command on its node")
    if not found.folder.has_weights:
        raise UserError(f"{found.folder.path} holds no weights yet: copy them there before --start")
    program = found.launches[0].program[0]
    if shutil.which(program) is None:
        raise UserError(f"{program} does not exist: the environment of {name} is not complete, install it again")


def _warnings(
    engine: Engine, folder: ModelFolder, machine: Hardware, goal: Goal, plan: Plan, options: DeployOptions
) -> list[str]:
    found = []
    if not folder.has_weights:
        found.append(f"{folder.path} holds no weights: sizes are those that config.json describes")
    if not folder.has_chat_template:
        found.append("the folder has no chat template: completions work, chat does not")
    elif not folder.k2_calls:
        found.append("the chat template does not write tool calls as K2 does: no tool-call parser is set")
    if plan.context < folder.config.max_position_embeddings and goal.context is None:
        found.append(f"of {folder.config.max_position_embeddings:,} tokens of context {plan.context:,} fit")
    unused = machine.all_gpus - plan.gpus
    if unused > 0:
        found.append(f"{unused} of {machine.all_gpus} GPUs are not used")
    if machine.free_gpu_memory is not None and machine.free_gpu_memory < plan.weights + plan.scratch + plan.cache:
        found.append(f"a GPU has only {machine.free_gpu_memory / GIB:.1f} GiB free now: end what else runs on it")
    if machine.gpus and plan.tight(goal):
        found.append(_tight(engine, folder, machine, goal, plan))
    if folder.fp8 and machine.capability is not None and machine.capability < FP8_CAPABILITY:
        found.append(
            f"NVIDIA's GPUs compute in FP8 from capability {FP8_CAPABILITY} on, and these have {machine.capability}: "
            "the engine may refuse the weights or be slow with them, a folder in bf16 (model import) does without"
        )
    if not folder.kernel_sizes and engine.name != "vllm":
        found.append(
            f"the engine's kernels of latent attention are written for latents of 512 + 64, this model has "
            f"{folder.config.kv_lora_rank} + {folder.config.qk_rope_head_dim}: it may refuse to start"
        )
    if not engine.names_model and options.name is not None:
        found.append("trtllm-serve 1.2 has no option for the name that is served: --name is not used")
    if engine.offloads and machine.cpu_flags is None:
        found.append("the planned CPU needs AVX-512 with bf16 (and VBMI for FP8)")
    if engine.offloads and machine.numa_nodes is None:
        found.append("--kt-threadpool-count is left at 2: set it to the number of NUMA nodes")
    if machine.nodes > 1 and options.head == HEAD:
        found.append(f"put the address of the first node for {HEAD}, or give it with --head")
    if engine.name == "tensorrt-llm" and machine.nodes > 1:
        found.append("put the addresses of the other nodes for NODE1 and so on")
    return found


def _tight(engine: Engine, folder: ModelFolder, machine: Hardware, goal: Goal, plan: Plan) -> str:
    ways = ["ask for less --context"]
    if engine.offloads:
        ways += ["lower --kt-num-gpu-experts"] if plan.experts_on_gpu else []
    elif larger := roomier(folder, machine, goal, engine.sharing):
        ways.append(f"use {larger}")
    return (
        f"that this fits was computed and not measured, with {_gb(plan.spare(goal))} of each GPU to spare: if the "
        f"engine runs out of memory, {' or '.join(ways)}"
    )


def as_json(found: Deployment) -> dict[str, Any]:
    """One object for machines. `command` and `environment` are those of the first node."""
    first = found.launches[0]
    return {
        "engine": found.engine.name,
        "fits": True,
        "reason": "; ".join(f"{label}: {text}" for label, text in _why(found)),
        "command": first.command,
        "environment": first.environment,
        "commands": [
            {"where": launch.where, "command": launch.command, "environment": launch.environment}
            for launch in found.launches
        ],
        "checked_against": found.checked_against,
        "installed": found.installed is not None,
        "plan": asdict(found.plan),
        "warnings": found.warnings,
    }


def _why(found: Deployment) -> list[tuple[str, str]]:
    folder, machine, goal, plan = found.folder, found.machine, found.goal, found.plan
    kind = "block-FP8" if folder.fp8 else "bf16"
    on = f" on each of {plan.gpus} GPUs" if plan.gpus > 1 else " on the GPU" if machine.gpus else ""
    weights = f"{_gb(folder.weight_bytes)} in {kind}"
    if plan.cpu_bytes:
        weights += f", {_gb(plan.cpu_bytes)} of it in the CPU's memory"
    facts = [("hardware", str(machine)), ("weights", f"{weights}{on and f'; {_gb(plan.weights)}{on}'}")]
    if plan.cpu_bytes:
        facts.append(("experts", f"{plan.experts_on_gpu} of {folder.config.n_routed_experts} in every layer on GPUs"))
    if plan.data > 1:
        facts.append(("spread", f"attention and requests on each of {plan.data} GPUs, experts divided among them"))
    elif machine.gpus:
        facts.append(("spread", f"tensor parallel {plan.tensor}, pipeline stages {plan.pipeline}"))
    cached = min(plan.cached_tokens, goal.requests * plan.context) if not machine.gpus else plan.cached_tokens
    times = cached / plan.context
    return [
        *facts,
        ("scratch memory", _gb(plan.scratch) + (" beside the runtime's" if machine.gpus else "")),
        ("cache per token", f"{plan.cache_per_token:,} bytes in {'fp8' if goal.cache_fp8 else 'bf16'}{on}"),
        ("cache", f"{cached:,} tokens in all, {math.floor(times * 10) / 10:g} x the context"),
        ("context", f"{plan.context:,} of {folder.config.max_position_embeddings:,} tokens"),
        ("options", f"of {found.checked_against}"),
    ]


def _print(found: Deployment) -> None:
    for launch in found.launches:
        if len(found.launches) > 1 or found.machine.nodes > 1:
            print(f"# {launch.where}")
        print(f"{launch}\n")
    console = new_console()
    table = Table.grid(padding=(0, 2))
    for label, text in _why(found):
        table.add_row(label, text)
    console.print(table)
    _remark(found.warnings)


def _remark(warnings: Sequence[str]) -> None:
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)


def _gb(size: float) -> str:
    return f"{size / 1e9:,.0f} GB" if size >= 1e11 else f"{size / 1e9:,.3g} GB"
