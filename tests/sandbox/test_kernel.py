"""A kernel keeps its variables, obeys its limits, and its death is noticed."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from openk2.core import UserError
from openk2.sandbox import Caps, Sandbox
from openk2.sandbox.kernel import Cell, Kernel

CAPS = Caps(seconds=100, output_bytes=1 << 20)


@pytest.fixture
async def kernel(sandbox: Sandbox, tmp_path: Path, scratch: Path) -> AsyncIterator[Kernel]:
    kernel = await Kernel.start(sandbox, tmp_path, scratch, CAPS)
    yield kernel
    await kernel.close()


async def test_variables_stay_and_the_folder_is_the_place(kernel: Kernel, tmp_path: Path) -> None:
    assert (await kernel.run("x = 20")).value == ""
    cell = await kernel.run("print('hi')\nopen('made', 'w').write('a')\nx + 1")
    assert (cell.printed, cell.value, cell.error, cell.alive) == ("hi\n", "21", None, True)
    assert (tmp_path / "made").exists()


async def test_errors_by_name(kernel: Kernel) -> None:
    cell = await kernel.run("print('before')\n1 / 0")
    assert (cell.printed, cell.error) == ("before\n", ("ZeroDivisionError", "division by zero"))
    assert (await kernel.run("input()")).error is not None, "nobody is there to be asked"


async def test_output_limit_keeps_the_variables(kernel: Kernel) -> None:
    await kernel.run("x = 1")
    floods = [
        "while True: print('y' * 1000)",
        "print('y' * 10**8)",
        "'y' * 10**8",
        "import sys\nfor i in range(100): sys.stderr.write('y' * 10**6)",
        "try:\n  while True: print('y' * 1000)\nexcept Exception: pass",
        "import os; os.system('yes')",
        "import threading; t = threading.Thread(target=lambda: print('y' * 10**8)); t.start(); t.join()",
    ]
    for code in floods:
        cell = await kernel.run(code)
        assert cell.note == "stopped after 1 MB of output" and cell.alive and cell.error is None, code
        assert (await kernel.run("x")).value == "1"


@pytest.mark.parametrize("code", ["import os; os._exit(3)", "import os; os.kill(os.getpid(), 9)"])
async def test_death_is_noticed(kernel: Kernel, code: str) -> None:
    cell = await kernel.run(code)
    assert not cell.alive and not kernel.alive


async def test_memory_limit(sandbox: Sandbox, tmp_path: Path, scratch: Path) -> None:
    kernel = await Kernel.start(sandbox, tmp_path, scratch, replace(CAPS, memory_bytes=1 << 30))
    cell = await kernel.run("big = bytearray(2 << 30)")
    assert cell.error == ("MemoryError", "") and cell.alive
    await kernel.close()


async def test_time_limit(sandbox: Sandbox, tmp_path: Path, scratch: Path) -> None:
    kernel = await Kernel.start(sandbox, tmp_path, scratch, replace(CAPS, seconds=3))
    await kernel.run("x = 1")
    cell = await kernel.run("print('a')\nwhile True: pass")
    assert cell.note == "stopped after 3 seconds" and cell.error is None and cell.alive
    assert (await kernel.run("x")).value == "1"
    deaf = "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: time.sleep(1)"
    cell = await kernel.run(deaf)
    assert cell.note == "stopped after 3 seconds" and not cell.alive
    await kernel.close()


async def test_a_cell_that_was_given_up_leaves_a_free_kernel(kernel: Kernel, tmp_path: Path) -> None:
    await kernel.run("import time; x = 1")

    async def give_up(running: asyncio.Task[Cell]) -> None:
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    running = asyncio.create_task(kernel.run("x = 2; open('begun', 'w').close(); time.sleep(600)"))
    while not (tmp_path / "begun").exists():
        await asyncio.sleep(0.02)
    await give_up(running)
    at_once = asyncio.create_task(kernel.run("time.sleep(600)"))
    await asyncio.sleep(0)
    await give_up(at_once)
    cell = await kernel.run("print('free')\nx")
    assert (cell.printed, cell.value, cell.note, cell.error, cell.alive) == ("free\n", "2", "", None, True)


async def test_files_named_like_modules_do_no_harm(sandbox: Sandbox, tmp_path: Path, scratch: Path) -> None:
    for name in ("random", "json", "asyncio", "zmq", "IPython"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('shadowed')\n")
    kernel = await Kernel.start(sandbox, tmp_path, scratch, CAPS)
    assert (await kernel.run("1 + 1")).value == "2"
    await kernel.close()


async def test_a_kernel_that_cannot_start_is_one_sentence(sandbox: Sandbox, tmp_path: Path, scratch: Path) -> None:
    with pytest.raises(UserError, match="kernel did not start"):
        await Kernel.start(sandbox, tmp_path, scratch, CAPS, {"PYTHONHOME": "/no/such/python"})
