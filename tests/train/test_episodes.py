"""Episodes: the same shards whatever the number of processes, over-long ones counted, finished chunks kept."""

import multiprocessing
import os
from dataclasses import replace
from pathlib import Path

import pytest

import openk2
from openk2.chat import Tokenizer, parse
from openk2.core import UserError
from openk2.core.families import get_family
from openk2.data.shards import Shards
from openk2.train.episodes import Chunk, declared_tools, join_chunks, make_chunk, make_chunks, plan_chunks

COUNTS = {"functions": 300, "shell": 3}


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    source = Path(openk2.__file__).parent
    Tokenizer.train((p.read_text() for p in sorted(source.rglob("*.py"))), vocab_size=900).save(folder)
    return folder


def chunks(folder: Path, tokenizer: Path, max_tokens: int = 1200) -> list[Chunk]:
    return plan_chunks(
        COUNTS,
        part="train",
        first_seed=7,
        folder=folder,
        tokenizer=tokenizer,
        max_tokens=max_tokens,
        tool_dropout=0.5,
    )


def silent(done: int, total: int, text: str = "") -> None:
    pass


def test_processes_do_not_change_the_result(tmp_path: Path, tokenizer_folder: Path) -> None:
    planned = chunks(tmp_path / "two", tokenizer_folder)
    assert [c.count for c in planned] == [250, 50, 3]
    assert planned[1].start == 257
    make_chunks(planned, 2, silent)
    alone = chunks(tmp_path / "one", tokenizer_folder)
    for chunk in reversed(alone):
        make_chunk(chunk)
    summaries = [join_chunks(c, tmp_path / name) for c, name in ((planned, "a"), (alone, "b"))]
    assert summaries[0] == summaries[1]
    for file in ("tokens.npy", "mask.npy", "offsets.npy"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    for family, count in COUNTS.items():
        assert summaries[0][family]["episodes"] + summaries[0][family]["too_long"] == count
    shards = Shards(tmp_path / "a")
    assert int(shards.lengths.max()) <= 1200
    tokenizer = Tokenizer.load(tokenizer_folder)
    ids, mask = shards.document(0)
    assert [m.role for m in parse(ids.tolist(), tokenizer=tokenizer).messages][:2] == ["system", "user"]
    assert ids[mask][-1] == tokenizer.eos_id


def test_finished_chunks_are_kept(tmp_path: Path, tokenizer_folder: Path) -> None:
    planned = chunks(tmp_path / "chunks", tokenizer_folder)[1:]
    make_chunk(planned[0])
    before = (tmp_path / "chunks" / Path(planned[0].folder).name / "tokens.npy").stat().st_mtime_ns
    seen: list[tuple[int, int]] = []
    make_chunks(planned, 1, lambda done, total, text="": seen.append((done, total)))
    assert seen == [(50, 53), (53, 53)]
    assert Path(planned[0].folder, "tokens.npy").stat().st_mtime_ns == before
    assert not list((tmp_path / "chunks").glob(".*"))


def test_long_episodes_are_counted(tmp_path: Path, tokenizer_folder: Path) -> None:
    planned = chunks(tmp_path / "chunks", tokenizer_folder, max_tokens=60)[2:]
    make_chunk(planned[0])
    summary = join_chunks(planned, tmp_path / "joined")
    assert summary == {"shell": {"episodes": 0, "tokens": 0, "supervised": 0, "too_long": 3}}


def test_an_unknown_family_is_named(tmp_path: Path, tokenizer_folder: Path) -> None:
    planned = plan_chunks(
        {"poetry": 3},
        part="train",
        first_seed=0,
        folder=tmp_path,
        tokenizer=tokenizer_folder,
        max_tokens=100,
        tool_dropout=0.0,
    )
    with pytest.raises(UserError, match="poetry"):
        make_chunks(planned, 1, silent)


@pytest.mark.parametrize("family", ["functions", "notebook", "shell"])
def test_thinned_tools_keep_the_called_ones_and_a_choice(family: str) -> None:
    maker = get_family(family)
    thinned = 0
    for seed in range(60):
        shown = maker.demonstrate(maker.sample("train", seed))
        kept = declared_tools(shown, 1.0)
        called = {call.name for message in shown.messages for call in message.tool_calls}
        others = len(shown.tools) - len(called)
        assert called <= {tool.name for tool in kept}
        assert min(others, 1) <= len(kept) - len(called) <= min(others, 3)
        assert [tool for tool in shown.tools if tool in kept] == list(kept)
        assert declared_tools(shown, 1.0) == kept
        assert declared_tools(shown, 0.0) == shown.tools
        thinned += len(kept) < len(shown.tools)
    assert thinned > 5


def test_a_killed_worker_is_one_sentence_and_what_is_finished_stays(tmp_path: Path, tokenizer_folder: Path) -> None:
    planned = chunks(tmp_path / "chunks", tokenizer_folder)
    # After the first chunk the worker waits for somebody to write into a pipe.
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "tokenizer.json")
    waiting = [planned[0], *(replace(chunk, tokenizer=str(tmp_path / "pipe")) for chunk in planned[1:])]

    def kill(done: int, total: int, text: str = "") -> None:
        for process in multiprocessing.active_children() if done else ():
            process.kill()

    with pytest.raises(UserError, match=r"was killed .* same command again"):
        make_chunks(waiting, 1, kill)
    assert [Path(chunk.folder).exists() for chunk in planned] == [True, False, False]
    make_chunks(planned, 1, silent)
    assert all(Path(chunk.folder).exists() for chunk in planned)
