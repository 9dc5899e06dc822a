"""No workspace from which the program itself could be changed."""

import sys
import sysconfig
from pathlib import Path

import pytest

import openk2
from openk2.sandbox import Caps, Sandbox, launch, own, touched

PACKAGE = Path(openk2.__file__).parent


@pytest.mark.parametrize(
    "folder",
    [
        PACKAGE,
        PACKAGE.parent,
        PACKAGE / "sandbox",
        Path(sys.prefix),
        Path(sys.prefix).parent,
        Path(sys.prefix, "lib"),
        Path(sysconfig.get_path("stdlib")),
        Path(sysconfig.get_path("stdlib"), "json"),
        Path(sys.executable).resolve().parent,
        Path("/"),
    ],
)
def test_around_and_inside_the_installation(folder: Path) -> None:
    assert touched(folder) is not None


def test_other_folders_are_free(tmp_path: Path) -> None:
    assert touched(tmp_path) is None
    if PACKAGE.parent.name == "src":  # a clone: its folders beside the package
        assert touched(PACKAGE.parents[1] / "examples") is None
        assert touched(PACKAGE.parents[1] / "runs" / "x") is None


def test_a_link_to_the_installation_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "python").symlink_to(sys.executable)
    (tmp_path / "link").symlink_to(PACKAGE)
    assert touched(tmp_path / "link") is not None
    assert touched(tmp_path / "work") is None
    monkeypatch.setattr(sys, "executable", str(tmp_path / "work" / "python"))
    assert touched(tmp_path / "work") is not None, "whoever replaces the link decides what is started"


def test_a_prefix_that_is_no_environment_holds_other_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    assert tmp_path not in own.installation()
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    assert tmp_path in own.installation()


async def test_a_changed_launcher_is_not_run(tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = tmp_path / "launch.py"
    changed.write_text(f"open({str(tmp_path / 'escaped')!r}, 'w').close()")
    monkeypatch.setattr(launch, "__file__", str(changed))
    ended = await Sandbox("none").run(["/bin/echo", "hello"], scratch, scratch, Caps(seconds=100))
    assert ended.output == b"hello\n" and not (tmp_path / "escaped").exists()
