"""Scratch folders with random content: what the shell family works on, and how its end state is judged."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from openk2.core import Split, Verdict
from openk2.worlds.families import lexicon

NOTE_ENDINGS = ("txt", "md")
OTHER_ENDINGS = ("log", "csv", "ini", "json", "py", "dat", "tmp", "bak", "html", "cfg")
LEVELS = ("INFO", "WARN", "ERROR", "DEBUG")


@dataclass(slots=True)
class Scratch:
    """A folder in the making: paths (with `/`) and contents; every base name and every drawn word occurs once."""

    rng: Random
    split: Split
    files: dict[str, str] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)

    def word(self) -> str:
        """A content word that is not used yet and that is no part of a used one."""
        for _ in range(200):
            draw = lexicon.noun if self.rng.random() < 0.55 else lexicon.pseudoword
            word = draw(self.rng, self.split)
            if len(word) > 2 and not any(word in other or other in word for other in self.used):
                self.used.add(word)
                return word
        raise AssertionError("200 words in a row are used already")

    def stem(self) -> str:
        """The name of a file without its ending."""
        roll = self.rng.random()
        if roll < 0.65:
            return self.word()
        if roll < 0.9:
            return f"{self.word()}_{self.word()}"
        return f"{self.word()}{self.rng.randint(1, 30)}"

    def folder(self) -> str:
        """A new folder, sometimes inside another one."""
        name = self.word()
        if self.folders and self.rng.random() < 0.25:
            name = f"{self.rng.choice(self.folders)}/{name}"
        self.folders.append(name)
        return name

    def place(self, root: float) -> str:
        """A folder prefix for a file: the root with this chance, else an existing folder."""
        if not self.folders or self.rng.random() < root:
            return ""
        return f"{self.rng.choice(self.folders)}/"

    def add(self, name: str, content: str) -> str:
        """Put a file at a path; return the path."""
        self.files[name] = content
        return name

    def fill(self, count: int, endings: Iterable[str] = (*NOTE_ENDINGS, *OTHER_ENDINGS)) -> None:
        """Add files with random content."""
        choices = list(endings)
        for _ in range(count):
            ending = self.rng.choice(choices)
            self.add(f"{self.place(0.45)}{self.stem()}.{ending}", self.content(ending))

    def content(self, ending: str) -> str:
        """Text that suits a file's ending."""
        rng = self.rng
        match ending:
            case "csv":
                head = ",".join(self.plain() for _ in range(3))
                rows = [f"{self.plain()},{rng.randint(1, 99)},{rng.randint(1, 99)}" for _ in range(rng.randint(2, 6))]
                return "\n".join([head, *rows]) + "\n"
            case "ini" | "cfg":
                return "".join(f"{self.plain()}={rng.randint(1, 9999)}\n" for _ in range(rng.randint(2, 5)))
            case "log":
                return "".join(f"{self.moment()} {self.plain()} {self.plain()}\n" for _ in range(rng.randint(3, 9)))
            case "json":
                return f'{{"{self.plain()}": {rng.randint(1, 99)}, "{self.plain()}": "{self.plain()}"}}\n'
            case "py":
                return f"def {self.plain()}(x):\n    return x + {rng.randint(1, 9)}\n"
            case "dat":
                return "".join(f"{rng.randint(1, 500)}\n" for _ in range(rng.randint(3, 8)))
            case "html":
                return f"<p>{self.plain()} {self.plain()}</p>\n"
            case _:
                return self.prose(rng.randint(1, 5))

    def moment(self) -> str:
        """How a line of a log starts."""
        return f"{self.rng.randint(0, 23):02d}:{self.rng.randint(0, 59):02d} {self.rng.choice(LEVELS)}"

    def plain(self) -> str:
        """A word for content; may be used elsewhere, but never a word that `word` has handed out."""
        for _ in range(200):
            word = lexicon.word(self.rng, self.split)
            if not any(word in other or other in word for other in self.used):
                return word
        raise AssertionError("200 words in a row are used already")

    def prose(self, lines: int) -> str:
        """Lines of a few words."""
        return "".join(" ".join(self.plain() for _ in range(self.rng.randint(2, 5))) + "\n" for _ in range(lines))


def new_scratch(rng: Random, split: Split, folders: int | None = None) -> Scratch:
    """An empty scratch folder with 0-3 subfolders."""
    scratch = Scratch(rng, split)
    for _ in range(rng.choice((0, 1, 1, 2, 2, 3)) if folders is None else folders):
        scratch.folder()
    return scratch


def write_folder(folder: Path, files: dict[str, str], folders: Iterable[str]) -> None:
    """Make the files and folders."""
    for name in folders:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8", newline="\n")


def read_folder(folder: Path) -> tuple[dict[str, str], set[str]]:
    """All files and folders below a folder, without hidden ones and Python's caches."""
    files: dict[str, str] = {}
    folders: set[str] = set()
    for root, names, leaves in os.walk(folder):
        names[:] = sorted(n for n in names if not n.startswith(".") and n != "__pycache__")
        below = Path(root).relative_to(folder)
        folders.update((below / n).as_posix() for n in names)
        for leaf in leaves:
            if not leaf.startswith("."):
                path = Path(root) / leaf
                files[(below / leaf).as_posix()] = path.read_text(errors="replace") if path.is_file() else "(no file)"
    return files, folders


def check_folder(folder: Path, start: dict[str, str], end: dict[str, Any]) -> Verdict:
    """Compare a folder with the wanted end state: {"files": {path: content}, "folders": [...], "gone": [...]}.

    Files that the task did not touch must be as they were, byte for byte; others may differ in the newline at the end.
    """
    files, folders = read_folder(folder)
    wanted: dict[str, str] = end["files"]
    for name in sorted(set(wanted) - set(files)):
        return Verdict(False, f"{name} is missing")
    for name in sorted(set(files) - set(wanted)):
        return Verdict(False, f"{name} should not be there")
    tidy: Callable[[str], str] = lambda text: text.rstrip("\n")  # noqa: E731  (a name for a trivial function)
    for name, content in wanted.items():
        same = files[name] == content if start.get(name) == content else tidy(files[name]) == tidy(content)
        if not same:
            return Verdict(False, f"{name} has the wrong content")
    for name in end.get("folders", ()):
        if name not in folders:
            return Verdict(False, f"the folder {name} is missing")
    for name in end.get("gone", ()):
        if name in folders:
            return Verdict(False, f"the folder {name} should be gone")
    return Verdict(True, "the folder is as it should be")
