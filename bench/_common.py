"""What the benchmarks share: a clean child process, interleaved samples, ratios with intervals, JSON and markdown."""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from openk2.core.runs import versions

_CHILD = "OPENK2_BENCH_CHILD"
_RANK = "OPENK2_BENCH_RANK"
_MEETING = "OPENK2_BENCH_MEETING"


def enter_child(threads: int) -> None:
    """Start this script again with a fixed number of threads and one allocator setting, for both sides alike.

    OpenMP and malloc read their settings only when a process starts. Returns in the child.
    """
    if os.environ.get(_CHILD) == "1":
        return
    settings = {
        _CHILD: "1",
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(8 << 30),
        "MALLOC_TOP_PAD_": str(256 << 20),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | settings)


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """For a script that is described by `doc`, which is folded to the screen's width but for what is indented."""
    width = min(120, shutil.get_terminal_size().columns) - 2
    paragraphs = [
        part if part.startswith(" ") else textwrap.fill(part, width, break_long_words=False, break_on_hyphens=False)
        for part in (doc or "").strip().split("\n\n")
    ]
    return argparse.ArgumentParser(
        prog=f"./k2 bench {Path(sys.argv[0]).stem}",
        description="\n\n".join(paragraphs),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_out(parser: argparse.ArgumentParser) -> None:
    """The option for the folder of the results, which is made before anything is measured."""
    parser.add_argument("--out", type=_writable, default=str(Path(__file__).parent / "results"))


def _writable(text: str) -> Path:
    folder = Path(text)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as e:
        raise argparse.ArgumentTypeError(f"{folder} cannot be written ({e.strerror}): name another folder") from e


def arguments_in_child(
    doc: str | None, option: str, choices: Iterable[str], default: Sequence[str]
) -> argparse.Namespace:
    """The command line of a script that takes the steps of several cases in turns; returns in the child, whose torch
    has the number of threads that was asked for."""
    parser = parser_of(doc)
    parser.add_argument(option, nargs="+", choices=choices, default=default)
    parser.add_argument("--steps", type=int, default=15, help="measured steps of each side")
    parser.add_argument("--threads", type=int, default=1)
    add_out(parser)
    arguments = parser.parse_args()
    if min(arguments.steps, arguments.threads) < 1:
        parser.error("steps and threads must be at least 1")
    enter_child(arguments.threads)
    import torch

    torch.set_num_threads(arguments.threads)
    return arguments


@contextmanager
def ranks(count: int) -> Iterator[Any]:
    """The process group of `count` data-parallel processes, None for one. Call it in the child, at most once.

    Rank 0 is this process; it starts the others with the same command line. Only rank 0 has a screen.
    """
    if count == 1:
        yield None
        return
    import torch.distributed as dist

    rank = int(os.environ.get(_RANK, "0"))
    with tempfile.TemporaryDirectory() as scratch:
        meeting = os.environ.setdefault(_MEETING, str(Path(scratch) / "meeting"))
        others = [
            subprocess.Popen(
                [sys.executable, *sys.argv], env=os.environ | {_RANK: str(other)}, stdout=subprocess.DEVNULL
            )
            for other in range(1, count if rank == 0 else 0)
        ]
        try:
            dist.init_process_group(
                "gloo", init_method=f"file://{meeting}", rank=rank, world_size=count, timeout=timedelta(minutes=5)
            )
            yield dist.group.WORLD
            dist.destroy_process_group()
        finally:
            for other in others:
                other.terminate() if sys.exc_info()[0] else other.wait()


def ratio_with_interval(
    slow: Sequence[float], fast: Sequence[float], resamples: int = 2000
) -> tuple[float, tuple[float, float]]:
    """median(slow) / median(fast) and its 95 % bootstrap interval. Samples are paired: they were taken in turns."""
    rng = random.Random(0)
    pairs = list(zip(slow, fast, strict=True))
    ratios = []
    for _ in range(resamples):
        drawn = rng.choices(pairs, k=len(pairs))
        ratios.append(statistics.median(a for a, _ in drawn) / statistics.median(b for _, b in drawn))
    ratios.sort()
    low, high = ratios[int(0.025 * resamples)], ratios[int(0.975 * resamples)]
    return statistics.median(slow) / statistics.median(fast), (low, high)


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    import torch

    cpu = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return {
        "cpu": cpu.get("cpu_name", "unknown"),
        "bf16_instructions": bool(cpu.get("avx512_bf16") or cpu.get("amx_bf16")),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "versions": versions("torch", "transformers", "openk2"),
    }


def write_results(folder: Path, name: str, result: dict[str, Any], markdown: str) -> None:
    """`folder/name.json` and `folder/name.md`, and the markdown on the screen."""
    (folder / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    (folder / f"{name}.md").write_text(markdown)
    print(markdown)


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(str(cell) for cell in line) + " |\n" for line in lines)
