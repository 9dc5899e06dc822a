"""Run folders: a stage reads a folder and writes a folder, with a manifest that ties outputs to inputs by hash."""

from __future__ import annotations

import fcntl
import glob
import hashlib
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from openk2.core.errors import DISK_FULL, UserError


class Manifest(BaseModel):
    """What a finished stage was made from and what it gave (`DIR/<stage>/manifest.json`)."""

    model_config = ConfigDict(extra="forbid")

    stage: str
    config: dict[str, Any]
    inputs: dict[str, str] = Field(default_factory=dict, description="path or name -> sha256")
    outputs: dict[str, str] = Field(default_factory=dict, description="file in the stage's folder -> sha256")
    versions: dict[str, str] = Field(default_factory=dict)
    results: dict[str, Any] = Field(default_factory=dict)


def versions(*packages: str) -> dict[str, str]:
    """Versions of the interpreter and of the named packages, as far as installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


SMALL_BYTES = 10_000_000


def read_small_text(path: Path) -> str:
    """The UTF-8 text of a file or a pipe. Raises OSError, and ValueError for what is too large or not UTF-8."""
    with open(path, "rb") as file:
        data = file.read(SMALL_BYTES + 1)
    if len(data) > SMALL_BYTES:
        raise ValueError(f"it has more than {SMALL_BYTES / 1e6:.0f} MB")
    return data.decode("utf-8")


def nano_folder() -> Path:
    """The folder of the embedded model."""
    return Path(str(resources.files("openk2") / "weights" / "nano"))


def sha256_file(path: Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def sha256_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


LOCK = ".lock"
MANIFEST = "manifest.json"


@contextmanager
def locked(folder: Path, advice: str, seconds: float = 0.0) -> Iterator[None]:
    """One process at a time in a folder, which is made. Raises UserError, with `advice`, if it cannot be had within
    `seconds`."""
    with ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = held.enter_context(open(folder / LOCK, "w", encoding="utf-8"))
        except OSError as e:
            raise UserError(f"the folder {folder} cannot be used: {e.strerror or e}; {advice}") from e
        end = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as e:
                if time.monotonic() >= end:
                    raise UserError(f"another process is working in {folder}: wait for it, or {advice}") from e
            time.sleep(0.05)
        yield


_STALE_SECONDS = 600  # on a shared disk the process may be another machine's, and still write


def half_written(folder: Path) -> Path:
    """Where a folder lies until it is whole."""
    return folder.with_name(f".{folder.name}.building")


def check_file(path: Path) -> None:
    """Raises UserError for what is no file's name."""
    if not path.name or path.is_dir():
        raise UserError(f"{path} is a folder: name a file")
    # A file that is written takes the place of what was there, which may be a link to where output goes.
    parts = (path.parent.resolve(), path.readlink() if path.is_symlink() else path)
    of_system = parts[0] == Path("/dev") or any(place.is_relative_to("/proc") for place in parts)
    if of_system or (path.exists() and not path.is_file()):
        raise UserError(f"{path} is a device or a pipe: name a file")


def check_utf8(path: Path) -> None:
    """Raises UserError for a place whose name neither JSON nor the libraries which read and write Parquet can take."""
    # What is typed may be relative, and is not always what is written down.
    place = os.path.realpath(path)
    try:
        place.encode()
    except UnicodeEncodeError as e:
        raise UserError(f"the name {place!r} has bytes that are not UTF-8: take another") from e


def check_new_file(path: Path, source: Path | None = None, *, force: bool = False) -> None:
    """Raises UserError, before any work is done, for a file that cannot be written or would take something away: one
    that is there without `force`, and always the one that is read."""
    check_file(path)
    if source is not None and path.exists() and source.exists() and path.samefile(source):
        raise UserError(f"{path} is the file that is read: name another one to be written")
    if path.exists() and not force:
        raise there_already(path)


def there_already(path: Path) -> UserError:
    """What is said of something that would be replaced."""
    return UserError(f"{path} is there already: name another, or give --force to replace it")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary sibling that replaces `path` when the block ends well: a reader sees the old file or the new one.

    Raises UserError for a folder and when the disk is full; the old file then stays.
    """
    check_file(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        # Some writers (safetensors) replace the file by one that only its owner may read.
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)
        with open(temporary, "rb") as f:
            os.fsync(f.fileno())
        temporary.replace(path)
    except OSError as e:
        advice = "free some space, or choose another folder" if e.errno in DISK_FULL else "choose another folder"
        raise UserError(f"could not write {path}: {e.strerror or e}; {advice}") from e
    finally:
        # Where nothing can be written, there is nothing to remove.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def remove_stale(path: Path) -> None:
    """Take away what processes that were killed at once have left of `path`."""
    for stale in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with suppress(OSError):
            old = time.time() - stale.stat().st_mtime > _STALE_SECONDS
            if old and not _lives(stale.name.rsplit(".", 2)[1]):
                stale.unlink()


def _lives(pid: str) -> bool:
    """Whether there may be a process of that number."""
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except OSError:
        return True
    return True


def write_text(path: Path, text: str) -> None:
    """Write a whole text file atomically, the same bytes on every machine: UTF-8, lines end in a newline alone."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_manifest(folder: Path, manifest: Manifest) -> None:
    write_text(folder / MANIFEST, json.dumps(manifest.model_dump(), indent=2, sort_keys=True) + "\n")


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a finished stage; None if the stage has not finished. Raises UserError if it is damaged."""
    path = folder / MANIFEST
    if not path.exists():
        return None
    try:
        return Manifest.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as e:
        raise UserError(f"{path} is damaged ({type(e).__name__}): delete the folder {folder} to redo this stage") from e
