"""The launch command of each engine for a plan.

The options were read in the engines' own argument definitions, of the versions in `Engine.verified`; where an engine is
installed, `installed.check` asks that version's parser again.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from openk2.core import UserError
from openk2.deploy.folder import ModelFolder
from openk2.deploy.hardware import GIB, Hardware
from openk2.deploy.plan import PREFILL, Goal, Plan, Sharing, plan_cpu, plan_gpus, plan_offload

RENDEZVOUS_PORT = 29501
"""Where the processes of several nodes meet, on the first node."""
K2_PARSER = "kimi_k2"
WIDTH = 80


@dataclass(frozen=True)
class Address:
    """Where the server listens, and how the nodes find each other."""

    host: str
    port: int
    served_name: str
    head: str
    """The first node, as the other ones reach it."""


@dataclass(frozen=True)
class Launch:
    """A command and the environment that it is started with."""

    where: str
    """`this machine` or which node."""
    program: tuple[str, ...]
    """What is started, without options. `script` of an installed engine, so that its own environment is used."""
    options: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def command(self) -> list[str]:
        return [*self.program, *self.options]

    def __str__(self) -> str:
        """In copyable form: options with their values, continued within 80 columns where these are short enough."""
        parts = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        option = ""
        for word in self.command:
            if option and not word.startswith("-"):
                parts[-1] += f" {shlex.quote(word)}"
                option = ""
            else:
                parts.append(shlex.quote(word))
                option = word if word.startswith("-") else ""
        lines = [parts[0]]
        for part in parts[1:]:
            # Two columns for the space and the backslash behind, two for the indentation of a continued line.
            if len(lines[-1]) + 1 + len(part) + 2 <= WIDTH:
                lines[-1] += f" {part}"
            else:
                lines.append(f"  {part}")
        return " \\\n".join(lines)


@dataclass(frozen=True)
class Programs:
    """How the engine's programs are called: by name, or those of the environment that it is installed in."""

    python: str | None = None
    scripts: bool = True
    """False for a build whose own command does not start."""

    def script(self, name: str) -> str:
        return name if self.python is None else str(Path(self.python).parent / name)

    def module(self, name: str) -> tuple[str, ...]:
        return self.python or "python", "-m", name


Build = Callable[[ModelFolder, Hardware, Goal, Plan, Address, Programs], list[Launch]]


@dataclass(frozen=True)
class Engine:
    """What is known of an engine."""

    name: str
    verified: str
    """The versions whose argument definitions the options were read in."""
    sharing: Sharing
    build: Build
    package: str
    """The Python package whose parser knows the options."""
    offloads: bool = False
    cpu: bool = False
    names_model: bool = True
    """It is told what clients call the model."""


def make_plan(engine: Engine, folder: ModelFolder, machine: Hardware, goal: Goal) -> Plan:
    """The plan for an engine. Raises UserError, DoesNotFit among them, for what it cannot do."""
    _refuse(engine, folder, machine, goal)
    if engine.offloads:
        return plan_offload(folder, machine, goal)
    return plan_gpus(folder, machine, goal, engine.sharing) if machine.gpus else plan_cpu(folder, machine, goal)


def _refuse(engine: Engine, folder: ModelFolder, machine: Hardware, goal: Goal) -> None:
    """Raises UserError for what the engine cannot do at all, whatever the memory."""
    name = engine.name
    if not machine.gpus:
        if engine.offloads:
            raise UserError(
                "ktransformers keeps attention on a GPU and none is here: plan with --gpus and --gpu-memory"
            )
        if not engine.cpu:
            raise UserError(f"{name} as it is packaged runs on GPUs and none is here: use vllm, or plan with --gpus")
        if machine.nodes > 1 or goal.layout != "auto" or goal.cache_fp8:
            raise UserError("--nodes, --layout data and --kv-dtype fp8 are for GPUs, and none is here: leave them out")
        if machine.cpu_memory is None:
            raise UserError("the memory of the planned machine is not known: say --cpu-memory in GB")
        if folder.fp8:
            # Converting it is no way for a machine that has not the memory.
            plan_cpu(replace(folder, fp8=False), machine, goal)
            raise UserError(
                f"{folder.path} is in block-FP8, which is not planned for vLLM's CPU build: plan for GPUs with --gpus "
                "and --gpu-memory, or make a folder in bf16 first (model import)"
            )
    if name == "tensorrt-llm":
        if machine.amd:
            raise UserError("tensorrt-llm runs on GPUs of NVIDIA and these are AMD's: use vllm or sglang")
        if goal.layout == "data" or goal.cache_fp8:
            raise UserError(
                "trtllm-serve takes attention per GPU and a cache in FP8 from a YAML file only (--config), which "
                "is not written here: leave out --layout data and --kv-dtype fp8"
            )
    if name == "sglang" and goal.layout == "data" and not folder.splits_by(machine.all_gpus):
        raise UserError(
            f"sglang still splits the feed-forward layers with --layout data, and those of {folder.name} cannot be cut "
            f"into {machine.all_gpus}: use another number of GPUs"
        )
    if engine.offloads:
        if machine.nodes > 1 or goal.layout == "data":
            raise UserError("ktransformers is planned on one node and without --layout data: leave them out")
        if machine.cpu_memory is None or machine.cores is None:
            raise UserError("ktransformers needs the CPU: say its memory in GB with --cpu-memory and its --cores")
        needed = {"avx512f", "avx512bw", "avx512_bf16"} | ({"avx512_vbmi"} if folder.fp8 else set())
        missing = sorted(needed - machine.cpu_flags) if machine.cpu_flags is not None else []
        if missing:
            raise UserError(
                f"ktransformers computes experts in {'FP8' if folder.fp8 else 'bf16'} with AVX-512 and this CPU has no "
                f"{', '.join(missing)}: use a Xeon from Cooper Lake on or an EPYC from Zen 4 on"
            )


def _vllm(
    folder: ModelFolder, machine: Hardware, goal: Goal, plan: Plan, address: Address, programs: Programs
) -> list[Launch]:
    environment = {} if folder.kernel_sizes else {"VLLM_MLA_DISABLE": "1"}
    model = str(folder.path)
    if programs.scripts:
        program: tuple[str, ...] = (programs.script("vllm"), "serve", model)
        options: list[str] = []
    elif machine.nodes > 1:
        # Only `vllm serve` acts on --headless: the module that stands in for it would start a second server.
        raise UserError(
            "this build of vLLM is not installed under the name vllm, so that `vllm serve` does not start and several "
            "nodes cannot be served: install vllm itself, or plan one node"
        )
    else:
        program = programs.module("vllm.entrypoints.openai.api_server")
        options = ["--model", model]
    options += ["--served-model-name", address.served_name, "--host", address.host, "--port", str(address.port)]
    options += ["--dtype", "bfloat16", "--max-model-len", str(plan.context)]
    if folder.own_tokenizer:
        options += ["--trust-remote-code"]
    if folder.k2_calls:
        options += ["--enable-auto-tool-choice", "--tool-call-parser", K2_PARSER]
    if not machine.gpus:
        cached = -(-goal.requests * plan.context * plan.cache_per_token // GIB)
        environment["VLLM_CPU_KVCACHE_SPACE"] = str(cached)
        # Its kernel for interleaved rotary embeddings rotates queries wrongly (0.32).
        options += ["--compilation-config", '{"custom_ops": ["none"]}']
        return [Launch("this machine", program, tuple(options), environment)]
    options += ["--gpu-memory-utilization", f"{plan.fraction:g}", "--max-num-batched-tokens", str(PREFILL)]
    if goal.cache_fp8:
        options += ["--kv-cache-dtype", "fp8"]
    nodes = range(machine.nodes)
    if plan.data > 1:
        options += ["--data-parallel-size", str(plan.data), "--enable-expert-parallel"]
        meeting = ["--data-parallel-size-local", str(machine.gpus), "--data-parallel-address", address.head]
        meeting += ["--data-parallel-rpc-port", str(RENDEZVOUS_PORT)]
        starts = [
            ["--headless", "--data-parallel-start-rank", str(node * machine.gpus)] if node else [] for node in nodes
        ]
    else:
        options += ["--tensor-parallel-size", str(plan.tensor)]
        options += ["--pipeline-parallel-size", str(plan.pipeline)] if plan.pipeline > 1 else []
        meeting = ["--nnodes", str(machine.nodes), "--master-addr", address.head]
        meeting += ["--master-port", str(RENDEZVOUS_PORT)]
        starts = [["--node-rank", str(node), *(["--headless"] if node else [])] for node in nodes]
    return _per_node(machine, program, options, meeting, starts, environment)


def _sglang(
    folder: ModelFolder, machine: Hardware, goal: Goal, plan: Plan, address: Address, programs: Programs
) -> list[Launch]:
    program = programs.module("sglang.launch_server")
    options = _sglang_options(folder, goal, plan, address)
    if plan.data > 1:
        size = str(plan.data)
        options += ["--tp-size", size, "--attn-dp-size", size, "--ep-size", size]
    else:
        options += ["--tp-size", str(plan.tensor)]
        options += ["--pp-size", str(plan.pipeline)] if plan.pipeline > 1 else []
    meeting = ["--nnodes", str(machine.nodes), "--dist-init-addr", f"{address.head}:{RENDEZVOUS_PORT}"]
    starts = [["--node-rank", str(node)] for node in range(machine.nodes)]
    return _per_node(machine, program, options, meeting, starts, {})


def _sglang_options(folder: ModelFolder, goal: Goal, plan: Plan, address: Address) -> list[str]:
    options = ["--model-path", str(folder.path), "--served-model-name", address.served_name]
    options += ["--host", address.host, "--port", str(address.port)]
    options += ["--dtype", "bfloat16", "--context-length", str(plan.context)]
    if folder.own_tokenizer or folder.own_model_type:
        options += ["--trust-remote-code"]
    if folder.k2_calls:
        options += ["--tool-call-parser", K2_PARSER]
    if goal.cache_fp8:
        options += ["--kv-cache-dtype", "fp8_e4m3"]
    # It divides the piece of a prompt by the GPUs that answer requests of their own.
    piece = str(PREFILL * plan.data)
    return [*options, "--mem-fraction-static", f"{plan.fraction:g}", "--chunked-prefill-size", piece]


def _ktransformers(
    folder: ModelFolder, machine: Hardware, goal: Goal, plan: Plan, address: Address, programs: Programs
) -> list[Launch]:
    options = [*_sglang_options(folder, goal, plan, address), "--tp-size", str(plan.tensor)]
    # The folder's own weights, in the type that they are stored in: nothing has to be converted.
    options += ["--kt-weight-path", str(folder.path), "--kt-method", "FP8" if folder.fp8 else "BF16"]
    options += ["--kt-cpuinfer", str(machine.cores), "--kt-num-gpu-experts", str(plan.experts_on_gpu)]
    if machine.numa_nodes is not None:
        options += ["--kt-threadpool-count", str(machine.numa_nodes)]
    return [Launch("this machine", programs.module("sglang.launch_server"), tuple(options))]


def _tensorrt(
    folder: ModelFolder, machine: Hardware, goal: Goal, plan: Plan, address: Address, programs: Programs
) -> list[Launch]:
    options = ["--backend", "pytorch", "--host", address.host, "--port", str(address.port)]
    options += ["--max_seq_len", str(plan.context), "--max_num_tokens", str(PREFILL)]
    options += ["--tp_size", str(plan.tensor)]
    options += ["--pp_size", str(plan.pipeline)] if plan.pipeline > 1 else []
    options += ["--kv_cache_free_gpu_memory_fraction", f"{plan.fraction:g}"]
    if folder.own_tokenizer or folder.own_model_type:
        options += ["--trust_remote_code"]
    if folder.k2_calls:
        options += ["--tool_parser", K2_PARSER]
    serve = (programs.script("trtllm-serve"), str(folder.path))
    if machine.nodes == 1:
        return [Launch("this machine", serve, tuple(options))]
    # One program per GPU; mpirun starts them on all nodes from the first one.
    hosts = [address.head, *(f"NODE{node}" for node in range(1, machine.nodes))]
    spread = ",".join(f"{host}:{machine.gpus}" for host in hosts)
    program = ("mpirun", "-np", str(plan.gpus), "-H", spread, programs.script("trtllm-llmapi-launch"), *serve)
    return [Launch("node 0, for all nodes", program, (*options, "--gpus_per_node", str(machine.gpus)))]


def _per_node(
    machine: Hardware,
    program: tuple[str, ...],
    options: Sequence[str],
    meeting: Sequence[str],
    starts: Sequence[Sequence[str]],
    environment: dict[str, str],
) -> list[Launch]:
    """The same command on every node but for what each is told of its place."""
    if machine.nodes == 1:
        return [Launch("this machine", program, tuple(options), environment)]
    return [
        Launch(f"node {node}", program, (*options, *meeting, *start), environment) for node, start in enumerate(starts)
    ]


ENGINES = {
    engine.name: engine
    for engine in (
        Engine("vllm", "0.32.0 and 0.33.0", "profiled", _vllm, "vllm", cpu=True),
        Engine("sglang", "0.5.23", "static", _sglang, "sglang"),
        Engine("ktransformers", "0.7.2 (with sglang-kt 0.7.2)", "static", _ktransformers, "sglang", offloads=True),
        Engine(
            "tensorrt-llm", "1.2 (the source of trtllm-serve)", "rest", _tensorrt, "tensorrt_llm", names_model=False
        ),
    )
}


def engine_named(name: str) -> Engine:
    if name not in ENGINES:
        raise UserError(f"there is no engine {name!r}: use {', '.join(ENGINES)}")
    return ENGINES[name]
