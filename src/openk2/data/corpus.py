"""The pre-training text: English documentation and code from packages pinned by version and sha256.

Everybody who builds it gets the same bytes. Each archive is fetched with `pip download` (which is checked against the
pinned hash again here), read in memory, cut into documents, filtered, deduplicated and ordered by content hash, so that
any prefix of the result is a fair sample of the whole. `corpus_sources.toml` holds the pins. Own text works as well:
`paths` names files, folders, or an installed package (`package:openk2`); `archives` names a folder that already holds
the pinned files, for machines without a network.

Output: `train.jsonl` and `valid.jsonl`, one `{"source", "path", "text"}` a line, and the stage's manifest.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from fnmatch import fnmatchcase
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from openk2.core import UserError
from openk2.core.runs import Manifest, atomic_path, sha256_file, versions, write_manifest
from openk2.data.decontaminate import BenchmarkIndex

Progress = Callable[[int, int, str], None]

TEXT_SUFFIXES = (".py", ".md", ".rst", ".txt", ".sh", ".json", ".csv", ".toml", ".yaml", ".yml")
_WHEEL_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_24_x86_64", "manylinux2014_x86_64")
_DOWNLOADS = 4
_LARGEST_FILE = 4_000_000


class CorpusConfig(BaseModel):
    """Which text to learn from. The defaults are the nano's corpus."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    packages: tuple[str, ...] | None = Field(
        None, description="pinned packages by name; not given: all of them, or none if `paths` is given"
    )
    paths: tuple[str, ...] = Field(
        (), description="own text: files, folders, or `package:NAME` of an installed package"
    )
    archives: str | None = Field(None, description="folder with the pinned files, instead of downloading them")
    valid_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.01
    max_document_chars: Annotated[int, Field(ge=1000)] = 20_000
    min_document_chars: Annotated[int, Field(ge=1)] = 200


class Part(BaseModel):
    """Files of an archive that are taken, up to a cap."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    include: tuple[str, ...]
    max_mb: float = Field(gt=0)
    tests: bool = False


class Source(BaseModel):
    """A pinned archive of a package index."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    version: str
    file: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    licence: str
    parts: tuple[Part, ...]

    @property
    def is_wheel(self) -> bool:
        return self.file.endswith(".whl")


class _SourcesFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    source: tuple[Source, ...]
    drop: tuple[str, ...] = Field(description="sha256 of documents that share text with a benchmark")


class Document(NamedTuple):
    """A piece of text and where it is from."""

    source: str
    path: str
    text: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


@lru_cache(maxsize=1)
def _pinned() -> _SourcesFile:
    text = (resources.files("openk2.data") / "corpus_sources.toml").read_text(encoding="utf-8")
    return _SourcesFile.model_validate(tomllib.loads(text))


def pinned_sources() -> tuple[Source, ...]:
    """All pinned archives, in order."""
    return _pinned().source


def pins_digest(config: CorpusConfig) -> str:
    """The hash of everything that the pinned archives of a corpus are and of what is taken from them."""
    chosen = [source.model_dump(mode="json") for source in _chosen(config)]
    return hashlib.sha256(json.dumps([chosen, _pinned().drop], sort_keys=True).encode()).hexdigest()


def own_text_digest(config: CorpusConfig) -> str:
    """The hash of the names and contents of all text that `paths` lead to. Raises UserError as `build_corpus`."""
    state = hashlib.sha256()
    for name in config.paths:
        for relative, data in _own_text(_resolve(name), Counter()):
            state.update(json.dumps([name, relative, hashlib.sha256(data).hexdigest()]).encode())
    return state.hexdigest()


def build_corpus(config: CorpusConfig, folder: Path, progress: Progress | None = None) -> Manifest:
    """Fetch, filter, deduplicate, check against benchmarks, split; write the stage's folder. Returns its manifest.

    With the environment variable OPENK2_DATA set, documents that share 13 words in a row with a benchmark of that data
    pack are dropped and counted; those of the pinned packages are known and left out everywhere. `progress` gets
    (done, total, what). Raises UserError if an archive cannot be fetched or is not the pinned one, if a path does not
    exist, or if no text is left.
    """
    report = progress or _silent
    sources = _chosen(config)
    roots = [(name, _resolve(name)) for name in config.paths]
    total = 2 * len(sources) + len(roots) + 1
    archives = _fetch_all(config, sources, folder / "archives", total, report)
    dropped: Counter[str] = Counter()
    documents: dict[str, Document] = {}
    sizes: dict[str, int] = {}
    done = len(sources)

    def add(name: str, found: Iterable[Document]) -> None:
        before = len(documents)
        for document in found:
            if documents.setdefault(document.digest, document) is not document:
                dropped["duplicate"] += 1
        sizes[name] = sum(len(d.text.encode()) for d in list(documents.values())[before:])

    for source, archive in zip(sources, archives, strict=True):
        report(done, total, f"reading {source.name}")
        add(source.name, pinned_documents(source, archive, config, dropped))
        done += 1
    for name, root in roots:
        report(done, total, f"reading {name}")
        add(name, _from_path(name, root, config, dropped))
        done += 1

    report(done, total, "checking against benchmarks")
    data_pack = os.environ.get("OPENK2_DATA")
    if data_pack:
        index = BenchmarkIndex.from_folder(Path(data_pack))
        for digest in [d for d, document in documents.items() if index.overlap(document.text) is not None]:
            del documents[digest]
            dropped["benchmark of the data pack"] += 1
    if not documents:
        raise UserError(f"no text is left for the corpus (dropped: {dict(dropped)}): name other packages or paths")

    outputs = _write(documents, config, folder)
    shutil.rmtree(folder / "archives", ignore_errors=True)
    manifest = Manifest(
        stage="corpus",
        config=config.model_dump(mode="json"),
        inputs={s.file: s.sha256 for s in sources},
        outputs={name: sha256_file(folder / name) for name in outputs},
        versions=versions("openk2"),
        results={
            "documents": outputs,
            "bytes": sum(len(d.text.encode()) for d in documents.values()),
            "bytes_by_source": sizes,
            "licences": {s.name: s.licence for s in sources},
            "dropped": dict(sorted(dropped.items())),
        },
    )
    write_manifest(folder, manifest)
    report(total, total, "corpus written")
    return manifest


def read_documents(path: Path) -> Iterator[Document]:
    """Documents of a `train.jsonl` or `valid.jsonl`, in order. Raises UserError for a file that is not one."""
    try:
        with open(path, encoding="utf-8") as f:
            for line in f:
                raw = json.loads(line)
                yield Document(raw["source"], raw["path"], raw["text"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as e:
        raise UserError(f"{path} cannot be read as corpus documents ({e}): build the corpus again") from e


def _silent(done: int, total: int, what: str) -> None:
    return None


def _chosen(config: CorpusConfig) -> list[Source]:
    if config.packages is None:
        return [] if config.paths else list(pinned_sources())
    known = {s.name: s for s in pinned_sources()}
    unknown = [name for name in config.packages if name not in known]
    if unknown:
        raise UserError(f"corpus.packages: {unknown[0]!r} is not pinned; choose among {', '.join(sorted(known))}")
    return [known[name] for name in config.packages]


def _resolve(name: str) -> Path:
    if name.startswith("package:"):
        package = name.removeprefix("package:")
        spec = importlib.util.find_spec(package) if package.isidentifier() else None
        if spec is None or not spec.submodule_search_locations:
            raise UserError(f"corpus.paths: {name!r} is not an installed package")
        return Path(next(iter(spec.submodule_search_locations)))
    path = Path(name).expanduser()
    if not path.exists():
        raise UserError(f"corpus.paths: {name} does not exist")
    return path


# Fetching


def _fetch_all(config: CorpusConfig, sources: list[Source], cache: Path, total: int, report: Progress) -> list[Path]:
    if config.archives is not None:
        return [_local_archive(source, Path(config.archives)) for source in sources]
    if not sources:
        return []
    report(0, total, f"downloading {len(sources)} packages")
    with ThreadPoolExecutor(_DOWNLOADS) as pool:
        waiting = {pool.submit(fetch, source, cache): source for source in sources}
        try:
            for done, future in enumerate(as_completed(waiting), start=1):
                future.result()
                report(done, total, f"downloaded {waiting[future].file}")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [cache / source.file for source in sources]


def _local_archive(source: Source, folder: Path) -> Path:
    path = folder / source.file
    if not path.is_file():
        raise UserError(f"corpus.archives: {folder} has no {source.file}; put the file there or download it")
    if sha256_file(path) != source.sha256:
        raise UserError(f"{path} is not the pinned file (another sha256): replace it")
    return path


def fetch(source: Source, cache: Path) -> Path:
    """Download a pinned archive into `cache`, unless it is there. Raises UserError if that fails."""
    target = cache / source.file
    try:
        cache.mkdir(parents=True, exist_ok=True)
        if not target.is_file() or sha256_file(target) != source.sha256:
            _download(source, cache)
    except OSError as e:
        raise UserError(
            f"could not store {target} ({e.strerror or e}): free some space or choose another folder"
        ) from e
    return target


def _download(source: Source, cache: Path) -> None:
    with tempfile.TemporaryDirectory(dir=cache, prefix=".download-") as name:
        scratch = Path(name)
        pins = scratch / "pins.txt"
        pins.write_text(f"{source.name}=={source.version} --hash=sha256:{source.sha256}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        command += ["--no-deps", "--dest", str(scratch), "--requirement", str(pins)]
        if source.is_wheel:
            # The named platform, not this machine's: the same file everywhere.
            command += ["--only-binary=:all:", "--python-version=3.11", "--implementation=cp"]
            command += [f"--platform={platform}" for platform in (*_WHEEL_PLATFORMS, "any")]
        else:
            command += [f"--no-binary={source.name}"]
        finished = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        found = scratch / source.file
        if finished.returncode or not found.is_file():
            lines = [line for line in finished.stderr.splitlines() if line.startswith("ERROR")] or ["no file came"]
            raise UserError(
                f"could not download {source.file} with pip ({lines[-1][:200]}): try again, "
                "or put the file into a folder and name it as corpus.archives"
            )
        if sha256_file(found) != source.sha256:
            raise UserError(f"the downloaded {source.file} is not the pinned file (another sha256): try again")
        found.replace(cache / source.file)


# Reading


def pinned_documents(
    source: Source, archive: Path, config: CorpusConfig, dropped: Counter[str] | None = None
) -> Iterator[Document]:
    """What the corpus takes from one pinned archive, without the documents that overlap a benchmark.

    `dropped` counts what was left out, by reason.
    """
    dropped = Counter() if dropped is None else dropped
    overlapping = frozenset(_pinned().drop)
    files = [(path, data) for path, data in _members(archive) if path.endswith(TEXT_SUFFIXES)]
    for part in source.parts:
        budget = part.max_mb * 1_000_000
        candidates: list[Document] = []
        for path, data in files:
            if not any(fnmatchcase(path, pattern) for pattern in part.include):
                continue
            if _EXCLUDED_PATH.search(path.lower()) or (not part.tests and _TEST_PATH.search(path.lower())):
                continue
            candidates += _documents(source.name, path, data, config, dropped, strict=True)
        candidates.sort(key=lambda d: d.digest)
        for document in candidates:
            budget -= len(document.text.encode())
            if budget < 0:
                dropped["over the source's cap"] += 1
            elif document.digest in overlapping:
                dropped["benchmark"] += 1
            else:
                yield document


def _members(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Regular text-sized files of a wheel or sdist, by their path without the sdist's top folder."""
    try:
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel:
                for info in wheel.infolist():
                    if not info.is_dir() and info.file_size <= _LARGEST_FILE:
                        yield info.filename, wheel.read(info)
        else:
            with tarfile.open(archive) as sdist:
                for member in sdist:
                    stream = sdist.extractfile(member) if member.isfile() and member.size <= _LARGEST_FILE else None
                    if stream is not None:
                        yield member.name.partition("/")[2], stream.read()
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as e:
        raise UserError(f"{archive} is damaged ({e}): delete it and build the corpus again") from e


def _own_text(root: Path, dropped: Counter[str]) -> Iterator[tuple[str, bytes]]:
    """Name and content of the text files under `root`, or of `root` itself. Raises UserError for a locked one."""
    for path in sorted(p for p in root.rglob("*") if p.is_file()) if root.is_dir() else [root]:
        relative = path.relative_to(root).as_posix() if root.is_dir() else path.name
        if root.is_dir() and (path.suffix not in TEXT_SUFFIXES or any(p.startswith(".") for p in Path(relative).parts)):
            dropped["not a text file"] += 1
            continue
        try:
            data = path.read_bytes()
        except OSError as e:
            raise UserError(f"corpus.paths: {path} cannot be read ({e.strerror})") from e
        yield relative, data


def _from_path(name: str, root: Path, config: CorpusConfig, dropped: Counter[str]) -> Iterator[Document]:
    for relative, data in _own_text(root, dropped):
        yield from _documents(name, relative, data, config, dropped, strict=False)


def _documents(
    source: str, path: str, data: bytes, config: CorpusConfig, dropped: Counter[str], *, strict: bool
) -> Iterator[Document]:
    """The documents of one file. `strict` keeps only well-formed English text and hand-written code."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        dropped["not UTF-8"] += 1
        return
    if "\0" in text:
        dropped["binary"] += 1
        return
    text = clean(text, python=path.endswith(".py"))
    if strict and (reason := junk(path, text)) is not None:
        dropped[reason] += 1
        return
    pieces = split(text, config.max_document_chars)
    for number, piece in enumerate(pieces):
        if len(piece) < config.min_document_chars:
            dropped["too short"] += 1
            continue
        if strict and (reason := junk_piece(piece)) is not None:
            dropped[reason] += 1
            continue
        yield Document(source, path if len(pieces) == 1 else f"{path}#{number}", piece)


# Cleaning and filtering

_EXCLUDED_PATH = re.compile(
    r"(^|/)(licen[cs]es?|copying|authors|contributors|changelog|changes|history|news|whats-?new|release[-_ ]?notes?"
    r"|releases?|_?vendor|_vendored|locales?|translations|generated|node_modules|egg-info)(/|\.|_|$)|\.egg-info/"
    r"|\.dist-info/"
)
_TEST_PATH = re.compile(r"(^|/)(tests?|testing/fixtures|conftest\.py|test_[^/]*|[^/]*_test\.py)(/|$)")
_GENERATED = re.compile(r"do not edit|auto-?generated|automatically generated|generated by|@generated", re.IGNORECASE)
_GPL = re.compile(r"\bgnu (lesser |affero )?general public licen[cs]e|\b[al]?gpl(v?[23]|-)", re.IGNORECASE)
_COPYRIGHT = re.compile(r"copyright|licen[cs]ed?|spdx-|all rights reserved|-\*- *coding|^#!", re.IGNORECASE)
_ENGLISH = re.compile(
    r"\b(the|an?|of|to|and|in|is|are|for|that|this|with|be|on|it|as|by|or|you|can|if|not|from|when)\b", re.IGNORECASE
)


_ASCII_CLASSES = tuple(bytes(i for i in range(128) if test(chr(i))) for test in (str.isalpha, str.isdigit, str.isspace))


def clean(text: str, *, python: bool = False) -> str:
    """Newlines as newlines, no trailing blanks, at most two empty lines in a row, no licence header over code."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    lines = [line.rstrip() for line in text.split("\n")]
    if python:
        head = 0
        while head < len(lines) and (not lines[head] or lines[head].startswith("#")):
            head += 1
        if _COPYRIGHT.search("\n".join(lines[:head])):
            lines = lines[head:]
    return re.sub(r"\n{4,}", "\n\n\n", "\n".join(lines)).strip() + "\n"


def junk(path: str, text: str) -> str | None:
    """Why a whole file is no text to learn from, or None."""
    if _GPL.search(text[:3000]):
        return "mentions the GPL"
    if path.endswith(".py") and _GENERATED.search(text[:600]):
        return "generated"
    if not text.isascii() and sum(c > "\x7f" for c in text) > 0.03 * len(text):
        return "not English"
    prose = path.endswith((".md", ".rst", ".txt"))
    if prose and len(_ENGLISH.findall(text)) < 0.05 * len(re.findall(r"[A-Za-z]+", text)):
        return "not English"
    return None


def junk_piece(text: str) -> str | None:
    """Why a piece of a file is no text to learn from, or None."""
    lines = text.split("\n")
    if max(map(len, lines)) > 1000 or len(text) > 160 * len(lines):
        return "minified or data"
    letters, digits, visible = _counts(text)
    if letters < 0.6 * visible or digits > 0.15 * visible:
        return "tables or data"
    return None


def _counts(text: str) -> tuple[int, int, int]:
    """How many characters are letters, digits, and no blanks."""
    if text.isascii():
        # The same as below, a hundred times faster: nearly all of the text is ASCII.
        data = text.encode()
        letters, digits, blanks = (len(data) - len(data.translate(None, c)) for c in _ASCII_CLASSES)
        return letters, digits, len(data) - blanks
    visible = sum(not c.isspace() for c in text)
    return sum(c.isalpha() for c in text), sum(c.isdigit() for c in text), visible


def split(text: str, limit: int) -> list[str]:
    """Cut at empty lines (or at lines, or anywhere, if it must be) into pieces of at most `limit` characters."""
    pieces: list[str] = []
    while len(text) > limit:
        cut = text.rfind("\n\n", limit // 2, limit) + 1 or text.rfind("\n", limit // 2, limit) + 1 or limit
        pieces.append(text[:cut])
        text = text[cut:].lstrip("\n")
    return [*pieces, text] if text.strip() else pieces


def _write(documents: dict[str, Document], config: CorpusConfig, folder: Path) -> dict[str, int]:
    """Both files in order of content hash; the highest hashes are held out. Returns documents per file."""
    ordered = [documents[digest] for digest in sorted(documents)]
    held_out = round(len(ordered) * config.valid_fraction)
    if config.valid_fraction and len(ordered) > 1:
        held_out = max(1, held_out)
    cut = len(ordered) - held_out
    counts = {}
    for name, part in (("train.jsonl", ordered[:cut]), ("valid.jsonl", ordered[cut:])):
        with atomic_path(folder / name) as temporary, open(temporary, "w", encoding="utf-8") as f:
            for document in part:
                f.write(json.dumps(document._asdict(), ensure_ascii=False) + "\n")
        counts[name] = len(part)
    return counts
