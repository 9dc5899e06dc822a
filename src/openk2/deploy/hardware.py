"""The machine that a model is to be served on: looked at, or described by a person who plans for another one."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from openk2.core import UserError

GIB = 2**30
USABLE = 0.994
"""A card that is sold with 80 GB has 79.6 GiB, one with 141 has 140.4, B200 has 179.1: drivers keep half a percent."""


@dataclass(frozen=True)
class Hardware:
    """Equal nodes. Memory is in bytes; that of GPUs is what a program can have of each."""

    gpus: int
    gpu_memory: int
    gpu_name: str
    nodes: int
    cpu_memory: int | None
    """None: a person planned for another machine and did not say."""
    cores: int | None
    """Physical ones; None as above."""
    numa_nodes: int | None
    cpu_flags: frozenset[str] | None
    """None: of another machine, not known."""
    amd: bool = False
    free_gpu_memory: int | None = None
    """Of the fullest GPU, if it was looked at."""
    capability: float | None = None
    """NVIDIA's compute capability, of the GPU with the least; None where nobody says."""
    described: bool = False
    """Another machine than this one, as far as a person described it."""

    @property
    def all_gpus(self) -> int:
        return self.gpus * self.nodes

    def __str__(self) -> str:
        if not self.gpus:
            return f"no GPU, {self.cores or 'unknown'} cores, {_gb(self.cpu_memory)} of memory"
        each = f"{self.gpus} x {self.gpu_name} with {self.gpu_memory / GIB:.1f} GiB"
        return each if self.nodes == 1 else f"{self.nodes} nodes with {each} each"


def _gb(memory: int | None) -> str:
    return "an unknown amount" if memory is None else f"{memory / 1e9:,.0f} GB"


def hardware(
    *, gpus: int | None, gpu_memory: float | None, nodes: int, cpu_memory: float | None, cores: int | None
) -> Hardware:
    """This machine, with what was said about another one put in its place. Memories are in GB.

    Whoever says how large the GPUs are means another machine, whose CPU is only known as far as it was described.
    Raises UserError if GPUs are planned for whose memory nobody knows.
    """
    here = detect()
    if gpus and gpu_memory is None and not here.gpus:
        raise UserError("--gpus was given and no GPU is here to look at: say with --gpu-memory how many GB each has")
    if gpu_memory is not None:
        here = Hardware(
            gpus=1,
            gpu_memory=int(gpu_memory * USABLE * GIB),
            gpu_name=f"{gpu_memory:g} GB GPU",
            nodes=1,
            cpu_memory=None,
            cores=None,
            numa_nodes=None,
            cpu_flags=None,
            described=True,
        )
    if gpus is not None:
        here = replace(here, gpus=gpus)
    if cpu_memory is not None:
        here = replace(here, cpu_memory=int(cpu_memory * 1e9))
    return replace(here, nodes=nodes, cores=here.cores if cores is None else cores)


def detect() -> Hardware:
    """This machine. Tools of the drivers are asked first, torch only if there are none."""
    names, totals, free, amd = _gpus()
    return Hardware(
        gpus=len(totals),
        gpu_memory=min(totals, default=0),
        gpu_name=names[0] if names else "",
        nodes=1,
        cpu_memory=_memory(),
        cores=_physical_cores(),
        numa_nodes=max(1, len(list(Path("/sys/devices/system/node").glob("node[0-9]*")))),
        cpu_flags=_flags(),
        amd=amd,
        free_gpu_memory=min(free, default=None),
        capability=_capability() if totals and not amd else None,
    )


def _gpus() -> tuple[list[str], list[int], list[int], bool]:
    """Names, memory and free memory of the GPUs, and whether they are AMD's."""
    rows = _run("nvidia-smi", "--query-gpu=name,memory.total,memory.free", "--format=csv,noheader,nounits")
    if rows:
        return *read_nvidia(rows), False
    text = _run("rocm-smi", "--showproductname", "--showmeminfo", "vram", "--json")
    if text:
        return *read_rocm(text), True
    return *_torch_gpus(), False


def _run(*command: str) -> str:
    """What a tool prints; nothing if it is not there or fails."""
    if shutil.which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _capability() -> float | None:
    """Asked on its own: a driver that does not know the question would answer none of the others either."""
    rows = _run("nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader").split()
    return min((float(row) for row in rows if re.fullmatch(r"\d+\.\d+", row)), default=None)


def read_nvidia(rows: str) -> tuple[list[str], list[int], list[int]]:
    """From the answer of nvidia-smi: one GPU a line, memory in MiB. A GPU that does not say its memory is left out."""
    names, totals, free = [], [], []
    for row in rows.splitlines():
        found = re.fullmatch(r"(.*), *(\d+), *(\d+)", row.strip())
        if found:
            names.append(found[1])
            totals.append(int(found[2]) * 2**20)
            free.append(int(found[3]) * 2**20)
    return names, totals, free


def read_rocm(text: str) -> tuple[list[str], list[int], list[int]]:
    """From the JSON of rocm-smi: an object per card, memory in bytes."""
    try:
        cards = json.loads(text)
    except (ValueError, RecursionError):
        return [], [], []
    names, totals, free = [], [], []
    for card, facts in sorted(cards.items()):
        total = facts.get("VRAM Total Memory (B)") if isinstance(facts, dict) else None
        if total is not None:
            names.append(str(facts.get("Card Series") or facts.get("Card series") or card))
            totals.append(int(total))
            free.append(int(total) - int(facts.get("VRAM Total Used Memory (B)", 0)))
    return names, totals, free


def _torch_gpus() -> tuple[list[str], list[int], list[int]]:
    import torch

    names, totals, free = [], [], []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        left, total = torch.cuda.mem_get_info(index)
        names.append(torch.cuda.get_device_name(index))
        totals.append(total)
        free.append(left)
    return names, totals, free


def _memory() -> int:
    """Of this machine, or of the container that this runs in if that is less."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.exists() else ""
    return min(memory, int(text)) if text.isdigit() else memory


def _physical_cores() -> int:
    """Without hyperthreads, which the kernels of ktransformers do not want."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    siblings = Path("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list")
    threads = len(re.split("[,-]", siblings.read_text().strip())) if siblings.exists() else 1
    return max(1, usable // threads)


def _flags() -> frozenset[str]:
    info = Path("/proc/cpuinfo")
    found = re.search(r"^flags\s*:(.*)$", info.read_text(), re.MULTILINE) if info.exists() else None
    return frozenset(found[1].split() if found else ())
