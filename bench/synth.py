"""The data factory: how fast domains, tasks and trajectories are made and executed again.

    ./k2 bench synth                          # makes a run in a temporary folder and measures each stage
    ./k2 bench synth --tasks 20000            # more of it
    ./k2 bench synth --endpoint               # also rollouts against an endpoint with 2 s latency, in another process
    ./k2 bench synth --tau2 PYTHON            # also calls per second against tau2's engine, which that Python has

First it is checked that every trajectory agrees with its re-execution. `--endpoint` counts what of the wall time is not
the endpoint's: how much longer it takes than the same rollouts, as many at a time, if nothing but the latency took
time. At the end fewer and fewer are under way, so that is more than turns * latency / at a time. tau2's tools (airline,
as inspect-evals carries them) and ours answer the same number of the expert's calls, in turns.
"""

from __future__ import annotations

import heapq
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from _common import add_out, machine, parser_of, table, write_results

from openk2.core.progress import ConsoleReporter
from openk2.data.lake import Lake
from openk2.synth import factory
from openk2.synth.factory import Workers
from openk2.synth.recipe import SynthRecipe
from openk2.synth.verify import verify_run

LATENCY = 2.0
AT_ONCE = 512
ROUNDS = 5


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--tasks", type=int, default=5000)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--endpoint", action="store_true", help="rollouts against an endpoint with latency")
    parser.add_argument("--rollouts", type=int, default=3000, help="how many of those")
    parser.add_argument("--tau2", metavar="PYTHON", help="a Python with inspect-evals")
    parser.add_argument("--calls", type=int, default=300, help="of each side, for --tau2")
    add_out(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found: dict[str, Any] = {"workers": options.workers}
        found |= measure_run(Path(folder) / "run", options.tasks, options.workers)
        if options.endpoint:
            found["endpoint"] = measure_endpoint(Path(folder) / "asked", options.rollouts)
        if options.tau2:
            found["tau2"] = measure_tau2(options.tau2, options.calls)
    write_results(options.out, "synth", {"machine": machine()} | found, as_markdown(found))


def as_markdown(found: dict[str, Any]) -> str:
    """What was measured, in a table."""
    rows = [
        ["domains, tools, agents", f"{found['domains']:,}, {found['tools']:,}, {found['agents']:,}"],
        ["structures of tools that write, up to renaming; schemas", f"{found['structures']:,}; {found['schemas']:,}"],
        ["made in", f"{found['seconds']['domains'] + found['seconds']['agents']:.0f} s"],
        ["calls, user turns each", f"{found['calls each']}, {found['user turns each']}"],
        ["tasks made per second", str(found["tasks made per second"])],
        ["tried and judged per second", str(found["tried and judged per second"])],
        ["executed again per second", str(found["executed again per second"])],
        ["agreed, of those kept", f"{found['agreed']:,} of {found['kept']:,}"],
        ["largest process", f"{max(found['peak MB here'], found['peak MB of a worker']):,} MB"],
    ]
    if asked := found.get("endpoint"):
        rows.append([f"lost, {asked['at a time']} at a time, 2 s latency, one core", f"{asked['lost']:.1%}"])
    for name in ("with states", "calls alone"):
        if other := found.get("tau2"):
            middle, low, high = other[f"{name}, ratio"]
            rows.append([f"calls per second, {name}, ours to tau2's", f"**{middle}x** ({low} to {high})"])
    return f"# The data factory, {found['workers']} worker(s)\n\n{table(['', 'measured'], rows)}"


@contextmanager
def timed(times: dict[str, float], name: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    times[name] = round(time.perf_counter() - began, 2)


def measure_run(run: Path, tasks: int, workers: int) -> dict[str, Any]:
    """Each stage's seconds, and rates."""
    recipe = SynthRecipe.model_validate({"name": "bench", "tasks": {"count": tasks}})
    times: dict[str, float] = {}
    reporter = ConsoleReporter()
    folder = run / "synth"
    factory._check_recipe(recipe, folder)
    with timed(times, "domains"):
        domains = factory._domains(recipe, folder, reporter)
    with timed(times, "agents"):
        agents = factory._agents(recipe, folder, domains)
    work = Workers(recipe, domains, agents, workers)
    # Processes are begun, and what they import is read, before anything is timed.
    work.warm()
    with timed(times, "tasks"):
        factory._tasks(recipe, folder, work, reporter)
    with timed(times, "attempts"):
        factory._attempts(recipe, folder, work, reporter)
    work.close()
    with timed(times, "keep"):
        factory._keep(recipe, run, folder, reporter)
    with timed(times, "verify"):
        verified = verify_run(run, workers=workers).to_json()
    lake = Lake(run)
    status = lake.status()
    assert verified["agreed"] == verified["checked"] == status["kept"]
    return {
        "seconds": times,
        "domains": status["domains"],
        "tools": status["tools"],
        "structures": lake.one("SELECT count(DISTINCT structure) FROM tools WHERE writes AND dropped = ''"),
        "schemas": lake.one("SELECT count(DISTINCT shape) FROM tools WHERE dropped = ''"),
        "agents": status["agents"],
        "trajectories": status["attempts"],
        "kept": status["kept"],
        "calls each": round(lake.one("SELECT avg(n_calls) FROM trajectories"), 2),
        "user turns each": round(lake.one("SELECT avg(user_turns) FROM trajectories"), 2),
        "tried and judged per second": round(status["attempts"] / times["attempts"], 1),
        "tasks made per second": round(status["tasks"] / times["tasks"], 1),
        "executed again per second": round(verified["checked"] / times["verify"], 1),
        "agreed": verified["agreed"],
        "peak MB here": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "peak MB of a worker": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024,
    }


SERVER = """
import asyncio, json, sys

async def handle(reader, writer):
    try:
        while True:
            head = await reader.readuntil(b"\\r\\n\\r\\n")
            size = next(int(l.split(b":")[1]) for l in head.split(b"\\r\\n") if l.lower().startswith(b"content-length"))
            await reader.readexactly(size)
            await asyncio.sleep(float(sys.argv[1]))
            deltas = [{"delta": {"role": "assistant", "content": "I am sorry, I cannot do that."}},
                      {"delta": {}, "finish_reason": "stop"}]
            chunks = [{"choices": [{"index": 0, **delta}]} for delta in deltas]
            chunks.append({"choices": [], "usage": {"prompt_tokens": 900, "completion_tokens": 9}})
            body = b"".join(b"data: " + json.dumps(chunk).encode() + b"\\n\\n" for chunk in chunks)
            body += b"data: [DONE]\\n\\n"
            head = b"HTTP/1.1 200 OK\\r\\ncontent-type: text/event-stream\\r\\ncontent-length: %d\\r\\n\\r\\n"
            writer.write(head % len(body) + body)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()

async def main():
    server = await asyncio.start_server(handle, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
"""


def measure_endpoint(run: Path, rollouts: int) -> dict[str, Any]:
    """What of the wall time is not the endpoint's, on one core; the endpoint has the other."""
    cores = sorted(os.sched_getaffinity(0))
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(LATENCY)], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        port = server.stdout.readline().strip()
        os.sched_setaffinity(server.pid, {cores[-1]})
        asked = {
            "name": "asked",
            "domains": {"count": 60},
            "tasks": {"count": rollouts},
            "attempts": {"model": f"openai:m@http://127.0.0.1:{port}", "concurrency": AT_ONCE},
        }
        recipe = SynthRecipe.model_validate(asked)
        folder, reporter = run / "synth", ConsoleReporter()
        factory._check_recipe(recipe, folder)
        domains = factory._domains(recipe, folder, reporter)
        work = Workers(recipe, domains, factory._agents(recipe, folder, domains), 1)
        factory._tasks(recipe, folder, work, reporter)
        os.sched_setaffinity(0, {cores[0]})
        began = time.perf_counter()
        factory._attempts(recipe, folder, work, reporter)
        wall = time.perf_counter() - began
    finally:
        os.sched_setaffinity(0, set(cores))
        server.kill()
    turns = [steps for (steps,) in Lake(run).query("SELECT steps FROM attempts ORDER BY number")[1]]
    least = unhindered(turns)
    return {
        "rollouts": rollouts,
        "turns": sum(turns),
        "at a time": AT_ONCE,
        "seconds": round(wall, 2),
        "the endpoint's": round(least, 2),
        "turns * latency / at a time": round(sum(turns) * LATENCY / AT_ONCE, 2),
        "lost": round(1 - least / wall, 4),
    }


def unhindered(turns: Sequence[int]) -> float:
    """Seconds that the rollouts take, in their order, if each turn takes the latency and nothing else takes time."""
    places = [0.0] * AT_ONCE
    for count in turns:
        heapq.heapreplace(places, places[0] + count * LATENCY)
    return max(places)


def measure_tau2(python: str, calls: int) -> dict[str, Any]:
    """Calls per second of tau2's airline tools and of ours, in turns: with a state for each task, and calls alone."""
    theirs = [python, str(Path(__file__).with_name("_tau2.py")), str(calls)]
    rates: dict[str, list[list[float]]] = {"ours": [], "theirs": []}
    for _ in range(ROUNDS):
        said = subprocess.run(theirs, capture_output=True, text=True, check=True).stdout.split()
        rates["theirs"].append([float(word) for word in said[-2:]])
        rates["ours"].append(our_calls(calls))
    found: dict[str, Any] = {"calls per second, with states and alone": rates}
    for at, name in enumerate(("with states", "calls alone")):
        ratios = sorted(ours[at] / other[at] for ours, other in zip(rates["ours"], rates["theirs"], strict=True))
        found[f"{name}, ratio"] = [round(ratios[i], 1) for i in (len(ratios) // 2, 0, -1)]
    return found


def our_calls(count: int) -> list[float]:
    """Calls per second of the expert's calls in tasks of many domains."""
    from openk2.synth.agents import agents_of
    from openk2.synth.evolve import evolve
    from openk2.synth.lexicon import sketches
    from openk2.synth.tasks import TaskMaker
    from openk2.worlds.apps.world import Apps

    domains = {sketch.name: evolve(sketch, 0) for sketch in sketches()[::40]}
    apps = Apps(domains.__getitem__)
    agents = [agent for domain in domains.values() for agent in agents_of(domain, 2, 0, {})]
    made = [task for n in range(300) if (task := TaskMaker(apps, agents[n % len(agents)], n).make()) is not None]
    _called(apps, made, count)
    # A run reads a tool's expressions once, and fills a state for each task.
    apps._states.clear()
    return _called(apps, made, count)


def _called(apps: Any, made: Sequence[Any], count: int) -> list[float]:
    """Calls per second with the states of their tasks, and alone."""
    from openk2.core import ToolCall
    from openk2.worlds.apps.world import AppWorld

    done, calling, began = 0, 0.0, time.perf_counter()
    while done < count:
        for task in made:
            world = AppWorld(apps, task)
            world.begin(task)
            for call in (call for turn in task.plan for wave in turn.waves for call in wave):
                asked = ToolCall("c", call.name, json.dumps(call.arguments))
                at = time.perf_counter()
                world.execute(asked)
                calling += time.perf_counter() - at
                done += 1
            if done >= count:
                break
    return [done / (time.perf_counter() - began), done / calling]


if __name__ == "__main__":
    main()
