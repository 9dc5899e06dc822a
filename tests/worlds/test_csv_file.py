"""A CSV of a person's own: what is refused, in one sentence, and what unusual files are read as."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from openk2.core import UserError
from openk2.worlds import csv_file
from openk2.worlds.csv_file import load_csv

GOOD = "name,team,points\nAnn,red,3\nBob,blue,5\nCid,red,4\nDee,blue,\n"


def write(folder: Path, content: str | bytes, name: str = "my data.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty"),
        (" \n\n  \n", "is empty"),
        (b"\xef\xbb\xbf\n", "is empty"),
        ("\u00a0\n", "is empty"),
        (",".join(f"c{i}" for i in range(1001)) + "\n", "has 1,001 columns"),
        (b"PK\x03\x04\x00\x00\x08", "is binary"),
        (bytes(range(128, 256)) * 20, "is not UTF-8 text"),
        ("n\u00e9\nd\u00e9\n".encode("latin-1"), "is not UTF-8 text"),
        ("sep=,\na,b\n1,2\n", "begins with 'sep=,'"),
        (b"name,points\nAnn,3\n" + b"x,4\n" * 30_000 + b"\0,5\n", "is binary"),
        ("name,points\nAnn,3\n".encode("utf-16"), "is UTF-16 text"),
        ("name,points\nJos\u00e9 y otros m\u00e1s,3\n".encode("latin-1"), "is not UTF-8 text"),
        ("name;points\nAnn;3,5\n", "is not separated by commas"),
        ("name, first;points\nAnn, B;3\n" * 2, "seems to have no header"),
        ("name\tpoints\nAnn\t3\n", "is not separated by commas"),
        ("a|b\n1|2\n", "is not separated by commas"),
        ("1,2,3\n4,5,6\n", "seems to have no header"),
        ("5.1,3.5,setosa\n4.9,3.0,setosa\n", "seems to have no header"),
        ("Ann,red\nBob,red\n", "seems to have no header"),
        (",,\n1,2,3\n", "seems to have no header"),
        ("a,b\n", "has a header but no rows"),
        ("a,b,a\n1,2,3\n", "two columns named 'a'"),
        ("a\x1b[31m,b\n1,2\n", "control characters"),
        ("2001,2002\n2003,5\n", "seems to have no header"),
        ("2001,2001\n3,5\n", "seems to have no header"),
        ("a,b\n1,2\n3\n", "has 1 cells in line 3 and 2 in its header"),
        ('a,b\n1,"open\n2,3\n', "is not a readable CSV"),
        ('a,b\n1,"' + "x" * 200_000 + '"\n', "is not a readable CSV"),
    ],
)
def test_bad_files(tmp_path: Path, content: str | bytes, words: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(UserError) as caught:
        load_csv(path)
    sentence = str(caught.value)
    assert words in sentence
    assert str(path) in sentence and "\n" not in sentence and len(sentence) < 300


def test_missing_folder_and_huge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="there is no file"):
        load_csv(tmp_path / "missing.csv")
    with pytest.raises(UserError, match="is a folder"):
        load_csv(tmp_path)
    for odd in ("a\nb.csv", os.fsdecode(b"b\xff.csv")):
        with pytest.raises(UserError, match="rename the file"):
            load_csv(write(tmp_path, GOOD, odd))
    huge = tmp_path / "huge.csv"
    with open(huge, "wb") as file:
        file.truncate(30_000_000_000)  # takes no room on the disk
    with pytest.raises(UserError, match=r"has 30,000.0 MB, more than"):
        load_csv(huge)


@pytest.mark.parametrize(
    ("content", "names", "kinds"),
    [
        (",a,b\n0,x,1\n1,y,2\n", ["Unnamed: 0", "a", "b"], ["int", "category", "int"]),
        ("country,2019,2020\nPeru,1,2.5\n", ["country", "2019", "2020"], ["category", "int", "float"]),
        ('a,b\n"x, y","two\nlines"\n', ["a", "b"], ["category", "category"]),
        ("\ufeffa,b\n1,x\n", ["a", "b"], ["int", "category"]),
        ("only\n1\n2\n", ["only"], ["int"]),
        ("a,b\n1,\n2,NA\n", ["a", "b"], ["int", "category"]),
        ("a,b,c\n1_000,inf,nan\n2,1e400,3\n", ["a", "b", "c"], ["category", "category", "int"]),
        ("a\n123456789012345678901234567890\n5\n", ["a"], ["category"]),
        ("a,b\r\n1,2\r\n\r\n3,4\r\n", ["a", "b"], ["int", "int"]),
        ('a\n \n\t\nx\n" "\n', ["a"], ["category"]),
        ("2001,2002\n3,5\n4,6.5\n", ["2001", "2002"], ["int", "float"]),
        (",0,1\n0,5,x\n1,6,y\n", ["Unnamed: 0", "0", "1"], ["int", "int", "category"]),
        ("id,type\n1,type\n2,x\n", ["id", "type"], ["int", "category"]),
    ],
)
def test_unusual_but_good_files(tmp_path: Path, content: str, names: list[str], kinds: list[str]) -> None:
    table = load_csv(write(tmp_path, content))
    assert [c.name for c in table.columns] == names
    assert [c.kind for c in table.columns] == kinds


def test_the_limit_is_what_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(csv_file, "MAX_BYTES", len(GOOD))
    load_csv(write(tmp_path, GOOD))
    with pytest.raises(UserError, match="more than"):
        load_csv(write(tmp_path, GOOD + "Eve,red,1\n"))
