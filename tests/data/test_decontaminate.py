"""The check against benchmarks finds 13 shared words, and nothing in a sample of the built corpus."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openk2.core import UserError
from openk2.data.corpus import CorpusConfig, fetch, pinned_documents, pinned_sources
from openk2.data.decontaminate import WINDOW, BenchmarkIndex

QUESTION = "Natalia sold clips to 48 of her friends in April and then she sold half as many clips in May"
words = st.lists(st.sampled_from(["alpha", "beta", "gamma", "delta", "7", "epsilon"]), min_size=0, max_size=40)


@given(words, words)
def test_overlap_is_exactly_a_shared_window(benchmark: list[str], text: list[str]) -> None:
    def windows(sequence: list[str]) -> set[tuple[str, ...]]:
        return {tuple(sequence[i : i + WINDOW]) for i in range(len(sequence) - WINDOW + 1)}

    found = BenchmarkIndex([" ".join(benchmark)]).overlap(", ".join(text).upper())
    shared = windows(benchmark) & windows(text)
    assert (tuple(found.split()) in shared) if found else not shared


def test_case_punctuation_and_line_breaks_do_not_hide_text() -> None:
    index = BenchmarkIndex([QUESTION])
    hidden = "x = 1\n" + QUESTION.upper().replace(" ", ",\n-- ") + " end"
    assert index.overlap(hidden) == "natalia sold clips to 48 of her friends in april and then she"
    assert index.overlap(" ".join(QUESTION.split()[: WINDOW - 1])) is None


def test_strings_inside_json_and_csv_files_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"q": [{"text": "line one\n" + QUESTION}]}) + "\n")
    (tmp_path / "b.csv").write_text('id,text\n1,"' + QUESTION.replace("Natalia", "Boris") + '"\n')
    (tmp_path / "c.json").write_text("not json: " + QUESTION.replace("Natalia", "Carla"))
    (tmp_path / "LICENSE").write_text(QUESTION.replace("Natalia", "Dora"))
    index = BenchmarkIndex.from_folder(tmp_path)
    start = " ".join(QUESTION.split()[:WINDOW])
    assert index.overlap("one " + start)
    assert index.overlap(start.replace("Natalia", "Boris"))
    assert index.overlap(start.replace("Natalia", "Carla"))
    assert not index.overlap(start.replace("Natalia", "Dora"))


def test_a_missing_data_pack_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="OPENK2_DATA"):
        BenchmarkIndex.from_folder(tmp_path / "nothing")


@pytest.fixture(scope="module")
def benchmarks(data_pack: Path) -> BenchmarkIndex:
    return BenchmarkIndex.from_folder(data_pack)


def test_the_data_packs_own_questions_are_found(benchmarks: BenchmarkIndex, data_pack: Path) -> None:
    assert len(benchmarks) > 1_000_000
    lines = (data_pack / "gsm8k" / "test.jsonl").read_text().splitlines()
    questions = [json.loads(line)["question"] for line in lines[:50]]
    assert all(benchmarks.overlap("Q: " + q) for q in questions if len(q.split()) > WINDOW + 3)


def test_the_benchmarks_are_not_in_a_pinned_package(benchmarks: BenchmarkIndex, tmp_path: Path) -> None:
    """A small one, as it is downloaded for the corpus."""
    source = next(s for s in pinned_sources() if s.name == "pyjanitor")
    try:
        archive = fetch(source, tmp_path)
    except UserError as e:
        pytest.skip(f"no package index: {e}")
    documents = list(pinned_documents(source, archive, CorpusConfig()))
    assert len(documents) > 50
    assert not [d.path for d in documents if benchmarks.overlap(d.text)]


def test_the_benchmarks_are_in_no_pinned_package(benchmarks: BenchmarkIndex) -> None:
    """All that are in the folder OPENK2_ARCHIVES."""
    folder = os.environ.get("OPENK2_ARCHIVES")
    if not folder:
        pytest.skip("OPENK2_ARCHIVES is not set: no downloaded packages to check")
    config = CorpusConfig(archives=folder)
    present = [s for s in pinned_sources() if (Path(folder) / s.file).is_file()]
    for source in present:
        for document in pinned_documents(source, Path(folder) / source.file, config):
            assert benchmarks.overlap(document.text) is None, (document.source, document.path)
