"""Sessions on disk, one folder each, below the state folder of the person.

    sessions/ID/session.json        where it works, with which model, since when, what was asked
    sessions/ID/trajectory.json     all of it, in ATIF (and .jsonl while a request is under way)
    sessions/ID/turns/0001/         what the first request has changed, and what was there before (see `undo`)

An id begins with the time, so that they sort by it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError

from openk2.agent.setup import record_name, state_folder
from openk2.agent.undo import Turn
from openk2.core import Trajectory, UserError
from openk2.core.atif import read_atif
from openk2.core.errors import first_invalid
from openk2.core.runs import locked, write_text
from openk2.rollout.record import recover


class About(BaseModel):
    """session.json. `began` is local time, as ISO 8601 writes it."""

    workspace: str
    model: str
    began: str
    requests: list[str] = []


@dataclass(frozen=True, slots=True)
class Stored:
    """A session on disk."""

    folder: Path
    about: About

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def record(self) -> Path:
        return self.folder / "trajectory.json"

    @property
    def turns(self) -> list[Turn]:
        """Those that changed something, in their order."""
        return [Turn(path.parent) for path in sorted((self.folder / "turns").glob("*/turn.json"))]

    def next_turn(self, request: str) -> Turn:
        """A turn that is not there yet."""
        taken = [int(path.name) for path in (self.folder / "turns").glob("[0-9]*") if path.name.isdecimal()]
        return Turn(self.folder / "turns" / f"{max(taken, default=0) + 1:04d}", request)

    def asked(self, request: str) -> None:
        """Note down one more request."""
        self.about.requests.append(request)
        self.save()

    def save(self) -> None:
        write_text(self.folder / "session.json", self.about.model_dump_json(indent=1) + "\n")

    def trajectory(self) -> Trajectory:
        """All of it, also when it was killed. Raises UserError if there is nothing, or if it is damaged."""
        running = self.record.with_suffix(".jsonl")
        if running.exists():
            return recover(running)
        if not self.record.exists():
            raise UserError(f"the session {self.id} has no record: nothing was asked in it")
        return read_atif(self.record)

    def to_json(self) -> dict[str, object]:
        about = self.about.model_dump()
        changed = [turn.read() for turn in self.turns]
        return {
            "id": self.id,
            **about,
            "turns": len(changed),
            "undone": sum(record.undone for record in changed),
            "trajectory": str(self.record),
        }


def create(workspace: Path, model: str, began: str) -> Stored:
    """A new session, whose folder exists afterwards."""
    stored = Stored(_root() / record_name(), About(workspace=str(workspace), model=model, began=began))
    stored.save()
    return stored


def sessions(workspace: Path | None = None) -> list[Stored]:
    """All sessions, or those of a workspace, the newest first. What is no session is left out."""
    found = []
    for path in sorted(_root().glob("*/session.json"), reverse=True):
        try:
            about = About.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if workspace is None or Path(about.workspace) == workspace:
            found.append(Stored(path.parent, about))
    return found


def find(identifier: str, workspace: Path | None = None) -> Stored:
    """The session with that id, or the only one whose id begins so; without an id the newest one of `workspace`.

    Raises UserError if there is none, or more than one, and if it is damaged.
    """
    if not identifier:
        there = sessions(workspace)
        if not there:
            raise UserError(f"there is no session of {workspace}: name another folder with --workspace, or an ID")
        return there[0]
    names = [path.name for path in _root().iterdir() if path.name.startswith(identifier)]
    names = [identifier] if identifier in names else names
    if len(names) != 1:
        what = "there is no session" if not names else f"{len(names)} sessions begin with"
        raise UserError(f"{what} {identifier!r}: see agent sessions")
    path = _root() / names[0] / "session.json"
    try:
        return Stored(path.parent, About.model_validate_json(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as e:
        why = first_invalid(e)[1] if isinstance(e, ValidationError) else e
        raise UserError(f"{path} is damaged ({why}): delete its folder") from e


@contextmanager
def writing() -> Iterator[None]:
    """Whoever takes changes over or back in a person's folders is alone. Raises UserError after a minute."""
    with locked(_root(), "try again", 60.0):
        yield


def _root() -> Path:
    folder = state_folder() / "sessions"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
