"""What a turn puts into a workspace, and what was there before, so that it can be taken back.

    TURN/turn.json      the workspace, and of each path what it was and what it became
    TURN/before/N       the file that was there, N counting the paths
    TURN/after/N        the text that was put there, as long as it can be merged with what came later

Paths are relative to the workspace, with `/`.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from openk2.agent.merge import merge_texts
from openk2.agent.tree import Tree
from openk2.core import UserError
from openk2.core.errors import first_invalid
from openk2.core.runs import sha256_file, write_text

Kind = Literal["file", "link", "folder", "nothing"]


class Was(BaseModel):
    """What is or was at a path. `digest` is the SHA-256 of a file."""

    kind: Kind = "nothing"
    mode: int = 0
    target: str = ""
    digest: str = ""

    def alike(self, other: Was) -> bool:
        """Whether the content is the same; permissions are no content."""
        return (self.kind, self.target, self.digest) == (other.kind, other.target, other.digest)


class Kept(BaseModel):
    """One path of a turn."""

    path: str
    before: Was
    after: Was


class Record(BaseModel):
    """turn.json"""

    workspace: str
    request: str = ""
    kept: list[Kept] = []
    undone: bool = False


@dataclass(frozen=True, slots=True)
class Put:
    """Something to be put at `path`: a copy of what is at `source`, or `text`, or neither, which takes it away."""

    path: str
    source: Path | None = None
    text: str | None = None
    mode: int = 0o644


class Turn:
    """The folder of a turn. It is written before the workspace is, so that a kill in between loses nothing."""

    def __init__(self, folder: Path, request: str = "") -> None:
        self.folder = folder
        self.request = request

    @property
    def path(self) -> Path:
        return self.folder / "turn.json"

    @property
    def at(self) -> float:
        """When something was put there, or back."""
        return self.path.stat().st_mtime

    def begin(self, workspace: Path, puts: Sequence[Put]) -> None:
        """Keep what is at these paths, and what is going to be put there."""
        if not puts:
            return
        for name in ("before", "after"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        kept = []
        for number, put in enumerate(puts):
            there, after = workspace / put.path, self.folder / "after" / str(number)
            if put.text is not None:
                after.write_bytes(put.text.encode())
                became = Was(kind="file", mode=put.mode, digest=sha256_file(after))
            else:
                became = Was() if put.source is None else _what_is(put.source)
                if put.source is not None and became.kind == "file" and _text(put.source) is not None:
                    shutil.copyfile(put.source, after)
            was = _what_is(there)
            if was.kind == "file":
                _keep(there, self.folder / "before" / str(number))
            kept.append(Kept(path=put.path, before=was, after=became))
        self._write(Record(workspace=str(workspace), request=self.request, kept=kept))

    def read(self) -> Record:
        """Raises UserError for a record that is damaged."""
        try:
            return Record.model_validate_json(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as e:
            why = first_invalid(e)[1] if isinstance(e, ValidationError) else str(e)
            raise UserError(f"{self.path} is damaged ({why}): what this turn changed cannot be taken back") from e

    def take_back(self, copy: Path | None = None) -> dict[str, str]:
        """Put back what was there before the turn; why not, for each path where that cannot be.

        Where a text was changed since, the turn's part of it is taken out. With `copy` that is done in a copy of the
        workspace, and not noted down.
        """
        record = self.read()
        workspace = copy or Path(record.workspace)
        if not workspace.is_dir():
            raise UserError(f"the folder {workspace} is not there: bring it back")
        left: dict[str, str] = {}
        # What was put first is taken away last: folders after what lies in them.
        for number, kept in reversed(list(enumerate(record.kept))):
            put = self._back(workspace, number, kept)
            if isinstance(put, str):
                left[kept.path] = put
            elif put is not None and not place(workspace, put):
                left[kept.path] = "something else lies in its way"
        # What came to nothing can be tried again.
        if copy is None and len(left) < len(record.kept):
            self._write(record.model_copy(update={"undone": True}))
        return left

    def _back(self, workspace: Path, number: int, kept: Kept) -> Put | str | None:
        now, before = _what_is(workspace / kept.path), self.folder / "before" / str(number)
        if now == kept.before or (now.alike(kept.before) and not now.alike(kept.after)):
            return None
        if now.alike(kept.after):
            if kept.before.kind == "file" and _what_is(before).digest != kept.before.digest:
                return "what was there before was changed by another name of it"
            if kept.before.kind in ("file", "nothing"):
                return Put(kept.path, before if kept.before.kind == "file" else None, mode=kept.before.mode)
            # A link or a folder is nothing but its record.
            made = self.folder / "made"
            made.unlink(missing_ok=True) if made.is_symlink() else shutil.rmtree(made, ignore_errors=True)
            made.symlink_to(kept.before.target) if kept.before.kind == "link" else made.mkdir(mode=kept.before.mode)
            return Put(kept.path, made, mode=kept.before.mode)
        if now.kind == kept.before.kind == kept.after.kind == "file":
            texts = _text(self.folder / "after" / str(number)), _text(workspace / kept.path), _text(before)
            if texts[0] is not None and texts[1] is not None and texts[2] is not None:
                merged = merge_texts(texts[0], texts[1], texts[2])
                if merged is not None:
                    return Put(kept.path, text=merged, mode=now.mode)
        return "it was changed since"

    def _write(self, record: Record) -> None:
        write_text(self.path, record.model_dump_json(indent=1) + "\n")


def _what_is(path: Path) -> Was:
    """What is at a path; nothing, too, for what is no file, link or folder."""
    tree = Tree(path.parent)
    state = tree.look(path.name)
    if state is None or state.kind == "other":
        return Was()
    digest = tree.digest(path.name) if state.kind == "file" else ""
    return Was(kind=state.kind, mode=state.mode, target=state.target, digest=digest)


def _text(path: Path) -> str | None:
    return Tree(path.parent).text(path.name)


def place(workspace: Path, put: Put) -> bool:
    """Do what `put` says; whether it could be done. Whoever reads meanwhile sees what was there or what comes.

    Raises UserError if the disk is full or the folder cannot be written.
    """
    target = workspace / put.path
    if not _is_inside(workspace, target):
        return False
    try:
        if put.source is None and put.text is None:
            return _remove(target)
        if put.source is not None and put.source.is_dir() and not put.source.is_symlink():
            if not (target.is_dir() and not target.is_symlink()):
                target.unlink(missing_ok=True)
                target.mkdir()
            target.chmod(stat.S_IMODE(put.source.stat().st_mode) & 0o777)
            return True
        if target.is_dir() and not target.is_symlink() and not _remove(target):
            return False
        _replace(target, put)
    except OSError as e:
        raise UserError(f"{target} cannot be written: {e.strerror or e}") from e
    return True


def _replace(target: Path, put: Put) -> None:
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        if put.text is not None:
            temporary.write_bytes(put.text.encode())
            temporary.chmod(put.mode)
        elif put.source is not None and put.source.is_symlink():
            temporary.symlink_to(put.source.readlink())
        elif put.source is not None:
            shutil.copyfile(put.source, temporary, follow_symlinks=False)
            temporary.chmod(stat.S_IMODE(put.source.stat().st_mode) & 0o777)
        # Where root works for somebody, the files stay theirs.
        owner = target.lstat() if os.path.lexists(target) else target.parent.stat()
        if os.geteuid() == 0:
            os.chown(temporary, owner.st_uid, owner.st_gid, follow_symlinks=False)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _remove(target: Path) -> bool:
    if target.is_dir() and not target.is_symlink():
        with suppress(OSError):
            target.rmdir()
        return not target.exists()
    target.unlink(missing_ok=True)
    return True


def _is_inside(workspace: Path, target: Path) -> bool:
    """Whether the way there leads through folders alone: a link could lead anywhere."""
    if ".." in target.parts:
        return False
    parents = list(target.relative_to(workspace).parents)[:-1]
    return all((workspace / parent).is_dir() and not (workspace / parent).is_symlink() for parent in parents)


def _keep(there: Path, kept: Path) -> None:
    """A second name for a file, which is replaced and never written into; where that cannot be, a copy."""
    kept.unlink(missing_ok=True)
    # A file with another name can be written into by that one.
    if there.lstat().st_nlink == 1:
        with suppress(OSError):
            os.link(there, kept, follow_symlinks=False)
            return
    shutil.copy2(there, kept, follow_symlinks=False)
