"""A staged copy: what tools do is seen, taken over, refused and taken back, and a person's own edits survive it all."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openk2.agent import staging
from openk2.agent import tree as tree_module
from openk2.agent.staging import Change, Conflict, Stage
from openk2.agent.undo import Turn
from openk2.core import UserError
from shared.somebody import NOBODY, not_root


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A workspace of a person."""
    folder = tmp_path / "work"
    (folder / "src").mkdir(parents=True)
    (folder / "a.txt").write_text("one\ntwo\nthree\nfour\nfive\n")
    (folder / "src" / "run.sh").write_text("echo hi\n")
    (folder / "src" / "run.sh").chmod(0o755)
    (folder / "data.bin").write_bytes(b"\0\1\2")
    (folder / "link").symlink_to("a.txt")
    return folder


@pytest.fixture
def stage(home: Path, tmp_path: Path) -> Stage:
    made = Stage(home, tmp_path / "stage")
    made.refresh()
    return made


def tree(folder: Path) -> dict[str, object]:
    """What is in a folder: texts, targets of links, and None for folders."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = path.readlink()
        else:
            found[name] = (path.read_bytes(), path.stat().st_mode & 0o777) if path.is_file() else None
    return found


def words(changes: list[Change]) -> list[tuple[str, str]]:
    return [(change.word, change.path) for change in changes]


def why(conflicts: list[Conflict]) -> dict[str, str]:
    return {conflict.change.path: conflict.reason for conflict in conflicts}


def test_a_copy_is_the_same_and_has_no_changes(home: Path, stage: Stage) -> None:
    assert tree(stage.folder) == tree(home)
    assert stage.changes() == [] and stage.refresh() == []
    # Touched and written anew, but the same.
    (stage.folder / "a.txt").write_bytes((home / "a.txt").read_bytes())
    (stage.folder / "data.bin").write_bytes(b"\0\1\2")
    assert stage.changes() == []


def test_what_tools_do_is_seen_taken_over_and_taken_back(home: Path, stage: Stage, tmp_path: Path) -> None:
    before = tree(home)
    (stage.folder / "a.txt").write_text("1\n")
    (stage.folder / "src" / "run.sh").unlink()
    (stage.folder / "data.bin").chmod(0o600)
    (stage.folder / "new" / "deep").mkdir(parents=True)
    (stage.folder / "new" / "deep" / "b.txt").write_text("b\n")
    (stage.folder / "link").unlink()
    (stage.folder / "link").symlink_to("src/run.sh")
    changes = stage.changes()
    assert words(changes) == [
        ("changed", "a.txt"), ("changed", "data.bin"), ("changed", "link"), ("added", "new"), ("added", "new/deep"),
        ("added", "new/deep/b.txt"), ("deleted", "src/run.sh"),
    ]  # fmt: skip
    assert tree(home) == before
    assert stage.before("a.txt") == "one\ntwo\nthree\nfour\nfive\n" and stage.after("a.txt") == "1\n"
    after, turn = tree(stage.folder), Turn(tmp_path / "turn")
    assert stage.merge(changes, turn) == []
    assert tree(home) == after == tree(stage.folder) and stage.changes() == []
    assert turn.take_back() == {} and turn.read().undone
    assert tree(home) == before
    # The stage follows.
    stage.refresh()
    assert tree(stage.folder) == before and stage.changes() == []


@pytest.mark.parametrize("taken", [True, False])
def test_a_folder_with_other_permissions_keeps_what_is_in_it(
    taken: bool, home: Path, stage: Stage, tmp_path: Path
) -> None:
    (stage.folder / "src").chmod(0o711)
    (stage.folder / "a.txt").write_text("1\n")
    changes = stage.changes()
    assert words(changes) == [("changed", "a.txt"), ("changed", "src")]
    assert stage.merge(changes if taken else changes[:1], Turn(tmp_path / "turn")) == []
    stage.reset(changes)
    assert stage.changes() == [] and stage.refresh() == [] and stage.changes() == []
    assert tree(stage.folder) == tree(home) and (home / "src" / "run.sh").exists()
    assert (home / "src").stat().st_mode & 0o777 == (stage.folder / "src").stat().st_mode & 0o777
    assert ((home / "src").stat().st_mode & 0o777 == 0o711) is taken


def test_what_is_refused_is_gone_from_the_stage(home: Path, stage: Stage, tmp_path: Path) -> None:
    before = tree(home)
    (stage.folder / "a.txt").write_text("1\n")
    (stage.folder / "b.txt").write_text("2\n")
    changes = stage.changes()
    assert stage.merge(changes[:1], Turn(tmp_path / "turn")) == []
    stage.reset(changes[1:])
    assert tree(home) == before | {"a.txt": (b"1\n", 0o644)} == tree(stage.folder)


def test_a_persons_edits_are_merged_and_never_overwritten(home: Path, stage: Stage, tmp_path: Path) -> None:
    for name, text in (("a.txt", "one\ntwo\nthree\nfour\nFIVE\n"), ("src/run.sh", "echo tools\n"), ("new", "tools\n")):
        (stage.folder / name).write_text(text)
    (stage.folder / "data.bin").unlink()
    (home / "a.txt").write_text("ONE\ntwo\nthree\nfour\nfive\n")
    (home / "src" / "run.sh").write_text("echo person\n")
    (home / "new").write_text("person\n")
    (home / "data.bin").write_bytes(b"\0person")
    mine = tree(home)
    turn = Turn(tmp_path / "turn")
    conflicts = stage.merge(stage.changes(), turn)
    assert why(conflicts) == {
        "data.bin": "you have changed what was deleted",
        "new": "you have put something else there",
        "src/run.sh": "you have changed the same lines",
    }
    assert tree(home) == mine | {"a.txt": (b"ONE\ntwo\nthree\nfour\nFIVE\n", 0o644)}
    assert tree(stage.folder) == tree(home)
    # And what comes later stays when the turn is taken back.
    (home / "a.txt").write_text("ONE\ntwo\nTHREE\nfour\nFIVE\n")
    assert turn.take_back() == {}
    assert (home / "a.txt").read_text() == "ONE\ntwo\nTHREE\nfour\nfive\n"


def test_what_was_changed_since_is_not_taken_back(home: Path, stage: Stage, tmp_path: Path) -> None:
    (stage.folder / "a.txt").write_text("1\n")
    (stage.folder / "b").mkdir()
    turn = Turn(tmp_path / "turn")
    stage.merge(stage.changes(), turn)
    (home / "a.txt").write_text("one\nand mine\n")
    (home / "b" / "mine").write_text("")
    assert turn.take_back() == {"a.txt": "it was changed since", "b": "something else lies in its way"}
    assert (home / "a.txt").read_text() == "one\nand mine\n" and (home / "b" / "mine").exists()


def test_links_and_hooks_lead_nowhere(home: Path, stage: Stage, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (stage.folder / "src" / "run.sh").unlink()
    (stage.folder / "src").rmdir()
    (stage.folder / "src").symlink_to(outside)
    (stage.folder / "up").symlink_to("../outside")
    (stage.folder / "fine").symlink_to("src/../a.txt")
    (stage.folder / ".git" / "hooks").mkdir(parents=True)
    (stage.folder / ".git" / "hooks" / "pre-commit").write_text("#!/bin/sh\n")
    conflicts = why(stage.merge(stage.changes(), Turn(tmp_path / "turn")))
    assert set(conflicts) == {"src", "up", "fine", ".git", ".git/hooks", ".git/hooks/pre-commit"}
    assert "may lead out of the folder" in conflicts["src"] and "is git's" in conflicts[".git/hooks/pre-commit"]
    assert not (home / "up").is_symlink() and list(outside.iterdir()) == []
    # A person's own link to elsewhere is not written through, though the way there was a folder before.
    (stage.folder / "sub").mkdir()
    (stage.folder / "sub" / "x").write_text("x")
    changes = stage.changes()
    (home / "sub").symlink_to(outside)
    stage.merge(changes, Turn(tmp_path / "turn 2"))
    assert list(outside.iterdir()) == []


def test_what_is_large_and_ignored_is_shared(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "SHARED_ENTRIES", 3)
    monkeypatch.setattr(staging, "SHARED_FILE_BYTES", 1000)
    (home / ".gitignore").write_text("cache/\n*.tmp\n")
    for name in ("cache", "src/node_modules", "src/kept", "small/cache"):
        (home / name).mkdir(parents=True)
        for number in range(2 if name.startswith("small") else 5):
            (home / name / str(number)).write_text("x")
    (home / "large.csv").write_text("x" * 1001)
    stage = Stage(home, tmp_path / "stage")
    stage.refresh()
    links = {str(path.relative_to(stage.folder)) for path in stage.folder.rglob("*") if path.is_symlink()}
    assert links - {"link"} == {"cache", "src/node_modules", "large.csv"} == set(stage.shared)
    assert (stage.folder / "large.csv").read_text() == "x" * 1001 and stage.changes() == []
    # It is no longer large.
    (home / "large.csv").write_text("x")
    stage.refresh()
    assert set(stage.shared) == {"cache", "src/node_modules"} and not (stage.folder / "large.csv").is_symlink()
    # Put something in its place, and it is a change like any other.
    (stage.folder / "cache").unlink()
    (stage.folder / "cache").write_text("no more")
    assert words(stage.changes()) == [("added", "cache")]
    assert why(stage.merge(stage.changes(), Turn(tmp_path / "turn"))) == {"cache": "you have put something else there"}
    assert (home / "cache" / "0").exists()


def test_a_kill_between_two_files_can_be_taken_back(home: Path, stage: Stage, tmp_path: Path) -> None:
    before = tree(home)
    (stage.folder / "a.txt").write_text("1\n")
    (stage.folder / "src" / "run.sh").write_text("2\n")
    turn, placed = Turn(tmp_path / "turn"), staging.place

    def killed(workspace: Path, put: staging.Put) -> bool:
        if put.path != "a.txt":
            raise KeyboardInterrupt
        return placed(workspace, put)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(staging, "place", killed)
        stage.merge(stage.changes(), turn)
    assert tree(home) != before
    assert turn.take_back() == {} and tree(home) == before


def test_a_damaged_record_says_so(tmp_path: Path) -> None:
    turn = Turn(tmp_path)
    for text in ("{", '{"workspace": 1}'):
        turn.path.write_text(text)
        with pytest.raises(UserError, match=r"turn\.json is damaged .* cannot be taken back"):
            turn.take_back()


names = st.sampled_from(["a", "b", "d/a", "d/b", "d/e/a"])
edits = st.lists(
    st.tuples(names, st.sampled_from(["write", "remove", "folder", "link"]), st.integers(0, 3)), max_size=8
)


def edit(root: Path, name: str, what: str, number: int) -> None:
    """Do something to a path, if it can be done."""
    path = root / name
    try:
        if what == "write":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{line}\n" for line in range(number)))
        elif what == "folder":
            path.mkdir(parents=True)
        elif what == "link":
            path.symlink_to("elsewhere")
        elif path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()
    except OSError:
        pass


@settings(deadline=None)
@given(start=edits, tools=edits)
def test_whatever_tools_do_comes_over_and_goes_back(
    tmp_path_factory: pytest.TempPathFactory, start: list[tuple[str, str, int]], tools: list[tuple[str, str, int]]
) -> None:
    place = tmp_path_factory.mktemp("any")
    home = place / "work"
    home.mkdir()
    for one in start:
        edit(home, *one)
    before = tree(home)
    stage = Stage(home, place / "stage")
    stage.refresh()
    for one in tools:
        edit(stage.folder, *one)
    after, turn = tree(stage.folder), Turn(place / "turn")
    assert stage.merge(stage.changes(), turn) == []
    assert tree(home) == after == tree(stage.folder)
    if turn.path.exists():
        assert turn.take_back() == {}
    assert tree(home) == before
    stage.refresh()
    assert tree(stage.folder) == before


def test_odd_names_and_what_is_no_file(home: Path, tmp_path: Path) -> None:
    odd = os.fsdecode(b"n\xff")
    for name in (odd, "a\nb", "-rf", "x" * 250):
        (home / name).write_text("1\n")
    os.mkfifo(home / "pipe")
    (home / "closed").mkdir()
    (home / "closed" / "f").write_text("1\n")
    (home / "closed").chmod(0o555)
    stage = Stage(home, tmp_path / "stage")
    stage.refresh()
    assert not (stage.folder / "pipe").exists()
    for name in (odd, "a\nb", "-rf", "x" * 250, "closed/f"):
        (stage.folder / name).write_text("2\n")
    turn = Turn(tmp_path / "turn")
    assert why(stage.merge(stage.changes(), turn)) == {odd: "its name has bytes that are not UTF-8"}
    assert (home / odd).read_text() == "1\n" and (home / "a\nb").read_text() == "2\n"
    assert turn.take_back() == {} and (home / ("x" * 250)).read_text() == "1\n"
    assert stat.S_ISFIFO((home / "pipe").lstat().st_mode)


def test_a_folder_that_becomes_a_link_takes_nothing_along(home: Path, stage: Stage, tmp_path: Path) -> None:
    """Whether it is taken over or not: neither what is outside nor what else is in the workspace."""
    outside = tmp_path / "outside"
    (outside / "sub").mkdir(parents=True)
    (outside / "run.sh").write_text("precious")
    (outside / "sub" / "other").write_text("precious")
    (home / "dist").mkdir()
    (home / "dist" / "run.sh").write_text("dist")
    stage.refresh()
    before, apart = tree(home), tree(outside)
    for target in (str(outside), str(home / "src"), "dist", "."):
        shutil.rmtree(stage.folder / "src")
        (stage.folder / "src").symlink_to(target)
        stage.reset(stage.changes())
        assert tree(home) == before == tree(stage.folder) and tree(outside) == apart
    shutil.rmtree(stage.folder / "src")
    (stage.folder / "src").symlink_to("dist")
    turn = Turn(tmp_path / "turn")
    assert stage.merge(stage.changes(), turn) == []
    assert (home / "src").readlink() == Path("dist") and (home / "dist" / "run.sh").read_text() == "dist"
    assert stage.changes() == [] and tree(stage.folder) == tree(home)
    assert turn.take_back() == {} and tree(home) == before


def test_what_is_taken_is_what_was_shown(home: Path, stage: Stage, tmp_path: Path) -> None:
    """Programs may go on while a person reads."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("12345")
    (stage.folder / "a.txt").write_text("shown\n")
    (stage.folder / "d").mkdir()
    (stage.folder / "d" / "key").write_text("shown\n")
    changes = stage.changes()
    (stage.folder / "a.txt").write_text("evil\n")
    shutil.rmtree(stage.folder / "d")
    (stage.folder / "d").symlink_to(secret)
    assert stage.after("a.txt") == stage.after("d/key") == "shown\n"
    assert stage.merge(changes, Turn(tmp_path / "turn")) == []
    assert (home / "a.txt").read_text() == (home / "d" / "key").read_text() == "shown\n"
    assert (secret / "key").read_text() == "12345" and tree(stage.folder) == tree(home)


@pytest.mark.parametrize("name", [".git", "sub/.git"])
def test_gits_own_is_read_and_never_written(home: Path, tmp_path: Path, name: str) -> None:
    (home / name).mkdir(parents=True)
    (home / name / "config").write_text("")
    stage = Stage(home, tmp_path / "stage")
    stage.refresh()
    assert (stage.folder / name).is_symlink() and (stage.folder / name / "config").exists()
    (stage.folder / name).unlink()
    (stage.folder / name).mkdir()
    (stage.folder / name / "commondir").write_text("../evil")
    conflicts = why(stage.merge(stage.changes(), Turn(tmp_path / "turn")))
    assert set(conflicts) == {name, f"{name}/commondir"}
    assert [path.name for path in (home / name).iterdir()] == ["config"]


def test_a_link_by_way_of_a_link_leads_nowhere(home: Path, stage: Stage, tmp_path: Path) -> None:
    (stage.folder / "p" / "q").mkdir(parents=True)
    (stage.folder / "p" / "q" / "l").symlink_to("../..")
    (stage.folder / "x").symlink_to("p/q/l/../../etc/hostname")
    (stage.folder / "z").symlink_to("a.txt")
    assert set(why(stage.merge(stage.changes(), Turn(tmp_path / "turn")))) == {"x"}
    assert (home / "z").read_text() == (home / "a.txt").read_text()


def test_what_cannot_be_read_is_neither_lost_nor_in_the_way() -> None:
    with tempfile.TemporaryDirectory() as name:
        if os.geteuid() == 0:
            os.chown(name, NOBODY, NOBODY)
        with not_root():
            home, stage = Path(name, "work"), Stage(Path(name, "work"), Path(name, "stage"))
            (home / "src").mkdir(parents=True)
            (home / "src" / "s.py").write_text("s")
            for path in (home / "closed", home / "top"):
                path.write_text("x")
            (home / "closed").chmod(0)
            stage.refresh()
            assert sorted(path.name for path in stage.folder.iterdir()) == ["src", "top"]
            (stage.folder / "top").chmod(0)
            for number, mode in enumerate((0, 0o600, 0o100)):
                (stage.folder / "src").chmod(mode)
                assert stage.merge(stage.changes(), Turn(Path(name, f"turn {number}"))) == []
                (home / "src").chmod(0o700)
                assert (home / "src" / "s.py").read_text() == "s"
                stage.refresh()
            assert sorted(path.name for path in home.iterdir()) == ["closed", "src", "top"]


def test_a_copy_that_cannot_be_read_is_no_deletion(stage: Stage, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> list[str]:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(tree_module, "_names", full)
    with pytest.raises(UserError, match=r"cannot be read \(Too many open files\): try again"):
        stage.changes()


def test_a_turn_that_came_to_nothing_can_be_tried_again(home: Path, stage: Stage, tmp_path: Path) -> None:
    (stage.folder / "a.txt").write_text("1\n")
    turn = Turn(tmp_path / "turn")
    stage.merge(stage.changes(), turn)
    (home / "a.txt").write_text("mine\n")
    assert turn.take_back() == {"a.txt": "it was changed since"} and not turn.read().undone
    moved = home.rename(home.with_name("moved"))
    with pytest.raises(UserError, match="is not there: bring it back"):
        turn.take_back()
    moved.rename(home)
    (home / "a.txt").write_text("1\n")
    assert turn.take_back() == {} and turn.read().undone


def test_another_name_of_a_file_is_no_way_to_change_what_was_there(home: Path, tmp_path: Path) -> None:
    (home / "b").hardlink_to(home / "a.txt")
    stage = Stage(home, tmp_path / "stage")
    stage.refresh()
    (stage.folder / "a.txt").write_text("1\n")
    turn = Turn(tmp_path / "turn")
    stage.merge(stage.changes(), turn)
    with open(home / "b", "a") as file:
        file.write("later\n")
    assert turn.take_back() == {} and (home / "a.txt").read_text() == "one\ntwo\nthree\nfour\nfive\n"
