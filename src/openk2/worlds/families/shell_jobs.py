"""The jobs of the shell family: for each skill a folder, a request, the expert's calls, and the wanted end."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from random import Random
from typing import Any

from openk2.core import Split
from openk2.worlds.families import shell_change_words as changes
from openk2.worlds.families import shell_words as words
from openk2.worlds.families.phrasing import Phrase, listing, protect
from openk2.worlds.families.scratch import NOTE_ENDINGS, Scratch, new_scratch

Call = tuple[str, dict[str, str]]


@dataclass(slots=True)
class Job:
    """What is asked, how the expert does it, and what is right.

    `say` is the expert's answer: {line} stands for the first line that the last call printed, {list} for all lines,
    {value} for what follows `=` or `:` in the first line, {number} for what stands before its first `:`.
    `end` is None when the folder must stay as it is; `beside` is another end that is as good (a copy next to the
    original).
    """

    phrase: Phrase
    calls: list[Call]
    say: str
    expect: dict[str, Any] | None = None
    end: dict[str, str] | None = None
    beside: dict[str, str] | None = None
    made: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)


def shell(command: str) -> Call:
    return ("shell", {"command": command})


class Maker:
    """Draws one job: a folder, a request, the expert's calls, the wanted end."""

    def __init__(self, rng: Random, split: Split) -> None:
        self.rng, self.split = rng, split
        self.scratch: Scratch = new_scratch(rng, split)

    def say(self, book: Any, **slots: object) -> Phrase:
        phrase: Phrase = book.say(self.rng, self.split, **slots)
        return phrase

    def fill(self, low: int = 2, high: int = 8, **kind: Any) -> None:
        self.scratch.fill(self.rng.randint(low, high), **kind)

    def name(self, *endings: str) -> str:
        """A new file name."""
        return f"{self.scratch.stem()}.{self.rng.choice(endings or NOTE_ENDINGS)}"

    def target(self, content: str, *endings: str) -> tuple[Phrase, str, list[Call]]:
        """A file to work on: what the user calls it, its path for commands, and the calls that find it."""
        rng, scratch = self.rng, self.scratch
        name = self.name(*endings)
        if not scratch.folders and rng.random() < 0.5:
            scratch.folder()
        prefix = scratch.place(0.4)
        path = scratch.add(prefix + name, content)
        roll = rng.random()
        if roll < 0.4:
            return self.say(words.BARE, f=name), f"./{path}", [shell(f"find . -name '{name}'")]
        if not prefix:
            return self.say(words.HERE, f=name), path, []
        if roll < 0.7:
            return Phrase(protect(path)), path, []
        return self.say(words.IN_FOLDER, f=name, d=prefix.rstrip("/")), path, []


def number(value: float) -> dict[str, Any]:
    return {"facts": [{"numbers": [value]}]}


def clean(path: str) -> str:
    return path.removeprefix("./")


# ---------------------------------------------------------------------------------------------------------------------
# One function for each skill.


def _paths(m: Maker, found: Sequence[str]) -> dict[str, Any]:
    """The answer names these files and no others."""
    others = [PurePosixPath(p).name for p in m.scratch.files if p not in found]
    return {"texts": [PurePosixPath(p).name if "/" not in p else p for p in found], "others": others}


def _find(m: Maker) -> Job:
    m.fill(3, 9)
    files, roll = m.scratch.files, m.rng.random()
    if roll < 0.5:
        if not m.scratch.folders:
            m.scratch.folder()
        name = m.name("txt", "md", "csv", "log", "json", "py", "ini")
        path = m.scratch.add(f"{m.rng.choice(m.scratch.folders)}/{name}", m.scratch.prose(1))
        phrase = m.say(words.FIND_FILE, f=name)
        return Job(phrase, [shell(f"find . -name '{name}'")], "The file is {line}.", _paths(m, [path]))
    if roll < 0.75:
        ending = PurePosixPath(m.rng.choice(list(files))).suffix[1:]
        found = sorted(p for p in files if p.endswith(f".{ending}"))
        phrase = m.say(words.FIND_ENDING, e=ending, x=f".{ending}")
        expect = _paths(m, found) | {"allowed": [len(found)]}
        return Job(phrase, [shell(f"find . -name '*.{ending}' | sort")], "Found {list}.", expect)
    folder = m.scratch.folder()
    for _ in range(m.rng.randint(1, 3)):
        ending = m.rng.choice(("txt", "csv", "log", "md"))
        m.scratch.add(f"{folder}/{m.scratch.stem()}.{ending}", m.scratch.content(ending))
    inside = [p for p in files if p.startswith(f"{folder}/")]
    phrase = m.say(words.LIST_FOLDER, d=folder)
    expect = _paths(m, inside) | {"texts": [PurePosixPath(p).name for p in inside], "allowed": [len(inside)]}
    return Job(phrase, [shell(f"find {folder} -type f | sort")], "Found {list}.", expect)


def _count(m: Maker) -> Job:
    roll = m.rng.random()
    if roll < 0.3:
        content, word, hits = _log(m)
        called, path, look = m.target(content, "log", "txt")
        m.fill()
        phrase = m.say(words.COUNT_MATCHES, f=called, w=word)
        return Job(phrase, [*look, shell(f"grep -c '{word}' {path}")], "There are {line} lines.", number(hits))
    m.fill(3, 10)
    files = m.scratch.files
    if roll < 0.6:
        ending = PurePosixPath(m.rng.choice(list(files))).suffix[1:]
        hits = sum(p.endswith(f".{ending}") for p in files)
        phrase = m.say(words.COUNT_ENDING, e=ending, x=f".{ending}")
        return Job(phrase, [shell(f"find . -name '*.{ending}' | wc -l")], "There are {line} files.", number(hits))
    if roll < 0.75:
        command = "find . -type f | wc -l"
        return Job(m.say(words.COUNT_ALL), [shell(command)], "There are {line} files.", number(len(files)))
    if roll < 0.92:
        folder = m.scratch.folder()
        for _ in range(m.rng.randint(1, 6)):
            ending = m.rng.choice(("txt", "csv", "log", "md"))
            m.scratch.add(f"{folder}/{m.scratch.stem()}.{ending}", m.scratch.content(ending))
        hits = sum(p.startswith(f"{folder}/") for p in files)
        phrase = m.say(words.COUNT_IN, d=folder)
        return Job(phrase, [shell(f"find {folder} -type f | wc -l")], "There are {line} files.", number(hits))
    command = "find . -mindepth 1 -type d | wc -l"
    count = len(m.scratch.folders)
    return Job(m.say(words.COUNT_FOLDERS), [shell(command)], "There are {line} folders.", number(count))


def _log(m: Maker) -> tuple[str, str, int]:
    """A log, a word that stands in some of its lines, and in how many."""
    word = m.scratch.word() if m.rng.random() < 0.5 else m.rng.choice(("ERROR", "WARN", "INFO", "DEBUG"))
    lines = m.scratch.content("log").splitlines()
    lines += [f"{m.scratch.plain()} {word} {m.scratch.plain()}" for _ in range(m.rng.randint(1, 6))]
    m.rng.shuffle(lines)
    return "\n".join(lines) + "\n", word, sum(word in line for line in lines)


def _sum(m: Maker) -> Job:
    rng, roll = m.rng, m.rng.random()
    decimals = rng.choice((0, 0, 2))
    values = [
        round(rng.uniform(1, 400), decimals) if decimals else rng.randint(1, 500) for _ in range(rng.randint(3, 15))
    ]
    total = round(sum(values), 2)
    if roll < 0.3:
        columns = [m.scratch.word() for _ in range(3)]
        wanted = rng.choice((1, 2))
        rows = [[m.scratch.plain(), str(rng.randint(1, 99)), str(rng.randint(1, 99))] for _ in values]
        for row, value in zip(rows, values, strict=True):
            row[wanted] = str(value)
        content = "\n".join([",".join(columns), *(",".join(row) for row in rows)]) + "\n"
        called, path, look = m.target(content, "csv")
        m.fill()
        code = f"import pandas as pd\nprint(round(pd.read_csv('{path}')['{columns[wanted]}'].sum(), 2))"
        phrase = m.say(words.SUM_COLUMN, f=called, c=columns[wanted])
        return Job(phrase, [*look, ("python", {"code": code})], "The sum is {line}.", number(total))
    labels = roll < 0.6
    content = "".join(f"{m.scratch.plain()} {v}\n" if labels else f"{v}\n" for v in values)
    called, path, look = m.target(content, "txt", "dat", "list")
    m.fill()
    command = f"awk '{{s += $NF}} END {{print s}}' {path}"
    return Job(m.say(words.SUM_FILE, f=called), [*look, shell(command)], "The sum is {line}.", number(total))


def _search(m: Maker) -> Job:
    rng, roll = m.rng, m.rng.random()
    if roll < 0.3:
        key, value = m.scratch.word(), _value(m)
        called, path, look = m.target(_settings(m, key, value), "ini", "cfg", "conf", "txt")
        m.fill()
        phrase = m.say(words.SEARCH_VALUE, f=called, k=key)
        expect: dict[str, Any] = {"texts": [value]}
        return Job(phrase, [*look, shell(f"grep '{key}' {path}")], f"{key} is {{value}}.", expect)
    word = m.scratch.word()
    if roll < 0.45:
        lines = m.scratch.prose(rng.randint(3, 9)).splitlines()
        at = rng.randrange(len(lines))
        lines[at] += f" {word}"
        called, path, look = m.target("\n".join(lines) + "\n", "txt", "md", "log")
        m.fill()
        phrase = m.say(words.SEARCH_LINE, f=called, w=word)
        return Job(phrase, [*look, shell(f"grep -n '{word}' {path}")], "It is on line {number}.", number(at + 1))
    m.fill(4, 9)
    several = rng.random() < 0.35
    found = sorted(rng.sample(list(m.scratch.files), k=rng.randint(2, 3) if several else 1))
    for path in found:
        lines = m.scratch.files[path].splitlines()
        at = rng.randrange(len(lines)) if lines else 0
        lines[at:at] = [f"{m.scratch.plain()} {word} {m.scratch.plain()}"]
        m.scratch.files[path] = "\n".join(lines) + "\n"
    phrase = m.say(words.SEARCH_WORDS if several else words.SEARCH_WORD, w=word)
    expect = _paths(m, found) | {"allowed": [len(found)]}
    return Job(phrase, [shell(f"grep -rl '{word}' . | sort")], "Found {list}.", expect)


def _value(m: Maker) -> str:
    return str(m.rng.randint(1, 9999)) if m.rng.random() < 0.6 else m.scratch.word()


def _settings(m: Maker, key: str, value: str) -> str:
    separator = m.rng.choice(("=", "=", " = ", ": "))
    lines = [f"{m.scratch.plain()}{separator}{m.rng.randint(1, 9999)}" for _ in range(m.rng.randint(1, 5))]
    lines.insert(m.rng.randint(0, len(lines)), f"{key}{separator}{value}")
    return "\n".join(lines) + "\n"


def _rename(m: Maker) -> Job:
    rng, roll = m.rng, m.rng.random()
    if roll < 0.7:
        called, path, look = m.target(m.scratch.prose(rng.randint(1, 3)), "txt", "md", "csv", "log", "py", "json")
        m.fill()
        old = PurePosixPath(path)
        same = rng.random() < 0.7
        new = f"{m.scratch.stem()}{old.suffix}" if same else f"{old.stem}.{rng.choice(('txt', 'md', 'bak', 'old'))}"
        if new == old.name:
            new = f"{m.scratch.stem()}{old.suffix}"
        target = new if str(old.parent) == "." and not path.startswith("./") else f"{path[: -len(old.name)]}{new}"
        end = {target.removeprefix("./") if p == clean(path) else p: c for p, c in m.scratch.files.items()}
        phrase = m.say(changes.RENAME_FILE, f=called, n=new)
        return Job(phrase, [*look, shell(f"mv {path} {target}")], f"Renamed {old.name} to {new}.", end=end)
    if roll < 0.83:
        m.scratch = new_scratch(rng, m.split, folders=0)
        folder, new = m.scratch.folder(), m.scratch.word()
        m.scratch.add(f"{folder}/{m.name()}", m.scratch.prose(2))
        m.fill()
        end = {re.sub(rf"^{folder}/", f"{new}/", p): c for p, c in m.scratch.files.items()}
        phrase = m.say(changes.RENAME_FOLDER, d=folder, n=new)
        return Job(
            phrase, [shell(f"mv {folder} {new}")], f"Renamed {folder} to {new}.", end=end, made=[new], gone=[folder]
        )
    m.fill()
    old_ending, new = rng.sample(("txt", "md", "log", "csv", "bak", "dat"), 2)
    for _ in range(rng.randint(2, 3)):
        m.scratch.add(f"{m.scratch.stem()}.{old_ending}", m.scratch.prose(1))
    m.scratch.files = {p: c for p, c in m.scratch.files.items() if not (p.endswith(f".{old_ending}") and "/" in p)}
    end = {
        f"{p.removesuffix(f'.{old_ending}')}.{new}" if p.endswith(f".{old_ending}") else p: c
        for p, c in m.scratch.files.items()
    }
    command = f'for f in *.{old_ending}; do mv "$f" "${{f%.{old_ending}}}.{new}"; done'
    phrase = m.say(changes.RENAME_ENDINGS, e=old_ending, x=f".{old_ending}", n=new, y=f".{new}")
    return Job(phrase, [shell(command)], f"Renamed all {old_ending} files to {new}.", end=end)


def _edit(m: Maker) -> Job:
    rng, roll = m.rng, m.rng.random()
    if roll < 0.35:
        key, old = m.scratch.word(), _value(m)
        new = _value(m)
        content = _settings(m, key, old)
        called, path, look = m.target(content, "ini", "cfg", "conf", "txt")
        m.fill()
        line = next(line for line in content.splitlines() if line.startswith(key))
        replaced = line[: len(line) - len(old)] + new
        end = m.scratch.files | {clean(path): content.replace(line, replaced)}
        calls = [*look, ("read_file", {"path": path}), ("edit_file", {"path": path, "old": line, "new": replaced})]
        return Job(m.say(changes.EDIT_VALUE, f=called, k=key, v=new), calls, f"Set {key} to {new}.", end=end)
    word = m.scratch.word()
    lines = m.scratch.prose(rng.randint(2, 5)).splitlines()
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(lines))
        if word not in lines[at]:
            lines[at] = f"{lines[at]} {word}" if rng.random() < 0.5 else f"{word} {lines[at]}"
    content = "\n".join(lines) + "\n"
    called, path, look = m.target(content, "txt", "md", "log")
    m.fill()
    if roll < 0.6:
        new = m.scratch.word()
        end = m.scratch.files | {clean(path): content.replace(word, new)}
        phrase = m.say(changes.EDIT_REPLACE, f=called, w=word, n=new)
        calls = [*look, shell(f"sed -i 's/{word}/{new}/g' {path}")]
        return Job(phrase, calls, f"Replaced {word} with {new}.", end=end)
    if roll < 0.8:
        text = _text(m)
        end = m.scratch.files | {clean(path): f"{content}{text}\n"}
        phrase = m.say(changes.EDIT_APPEND, f=called, t=text)
        return Job(phrase, [*look, shell(f"echo '{text}' >> {path}")], f"Added the line '{text}'.", end=end)
    kept = "".join(f"{line}\n" for line in lines if word not in line)
    end = m.scratch.files | {clean(path): kept}
    phrase = m.say(changes.EDIT_REMOVE, f=called, w=word)
    return Job(phrase, [*look, shell(f"sed -i '/{word}/d' {path}")], f"Removed the lines with {word}.", end=end)


def _text(m: Maker) -> str:
    return " ".join(m.scratch.plain() for _ in range(m.rng.randint(1, 4)))


def _create(m: Maker) -> Job:
    rng, roll = m.rng, m.rng.random()
    m.fill()
    if roll < 0.2:
        folder = m.scratch.word() if rng.random() < 0.7 else f"{m.scratch.word()}/{m.scratch.word()}"
        phrase = m.say(changes.CREATE_FOLDER, d=folder)
        return Job(
            phrase, [shell(f"mkdir -p {folder}")], f"Created the folder {folder}.", end=m.scratch.files, made=[folder]
        )
    name = m.name("txt", "md", "txt", "log", "list")
    path, called = name, Phrase(protect(name))
    if rng.random() < 0.4:
        prefix = m.scratch.place(0.3) or f"{m.scratch.word()}/"
        path = prefix + name
        called = Phrase(protect(path)) if rng.random() < 0.6 else m.say(words.NEW_IN_FOLDER, f=name, d=prefix[:-1])
    if roll < 0.7:
        content = _text(m)
        phrase = m.say(changes.CREATE_TEXT, f=called, t=content)
    else:
        items = [m.scratch.plain() for _ in range(rng.randint(2, 4))]
        content = "\n".join(items)
        phrase = m.say(changes.CREATE_LINES, f=called, t=listing(rng, items))
    calls = [("write_file", {"path": path, "content": f"{content}\n"})]
    return Job(phrase, calls, f"Created {path}.", end=m.scratch.files | {path: f"{content}\n"})


def _sort(m: Maker) -> Job:
    rng, roll = m.rng, m.rng.random()
    numeric = 0.4 < roll < 0.65
    if numeric:
        lines = [str(rng.randint(1, 999)) for _ in range(rng.randint(4, 9))]
    else:
        lines = [m.scratch.plain() for _ in range(rng.randint(4, 9))]
        if roll > 0.85:
            lines += rng.choices(lines, k=rng.randint(1, 3))
    rng.shuffle(lines)
    called, path, look = m.target("\n".join(lines) + "\n", "txt", "list", "dat", "md")
    m.fill()
    name = PurePosixPath(path).name
    if roll < 0.25:
        book, option, ordered = changes.SORT, "", sorted(lines)
    elif roll < 0.4:
        book, option, ordered = changes.SORT_REVERSE, "-r ", sorted(lines, reverse=True)
    elif roll < 0.55:
        book, option, ordered = changes.SORT_NUMBERS, "-n ", sorted(lines, key=int)
    elif roll < 0.65:
        book, option, ordered = changes.SORT_NUMBERS_DOWN, "-rn ", sorted(lines, key=int, reverse=True)
    elif roll < 0.85:
        new = f"{m.scratch.stem()}{PurePosixPath(path).suffix}"
        ordered = sorted(lines)
        end = m.scratch.files | {new: "\n".join(ordered) + "\n"}
        beside = m.scratch.files | {_sibling(path, new): "\n".join(ordered) + "\n"}
        phrase = m.say(changes.SORT_INTO, f=called, n=new)
        return Job(phrase, [*look, shell(f"sort {path} > {new}")], f"Sorted {name} into {new}.", end=end, beside=beside)
    else:
        book, option, ordered = changes.SORT_UNIQUE, "-u ", sorted(set(lines))
    end = m.scratch.files | {clean(path): "\n".join(ordered) + "\n"}
    return Job(m.say(book, f=called), [*look, shell(f"sort {option}-o {path} {path}")], f"Sorted {name}.", end=end)


def _sibling(path: str, name: str) -> str:
    """A name in the folder of a path."""
    return clean(f"{path[: -len(PurePosixPath(path).name)]}{name}")


def _delete(m: Maker) -> Job:
    rng, roll = m.rng, m.rng.random()
    if roll < 0.55:
        called, path, look = m.target(m.scratch.prose(1), "txt", "md", "log", "tmp", "bak", "csv")
        m.fill()
        end = {p: c for p, c in m.scratch.files.items() if p != clean(path)}
        name = PurePosixPath(path).name
        return Job(m.say(changes.DELETE_FILE, f=called), [*look, shell(f"rm {path}")], f"Deleted {name}.", end=end)
    if roll < 0.75:
        m.fill(3, 8)
        ending = rng.choice(("tmp", "bak", "log", "dat"))
        for _ in range(rng.randint(1, 3)):
            m.scratch.add(f"{m.scratch.place(0.4)}{m.scratch.stem()}.{ending}", m.scratch.prose(1))
        end = {p: c for p, c in m.scratch.files.items() if not p.endswith(f".{ending}")}
        phrase = m.say(changes.DELETE_ENDING, e=ending, x=f".{ending}")
        return Job(phrase, [shell(f"find . -name '*.{ending}' -delete")], f"Deleted all {ending} files.", end=end)
    if roll < 0.9:
        m.fill(3, 8)
        folder = m.scratch.word()
        for _ in range(rng.randint(1, 3)):
            m.scratch.add(f"{folder}/{m.name()}", m.scratch.prose(1))
        end = {p: c for p, c in m.scratch.files.items() if not p.startswith(f"{folder}/")}
        phrase = m.say(changes.DELETE_FOLDER, d=folder)
        return Job(phrase, [shell(f"rm -r {folder}")], f"Deleted {folder}.", end=end, gone=[folder])
    m.fill(3, 8)
    for _ in range(rng.randint(1, 3)):
        m.scratch.add(f"{m.scratch.place(0.5)}{m.name()}", "")
    end = {p: c for p, c in m.scratch.files.items() if c}
    return Job(
        m.say(changes.DELETE_EMPTY), [shell("find . -type f -empty -delete")], "Deleted all empty files.", end=end
    )


def _into(m: Maker) -> str:
    """A folder to put something into: one that exists or a new one."""
    return m.rng.choice(m.scratch.folders) if m.scratch.folders and m.rng.random() < 0.5 else m.scratch.word()


def _move(m: Maker) -> Job:
    rng = m.rng
    if rng.random() < 0.65:
        called, path, look = m.target(m.scratch.prose(2), "txt", "md", "csv", "log", "json")
        m.fill()
        name, folder = PurePosixPath(path).name, _into(m)
        if clean(path) == f"{folder}/{name}":
            folder = m.scratch.word()
        end = {f"{folder}/{name}" if p == clean(path) else p: c for p, c in m.scratch.files.items()}
        calls = [*look, shell(f"mkdir -p {folder} && mv {path} {folder}/")]
        return Job(m.say(changes.MOVE_FILE, f=called, d=folder), calls, f"Moved {name} to {folder}.", end=end)
    m.fill(2, 6)
    ending = rng.choice(("txt", "md", "csv", "log", "json"))
    for _ in range(rng.randint(2, 4)):
        m.scratch.add(f"{m.scratch.stem()}.{ending}", m.scratch.prose(1))
    # "all" must mean the same for everybody: no such file in a subfolder.
    m.scratch.files = {p: c for p, c in m.scratch.files.items() if not (p.endswith(f".{ending}") and "/" in p)}
    folder = _into(m)
    end = {f"{folder}/{p}" if p.endswith(f".{ending}") and "/" not in p else p: c for p, c in m.scratch.files.items()}
    phrase = m.say(changes.MOVE_ENDING, e=ending, x=f".{ending}", d=folder)
    command = f"mkdir -p {folder} && mv *.{ending} {folder}/"
    return Job(phrase, [shell(command)], f"Moved all {ending} files to {folder}.", end=end)


def _copy(m: Maker) -> Job:
    rng, roll = m.rng, m.rng.random()
    if roll < 0.2:
        m.scratch = new_scratch(rng, m.split, folders=0)
        folder, new = m.scratch.folder(), m.scratch.word()
        for _ in range(rng.randint(1, 3)):
            m.scratch.add(f"{folder}/{m.name()}", m.scratch.prose(1))
        m.fill()
        files = m.scratch.files
        end = files | {new + p.removeprefix(folder): c for p, c in files.items() if p.startswith(f"{folder}/")}
        phrase = m.say(changes.COPY_FOLDER, d=folder, n=new)
        return Job(phrase, [shell(f"cp -r {folder} {new}")], f"Copied {folder} to {new}.", end=end)
    called, path, look = m.target(m.scratch.prose(rng.randint(1, 3)), "txt", "md", "csv", "log", "json")
    m.fill()
    name, content = PurePosixPath(path).name, m.scratch.files[clean(path)]
    if roll < 0.6:
        new = f"{m.scratch.stem()}{PurePosixPath(path).suffix}"
        end, beside = m.scratch.files | {new: content}, m.scratch.files | {_sibling(path, new): content}
        calls = [*look, shell(f"cp {path} {new}")]
        phrase = m.say(changes.COPY_FILE, f=called, n=new)
        return Job(phrase, calls, f"Copied {name} to {new}.", end=end, beside=beside)
    folder = _into(m)
    if clean(path) == f"{folder}/{name}":
        folder = m.scratch.word()
    end = m.scratch.files | {f"{folder}/{name}": content}
    calls = [*look, shell(f"mkdir -p {folder} && cp {path} {folder}/")]
    return Job(m.say(changes.COPY_INTO, f=called, d=folder), calls, f"Copied {name} to {folder}.", end=end)


def _largest(m: Maker) -> Job:
    roll = m.rng.random()
    if roll < 0.3:
        content = m.scratch.prose(m.rng.randint(1, 8))
        called, path, look = m.target(content, "txt", "md", "log", "csv")
        m.fill()
        phrase = m.say(words.SIZE, f=called)
        return Job(phrase, [*look, shell(f"wc -c < {path}")], "The size is {line} bytes.", number(len(content)))
    m.fill(3, 8)
    big = m.scratch.add(f"{m.scratch.place(0.4)}{m.name()}", m.scratch.prose(m.rng.randint(25, 40)))
    small = m.scratch.add(f"{m.scratch.place(0.4)}{m.name()}", f"{m.rng.randint(0, 9)}\n")
    largest = roll < 0.75
    phrase = m.say(words.LARGEST if largest else words.SMALLEST)
    command = f"find . -type f -exec ls -S {{}} + | {'head' if largest else 'tail'} -n 1"
    word = "largest" if largest else "smallest"
    return Job(phrase, [shell(command)], f"The {word} file is {{line}}.", _paths(m, [big if largest else small]))


def _lines(m: Maker) -> Job:
    roll = m.rng.random()
    content = m.scratch.prose(m.rng.randint(1, 14))
    called, path, look = m.target(content, "txt", "md", "log")
    m.fill()
    lines = content.splitlines()
    if roll < 0.5:
        phrase = m.say(words.LINES, f=called)
        return Job(phrase, [*look, shell(f"wc -l < {path}")], "There are {line} lines.", number(len(lines)))
    if roll < 0.7:
        phrase = m.say(words.WORDS, f=called)
        return Job(phrase, [*look, shell(f"wc -w < {path}")], "There are {line} words.", number(len(content.split())))
    first = roll < 0.85
    phrase = m.say(words.FIRST_LINE if first else words.LAST_LINE, f=called)
    expect = {"texts": [lines[0 if first else -1]]}
    calls = [*look, shell(f"{'head' if first else 'tail'} -n 1 {path}")]
    return Job(phrase, calls, f"The {'first' if first else 'last'} line is: {{line}}", expect)


JOBS: dict[str, Callable[[Maker], Job]] = {
    "find": _find,
    "count": _count,
    "sum": _sum,
    "search": _search,
    "rename": _rename,
    "edit": _edit,
    "create": _create,
    "sort": _sort,
    "delete": _delete,
    "move": _move,
    "copy": _copy,
    "largest": _largest,
    "lines": _lines,
}
