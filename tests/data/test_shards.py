"""Token shards: what goes in comes out, and damage is named."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openk2.core import UserError
from openk2.data.shards import LARGEST_ID, Shards, ShardWriter

documents = st.lists(st.lists(st.tuples(st.integers(0, LARGEST_ID), st.booleans()), max_size=20), max_size=10)


@given(documents)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, docs: list[list[tuple[int, bool]]]) -> None:
    folder = tmp_path_factory.mktemp("shards") / "a"
    with ShardWriter(folder) as writer:
        for doc in docs:
            writer.add([i for i, _ in doc], [m for _, m in doc])
    shards = Shards(folder)
    assert len(shards) == len(docs)
    assert shards.lengths.tolist() == [len(doc) for doc in docs]
    for doc, (ids, mask) in zip(docs, shards, strict=True):
        assert ids.tolist() == [i for i, _ in doc]
        assert mask.tolist() == [m for _, m in doc]


def test_extend_joins_folders_in_order(tmp_path: Path) -> None:
    for name, ids in (("a", [1, 2, 3]), ("b", [4, 5])):
        with ShardWriter(tmp_path / name) as writer:
            writer.add(ids)
    with ShardWriter(tmp_path / "both") as writer:
        writer.extend(Shards(tmp_path / "a"))
        writer.extend(Shards(tmp_path / "b"))
    assert [ids.tolist() for ids, _ in Shards(tmp_path / "both")] == [[1, 2, 3], [4, 5]]


def test_same_documents_give_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with ShardWriter(tmp_path / name) as writer:
            for i in range(50):
                writer.add(np.arange(i))
    for file in ("tokens.npy", "mask.npy", "offsets.npy"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_an_interrupted_writer_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), ShardWriter(tmp_path / "a") as writer:
        writer.add([1, 2])
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_an_id_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="16-bit"), ShardWriter(tmp_path / "a") as writer:
        writer.add([LARGEST_ID + 1])


@pytest.mark.parametrize("file", ["tokens.npy", "mask.npy", "offsets.npy"])
@pytest.mark.parametrize("damage", ["missing", "cut", "garbage", "empty"])
def test_damage_is_one_sentence_with_the_path(tmp_path: Path, file: str, damage: str) -> None:
    with ShardWriter(tmp_path / "a") as writer:
        writer.add(range(1000))
    path = tmp_path / "a" / file
    raw = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"cut": raw[:-1], "garbage": b"x" * len(raw), "empty": b""}[damage])
    with pytest.raises(UserError, match=r"a/|/a ") as caught:
        Shards(tmp_path / "a")
    assert str(tmp_path / "a") in str(caught.value)


def test_files_of_different_folders_do_not_mix(tmp_path: Path) -> None:
    for name, n in (("a", 5), ("b", 6)):
        with ShardWriter(tmp_path / name) as writer:
            writer.add(range(n))
    (tmp_path / "b" / "mask.npy").replace(tmp_path / "a" / "mask.npy")
    with pytest.raises(UserError, match="do not fit together"):
        Shards(tmp_path / "a")
