"""Fine-tuning data: demonstrations of the task families and conversations from files, rendered to token shards by a
pool of processes.

The work is cut into chunks of seeds, or of lines. A finished chunk is a shard folder of its own, so a killed run redoes
at most the chunks that were under way; at the end the chunks are joined in a fixed order, whatever order they were made
in.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import random
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from openk2.chat import Tokenizer, canonicalise, render
from openk2.core import Demonstration, ToolSpec, UserError
from openk2.core.families import demonstrate, sample_task
from openk2.core.processes import begin_process
from openk2.core.progress import Bar
from openk2.core.runs import sha256_text, write_text
from openk2.data.shards import Shards, ShardWriter
from openk2.train.conversations import line_offsets, read_conversations
from openk2.train.recipe import MAX_EPISODES

CHUNK = 250
# Seeds of one recipe seed: training from its start, validation from its middle. Both belong to the training split.
VALID_OFFSET = MAX_EPISODES
SEEDS_PER_RECIPE_SEED = 2 * MAX_EPISODES


@dataclass(frozen=True, slots=True)
class Chunk:
    """Demonstrations of `family` for the seeds from `start` on, to be written to `folder`.

    With `offset` the family is a file: its conversations from the number `start` on, which begins at that byte.
    """

    family: str
    start: int
    count: int
    folder: str
    tokenizer: str
    max_tokens: int
    tool_dropout: float
    offset: int | None = None


def plan_chunks(
    counts: dict[str, int],
    *,
    part: str,
    first_seed: int,
    folder: Path,
    tokenizer: Path,
    max_tokens: int,
    tool_dropout: float,
) -> list[Chunk]:
    """The chunks of one part (`train` or `valid`), in the order in which they are joined."""
    chunks = []
    for family, count in counts.items():
        for offset in range(0, count, CHUNK):
            name = f"{part}-{family}-{offset:07d}"
            size = min(CHUNK, count - offset)
            chunks.append(
                Chunk(family, first_seed + offset, size, str(folder / name), str(tokenizer), max_tokens, tool_dropout)
            )
    return chunks


def plan_file_chunks(
    path: Path, part: Literal["train", "valid"], valid: int, *, folder: Path, tokenizer: Path, max_tokens: int,
    tool_dropout: float,
) -> list[Chunk]:  # fmt: skip
    """As `plan_chunks`, for a file of conversations: validation has the last `valid` of them, or the last tenth of a
    small file. Raises UserError if it has not two."""
    offsets = line_offsets(path)
    first_valid = len(offsets) - min(valid, math.ceil(len(offsets) / 10))
    if first_valid == 0:
        # What is wrong with it comes first.
        next(read_conversations(path, offsets[0], 0, 1))
        raise UserError(f"{path} has one conversation: one more is needed, for the validation loss")
    numbers = range(first_valid) if part == "train" else range(first_valid, len(offsets))
    name = sha256_text(str(path))[:12]
    return [
        Chunk(
            str(path), at, min(CHUNK, numbers.stop - at), str(folder / f"{part}-{name}-{at:07d}"), str(tokenizer),
            max_tokens, tool_dropout, offsets[at],
        )
        for at in range(numbers.start, numbers.stop, CHUNK)
    ]  # fmt: skip


def make_chunks(chunks: Sequence[Chunk], workers: int, bar: Bar) -> None:
    """Make the chunks that are not there yet. Raises UserError from a worker as it is, and for one that was killed."""
    missing = [chunk for chunk in chunks if not Path(chunk.folder).exists()]
    total = sum(chunk.count for chunk in chunks)
    done = total - sum(chunk.count for chunk in missing)
    bar(done, total)
    if not missing:
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=begin_process) as pool:
        futures = {pool.submit(make_chunk, chunk): chunk for chunk in missing}
        try:
            for future in as_completed(futures):
                future.result()
                done += futures[future].count
                bar(done, total, futures[future].family)
        except BrokenProcessPool as e:
            raise UserError(
                "a process that makes episodes was killed (perhaps out of memory): run the same command again, "
                "finished parts are kept"
            ) from e
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def join_chunks(chunks: Sequence[Chunk], folder: Path) -> dict[str, dict[str, int]]:
    """Join finished chunks into one shard folder; returns per family the episodes, tokens and dropped episodes."""
    summary: dict[str, dict[str, int]] = {}
    with ShardWriter(folder) as writer:
        for chunk in chunks:
            shards = Shards(Path(chunk.folder))
            writer.extend(shards)
            counts = summary.setdefault(chunk.family, {"episodes": 0, "tokens": 0, "supervised": 0, "too_long": 0})
            counts["episodes"] += len(shards)
            counts["tokens"] += len(shards.tokens)
            counts["supervised"] += int(shards.mask.sum())
            counts["too_long"] += json.loads((Path(chunk.folder) / "dropped.json").read_text(encoding="utf-8"))[
                "too_long"
            ]
    return summary


def make_chunk(chunk: Chunk) -> None:
    """Demonstrate, render, write. Episodes longer than `max_tokens` are dropped and counted.

    Raises UserError that names the conversation of a file which cannot be read or rendered.
    """
    tokenizer = _tokenizer(chunk.tokenizer)
    final = Path(chunk.folder)
    building = final.with_name(f".{final.name}.{os.getpid()}")
    too_long = 0
    with ShardWriter(building) as writer:
        for shown in _demonstrations(chunk):
            try:
                # As the server and the agent will show a conversation to the model.
                tools, messages = declared_tools(shown, chunk.tool_dropout), shown.messages
                if chunk.offset is not None:
                    messages = tuple(canonicalise(messages, tokenizer, with_tools=bool(tools)))
                rendered = render(messages, tools, tokenizer=tokenizer)
            except UserError as e:
                if chunk.offset is None:
                    raise
                raise UserError(f"{chunk.family}, conversation {shown.task.seed + 1}: {e}") from e
            if len(rendered.ids) > chunk.max_tokens:
                too_long += 1
                continue
            writer.add(rendered.ids, rendered.loss_mask)
    write_text(building / "dropped.json", json.dumps({"too_long": too_long}))
    shutil.rmtree(final, ignore_errors=True)
    building.replace(final)


# How many of the tools nobody calls stay at most when an episode is thinned out.
_KEPT = 3


def declared_tools(shown: Demonstration, dropout: float) -> tuple[ToolSpec, ...]:
    """The tools to declare: all, or with probability `dropout` those that are called and one to three of the others.

    Declarations are most of an episode's tokens and none of its loss: with short episodes a small model meets more of
    them for the same compute. A choice stays one: where there are tools that nobody calls, at least one of them is
    kept. Deterministic in the task's seed.
    """
    rng = random.Random(f"tools/{shown.task.family}/{shown.task.seed}")
    if rng.random() >= dropout:
        return shown.tools
    called = {call.name for message in shown.messages for call in message.tool_calls}
    others = [tool.name for tool in shown.tools if tool.name not in called]
    kept = called | set(rng.sample(others, min(len(others), rng.randint(1, _KEPT))))
    return tuple(tool for tool in shown.tools if tool.name in kept)


def _demonstrations(chunk: Chunk) -> Iterator[Demonstration]:
    if chunk.offset is not None:
        yield from read_conversations(Path(chunk.family), chunk.offset, chunk.start, chunk.count)
        return
    for seed in range(chunk.start, chunk.start + chunk.count):
        yield demonstrate(chunk.family, sample_task(chunk.family, "train", seed))


@lru_cache(maxsize=2)
def _tokenizer(folder: str) -> Tokenizer:
    return Tokenizer.load(Path(folder))
