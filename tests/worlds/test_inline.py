"""The fast in-process machine says exactly what the real one says."""

import json
import sys
from pathlib import Path

import pytest

from openk2.core import Task, ToolCall, ToolResult
from openk2.sandbox import Sandbox, resolve_sandbox
from openk2.worlds.inline import InlineMachine
from openk2.worlds.machine import MachineWorld

TASK = Task("t", "machine", "any", 0, "do it")

CELLS = [
    "",
    "# nothing",
    "1 + 1",
    "x = 3",
    "x",
    "x;",
    "x  # shown",
    "None",
    "'text'",
    "print('a'); print('b', end='')",
    "print('a')\n'b'",
    "[i * 0.1 for i in range(5)]",
    "{'b': 1, 'a': [1, 2]}",
    "{3, 1, 2}",
    "list(range(300))",
    "'x' * 3000",
    "for i in range(700): print(i)",
    "print('no newline', end='')\n5",
    "print('\\x1b[31mred\\x1b[0m \\x07bell')",
    "print('10%\\r20%\\rdone')",
    "import sys; print('err', file=sys.stderr); print('out')",
    "import warnings; warnings.warn('old'); 1",
    "1 / 0",
    "print('first'); nope",
    "x = (",
    "def f(:\n  pass",
    "  y = 1\n z = 2",
    "raise ValueError('two\\nlines')",
    "raise KeyError",
    "assert x == 4, 'x is not four'",
    "int('seven')",
    "import no_such_module",
    "open('none.txt')",
    "class A: pass\ntype(A())",
    "def add(a, b):\n    return a + b\nadd(2, 3)",
    "import os; sorted(os.listdir())",
    "import os; os.path.basename(os.getcwd())",
    "__name__",
    "import pandas as pd\ndf = pd.read_csv('birds.csv')\nprint(df.head(2).to_csv(index=False))",
    "df",
    "df.dtypes",
    "df.describe()",
    "df['bill_mm'].mean()",
    "round(df['bill_mm'].mean(), 2)",
    "df['bill_mm'].sum(), len(df), df.shape",
    "df['species'].value_counts()",
    "df.groupby('species')[['bill_mm', 'mass']].mean().round(2)",
    "print(df.groupby('species')['mass'].max())",
    "df.nlargest(2, 'mass')[['species', 'mass']]",
    "df['mass'].isna().sum()",
    "df[['bill_mm', 'mass']].corr().iloc[0, 1]",
    "df['colour']",
    "df[df['species'] == 'Tui'].shape[0]",
    "pd.DataFrame({f'a_long_column_{i}': range(3) for i in range(30)})",
    "pd.DataFrame({'n': range(200)})",
    "pd.Series([1.5, None, 3])",
    "pd.to_datetime('2024-02-03')",
    "pd.read_csv('none.csv')",
    "import numpy as np; np.arange(6).reshape(2, 3), np.float32(1.5), np.bool_(True)",
    "import json; print(json.dumps({'a': 1}))",
    "open('made.txt', 'w').write('hi')",
    "open('made.txt').read()",
    "df.info()",
    "print(x, x)",
]

COMMANDS = [
    "echo hi",
    "true",
    "false",
    "exit 7",
    "ls",
    "ls -a sub",
    "cat none.txt",
    "echo out; echo err >&2; echo out",
    "wc -l birds.csv",
    "wc -l < birds.csv",
    "grep -rl Tui . | sort",
    "find . -name '*.txt' | sort",
    "sort -n numbers.txt | head -3",
    "awk '{s+=$1} END {print s}' numbers.txt",
    "du -b birds.csv",
    "seq 1000",
    "printf 'a\\0b'",
    "head -c 500 /dev/zero",
    "printf 'caf\\303\\251\\n'",
    "cat 'caf\u00e9.txt'",
    "echo $HOME > /dev/null; echo ${LC_ALL} $COLUMNS",
    "mv numbers.txt sub/n.txt && ls sub",
    "mkdir new && cp sub/n.txt new/ && ls new",
    "rm -r new; ls",
    "nosuchcommand",
    "if",
    "kill -9 $$",
    "cat",
    "python -c 'print(6 * 7)'",
]

FILES = [
    ("read_file", {"path": "birds.csv"}),
    ("read_file", {"path": "sub/../birds.csv"}),
    ("read_file", {"path": "none.txt"}),
    ("read_file", {"path": "sub"}),
    ("read_file", {"path": "../secret"}),
    ("write_file", {"path": "deep/er/new.txt", "content": "one\ntwo\n"}),
    ("read_file", {"path": "deep/er/new.txt"}),
    ("edit_file", {"path": "deep/er/new.txt", "old": "two", "new": "three"}),
    ("edit_file", {"path": "deep/er/new.txt", "old": "two", "new": "three"}),
    ("edit_file", {"path": "deep/er/new.txt", "old": "e", "new": "E"}),
    ("read_file", {"path": "deep/er/new.txt"}),
    ("write_file", {"path": "empty.txt", "content": ""}),
    ("read_file", {"path": "empty.txt"}),
]

BAD = [
    ToolCall("1", "fly", "{}"),
    ToolCall("1", "python", "{}"),
    ToolCall("1", "python", '{"code":'),
    ToolCall("1", "python", '["code"]'),
    ToolCall("1", "python", '{"code":3}'),
    ToolCall("1", "python", '{"code":null}'),
    ToolCall("1", "shell", '{"command":"ls","timeout":3}'),
    ToolCall("1", "shell", '{"command":"ls \\u0000"}'),
    ToolCall("1", "", ""),
]


def fill(folder: Path) -> Path:
    folder.mkdir()
    (folder / "birds.csv").write_text(
        "species,bill_mm,mass,ringed\nTui,27.4,120,True\nKea,48.25,900,False\nTui,26.1,,True\nWeka,51,870,False\n"
    )
    (folder / "numbers.txt").write_text("30\n4\n100\n")
    (folder / "sub").mkdir()
    (folder / "sub" / "a.txt").write_text("Tui\n")
    (folder / "caf\u00e9.txt").write_text("coffee\n")
    return folder


def call(name: str, arguments: dict[str, str]) -> ToolCall:
    return ToolCall("functions.x:0", name, json.dumps(arguments))


async def both(tmp_path: Path, calls: list[ToolCall]) -> list[tuple[ToolCall, ToolResult, ToolResult]]:
    """The same calls on two equal folders."""
    sandbox: Sandbox = resolve_sandbox(consent=True)
    inline = InlineMachine(fill(tmp_path / "a" / "work"))
    world = MachineWorld(fill(tmp_path / "b" / "work"), sandbox)
    try:
        return [(c, inline.call(c), await world.call(c)) for c in calls]
    finally:
        await world.close()


@pytest.fixture(autouse=True)
def folders(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()


async def test_python_says_the_same(tmp_path: Path) -> None:
    for c, ours, real in await both(tmp_path, [call("python", {"code": code}) for code in CELLS]):
        assert ours == real, c.arguments


async def test_shell_says_the_same(tmp_path: Path) -> None:
    for c, ours, real in await both(tmp_path, [call("shell", {"command": command}) for command in COMMANDS]):
        assert ours == real, c.arguments


async def test_files_and_bad_calls_say_the_same(tmp_path: Path) -> None:
    for c, ours, real in await both(tmp_path, [call(*entry) for entry in FILES] + BAD):
        assert ours == real, c


def test_bad_calls_are_one_clear_sentence(tmp_path: Path) -> None:
    machine = InlineMachine(fill(tmp_path / "work"))
    for bad in BAD:
        result = machine.call(bad)
        assert result.error and "\n" not in result.content and 10 < len(result.content) < 150, result


def test_running_code_leaves_this_process_as_it_was(tmp_path: Path) -> None:
    machine = InlineMachine(fill(tmp_path / "work"))
    before = (Path.cwd(), sys.stdout, sys.stderr)
    machine.python("print(1); import sys; sys.exit(2)")
    machine.python("1/0")
    assert (Path.cwd(), sys.stdout, sys.stderr) == before


def test_machines_do_not_share_variables(tmp_path: Path) -> None:
    first, second = InlineMachine(fill(tmp_path / "work")), InlineMachine(tmp_path / "work")
    first.python("x = 1")
    assert second.python("x").error
