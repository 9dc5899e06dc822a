"""Edges of the file tools."""

import os
from pathlib import Path

import pytest

from openk2.worlds.files import READ_BYTES, Files


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_line_ends_of_a_file_are_kept(files: Files, tmp_path: Path) -> None:
    (tmp_path / "dos.txt").write_bytes(b"one\r\ntwo\r\nthree\r\n")
    assert files.read("dos.txt").content == "one\ntwo\nthree"
    assert files.edit("dos.txt", "one\ntwo", "1\n2").content == "edited dos.txt"
    assert (tmp_path / "dos.txt").read_bytes() == b"1\r\n2\r\nthree\r\n"


def test_special_files_are_refused(files: Files, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for result in (files.read("pipe"), files.write("pipe", "x"), files.edit("pipe", "a", "b")):
        assert result.error and result.content == "pipe is not a regular file"


def test_binary_and_big_files(files: Files, tmp_path: Path) -> None:
    (tmp_path / "b.bin").write_bytes(bytes(range(256)))
    assert files.read("b.bin").content == "b.bin is not a text file (256 bytes)"
    assert files.edit("b.bin", "a", "b").error
    (tmp_path / "big.txt").write_text("line\n" * (READ_BYTES // 4))
    shown = files.read("big.txt").content
    assert shown.endswith(f"(big.txt goes on: {5 * (READ_BYTES // 4)} bytes in all)") and len(shown) < 1700


def test_paths_that_are_no_paths(files: Files, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("x")
    for path in ("", "a\0b", "x" * 5000, "loop", "file/below", "\ud800", "nowhere/else"):
        result = files.read(path)
        assert result.error and result.content and "\n" not in result.content, path


def test_the_mode_of_a_file_is_kept(files: Files, tmp_path: Path) -> None:
    script = tmp_path / "run.sh"
    script.write_text("echo a\n")
    script.chmod(0o755)
    files.edit("run.sh", "echo a", "echo b")
    assert script.stat().st_mode & 0o777 == 0o755
    assert [p.name for p in tmp_path.iterdir()] == ["run.sh"]


@pytest.mark.parametrize("mode", [0o666, 0o664, 0o777, 0o640])
def test_permissions_do_not_depend_on_the_umask(files: Files, tmp_path: Path, mode: int) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\n")
    path.chmod(mode)
    before = os.umask(0o077)
    try:
        assert not files.edit("a.txt", "one", "two").error
        assert path.stat().st_mode & 0o7777 == mode
        assert not files.write("a.txt", "three\n").error
        assert path.stat().st_mode & 0o7777 == mode
        assert not files.write("new.txt", "x").error
        assert (tmp_path / "new.txt").stat().st_mode & 0o7777 == 0o600, "a new file is made as the person has set it"
    finally:
        os.umask(before)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_the_owner_of_a_file_is_kept(files: Files, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\n")
    os.chown(path, 65534, 65534)
    assert not files.edit("a.txt", "one", "two").error
    assert (path.stat().st_uid, path.stat().st_gid) == (65534, 65534)


def test_editing_needs_exactly_one_place(files: Files, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a b a")
    assert files.edit("a.txt", "a", "c").content == "a.txt holds that text 2 times: give a longer piece"
    assert files.edit("a.txt", "x", "c").content == "a.txt does not hold that text"
    assert files.edit("a.txt", "", "c").error
    assert files.edit("a.txt", "b", "").content == "edited a.txt"
    assert (tmp_path / "a.txt").read_text() == "a  a"
