"""Jobs on a folder that a shell does: moving, renaming, counting, packing up, and a script that is left behind."""

from __future__ import annotations

import random
from typing import Any

from openk2.synth.jobs.job import Call, Job, Maker, filled, shell, value_checks, word, words, write

_ENDINGS = ("txt", "md", "csv", "log", "ini")


def _content(rng: random.Random) -> str:
    return "".join(f"{word(rng)} {word(rng)} {rng.randint(1, 99)}\n" for _ in range(rng.randint(1, 6)))


def _folder(rng: random.Random, *endings: str) -> dict[str, str]:
    """Files at the top and in two folders, some of each ending."""
    names = words(rng, 12)
    places = ["", "", f"{names.pop()}/", f"{names.pop()}/"]
    return {
        f"{places[number % 4]}{name}.{endings[number % len(endings)]}": _content(rng)
        for number, name in enumerate(names)
    }


def _job(
    rng: random.Random, files: dict[str, str], ask: str, checks: list[tuple[str, Any]], command: str | Call,
    slips: list[str], answer: str,
) -> Job:  # fmt: skip
    look = shell(rng.choice(("find . -type f | sort", "ls -R", "find . -type f | sort")))
    act = shell(command) if isinstance(command, str) else command
    after = shell("find . -type f | sort")
    return Job(files, ask, value_checks(checks), (look, act, after), answer, ((), *((shell(slip),) for slip in slips)))


def gather(rng: random.Random) -> Job:
    """Files with an ending, from everywhere into one folder."""
    ending, other, third = rng.sample(_ENDINGS, 3)
    files, target = _folder(rng, ending, other, third), word(rng).upper()
    wanted = {
        f"{target}/{path.rpartition('/')[2]}" if path.endswith(f".{ending}") else path: content
        for path, content in files.items()
    }
    command = f"mkdir {target} && find . -name '*.{ending}' -exec mv {{}} {target}/ \\;"
    return _job(
        rng, files,
        rng.choice((f"Move all .{ending} files, from the folders too, into a new folder {target}.",
                    f"Please gather every .{ending} file of this folder and its subfolders in a new folder {target}.")),
        [("tree()", dict(sorted(wanted.items())))], command,
        [command.replace("mv", "cp"), f"mkdir {target} && mv *.{ending} {target}/", command.replace(ending, other)],
        f"All .{ending} files are in {target} now.",
    )  # fmt: skip


def rename(rng: random.Random) -> Job:
    """Another ending for some files."""
    ending, other = rng.sample(_ENDINGS, 2)
    new = rng.choice(("old", "bak", "text", "data"))
    files = _folder(rng, ending, other)
    wanted = {
        path.removesuffix(ending) + new if path.endswith(f".{ending}") else path: content
        for path, content in files.items()
    }
    command = f'find . -name \'*.{ending}\' | while read -r f; do mv "$f" "${{f%.{ending}}}.{new}"; done'
    return _job(
        rng, files, f"Rename all .{ending} files, also those in subfolders, so that they end in .{new} instead.",
        [("tree()", dict(sorted(wanted.items())))], command,
        [command.replace(f"%.{ending}", ""), command.replace("find .", "find . -maxdepth 1"),
         command.replace("mv ", "cp ")],
        f"The .{ending} files end in .{new} now.",
    )  # fmt: skip


def prune(rng: random.Random) -> Job:
    """Empty files and one kind of file are deleted, the rest stays."""
    files = _folder(rng, *rng.sample(_ENDINGS, 3))
    empty = rng.sample(sorted(files), 4)
    files |= dict.fromkeys(empty, "")
    wanted = {path: content for path, content in files.items() if content}
    command = "find . -type f -empty -delete"
    return _job(
        rng, files, rng.choice(("Delete all empty files here and in the subfolders, and nothing else.",
                                "There are files with nothing in them, in subfolders too: remove those.")),
        [("tree()", dict(sorted(wanted.items())))], command,
        ["find . -type f -size -2 -delete", "find . -maxdepth 1 -type f -empty -delete", "rm -rf *"],
        f"I deleted {len(empty)} empty files.",
    )  # fmt: skip


def count(rng: random.Random) -> Job:
    """How many lines of which files, into a file."""
    ending, other = rng.sample(_ENDINGS, 2)
    files, out = _folder(rng, ending, other), rng.choice(("lines.out", "counts.out"))
    own = sorted(path for path in files if path.endswith(f".{ending}"))
    lines = [f"{path} {files[path].count(chr(10))}" for path in own]
    loop = 'while read -r f; do echo "$f $(wc -l < "$f" | tr -d \' \')"; done'
    command = f"find . -name '*.{ending}' | sed 's|^\\./||' | LC_ALL=C sort | {loop} > {out}"
    return _job(
        rng, files,
        f"Write {out}: for each .{ending} file, in subfolders too, a line with its path (without ./), a blank and its "
        "number of lines, in alphabetical order of the paths.",
        [(f"text({out!r}).split('\\n')", [*lines, ""]), ("len(tree())", len(files) + 1)], command,
        [command.replace("wc -l", "wc -w"), command.replace(" | sed 's|^\\./||'", ""),
         command.replace("sort |", "sort -r |")],
        f"{out} has the numbers of lines of {len(own)} files.",
    )  # fmt: skip


def split(rng: random.Random) -> Job:
    """Lines of one file into a file for each first word."""
    source, folder = f"{word(rng)}.txt", word(rng).upper()
    keys = words(rng, 4)
    lines = [f"{rng.choice(keys)} {word(rng)} {rng.randint(1, 99)}" for _ in range(rng.randint(9, 15))]
    wanted = {source: "\n".join(lines) + "\n"}
    for line in lines:
        key = line.split()[0]
        wanted[f"{folder}/{key}.txt"] = wanted.get(f"{folder}/{key}.txt", "") + line.partition(" ")[2] + "\n"
    command = f'mkdir {folder} && awk \'{{ key = $1; sub(/^[^ ]+ /, ""); print > "{folder}/" key ".txt" }}\' {source}'
    return _job(
        rng, {source: wanted[source]},
        f"Split {source} by the first word of each line: line after line goes to {folder}/WORD.txt without its first "
        f"word. {source} stays as it is.",
        [("tree()", dict(sorted(wanted.items())))], command,
        [command.replace('sub(/^[^ ]+ /, "");', ""), command + f" && rm {source}", command.replace("$1", "$2")],
        f"{folder} has {len(wanted) - 1} files.",
    )  # fmt: skip


def duplicates(rng: random.Random) -> Job:
    """Of files with the same content the first by name stays."""
    files = _folder(rng, *rng.sample(_ENDINGS, 2))
    paths = sorted(files)
    for first, second in ((0, 3), (1, 6), (1, 8)):
        files[paths[second]] = files[paths[first]]
    wanted: dict[str, str] = {}
    for path in paths:
        if files[path] not in wanted.values():
            wanted[path] = files[path]
    command = "find . -type f | LC_ALL=C sort | xargs md5sum | awk 'seen[$1]++ { print $2 }' | xargs rm"
    return _job(
        rng, files,
        rng.choice(("Some files here and in the subfolders have the same content. Of each group keep the one whose "
                    "path comes first in the alphabet and delete the others.",
                    "Delete double files, in the subfolders too: where several have the same content, only the one "
                    "with the first path in alphabetical order stays.")),
        [("tree()", wanted)], command,
        [command.replace("LC_ALL=C sort", "LC_ALL=C sort -r"), command.replace("seen[$1]++ ", "!seen[$1]++ "),
         command.replace("find .", "find . -maxdepth 1")],
        f"I deleted {len(files) - len(wanted)} doubles.",
    )  # fmt: skip


def replace(rng: random.Random) -> Job:
    """A value in many files of settings."""
    key, value, new = rng.choice(("host", "region", "owner")), word(rng), word(rng).upper()
    files = {path: f"{word(rng)} = 1\n{key} = {value}\n" for path in _folder(rng, "ini")}
    paths = sorted(files)
    files[paths[1]] = f"{key} = {value}2\n"
    files[paths[4]] = f"# {key} = {value}\nmy_{key} = {value}\n"
    files["notes.txt"] = f"{key} = {value}\n"
    wanted = {
        path: content.replace(f"\n{key} = {value}\n", f"\n{key} = {new}\n") if path.endswith("ini") else content
        for path, content in files.items()
    } | {paths[4]: files[paths[4]]}
    command = f"find . -name '*.ini' -exec sed -i 's/^{key} = {value}$/{key} = {new}/' {{}} +"
    return _job(
        rng, files,
        f"In all .ini files here and below, set {key} to {new} where the line is exactly {key} = {value}. Other lines "
        "and other files stay.",
        [("tree()", dict(sorted(wanted.items())))], command,
        [command.replace("$/", "/"), command.replace("/^", "/"), command.replace(" -name '*.ini'", " -type f")],
        f"{key} is {new} in all .ini files that had {value}.",
    )  # fmt: skip


def script(rng: random.Random) -> Job:
    """A shell script that works with any arguments."""
    name, least = rng.choice(("total.sh", "sum.sh", "add.sh")), rng.randint(2, 9)
    column = rng.randint(2, 3)
    body = filled(
        """
        #!/bin/sh
        # The sum of a column of a file, of values that are large enough.
        if [ ! -f "$$1" ]; then
            echo "no such file: $$1" >&2
            exit 2
        fi
        awk '$$$column >= $least { total += $$$column } END { print total + 0 }' "$$1"
        """,
        column=column, least=least,
    )  # fmt: skip
    rows: list[list[Any]] = [[word(rng), rng.randint(0, 12), rng.randint(0, 12)] for _ in range(8)]
    table = "".join(" ".join(map(str, row)) + "\n" for row in rows) + f"last {least} {least}\n"
    total = sum(row[column - 1] for row in rows if row[column - 1] >= least) + least
    source = f"{word(rng)}.txt"

    def slip(right: str, wrong: str) -> tuple[Call, ...]:
        assert right in body
        return (write(name, body.replace(right, wrong)),)

    return Job(
        files={source: table},
        ask=(
            f"Write a shell script {name} that prints the sum of column {column} of the file it is given, counting "
            f"only values of at least {least} (columns are separated by blanks). Without such a file it says so and "
            f"exits with 2. Try it on {source}."
        ),
        checks=value_checks(
            [
                (f"run('sh {name} {source}')", (0, f"{total}\n")),
                (f"run('sh {name} none')[0]", 2),
                (f"run('printf \"a 1 1\\\\n\" > x.txt; sh {name} x.txt')", (0, f"{0 if least > 1 else 1}\n")),
                (f"text({source!r})", table),
            ]
        ),
        solution=(
            shell(f"head -n 3 {source}"),
            write(name, body),
            shell(f"sh {name} {source}"),
            shell(f"sh {name} none"),
        ),
        answer=f"{name} is written; the sum for {source} is {total}.",
        wrong=((), slip(f">= {least}", f"> {least}"), slip("exit 2", "exit 1"), slip(" + 0", "")),
    )


MAKERS: dict[str, Maker] = {
    "shell_gather": gather, "shell_rename": rename, "shell_prune": prune, "shell_count": count, "shell_split": split,
    "shell_duplicates": duplicates, "shell_replace": replace, "shell_script": script,
}  # fmt: skip
