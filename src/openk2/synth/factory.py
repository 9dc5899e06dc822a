"""The data factory, stage by stage: domains -> agents -> attempts -> kept.

Each stage writes files of the run folder and is not done again if they are there; killed at any moment, the same
command continues. Offline, the bytes do not depend on the number of workers.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

from openk2.core import Policy, UserError
from openk2.core.runs import Manifest, locked, remove_stale, sha256_file, versions, write_manifest, write_text
from openk2.synth.agents import Agent, agents_of
from openk2.synth.attempts import Bench, Shard, run_shard
from openk2.synth.evolve import evolve
from openk2.synth.lake import AGENTS, ATTEMPTS, DOMAINS, KEPT, STAGE, TOOLS, Lake, packages, rows_in, write_table
from openk2.synth.lexicon import sketches
from openk2.synth.recipe import SynthRecipe
from openk2.synth.semantics import Doubles, schema_of, structure
from openk2.train.progress import Bar, ConsoleReporter, Reporter
from openk2.worlds.apps.declaration import Domain, Tool
from openk2.worlds.apps.world import Apps

_WITHOUT_EFFECT = {"attempts": {"concurrency"}}
"""How many attempts run at a time changes nothing in the result."""


def run_factory(recipe: SynthRecipe, run: Path, *, workers: int, reporter: Reporter | None = None) -> dict[str, Any]:
    """Run all stages in the folder `run`; the status at the end. Raises UserError for a folder that holds another
    recipe's run, and when another process works in it."""
    packages()
    reporter = reporter or ConsoleReporter()
    folder = run / STAGE
    with locked(folder, "name another folder as --run"):
        _check_recipe(recipe, folder)
        domains = _domains(recipe, folder, reporter)
        agents = _agents(recipe, folder, domains)
        _attempts(recipe, folder, domains, agents, workers, reporter)
        _keep(recipe, run, folder, reporter)
    return Lake(run).status()


def _check_recipe(recipe: SynthRecipe, folder: Path) -> None:
    """The folder is this recipe's; more tasks of the same are welcome."""
    path = folder / "recipe.json"
    wanted = recipe.model_dump(mode="json")
    if path.exists():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as e:
            raise UserError(f"{path} is damaged: delete the folder {folder} to begin anew") from e
        for one in (found, plain := json.loads(json.dumps(wanted))):
            one.get("attempts", {}).pop("concurrency", None)
        count, had = plain["tasks"].pop("count"), found.get("tasks", {}).pop("count", 0)
        if found != plain:
            keys = [key for key in plain if plain[key] != found.get(key)]
            raise UserError(f"{folder} holds a run with another {keys[0]}: name another folder as --run")
        if had != count:
            (folder / "manifest.json").unlink(missing_ok=True)
            (folder / KEPT).unlink(missing_ok=True)
    write_text(path, json.dumps(wanted, indent=2) + "\n")


def _domains(recipe: SynthRecipe, folder: Path, reporter: Reporter) -> dict[str, str]:
    """Name -> declaration. Tools that are doubles of earlier ones are left out, and said which."""
    _, pq = packages()
    path = folder / DOMAINS
    if not path.exists() or not (folder / TOOLS).exists():
        domain_rows, tool_rows = [], []
        doubles = Doubles()
        chosen = list(sketches())
        random.Random(recipe.seed).shuffle(chosen)
        chosen = chosen[: recipe.domains.count]
        with reporter.stage("domains") as bar:
            for number, sketch in enumerate(chosen, 1):
                domain = evolve(sketch, recipe.seed)
                kept: list[Tool] = []
                for tool in domain.tools:
                    dropped = doubles.reason(tool) or (
                        "" if len(kept) < recipe.domains.tools else "too many in its domain"
                    )
                    if not dropped:
                        kept.append(tool)
                    tool_rows.append(_tool_row(domain, tool, dropped))
                domain = domain.model_copy(update={"tools": tuple(kept)})
                domain_rows.append(_domain_row(domain))
                bar(number, len(chosen))
        write_table(folder / TOOLS, tool_rows)
        write_table(path, domain_rows)
    table = pq.read_table(path, columns=["name", "declaration"]).to_pylist()
    return {row["name"]: row["declaration"] for row in table}


def _domain_row(domain: Domain) -> dict[str, Any]:
    return {
        "name": domain.name, "category": domain.category, "title": domain.title, "entities": len(domain.entities),
        "tools": len(domain.tools), "declaration": domain.model_dump_json(),
    }  # fmt: skip


def _tool_row(domain: Domain, tool: Tool, dropped: str) -> dict[str, Any]:
    return {
        "domain": domain.name, "category": domain.category, "name": tool.name, "description": tool.description,
        "writes": tool.writes, "parameters": len(tool.parameters), "requires": len(tool.requires),
        "effects": len(tool.effects), "schema": json.dumps(dict(tool.spec().parameters)), "shape": schema_of(tool),
        "structure": structure(tool), "dropped": dropped,
    }  # fmt: skip


def _agents(recipe: SynthRecipe, folder: Path, domains: dict[str, str]) -> list[Agent]:
    _, pq = packages()
    path = folder / AGENTS
    if not path.exists():
        parsed = {name: Domain.model_validate_json(text) for name, text in domains.items()}
        agents = [
            agent
            for domain in parsed.values()
            for agent in agents_of(domain, recipe.agents.per_domain, recipe.seed, parsed)
        ]
        # A part of all tasks is about all kinds of domains.
        random.Random(recipe.seed).shuffle(agents)
        write_table(
            path,
            [
                {"name": a.name, "domain": a.domain, "tools": len(a.tools), "agent": json.dumps(asdict(a))}
                for a in agents
            ],
        )
    return [read_agent(row["agent"]) for row in pq.read_table(path, columns=["agent"]).to_pylist()]


def read_agent(text: str) -> Agent:
    raw = json.loads(text)
    distractors = {name: tuple(tools) for name, tools in raw["distractors"].items()}
    return Agent(raw["name"], raw["domain"], raw["opening"], tuple(raw["rules"]), tuple(raw["tools"]), distractors)


def shards_of(recipe: SynthRecipe, folder: Path) -> Iterator[Shard]:
    """All shards of a run."""
    size = recipe.tasks.per_shard
    for index, first in enumerate(range(0, recipe.tasks.count, size)):
        yield Shard(index, first, min(first + size, recipe.tasks.count), folder / ATTEMPTS / f"{index:05}.parquet")


def _attempts(
    recipe: SynthRecipe, folder: Path, domains: dict[str, str], agents: list[Agent], workers: int, reporter: Reporter
) -> None:
    shards = list(shards_of(recipe, folder))
    missing = [s for s in shards if rows_in(s.path) < (s.last - s.first)]
    for shard in missing:
        remove_stale(shard.path)
    done = sum(s.last - s.first for s in shards) - sum(s.last - s.first for s in missing)
    total = recipe.tasks.count
    with reporter.stage("attempts") as bar:
        bar(done, total)
        if recipe.attempts.model != "planner":
            from openk2.policy.resolve import resolve_policy

            policy = resolve_policy(recipe.attempts.model, temperature=recipe.attempts.temperature, seed=recipe.seed)
            _with_model(_bench(recipe, domains, agents, policy), missing, bar, done)
            return
        for shard in _in_processes(recipe, missing, domains, agents, workers):
            done += shard.last - shard.first
            bar(done, total)


_shared: dict[str, Bench] = {}
"""What a worker was begun with."""


def _bench(recipe: SynthRecipe, domains: dict[str, str], agents: list[Agent], policy: Policy | None = None) -> Bench:
    apps = Apps(lambda name: Domain.model_validate_json(domains[name]))
    categories = {name: json.loads(text)["category"] for name, text in domains.items()}
    return Bench(recipe, apps, agents, categories, policy)


def _begin_worker(recipe: SynthRecipe, domains: dict[str, str], agents: list[Agent]) -> None:
    _shared["bench"] = _bench(recipe, domains, agents)


def _work(shard: Shard) -> Shard:
    run_shard(shard, _shared["bench"])
    return shard


def _in_processes(
    recipe: SynthRecipe, shards: list[Shard], domains: dict[str, str], agents: list[Agent], workers: int
) -> Iterator[Shard]:
    if workers == 1:
        _begin_worker(recipe, domains, agents)
        yield from map(_work, shards)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _begin_worker, (recipe, domains, agents)) as pool:
        try:
            for future in as_completed([pool.submit(_work, shard) for shard in shards]):
                yield future.result()
        except BaseException:
            # What is begun is finished; nothing new is.
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _with_model(bench: Bench, shards: list[Shard], bar: Bar, done: int) -> None:
    """All in this process: the model is what is waited for."""
    total = bench.recipe.tasks.count
    for shard in shards:
        before = done

        def hear(count: int, before: int = before) -> None:
            bar(before + count, total)

        run_shard(shard, bench, hear)
        done += shard.last - shard.first


def _keep(recipe: SynthRecipe, run: Path, folder: Path, reporter: Reporter) -> None:
    """Which attempts are data: those that have passed and are no doubles of others, nor of a benchmark's text."""
    if (folder / "manifest.json").exists() and (folder / KEPT).exists():
        return
    overlap = _benchmark_overlap(recipe)
    lake = Lake(run)
    total = int(lake.one("SELECT count(*) FROM attempts"))
    hashes: set[bytes] = set()
    same: dict[bytes, int] = {}
    rows = []
    text = "atif" if overlap is not None else "''"
    with reporter.stage("keep") as bar:
        found = lake.stream(
            f"SELECT number, attempt, hash, tools, calls, passed, solvable, reason, {text} "
            "FROM attempts ORDER BY number, attempt"
        )
        for done, (number, attempt, digest, tools, calls, passed, solvable, reason, atif) in enumerate(found, 1):
            key = f"{tools}|{calls}".encode()
            dropped = ""
            if not solvable:
                dropped = "no task was found"
            elif not digest:
                dropped = "no answer"
            elif not passed:
                dropped = "failed: " + _kind_of(reason)
            elif bytes.fromhex(digest) in hashes:
                dropped = "the same trajectory"
            elif same.get(key, 0) >= recipe.filter.same_calls and calls:
                dropped = "the same tools and calls"
            elif overlap is not None and overlap(atif):
                dropped = "shares text with a benchmark"
            if not dropped:
                hashes.add(bytes.fromhex(digest))
                same[key] = same.get(key, 0) + 1
            rows.append({"number": number, "attempt": attempt, "dropped": dropped})
            bar(done, total)
    write_table(folder / KEPT, rows)
    status = Lake(run).status()
    outputs = {name: sha256_file(folder / name) for name in (DOMAINS, TOOLS, AGENTS, KEPT)}
    outputs |= {f"{ATTEMPTS}/{s.path.name}": sha256_file(s.path) for s in shards_of(recipe, folder)}
    manifest = Manifest(
        stage=STAGE, config=recipe.model_dump(mode="json", exclude=_WITHOUT_EFFECT), outputs=outputs,
        versions=versions("openk2", "pyarrow", "duckdb"), results={k: v for k, v in status.items() if k != "finished"},
    )  # fmt: skip
    write_manifest(folder, manifest)


def _kind_of(reason: str) -> str:
    """A verdict without its particulars."""
    for kind in ("state at the end", "did not end", "was changed in", "must not be", "was not told", "not finished"):
        if kind in reason:
            return kind
    return "another reason"


def _benchmark_overlap(recipe: SynthRecipe) -> Callable[[str], bool] | None:
    """Whether a document shares text with a benchmark; None if there is none to compare with."""
    from openk2.data.decontaminate import BenchmarkIndex

    folders = [*recipe.filter.against, *([os.environ["OPENK2_DATA"]] if os.environ.get("OPENK2_DATA") else [])]
    if not folders:
        return None
    indices = [BenchmarkIndex.from_folder(Path(folder)) for folder in folders]
    return lambda atif: any(index.overlap(said) for said in _said(atif) for index in indices)


def _said(atif: str) -> Iterator[str]:
    for step in json.loads(atif)["steps"]:
        yield str(step.get("message", ""))
