"""Re-executes trajectories from their seeds: every call must give the recorded result, the user must say the recorded
words, and the verdict must be the recorded one. Nothing but the declarations and the ATIF is needed, no policy and no
network; tasks of a real machine are executed in the sandbox.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openk2.core import Trajectory, UserError
from openk2.core.atif import from_atif
from openk2.core.processes import begin_process, quiet_start
from openk2.core.progress import ConsoleReporter
from openk2.data.lake import Lake
from openk2.rollout import replay
from openk2.synth import real
from openk2.synth.attempts import content_hash
from openk2.worlds.apps.world import Apps, AppWorld

_SHOWN = 5
_PIECE = 64


@dataclass(slots=True)
class Verified:
    """How many trajectories agreed with their re-execution, and what was other in some that did not."""

    checked: int = 0
    agreed: int = 0
    differences: list[str] = field(default_factory=list)

    def add(self, name: str, difference: str | None) -> None:
        self.checked += 1
        self.agreed += difference is None
        if difference is not None and len(self.differences) < _SHOWN:
            self.differences.append(f"{name}: {difference}")

    def lack(self, count: int, where: Path) -> None:
        """Note kept trajectories that are not there to be executed: they disagree."""
        self.checked += count
        self.differences.insert(
            0, f"{count} kept trajectories are missing from {where}: the same synth run command makes them anew"
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "checked": self.checked,
            "agreed": self.agreed,
            "disagreed": self.checked - self.agreed,
            "differences": self.differences,
        }


async def difference(trajectory: Trajectory, apps: Apps, digest: str = "") -> str | None:
    """The first thing that is other when a trajectory is executed again; None if all is the same. With `digest` its
    content must have that hash."""
    if digest and content_hash(trajectory) != digest:
        return "its content has another hash"
    if trajectory.task.family != real.FAMILY:
        return await replay(trajectory, AppWorld(apps))
    try:
        world = real.RealWorld(real.RealTask.model_validate(trajectory.task.data))
    except ValueError as e:
        return f"its task cannot be set up again ({str(e).splitlines()[0]})"
    return await replay(trajectory, world)


_shared: dict[str, Apps] = {}


def _begin_worker(domains: dict[str, str]) -> None:
    _shared["apps"] = Apps.declared(domains)


def _begin_process(domains: dict[str, str]) -> None:
    begin_process()
    _begin_worker(domains)


def _check(rows: list[tuple[str, str, str]]) -> list[tuple[str, str | None]]:
    async def all_of_them() -> list[tuple[str, str | None]]:
        found: list[tuple[str, str | None]] = []
        for name, digest, atif in rows:
            try:
                found.append((name, await difference(from_atif(atif), _shared["apps"], digest)))
            except (UserError, ValueError) as e:
                found.append((name, str(e)))
        return found

    return asyncio.run(all_of_them())


def verify_run(run: Path, *, workers: int) -> Verified:
    """Re-execute every kept trajectory of a run; one that is missing disagrees."""
    lake = Lake(run)
    domains = lake.declarations()
    total = int(lake.one("SELECT count(*) FROM trajectories"))
    verified = Verified()
    # A run that is not finished has no verdicts yet.
    missing = max(int(lake.one("SELECT count(*) FROM verdicts WHERE dropped = ''")) - total, 0)
    if missing:
        verified.lack(missing, lake.folder)
    # Where not one attempt is there, there is no such view.
    rows = lake.stream("SELECT task, hash, atif FROM trajectories", _PIECE) if total else ()
    with ConsoleReporter().stage("verify") as bar:
        for results in _checked(_pieces(rows), domains, workers):
            for name, found in results:
                verified.add(name, found)
            bar(verified.checked, total + missing)
    if not verified.checked:
        verified.differences.append(f"nothing was checked: {run} has no trajectories yet")
    return verified


def _pieces(rows: Iterable[tuple[str, str, str]]) -> Iterable[list[tuple[str, str, str]]]:
    piece: list[tuple[str, str, str]] = []
    for row in rows:
        piece.append(row)
        if len(piece) == _PIECE:
            yield piece
            piece = []
    if piece:
        yield piece


def _checked(
    pieces: Iterable[list[tuple[str, str, str]]], domains: dict[str, str], workers: int
) -> Iterable[list[tuple[str, str | None]]]:
    if workers == 1:
        _begin_worker(domains)
        yield from map(_check, pieces)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _begin_process, (domains,)) as pool:
        waiting: list[Any] = []
        for piece in pieces:
            with quiet_start():
                waiting.append(pool.submit(_check, piece))
            # A lake of any size passes through a few pieces.
            if len(waiting) >= 4 * workers:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()
