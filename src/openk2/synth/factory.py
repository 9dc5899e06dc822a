"""The data factory, stage by stage: domains -> agents -> tasks -> attempts -> kept.

Each stage writes files of the run folder and is not done again if they are there; killed at any moment, the same
command continues. Offline, the bytes do not depend on the number of workers.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import random
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openk2.core import UserError
from openk2.core.errors import first_alone
from openk2.core.processes import begin_process, quiet_start
from openk2.core.progress import ConsoleReporter, Reporter
from openk2.core.runs import (
    MANIFEST,
    Manifest,
    check_utf8,
    locked,
    remove_stale,
    sha256_file,
    versions,
    write_manifest,
    write_text,
)
from openk2.data.lake import (
    AGENTS,
    ASKED,
    ATTEMPTS,
    DOMAINS,
    JUDGED,
    KEPT,
    RECIPE,
    REFUSED,
    STAGE,
    TASKS,
    TOOLS,
    Lake,
    Rows,
    damaged_recipe,
    files_of,
    is_whole,
    judged_schema,
    packages,
    refused_schema,
    rows_in,
    tasks_in,
    write_table,
)
from openk2.synth.agents import Agent, agents_of
from openk2.synth.attempts import Bench, Shard, Spent, make_tasks, reopen, run_model, run_planner, written
from openk2.synth.evolve import evolve
from openk2.synth.lexicon import sketches, split_of_domain
from openk2.synth.real import MACHINE, needs_sandbox
from openk2.synth.recipe import SynthRecipe
from openk2.synth.semantics import Doubles, schema_of, structure
from openk2.worlds.apps.declaration import Domain, Tool
from openk2.worlds.apps.world import Apps

if TYPE_CHECKING:
    from openk2.synth.ask import Asker
    from openk2.synth.invent import Invented

_WITHOUT_EFFECT = {"attempts": {"concurrency", "seconds"}, "ask": {"concurrency", "seconds"}}
"""How many questions are asked at a time, and how long an answer or an attempt may take, changes nothing in the result:
a model whose time is over has not answered."""


def run_factory(recipe: SynthRecipe, run: Path, *, workers: int, reporter: Reporter | None = None) -> dict[str, Any]:
    """Run all stages in the folder `run`; the status at the end. Raises UserError for a folder that holds another
    recipe's run, when another process works in it, and where tasks that are executed for real have no sandbox."""
    packages()
    if recipe.real.share:
        needs_sandbox()
    check_utf8(run)
    recipe.check_models()
    _check_benchmarks(recipe)
    reporter = reporter or ConsoleReporter()
    folder = run / STAGE
    with locked(folder, "name another folder as --run"):
        _check_recipe(recipe, folder)
        _drop_damaged(folder)
        domains = _domains(recipe, folder, reporter)
        agents = _agents(recipe, folder, domains)
        work = Workers(recipe, domains, agents, workers)
        try:
            _tasks(recipe, folder, work, reporter)
            _attempts(recipe, folder, work, reporter)
        finally:
            work.close()
        _judge(recipe, run, folder, reporter)
        _keep(recipe, run, folder, reporter)
    return Lake(run).status()


def _check_recipe(recipe: SynthRecipe, folder: Path) -> None:
    """The folder is this recipe's; more tasks of the same are welcome, and what is kept may be chosen otherwise."""
    path = folder / RECIPE
    wanted = recipe.model_dump(mode="json")
    if path.exists():
        try:
            # What an older recipe did not say is what it says by default.
            before = SynthRecipe.model_validate_json(path.read_text(encoding="utf-8"))
        except ValueError as e:
            raise damaged_recipe(path) from e
        found, plain = (one.model_dump(mode="json", exclude=_WITHOUT_EFFECT) for one in (before, recipe))
        count, had = plain["tasks"].pop("count"), found["tasks"].pop("count")
        chosen, chose = plain.pop("filter"), found.pop("filter")
        if found != plain:
            keys = [key for key in plain if plain[key] != found.get(key)]
            raise UserError(f"{folder} holds a run with another {keys[0]}: name another folder as --run")
        if (tried := _tried(recipe, folder)) > count:
            raise UserError(
                f"{folder} holds attempts at {tried} tasks, and {count} would leave some of them out: give --limit "
                f"{tried}, or a larger one to add to them"
            )
        if had != count:
            _undecide(folder)
        elif chose != chosen:
            (folder / MANIFEST).unlink(missing_ok=True)
            (folder / KEPT).unlink(missing_ok=True)
    write_text(path, json.dumps(wanted, indent=2) + "\n")


def _tried(recipe: SynthRecipe, folder: Path) -> int:
    """How many tasks would be lost if there were fewer: those up to the last that was tried; 0 if none is beyond."""
    _, pq = packages()
    size, tried = recipe.tasks.per_shard, 0
    for path in (folder / ATTEMPTS).glob("*.parquet"):
        first = int(path.stem) * size
        if first + size > recipe.tasks.count and is_whole(path):
            numbers = pq.read_table(path, columns=["number"])["number"].to_pylist()
            tried = max(tried, *(number + 1 for number in numbers))
            if len(numbers) == _tries(recipe) * tasks_in(tasks := folder / TASKS / path.name):
                # The last ones may be tasks that could not be made.
                tried = max(tried, first + rows_in(tasks))
    for path in (folder / ATTEMPTS).glob("*.partial.jsonl"):
        tried = max(tried, *(number + 1 for number, _ in written(path)), 0)
    return tried


def _tries(recipe: SynthRecipe) -> int:
    """How many attempts at a task there are: the planner's are all the same."""
    return 1 if recipe.tried_without_model else recipe.attempts.per_task


def _undecide(folder: Path) -> None:
    """There will be other attempts: nothing is judged, and none is kept."""
    for name in (MANIFEST, KEPT, JUDGED):
        (folder / name).unlink(missing_ok=True)


def _drop_damaged(folder: Path) -> None:
    """Take away files that cannot be read, so that they are made anew."""
    for path in files_of(folder):
        if not is_whole(path):
            path.unlink()


def _domains(recipe: SynthRecipe, folder: Path, reporter: Reporter) -> dict[str, str]:
    """Name -> declaration. Tools that are doubles of earlier ones are left out, and said which."""
    _, pq = packages()
    path = folder / DOMAINS
    made = [path, folder / TOOLS, *([folder / REFUSED] if recipe.domains.by_model else [])]
    if not all(one.exists() for one in made):
        domain_rows: list[dict[str, Any]] = []
        tool_rows = Rows()
        doubles = Doubles()

        def add(domain: Domain, never: Mapping[str, str]) -> bool:
            """Whether something of it is new: a model may invent what is there already."""
            kept: list[Tool] = []
            for tool in domain.tools:
                dropped = never.get(tool.name) or doubles.reason(tool) or ""
                if not dropped and len(kept) >= recipe.domains.tools:
                    dropped = "too many in its domain"
                if not dropped:
                    kept.append(tool)
                tool_rows.append(_tool_row(domain, tool, dropped))
            if kept:
                domain_rows.append(_domain_row(domain.model_copy(update={"tools": tuple(kept)})))
            return bool(kept)

        left_out = recipe.domains.held_out == "left out"
        chosen = [one for one in sketches() if not (left_out and split_of_domain(one.name) == "test")]
        random.Random(recipe.seed).shuffle(chosen)
        chosen = chosen[: recipe.domains.count]
        with reporter.stage("domains") as bar:
            for number, sketch in enumerate(chosen, 1):
                add(evolve(sketch, recipe.seed), {})
                bar(number, len(chosen))
        if recipe.domains.by_model:
            taken = [row["name"] for row in domain_rows]
            from openk2.synth.invent import Refusal

            invented = asyncio.run(_invented(recipe, folder, taken, reporter))
            for domain, never in invented.domains:
                if not add(domain, never):
                    invented.refused.append(Refusal(domain.title, "all of its tools are doubles", domain.name))
            write_table(folder / REFUSED, [asdict(one) for one in invented.refused], refused_schema())
        if not domain_rows:
            raise UserError("there is not one domain: let domains.count be more than 0, or ask another model")
        write_table(folder / TOOLS, tool_rows)
        write_table(path, domain_rows)
    table = pq.read_table(path, columns=["name", "declaration"]).to_pylist()
    return {row["name"]: row["declaration"] for row in table}


async def _invented(recipe: SynthRecipe, folder: Path, taken: list[str], reporter: Reporter) -> Invented:
    from openk2.synth.invent import invent

    with reporter.stage("domains by model"):
        async with _asker(recipe, recipe.model_of("domains"), folder) as asker:
            invented = await invent(asker, recipe.domains.by_model, recipe.seed, taken)
    reporter.note(f"{len(invented.domains)} domains by {asker.model}: {asker.counts.text()}")
    return invented


@asynccontextmanager
async def _asker(recipe: SynthRecipe, model: str, folder: Path) -> AsyncIterator[Asker]:
    """Asks a model, and is closed in the end."""
    from openk2.policy.resolve import resolve_policy
    from openk2.synth.ask import Asker

    policy = resolve_policy(model, temperature=recipe.ask.temperature, seed=recipe.seed)
    asker = Asker(policy, folder / ASKED, recipe.ask)
    try:
        yield asker
    finally:
        await asker.close()


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
        names = {name: [tool["name"] for tool in json.loads(text)["tools"]] for name, text in domains.items()}
        agents = [
            agent
            for text in domains.values()
            for agent in agents_of(
                Domain.model_validate_json(text),
                recipe.agents.per_domain,
                recipe.seed,
                names,
                tools=recipe.agents.tools,
                distractors=recipe.agents.distractors,
            )
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
        name = f"{index:05}.parquet"
        yield Shard(first, min(first + size, recipe.tasks.count), folder / TASKS / name, folder / ATTEMPTS / name)


def _tasks(recipe: SynthRecipe, folder: Path, work: Workers, reporter: Reporter) -> None:
    """The tasks of all shards. One that has grown is made anew, and until then it is as it was."""
    missing = []
    for shard in shards_of(recipe, folder):
        if rows_in(shard.tasks) != shard.last - shard.first:
            remove_stale(shard.tasks)
            missing.append(shard)
    _drop_beyond(recipe, folder)
    work.run("tasks", make_tasks, missing, recipe.tasks.count, reporter)


def _drop_beyond(recipe: SynthRecipe, folder: Path) -> None:
    """Take away tasks that are too many; attempts at them there are none."""
    shards = {path for shard in shards_of(recipe, folder) for path in (shard.tasks, shard.attempts, shard.partial)}
    for name, kinds in ((TASKS, ("*.parquet",)), (ATTEMPTS, ("*.parquet", "*.partial.jsonl"))):
        for path in [path for kind in kinds for path in (folder / name).glob(kind)]:
            if path not in shards:
                path.unlink()


def _attempts(recipe: SynthRecipe, folder: Path, work: Workers, reporter: Reporter) -> None:
    missing = [
        shard
        for shard in shards_of(recipe, folder)
        if rows_in(shard.attempts) != _tries(recipe) * tasks_in(shard.tasks)
    ]
    for shard in missing:
        remove_stale(shard.attempts)
        if not recipe.tried_without_model:
            reopen(shard)
    if missing:
        _undecide(folder)
    if recipe.tried_without_model:
        work.run("attempts", run_planner, missing, recipe.tasks.count, reporter)
    elif missing:
        _with_model(work.bench, missing, folder, reporter)


def _with_model(bench: Bench, shards: list[Shard], folder: Path, reporter: Reporter) -> None:
    """All in this process: the model is what is waited for. Raises UserError if some attempts had no answer."""
    from openk2.policy.resolve import resolve_policy

    config = bench.recipe.attempts
    policy = None
    if not bench.recipe.tried_by_program:
        policy = resolve_policy(config.model, temperature=config.temperature, seed=bench.recipe.seed)
    total = sum(shard.last - shard.first for shard in shards) * config.per_task
    shards[0].attempts.parent.mkdir(parents=True, exist_ok=True)
    said: list[str] = []
    with reporter.stage("attempts") as bar:

        def hear(spent: Spent) -> None:
            bar(spent.attempts, total, spent.text((config.prompt_price, config.completion_price)))

        async def all_attempts() -> Spent:
            try:
                if not bench.recipe.users.by_model:
                    return await run_model(shards, bench, policy, hear)
                async with _asker(bench.recipe, bench.recipe.model_of("users"), folder) as users:
                    spent = await run_model(shards, bench, policy, hear, users)
                said.append(f"users by {users.model}: {users.counts.text()}")
                return spent
            finally:
                if policy is not None:
                    await policy.close()

        with first_alone():
            spent = asyncio.run(all_attempts())
    reporter.note(f"{spent.attempts} attempts, {spent.text((config.prompt_price, config.completion_price))}")
    for line in said:
        reporter.note(line)
    if spent.failures:
        raise UserError(
            f"{spent.failures} attempts had no answer, the last one because {spent.last_failure}; "
            "the same command asks again"
        )


_shared: dict[str, Bench] = {}
"""What a worker was begun with."""


def _bench(recipe: SynthRecipe, domains: dict[str, str], agents: list[Agent]) -> Bench:
    categories = {name: json.loads(text)["category"] for name, text in domains.items()}
    return Bench(recipe, Apps.declared(domains), agents, categories)


def _begin_worker(recipe: SynthRecipe, domains: dict[str, str], agents: list[Agent]) -> None:
    begin_process()
    _shared["bench"] = _bench(recipe, domains, agents)


def _work(make: Callable[[Shard, Bench], None], shard: Shard) -> Shard:
    make(shard, _shared["bench"])
    return shard


class Workers:
    """Does shards in processes, or here if there is one alone."""

    def __init__(self, recipe: SynthRecipe, domains: dict[str, str], agents: list[Agent], count: int) -> None:
        self._begun = recipe, domains, agents
        self._count = count
        self._bench: Bench | None = None
        self._pool: ProcessPoolExecutor | None = None

    @property
    def bench(self) -> Bench:
        if self._bench is None:
            self._bench = _bench(*self._begun)
        return self._bench

    def run(
        self, name: str, make: Callable[[Shard, Bench], None], shards: list[Shard], total: int, reporter: Reporter
    ) -> None:
        """Do all shards, in any order."""
        with reporter.stage(name) as bar:
            done = total - sum(shard.last - shard.first for shard in shards)
            bar(done, total)
            for shard in self._done(make, shards):
                done += shard.last - shard.first
                bar(done, total)

    def _done(self, make: Callable[[Shard, Bench], None], shards: list[Shard]) -> Iterator[Shard]:
        if self._count == 1 or len(shards) == 1:
            for shard in shards:
                make(shard, self.bench)
                yield shard
            return
        if shards:
            self._start()
            assert self._pool is not None
            # Processes begin when there is something for them to do.
            with quiet_start():
                waiting = [self._pool.submit(_work, make, shard) for shard in shards]
            for future in as_completed(waiting):
                yield future.result()

    def warm(self) -> None:
        """Begin the processes now."""
        self._start()
        if self._pool is not None:
            with quiet_start():
                found = self._pool.map(abs, range(4 * self._count))
            list(found)

    def _start(self) -> None:
        if self._pool is None and self._count > 1:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._count, context, _begin_worker, self._begun)

    def close(self) -> None:
        """What is begun is finished; nothing new is."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


def _judge(recipe: SynthRecipe, run: Path, folder: Path, reporter: Reporter) -> None:
    """What a model says of the manner of all that has passed."""
    if not recipe.judge.model or (folder / JUDGED).exists():
        return
    from openk2.synth.judge import judge_all

    lake = Lake(run)
    total = int(lake.one("SELECT count(*) FROM tried WHERE passed"))

    async def all_judged() -> list[dict[str, Any]]:
        passed = lake.stream("SELECT number, attempt, atif FROM tried WHERE passed ORDER BY number, attempt", 32)
        async with _asker(recipe, recipe.model_of("judge"), folder) as asker:
            rows = await judge_all(asker, passed, recipe.judge.least, recipe.seed, lambda done: bar(done, total))
        said.append(f"{len(rows)} judged by {asker.model}: {asker.counts.text()}")
        return rows

    said: list[str] = []
    with reporter.stage("judge") as bar:
        write_table(folder / JUDGED, asyncio.run(all_judged()), judged_schema())
    reporter.note(said[0])


def _keep(recipe: SynthRecipe, run: Path, folder: Path, reporter: Reporter) -> None:
    """Which attempts are data: those that have passed and are no doubles of others, nor of a benchmark's text."""
    if (folder / MANIFEST).exists() and (folder / KEPT).exists():
        return
    overlap = _benchmark_overlap(recipe)
    if overlap is None:
        reporter.note(
            "keep: compared with no benchmark: name folders with their texts in filter.against or OPENK2_DATA"
        )
    lake = Lake(run)
    total = int(lake.one("SELECT count(*) FROM tried"))
    hashes: set[bytes] = set()
    same: dict[bytes, int] = {}
    judged = {
        (number, attempt): excluded.split(" (")[0] or ("" if verdict == "good" else "judged poor in manner")
        for number, attempt, verdict, excluded in (
            lake.query("SELECT number, attempt, verdict, excluded FROM judged")[1] if recipe.judge.model else ()
        )
    }
    rows = []
    text = "atif" if overlap is not None else "''"
    with reporter.stage("keep") as bar:
        found = lake.stream(
            f"SELECT number, attempt, hash, tools, calls, passed, malformed, reason, domain, {text} "
            "FROM attempts ORDER BY number, attempt"
        )
        for done, (number, attempt, digest, tools, calls, passed, malformed, reason, domain, atif) in enumerate(
            found, 1
        ):
            key = f"{tools}|{calls}".encode()
            dropped = ""
            if passed is None:
                dropped = reason.split(" (")[0]
            elif passed and judged.get((number, attempt)):
                dropped = judged[number, attempt]
            elif not passed:
                dropped = "failed: " + _kind_of(reason)
            elif malformed:
                dropped = "a call that cannot be read"
            elif bytes.fromhex(digest) in hashes:
                dropped = "the same trajectory"
            # On a machine the tools are always the same: what is called is in the arguments.
            elif same.get(key, 0) >= recipe.filter.same_calls and calls and domain != MACHINE:
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
    outputs = {
        name: sha256_file(folder / name)
        for name in (DOMAINS, TOOLS, AGENTS, REFUSED, JUDGED, KEPT)
        if (folder / name).exists()
    }
    shards = [path for shard in shards_of(recipe, folder) for path in (shard.tasks, shard.attempts)]
    outputs |= {str(path.relative_to(folder)): sha256_file(path) for path in shards}
    manifest = Manifest(
        stage=STAGE, config=recipe.model_dump(mode="json", exclude=_WITHOUT_EFFECT), outputs=outputs,
        versions=versions("openk2", "pyarrow", "duckdb"), results={k: v for k, v in status.items() if k != "finished"},
    )  # fmt: skip
    write_manifest(folder, manifest)


def _kind_of(reason: str) -> str:
    """A verdict without its particulars."""
    for kind in (
        "checks failed",
        "cannot be repeated",
        "state at the end",
        "did not end",
        "was changed in",
        "must not be",
        "was not told",
        "not finished",
    ):
        if kind in reason:
            return kind
    return "another reason"


def _check_benchmarks(recipe: SynthRecipe) -> None:
    """Raises UserError if a folder with benchmark texts is not there."""
    from openk2.data.decontaminate import check_pack

    for folder in recipe.filter.against:
        if not Path(folder).is_dir():
            raise UserError(f"filter.against names {folder}, which is not a folder: correct it, or take it out")
    if pack := os.environ.get("OPENK2_DATA"):
        check_pack(Path(pack))


def _benchmark_overlap(recipe: SynthRecipe) -> Callable[[str], bool] | None:
    """Whether a document shares text with a benchmark; None if there is none to compare with."""
    from openk2.data.decontaminate import BenchmarkIndex

    _check_benchmarks(recipe)
    folders = [*recipe.filter.against, *([os.environ["OPENK2_DATA"]] if os.environ.get("OPENK2_DATA") else [])]
    if not folders:
        return None
    indices = [BenchmarkIndex.from_folder(Path(folder)) for folder in folders]
    return lambda atif: any(index.overlap(said) for said in _said(atif) for index in indices)


def _said(atif: str) -> Iterator[str]:
    for step in json.loads(atif)["steps"]:
        yield str(step.get("message", ""))
