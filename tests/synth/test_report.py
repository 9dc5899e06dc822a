"""The report on a run: its figures are what is in the lake, its page asks nobody, and its pictures have tables."""

from __future__ import annotations

import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("duckdb")
pytest.importorskip("pyarrow")
pytest.importorskip("matplotlib")

from openk2.core import UserError
from openk2.core.atif import from_atif
from openk2.core.runs import sha256_file
from openk2.data.lake import Lake
from openk2.synth.figures import distribution, figures_of
from openk2.synth.pictures import Picture
from openk2.synth.report import summary, write_report
from shared.runs import damaged, few


def rows(run: Path, sql: str) -> list[tuple[Any, ...]]:
    return Lake(run).query(sql)[1]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[Path]]:
    return write_report(few(), tmp_path_factory.mktemp("report"), servers(tmp_path_factory.mktemp("specs")))


def servers(folder: Path) -> Path:
    path = folder / "servers.jsonl"
    schema = {"type": "object", "properties": {"q": {"type": "array", "items": {"type": "string"}}}}
    tools = [{"name": "find", "description": "Find a thing.", "input_schema": schema}, {"name": "ping"}]
    path.write_text(json.dumps({"server": "s", "domain": "d", "tools": tools}) + "\n")
    return path


def test_figures_are_what_is_in_the_lake() -> None:
    found = figures_of(few())
    kept = [from_atif(json.loads(atif)) for (atif,) in rows(few(), "select atif from trajectories")]
    assert found["counts"] == Lake(few()).status()
    lengths = found["lengths"]
    for name, of in (
        ("calls", lambda t: sum(len(m.tool_calls) for m in t.messages)),
        ("user turns", lambda t: sum(m.role == "user" for m in t.messages)),
        ("messages", lambda t: len(t.messages)),
    ):
        assert lengths[name] == distribution(Counter(map(of, kept)))
    keys = Counter(
        (tuple(t.name for t in one.tools), tuple(c.name for m in one.messages for c in m.tool_calls)) for one in kept
    )
    distinct = found["distinct"]
    assert distinct["trajectories"] == len(kept) and distinct["tool_sets_with_call_sequences"] == len(keys)
    assert distinct["call_sequences"] == len({calls for _, calls in keys})
    assert distinct["sharing_tools_and_calls"] == sum(count for count in keys.values() if count > 1)
    tools = rows(few(), "select name, shape, structure from tools where dropped = ''")
    assert distinct["tools"] == len(tools) and distinct["tool_schemas"] == len({shape for _, shape, _ in tools})
    assert distinct["name_schema_ratio"] == round(len({tool[:2] for tool in tools}) / len(tools), 4)
    structures = Counter(structure for *_, structure in tools)
    most = structures.most_common()
    assert found["structures"]["distinct"] == len(structures)
    assert found["structures"]["largest"][0]["tools"] == most[0][1]
    assert found["structures"]["share_of_largest_10"] == round(sum(n for _, n in most[:10]) / len(tools), 4)
    shares = [point["share"] for point in found["structures"]["concentration"]]
    assert shares == sorted(shares) and shares[-1] == 1
    coverage = found["coverage"]
    assert len(coverage["domains"]) == 5 and sum(row["kept"] for row in coverage["domains"]) == len(kept)
    assert sum(row["tools"] for row in coverage["categories"]) == len(tools)
    json.dumps(found, allow_nan=False)


def test_what_failed_is_counted(tmp_path: Path) -> None:
    run = damaged(tmp_path)
    found = figures_of(run)
    attempts = len(rows(run, "select 1 from attempts"))
    assert found["difficulty"]["never_passed"] == 1 and found["difficulty"]["tasks"] == attempts
    assert found["difficulty"]["mean"] == round(1 / attempts, 4)
    assert [one["tasks"] for one in found["difficulty"]["histogram"]] == [attempts - 1, *[0] * 8, 1]
    kinds = rows(run, "select kinds from attempts order by number")
    for row in found["pass_rates"]["kind"]:
        assert row["n"] == sum(row["name"] in one.split() for (one,) in kinds)
        assert row["passed"] == row["n"] - (row["name"] in kinds[0][0].split())
    assert sum(row["n"] for row in found["pass_rates"]["category"]) == attempts
    assert found["dropped"]["attempts"]["failed: state at the end"] == 1


def test_a_run_under_way_and_one_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Picture, "png", lambda self: b"")
    run = damaged(tmp_path / "run")
    for name in ("kept.parquet", "manifest.json"):
        (run / "synth" / name).unlink()
    figures, paths = write_report(run)
    assert not figures["counts"]["finished"] and paths[0] == run / "synth" / "report" / "report.html"
    assert "The run is not finished." in paths[0].read_text()
    for path in (run / "synth" / "attempts").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="has no attempts yet: the same synth run command goes on"):
        write_report(run)
    with pytest.raises(UserError, match="is not a run of the data factory"):
        write_report(tmp_path)


def test_distributions() -> None:
    found = distribution({1: 1, 2: 8, 10: 1})
    assert found == {
        "n": 10, "mean": 2.7, "p10": 1, "p50": 2, "p90": 2, "max": 10, "counts": {"1": 1, "2": 8, "10": 1}
    }  # fmt: skip
    assert distribution({})["n"] == 0


class Page(HTMLParser):
    """What is in a page: tags with their attributes, and text by tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "path", "use", "rect"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_the_page_is_whole_and_asks_nobody(written: tuple[dict[str, Any], list[Path]]) -> None:
    _, paths = written
    text = paths[0].read_text(encoding="utf-8")
    page = Page(text)
    pictures = paths[1:]
    assert len(pictures) == 8 and all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
    # A picture has words for who does not see it, and a table.
    figures = page.all("figure")
    assert len(figures) == len(page.all("svg")) == len(page.all("details")) == len(page.all("table")) == len(pictures)
    assert all(one["role"] == "img" and one["aria-label"] for one in figures)
    assert page.all("html") == [{"lang": "en"}] and len(page.all("h1")) == 1
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")
    # Nothing is fetched: what is named is in the page.
    assert not page.all("script") and not page.all("img") and not page.all("iframe")
    for _, attributes in page.tags:
        for name in ("src", "href", "xlink:href"):
            value = attributes.get(name)
            assert value is None or value.startswith("#") or value == "data:,"
    assert not re.search(r"url\((?!#)|@import", text)
    # Names are there once, and what refers to one finds it.
    ids = [str(attributes["id"]) for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([^)]+)\)", text)) | set(re.findall(r'xlink:href="#([^"]+)"', text)) <= set(ids)


def test_the_page_has_two_sets_of_colours(written: tuple[dict[str, Any], list[Path]]) -> None:
    text = written[1][0].read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in text
    drawings = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    # No colour of a drawing is its own: it would not be seen on the other background.
    assert set(re.findall(r"#[0-9a-f]{6}\b", drawings, re.IGNORECASE)) == set()
    assert set(re.findall(r"var\((--\w+)\)", drawings)) == {"--ink", "--muted", "--grid", "--accent", "--second"}


def test_what_comes_from_data_is_no_markup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Picture, "png", lambda self: b"")
    import pyarrow as pa
    import pyarrow.parquet as pq

    run = damaged(tmp_path)
    table = pq.read_table(run / "synth" / "domains.parquet")
    changed = [row | {"category": "<script>x</script> $a$"} for row in table.to_pylist()]
    pq.write_table(pa.Table.from_pylist(changed, schema=table.schema), run / "synth" / "domains.parquet")
    _, paths = write_report(run)
    text = paths[0].read_text()
    assert "<script" not in text and "&lt;script&gt;" in text


def test_the_same_run_gives_the_same_bytes(written: tuple[dict[str, Any], list[Path]], tmp_path: Path) -> None:
    figures, paths = write_report(few(), tmp_path / "again", servers(tmp_path))
    assert [sha256_file(path) for path in paths] == [sha256_file(path) for path in written[1]]
    assert figures == written[0] and len(paths) == 9


def test_the_summary_fits_a_terminal(written: tuple[dict[str, Any], list[Path]]) -> None:
    found = summary(written[0])
    width = max(len(label) for label, _ in found) + 2 + max(len(value) for _, value in found)
    assert width <= 80 and ("kept trajectories", f"{written[0]['counts']['kept']:,}") in found


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match=r"need matplotlib: pip install 'openk2\[eval\]'"):
        write_report(few(), tmp_path)
    assert not list(tmp_path.iterdir())
