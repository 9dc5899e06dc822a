"""Code is judged by what it computes: right code passes, wrong, faked and harmful code does not, and harms nothing."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openk2.core import Split, Task, UserError, Verdict
from openk2.core.families import get_family
from openk2.rl.gym.code import CodeFamily, _program, answer_cells, same
from openk2.rl.gym.code_driver import plain
from openk2.rl.gym.code_kinds import HELD_OUT, KINDS, SORTS
from openk2.rl.gym.runner import PROGRAM, Runner
from openk2.sandbox import box

FAMILY = CodeFamily()
SPLITS: tuple[Split, ...] = ("train", "test")
SEEDS = 300
TASKS = {split: [FAMILY.sample(split, seed) for seed in range(SEEDS)] for split in SPLITS}


@cache
def first(kind: str, sort: str = "function", named: bool = True) -> Task:
    """The first task of this kind alone."""
    seeds = ((split, seed) for seed in range(5000) for split in SPLITS)
    for task in (TASKS[split][seed] if seed < SEEDS else FAMILY.sample(split, seed) for split, seed in seeds):
        if task.data["kinds"] == [kind] and task.data["sort"] == sort and bool(task.data["name"]) == named:
            return task
    raise AssertionError(kind)


def judged(tasks: Sequence[Task], answers: Sequence[str], family: CodeFamily = FAMILY) -> list[Verdict]:
    async def all_of_them() -> list[Verdict]:
        return list(await asyncio.gather(*map(family.judge, tasks, answers)))

    return asyncio.run(all_of_them())


def test_the_gold_passes_in_the_sandbox() -> None:
    some = [task for split in SPLITS for task in TASKS[split][:16]]
    for task, verdict in zip(some, judged(some, [FAMILY.gold(task) for task in some]), strict=True):
        assert verdict.passed and verdict.score == 1.0, (task.id, verdict)
    task = some[0]
    assert get_family("code").world(task) is not None and FAMILY.check(task, FAMILY.gold(task)).passed


@pytest.mark.parametrize("split", SPLITS)
def test_the_gold_of_two_hundred_seeds_gives_what_is_wanted(split: Split) -> None:
    for task in TASKS[split][:200]:
        for test in task.data["tests"]:
            for case, wanted in zip(test["cases"], test["wanted"], strict=True):
                assert same(json.loads(_here(task, case)), wanted), (task.id, case)


def _here(task: Task, case: str) -> str:
    from openk2.rl.gym.code_driver import outcome, run_cells

    if task.data["sort"] == "cells":
        return outcome(lambda: run_cells(task.data["gold"], case, task.data["name"]))
    names: dict[str, object] = {}
    exec(task.data["gold"][0], names)
    return outcome(lambda: eval(case, names))


def test_tasks() -> None:
    for split in SPLITS:
        for task in TASKS[split]:
            assert task == FAMILY.sample(split, task.seed) and task.id == f"code/{split}/{task.seed}"
            assert task.data == json.loads(json.dumps(task.data)) and task.skill in FAMILY.skills
            assert len(task.request.split()) < 120 and len(FAMILY.gold(task)) < 1500 and len(task.data["tests"]) >= 3
            for test in task.data["tests"]:
                assert len(test["cases"]) >= 2 and not all(same(w, test["wanted"][0]) for w in test["wanted"])
    assert {task.skill for split in SPLITS for task in TASKS[split]} == set(FAMILY.skills)
    assert {task.data["level"] for task in TASKS["train"]} == {1, 2, 3}
    names = [kind.name for kind in KINDS]
    assert len(names) == len(set(names)) >= 30 and set(names) > HELD_OUT
    assert {kind.takes for kind in KINDS} == set(SORTS) >= {kind.gives for kind in KINDS}


def test_the_splits_do_not_overlap() -> None:
    chains = {split: {tuple(task.data["kinds"]) for task in TASKS[split]} for split in SPLITS}
    assert not chains["train"] & chains["test"]
    kinds = {split: {kind for chain in chains[split] for kind in chain} for split in SPLITS}
    assert not kinds["train"] & HELD_OUT and kinds["test"] >= HELD_OUT
    assert all(set(chain) & HELD_OUT or chain in {("caesar",), ("rotate",), ("versions",)}
               for chain in chains["test"] if len(chain) == 1)  # fmt: skip


# Answers


def test_what_an_answer_is_taken_for() -> None:
    assert answer_cells("Here:\n```python\na\n```\nand\n```\nb\n```\n```text\nno\n```", "function") == ["a\n", "b\n"]
    assert answer_cells("a = 1", "function") == ["a = 1"]
    assert answer_cells("```py\ncut off", "function") == ["cut off"]
    assert answer_cells("```python\na\n# %% next\nb\n```", "cells") == ["a\n", "\nb\n"]
    assert answer_cells("", "cells") == answer_cells("```text\nx\n```", "cells") == []


def test_cells_are_run_as_in_a_notebook() -> None:
    value, variable = first("total", "cells", named=False), first("total", "cells")
    x, y = (task.data["tests"][0]["cases"][0].partition(" =")[0] for task in (value, variable))
    name = variable.data["name"]
    answers = [
        (value, f"```\nimport math\ns = sum({x})\n```\n```\ns\n```", 1.0),
        (value, f"s = 0\nfor n in {x}:\n    s += n\n# %%\ns", 1.0),
        (value, f"sum({x})", 1.0),
        (value, f"s = sum({x})", 0.0),
        (value, f"sum({x})\n# %%\nNone", 0.0),
        (value, f"sum({x})\n# %%\nprint(s)", 0.0),
        (variable, f"```\n{name} = sum({y})\n```\n```\n0\n```", 1.0),
        (variable, f"```\nsum({y})\n```\n```\n{name}\n```", 0.0),
        (variable, f"{name} = float(sum({y}))", 0.0),
    ]
    verdicts = judged([task for task, _, _ in answers], [answer for _, answer, _ in answers])
    assert [v.score for v in verdicts] == [score for _, _, score in answers]


def test_part_of_the_tests_is_part_of_the_score() -> None:
    task = first("total")
    name, cases = task.data["name"], [case for test in task.data["tests"] for case in test["cases"]]
    inputs = [case.removeprefix(name)[1:-1] for case in cases]
    half = f"def {name}(n):\n    return sum(n) if n not in [{', '.join(inputs[:6])}] else 0"
    verdict = judged([task], [half])[0]
    assert verdict.passed is False and verdict.score == 0.5 and verdict.reason == "3 of 6 hidden tests passed"


FAKES = {
    "prints the results": "def NAME(n):\n    print(sum(n))",
    "ends early": "import sys\ndef NAME(n): return sum(n)\nsys.exit(0)",
    "ends early in the call": "import os\ndef NAME(n): os._exit(0)",
    "exits in the call": "def NAME(n): raise SystemExit(0)",
    "equals everything": "class E:\n    def __eq__(self, other): return True\n    def __hash__(self): return 1\n"
    "def NAME(n): return E()",
    "a number that equals everything": "class E(int):\n    def __eq__(self, other): return True\n"
    "    __hash__ = int.__hash__\ndef NAME(n): return E(1)",
    "a lying repr": "class E(int):\n    def __repr__(self): return str(self.right)\n"
    "def NAME(n):\n    e = E(3); e.right = sum(n); return e",
    "another type": "def NAME(n): return float(sum(n))",
    "a text": "def NAME(n): return str(sum(n))",
    "a list": "def NAME(n): return [sum(n)]",
    "a generator": "def NAME(n): yield sum(n)",
    "a coroutine": "async def NAME(n): return sum(n)",
    "a constant": "def NAME(n): return 41",
    "its input": "def NAME(n): return n",
    "changed built-ins": "import builtins, json\nbuiltins.all = builtins.any = lambda *a: True\n"
    "json.loads = json.dumps = lambda *a: True\ndef NAME(n): return 1",
    "another type of type": "import builtins\nbuiltins.type = lambda x: int\ndef NAME(n): return 'x'",
    "results on standard output": "import os\ndef NAME(n): return 1\n"
    "os.write(1, b'\\n[' + b','.join([b'{\"value\": 1}'] * 12) + b']\\n'); os._exit(0)",
    "results behind the mark": "import os, sys\ndef NAME(n): return 1\n"
    "f = sys._getframe()\nwhile 'mark' not in f.f_locals: f = f.f_back\n"
    "os.write(1, ('\\n' + f.f_locals['mark'] + '[' + ','.join(['{\"value\": 1}'] * 12) + ']').encode()); os._exit(0)",
    "more results than tests": "import os, sys\ndef NAME(n): return 1\n"
    "f = sys._getframe()\nwhile 'mark' not in f.f_locals: f = f.f_back\n"
    "os.write(1, ('\\n' + f.f_locals['mark'] + '[' + ','.join(['{\"value\": 1}'] * 99) + ']').encode()); os._exit(0)",
    "half a character for a class": "import os, sys\ndef NAME(n): return 1\n"
    "f = sys._getframe()\nwhile 'mark' not in f.f_locals: f = f.f_back\n"
    "os.write(1, ('\\n' + f.f_locals['mark'] + '{\"failed\":\"\\\\ud800\"}').encode()); os._exit(0)",
    "no JSON behind the mark": "import os, sys\ndef NAME(n): return 1\n"
    "f = sys._getframe()\nwhile 'mark' not in f.f_locals: f = f.f_back\n"
    "os.write(1, ('\\n' + f.f_locals['mark'] + '[' * 100000).encode()); os._exit(0)",
    "searches for the checker": "import sys\nsys.path += ['PACKAGE', 'SITE']\n"
    "from openk2.rl.gym.code_kinds import KINDS\ndef NAME(n): return sum(n)",
    "reads the checker": "open('PACKAGE/openk2/rl/gym/code.py').read()\ndef NAME(n): return sum(n)",
    "changes the writer": "import os\nos.write = lambda *a: 1\nos._exit = exit\ndef NAME(n): return 'right'",
    "a very deep list": "def NAME(n):\n    a = []\n    for _ in range(10**5): a = [a]\n    return a",
    "a very large number": "def NAME(n): return 10 ** 100000",
    "not a number": "def NAME(n): return float('nan')",
    "is not there": "# NAME\nx = 1",
    "does not parse": "def NAME(n) return sum(n)",
    "raises": "def NAME(n): raise ValueError(sum(n))",
    "only the name": "NAME " * 2000,
    "calls itself": "def NAME(n): return NAME(n)",
}


def test_fakes_get_nothing() -> None:
    import openk2

    task = first("total")
    site = next(path for path in sys.path if path.endswith("-packages"))
    values = {"NAME": task.data["name"], "PACKAGE": str(Path(openk2.__file__).parents[1]), "SITE": site}
    answers = dict(FAKES)
    for key, value in values.items():
        answers = {fake: code.replace(key, value) for fake, code in answers.items()}
    verdicts = judged([task] * len(answers), list(answers.values()))
    for fake, verdict in zip(answers, verdicts, strict=True):
        assert verdict.passed is False and verdict.score == 0.0, (fake, verdict)
        assert verdict.reason.isascii()


def test_types_are_exact() -> None:
    tests = {"backwards": "tuple", "add_counts": "lambda x: __import__('collections').OrderedDict(x)",
             "squares": "lambda x: [float(n) for n in x]", "count_above": "lambda x: x > 0"}  # fmt: skip
    tasks = [first(kind) for kind in tests]
    answers = [f"{t.data['gold'][0]}\nright = {t.data['name']}\nchange = {change}\n"
               f"def {t.data['name']}(x): return change(right(x))"
               for t, change in zip(tasks, tests.values(), strict=True)]  # fmt: skip
    assert [v.score for v in judged(tasks, answers)] == [0.0] * len(tests)
    assert same([1, {"a": 0.1 + 0.2}], [1, {"a": 0.3}]) and not same(1, True) and not same(1, 1.0)
    assert not same([1], [1, 2]) and not same({"a": 1}, {"b": 1}) and not same(float("nan"), float("nan"))
    with pytest.raises(TypeError):
        plain((1, 2))
    assert json.loads(plain({"a": [None, True, 1, 1.5, "é\ud800"]})) == {"a": [None, True, 1, 1.5, "é\ud800"]}


def test_what_is_wanted_is_not_in_the_sandbox() -> None:
    task = first("total")
    wanted = [w["value"] for test in task.data["tests"] for w in test["wanted"]]
    secret = replace(task, data=task.data | {"gold": ["SECRET"], "tests": [
        {"cases": test["cases"], "wanted": ["SECRET"]} for test in task.data["tests"]]})  # fmt: skip
    program = _program(secret, ["x"], "mark")
    assert wanted and "SECRET" not in program and task.data["tests"][0]["cases"][0] in program


# Any text


@settings(max_examples=150, deadline=None)
@given(st.text(st.characters(codec=None), max_size=400))
def test_any_text_is_judged(text: str) -> None:
    task = TASKS["train"][0]
    verdict = asyncio.run(FAMILY.judge(task, text))
    assert verdict.passed is False and verdict.score == 0.0 and verdict.reason


def test_odd_texts_are_judged() -> None:
    task = first("total")
    name = task.data["name"]
    odd = [
        "", "```", task.request, "x" * 3_000_000, f"{name}\0", f"def {name}(n): return '\ud800'", f"```\n{name}",
        f"{name}" + "(" * 5000, f"{name} = " + "-" * 9000 + "1", "```\n" * 5000 + name,
        f"# {name} \u2028\x85 é 漢\U0001f600",
    ]  # fmt: skip
    assert {v.score for v in judged([task] * len(odd), odd)} == {0.0}


# Harm


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    folder = tmp_path / "precious"
    folder.mkdir()
    (folder / "file").write_text("here")
    return folder


# What is behind it would be the right answer: harm that is done would show. Only killing all others may succeed, as the
# sandbox has none.
HARM = {
    "a fork bomb": "while True:\n    try: os.fork()\n    except OSError: pass",
    "a bomb of programs": "while True:\n    try: subprocess.Popen(['/bin/sh', '-c', '$0 &'])\n    except OSError: pass",
    "a bomb of threads": "while True: threading.Thread(target=time.sleep, args=(99,)).start()",
    "an endless print": "while True: print('x' * 10000)",
    "an endless loop": "while True: pass",
    "all memory": "x = [bytearray(1 << 40)]",
    "all memory, bit by bit": "x = []\nwhile True: x.append(bytearray(1 << 20))",
    "deletes everything": "shutil.rmtree('/')",
    "deletes the home folder": "shutil.rmtree(HOME)",
    "deletes the home folder in a shell": "os.execv('/bin/sh', ['sh', '-c', f'rm -rf {HOME}'])",
    "fills the disk": "f = open('big', 'wb')\nwhile True: f.write(bytes(1 << 20))",
    "fills the memory with files": "f = os.memfd_create('x')\nwhile True: os.write(f, bytes(1 << 20))",
    "fills the disk with folders": "for i in range(10**9): os.mkdir(f'd{i}')",
    "kills its parent": "os.kill(os.getppid(), 9)",
    "kills its parent's group": "os.killpg(os.getpgid(os.getppid()), 9)",
    "kills all": "os.kill(-1, 9); return None",
    "opens a socket": "socket.create_connection(('127.0.0.1', PORT), 5)",
    "sends a datagram": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))",
    "reads passwords": "open('/etc/shadow').read()",
    "reads keys": "[v for k, v in os.environ.items() if 'KEY' in k][0]",
    "reads our keys": "open(f'/proc/{OURS}/environ').read()",
    "leaves a daemon": "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0: time.sleep(99)\n    os._exit(0)",
    "writes outside": "open(HOME + '/made', 'w')",
}  # fmt: skip


@pytest.mark.parametrize("harm", HARM)
def test_harm(harm: str, canary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "hunter2")
    # Other tests may have left processes that serve this one for good.
    earlier = set(psutil.Process().children(recursive=True))
    task = first("total")
    name = task.data["name"]
    # A sandbox that does not hold would lose the canary, and no more.
    careful = "try: shutil.rmtree(HOME)\nexcept OSError: pass\nelse: os._exit(0)\n"
    body = "\n".join(f"    {line}" for line in f"{careful}{HARM[harm]}\nreturn sum(n)".splitlines())
    family = CodeFamily(Runner(4, replace(PROGRAM, seconds=2.0, cpu_seconds=1)))
    others = [TASKS["train"][0], TASKS["test"][0]]
    with socket.create_server(("127.0.0.1", 0)) as server:
        known = f"HOME, PORT, OURS = {str(canary)!r}, {server.getsockname()[1]}, {os.getpid()}"
        harmful = f"import os, shutil, socket, subprocess, threading, time\n{known}\ndef {name}(n):\n{body}"
        answers = [harmful, f"def {name}(n): return 0", *map(FAMILY.gold, others)]
        bad, wrong, *good = judged([task, task, *others], answers, family)
    assert bad.passed is False and bad.score == 0.0, bad
    assert wrong.reason == "0 of 6 hidden tests passed" and all(verdict.passed for verdict in good), good
    assert [p.read_text() for p in canary.iterdir()] == ["here"]
    new = set(psutil.Process().children(recursive=True)) - earlier
    assert not [process for process in new if process.status() != psutil.STATUS_ZOMBIE]


def test_a_machine_at_fault_is_no_score(monkeypatch: pytest.MonkeyPatch) -> None:
    task = TASKS["train"][0]
    judged([task], [FAMILY.gold(task)])
    monkeypatch.setattr(box, "_LAUNCHER", "import sys; sys.exit('no Landlock')")
    with pytest.raises(UserError, match="no Landlock"):
        judged([task], [FAMILY.gold(task)])
    with pytest.raises(UserError, match="this machine is at fault"):
        FAMILY.check(task, FAMILY.gold(task))
