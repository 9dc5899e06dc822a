"""`./k2`, the set-up script, with an interpreter and a pip that only pretend: what it does when, and what it says."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Stands in for python3 and, copied by `-m venv`, for the environment's python. Every call is noted in the log. It is a
# shell script that hands code it does not know to the real interpreter.
FAKE = """#!/bin/sh
real='{real}'
self=$0
bin=$(dirname "$self")
case "$*" in
    "-m venv "*)
        echo "venv" >>"$FAKE_LOG"
        if [ -n "${{FAKE_NO_VENV:-}}" ]; then
            echo "$FAKE_NO_VENV"
            exit 1
        fi
        mkdir -p "$3/bin"
        : >"$3/pyvenv.cfg"
        cp "$self" "$3/bin/python"
        if [ -n "${{FAKE_CUT_VENV:-}}" ]; then
            echo "no space left" >&2
            exit 1
        fi
        : >"$3/bin/has-pip"
        : >"$3/bin/activate"
        ;;
    "-m pip --version") [ -e "$bin/has-pip" ] ;;
    "-m ensurepip"*) echo "ensurepip" >>"$FAKE_LOG"; : >"$bin/has-pip" ;;
    "-m pip --disable-pip-version-check install --quiet --no-deps --dry-run"*) [ -z "${{FAKE_NO_MIRROR:-}}" ] ;;
    "-m pip --disable-pip-version-check uninstall"*) echo "uninstall torch" >>"$FAKE_LOG"; rm -f "$bin/torch" ;;
    "-m pip --disable-pip-version-check install --constraint"*)
        echo "install package $*" >>"$FAKE_LOG"
        sleep "${{FAKE_SLEEP:-0}}"
        [ -z "${{FAKE_FAIL:-}}" ] || exit 1
        printf '#!/bin/sh\\necho "openk2 got: $*"\\n' >"$bin/openk2"
        chmod +x "$bin/openk2"
        ;;
    "-m pip --disable-pip-version-check install"*)
        shift 4
        echo "install torch: $*" >>"$FAKE_LOG"
        echo "pip says something"
        case "$*" in *+cpu) echo "9.9.9+cpu" ;; *) echo "9.9.9+other" ;; esac >"$bin/torch"
        ;;
    "-m playwright install"*) echo "browser" >>"$FAKE_LOG"; [ -z "${{FAKE_NO_BROWSER:-}}" ] ;;
    "-c import torch"*) cat "$bin/torch" 2>/dev/null ;;
    "-c import sys; sys.exit(sys.version_info"*) [ -z "${{FAKE_OLD:-}}" ] ;;
    "-c import sys; print("*) echo "${{FAKE_OLD:-3.12}}" ;;
    *) exec "$real" "$@" ;;
esac
"""


class Clone:
    """A folder that looks like a clone, with a space in its name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "my clone"
        self.folder.mkdir()
        shutil.copy(ROOT / "k2", self.folder)
        (self.folder / "pyproject.toml").write_text("[project]\n")
        (self.folder / "constraints.txt").write_text("# pins\ntorch==9.9.9\nnumpy==1.2.3\n")
        self.python = folder / "fake python"
        self.python.write_text(FAKE.format(real=sys.executable))
        self.python.chmod(0o755)
        self.log_path = folder / "log"
        self.venv = self.folder / ".venv"
        tools = folder / "tools"
        tools.mkdir()
        self.environment = {
            "PATH": f"{tools}:/usr/bin:/bin",
            "HOME": str(folder),
            "OPENK2_PYTHON": str(self.python),
            "FAKE_LOG": str(self.log_path),
        }

    def start(self, *arguments: str, script: Path | None = None, cwd: Path | None = None, **environment: str) -> Any:
        return subprocess.Popen(
            ["sh", str(script or self.folder / "k2"), *arguments],
            cwd=cwd or self.folder,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str, **options: Any) -> tuple[int, str, str]:
        process = self.start(*arguments, **options)
        out, err = process.communicate(timeout=300)
        return process.returncode, out, err

    @property
    def log(self) -> list[str]:
        """What was done since the last look."""
        lines = self.log_path.read_text().splitlines() if self.log_path.exists() else []
        self.log_path.write_text("")
        return [line.partition(" -m pip")[0] for line in lines]


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Clone]:
    if shutil.which("sh") is None or os.name != "posix":
        pytest.skip("needs a POSIX shell")
    yield Clone(tmp_path)


TORCH = "install torch: torch==9.9.9+cpu"
PACKAGE = "install package"


def test_the_first_call_sets_up_and_the_next_does_not(clone: Clone) -> None:
    code, out, err = clone.run("demo", "--csv", "a file.csv")
    assert (code, out) == (0, "openk2 got: demo --csv a file.csv\n"), err
    assert clone.log == ["venv", TORCH, PACKAGE]
    assert "setting up" in err and "pip says something" in err and "ready after" in err
    assert (clone.venv / "openk2-constraints.txt").read_text() == "# pins\nnumpy==1.2.3\ntorch==9.9.9+cpu\n"
    assert '"seconds":' in (clone.venv / "openk2-setup.json").read_text()
    code, out, err = clone.run("demo")
    assert (code, out, err) == (0, "openk2 got: demo\n", "")
    assert clone.log == []


def test_extras_come_with_the_commands_that_need_them(clone: Clone) -> None:
    clone.run("demo")
    assert clone.log == ["venv", TORCH, PACKAGE]
    for arguments in (("eval", "nano", "--family", "shell"), ("eval", "--help"), ("test", "-h")):
        assert clone.run(*arguments)[0] == 0
        assert clone.log == []
    for command, done in (("eval", [PACKAGE]), ("eval", []), ("test", [PACKAGE]), ("test", []), ("eval", [])):
        assert clone.run(command)[0] == 0
        assert clone.log == done, command


def test_the_slow_tests_get_a_browser_where_there_is_none(clone: Clone, tmp_path: Path) -> None:
    tools = tmp_path / "without"
    tools.mkdir()
    for tool in (*Path("/bin").iterdir(), *Path("/usr/bin").iterdir()):
        if not tool.name.startswith(("chrom", "google-chrome")) and not (tools / tool.name).exists():
            (tools / tool.name).symlink_to(tool)
    path = {"PATH": str(tools)}
    assert clone.run("test", **path)[0] == 0
    assert clone.log == ["venv", TORCH, PACKAGE]
    assert clone.run("test", "--slow", "-x", **path)[0] == 0
    assert clone.log == ["browser"]
    code, out, err = clone.run("test", "--slow", FAKE_NO_BROWSER="1", **path)
    assert (code, out) == (0, "openk2 got: test --slow\n")
    assert "no Chromium could be had" in err
    assert clone.log == ["browser"]
    (tools / "chromium").symlink_to("/bin/true")
    assert clone.run("test", "--slow", **path)[0] == 0
    assert clone.log == []


def test_other_requirements_or_another_place_bring_it_up_to_date(clone: Clone, tmp_path: Path) -> None:
    clone.run("--version")
    (clone.folder / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert clone.run("--version")[0] == 0
    assert clone.log == ["venv", TORCH, PACKAGE, PACKAGE]
    moved = tmp_path / "moved"
    clone.folder.rename(moved)
    assert clone.run("--version", script=moved / "k2", cwd=moved)[0] == 0
    assert clone.log == [PACKAGE]


def test_it_can_be_called_from_anywhere_and_through_links(clone: Clone, tmp_path: Path) -> None:
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    (elsewhere / "link").symlink_to(Path("..") / "my clone" / "k2")
    (elsewhere / "link of link").symlink_to("link")
    code, out, _ = clone.run("agent", "x y", script=Path("link of link"), cwd=elsewhere)
    assert (code, out) == (0, "openk2 got: agent x y\n")
    assert clone.venv.exists() and not (elsewhere / ".venv").exists()


def test_the_environment_can_be_elsewhere(clone: Clone, tmp_path: Path) -> None:
    assert clone.run("demo", OPENK2_VENV=str(tmp_path / "a b" / "env"))[0] == 0
    assert (tmp_path / "a b" / "env" / "bin" / "openk2").exists() and not clone.venv.exists()
    code, _, err = clone.run("demo", OPENK2_VENV="/dev/null/env")
    assert code == 2 and "k2: no environment can be written in /dev/null/env" in err


def test_an_environment_that_cannot_be_locked(clone: Clone) -> None:
    (clone.venv / ".lock").mkdir(parents=True)
    code, _, err = clone.run("demo")
    assert code == 2 and "k2: no environment can be written in" in err and "OPENK2_VENV" in err


class TestPython:
    def test_too_old(self, clone: Clone) -> None:
        code, out, err = clone.run("demo", FAKE_OLD="3.9")
        assert (code, out) == (2, "")
        assert err == (
            f"k2: OPENK2_PYTHON names {clone.python}, which is Python 3.9: name one of version 3.11 or newer.\n"
        )
        assert not clone.venv.exists()

    def test_not_there(self, clone: Clone) -> None:
        code, _, err = clone.run("demo", OPENK2_PYTHON="/no/such/python")
        assert code == 2 and err.startswith("k2: OPENK2_PYTHON names /no/such/python, which does not run")
        assert err.count("\n") == 1

    @pytest.mark.parametrize(("version", "words"), [("3.8", "python3 is only 3.8"), ("", "none was found")])
    def test_none_on_this_system(self, clone: Clone, tmp_path: Path, version: str, words: str) -> None:
        """With nothing but these tools on the path, and a python3 that is too old, or none."""
        tools = tmp_path / "tools"
        for name in ("sh", "sed", "cat", "dirname", "cksum", "tr", "readlink"):
            (tools / name).symlink_to(shutil.which(name) or "")
        if version:
            shutil.copy(clone.python, tools / "python3")
        clone.environment |= {"PATH": str(tools), "OPENK2_PYTHON": "", "FAKE_OLD": version}
        process = subprocess.run(
            [str(tools / "sh"), "k2"],
            cwd=clone.folder,
            env=clone.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert process.returncode == 2 and words in process.stderr and process.stderr.count("\n") == 1

    @pytest.mark.parametrize(("said", "reason"), [("no ensurepip\n\n", "(no ensurepip)"), (" ", "(no reason given)")])
    def test_without_venv(self, clone: Clone, said: str, reason: str) -> None:
        code, _, err = clone.run("demo", FAKE_NO_VENV=said)
        assert code == 2 and "apt install python3-venv" in err and reason in err


class TestTorch:
    def test_from_pytorch_where_no_source_has_the_cpu_build(self, clone: Clone) -> None:
        assert clone.run("demo", FAKE_NO_MIRROR="1")[0] == 0
        assert clone.log == [
            "venv",
            "install torch: --extra-index-url https://download.pytorch.org/whl/cpu torch==9.9.9+cpu",
            PACKAGE,
        ]

    def test_the_choice_is_taken_and_remembered(self, clone: Clone, tmp_path: Path) -> None:
        assert clone.run("demo", OPENK2_TORCH="--index-url https://x torch==1.*")[0] == 0
        assert clone.log == ["venv", "install torch: --index-url https://x torch==1.*", PACKAGE]
        assert "torch==9.9.9+other" in (clone.venv / "openk2-constraints.txt").read_text()
        assert clone.run("demo", OPENK2_TORCH="--index-url https://x torch==1.*")[0] == 0
        assert clone.run("demo")[0] == 0
        assert clone.run("test")[0] == 0
        assert clone.log == [PACKAGE], "only the extras: torch stays"

    def test_another_choice_replaces_it(self, clone: Clone, tmp_path: Path) -> None:
        wheel = tmp_path / "the wheel.whl"
        wheel.touch()
        clone.run("demo")
        assert clone.log == ["venv", TORCH, PACKAGE]
        assert clone.run("demo", OPENK2_TORCH=str(wheel))[0] == 0
        assert clone.log == ["uninstall torch", f"install torch: {wheel}", PACKAGE]

    def test_another_pinned_version_is_the_cpu_build_again(self, clone: Clone) -> None:
        clone.run("demo")
        (clone.folder / "constraints.txt").write_text("torch==9.9.8\n")
        clone.run("demo")
        assert clone.log == ["venv", TORCH, PACKAGE, "install torch: torch==9.9.8+cpu", PACKAGE]

    def test_with_a_gpu(self, clone: Clone, tmp_path: Path) -> None:
        smi = tmp_path / "tools" / "nvidia-smi"
        smi.write_text("#!/bin/sh\nexit 0\n")
        smi.chmod(0o755)
        _, _, err = clone.run("demo")
        assert clone.log[1] == "install torch: torch==9.9.9" and "NVIDIA" in err


class TestInterrupted:
    def test_a_failed_install_goes_on_with_the_same_command(self, clone: Clone) -> None:
        code, out, err = clone.run("demo", FAKE_FAIL="1")
        assert (code, out) == (2, "") and "The same command tries again." in err
        assert clone.log == ["venv", TORCH, PACKAGE]
        assert clone.run("demo")[0] == 0
        assert clone.log == [PACKAGE]

    def test_an_environment_that_was_cut_off_is_made_again(self, clone: Clone) -> None:
        code, _, err = clone.run("demo", FAKE_CUT_VENV="1")
        assert code == 2 and "could not make an environment" in err and "(no space left)" in err
        assert clone.run("demo")[0] == 0
        assert clone.log == ["venv", "venv", TORCH, PACKAGE]

    def test_an_environment_without_pip(self, clone: Clone) -> None:
        clone.run("demo", FAKE_FAIL="1")
        (clone.venv / "bin" / "has-pip").unlink()
        assert clone.run("demo")[0] == 0
        assert clone.log == ["venv", TORCH, PACKAGE, "ensurepip", PACKAGE]

    def test_ctrl_c(self, clone: Clone) -> None:
        process = clone.start("demo", FAKE_SLEEP="300")
        _wait_for(clone, PACKAGE)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=300)
        assert process.returncode == 130
        assert err.splitlines()[-1] == "k2: interrupted: the same command goes on from here"
        assert clone.run("demo")[0] == 0

    def test_a_broken_environment(self, clone: Clone) -> None:
        clone.run("demo")
        (clone.venv / "bin" / "python").unlink()
        (clone.venv / "bin" / "python").symlink_to("/no/such/python3.11")
        code, out, err = clone.run("demo")
        assert (code, out) == (2, "")
        assert err.startswith(f"k2: the environment in {clone.venv} is broken") and "delete that folder" in err
        assert err.count("\n") == 1
        shutil.rmtree(clone.venv)
        assert clone.run("demo")[0] == 0

    def test_calls_at_the_same_time_wait_for_each_other(self, clone: Clone) -> None:
        first = clone.start("demo", FAKE_SLEEP="2")
        _wait_for(clone, PACKAGE)
        second = clone.start("agent")
        assert second.communicate(timeout=300)[0] == "openk2 got: agent\n"
        assert first.communicate(timeout=300)[0] == "openk2 got: demo\n"
        assert clone.log == ["venv", TORCH, PACKAGE]


def _wait_for(clone: Clone, line: str) -> None:
    deadline = time.monotonic() + 300
    while not (clone.log_path.exists() and line in clone.log_path.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
