"""The five machine tools executed in this process, for making demonstrations fast.

No sandbox, no kernel, no time limit on Python: only for code that this package wrote itself. The texts are those of
the real machine (`worlds.machine`): values are shown by IPython's own formatter, and pandas is told that it is in a
notebook.

Not for threads: running Python changes the working folder and the standard streams of the whole process.
"""

from __future__ import annotations

import ast
import codeop
import contextlib
import io
import os
import subprocess
import tokenize
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from openk2.core import ToolCall, ToolResult
from openk2.worlds import text
from openk2.worlds.files import Files
from openk2.worlds.machine import SHELL_ENVIRONMENT, machine_arguments

SHELL_SECONDS = 20.0

# A notebook compiles as an interactive session does, which shows in the texts of syntax errors.
_COMPILER_FLAGS = codeop.Compile().flags


class InlineMachine:
    """The machine tools over `folder`. Python variables live as long as the object."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._files = Files(self.folder)
        self._names: dict[str, Any] = {"__name__": "__main__"}

    def call(self, call: ToolCall) -> ToolResult:
        """Execute one call. A bad call is an error result, never an exception."""
        arguments = machine_arguments(call)
        if isinstance(arguments, str):
            return ToolResult(arguments, error=True)
        match call.name:
            case "python":
                return self.python(arguments["code"])
            case "shell":
                return self.shell(arguments["command"])
            case "read_file":
                return self._files.read(arguments["path"])
            case "write_file":
                return self._files.write(arguments["path"], arguments["content"])
            case _:
                return self._files.edit(arguments["path"], arguments["old"], arguments["new"])

    def python(self, code: str) -> ToolResult:
        """Run code as a notebook cell would."""
        printed, errors = io.StringIO(), io.StringIO()
        value, error = "", None
        with _cell(self.folder), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(errors):
            # The code may raise anything, also SystemExit; all of it is text for the model.
            try:
                value = self._run(code)
            except BaseException as e:
                if isinstance(e, KeyboardInterrupt):
                    raise
                error = text.error_line(type(e).__name__, str(e))
        content = text.python_text(printed.getvalue(), errors.getvalue(), value, error)
        return ToolResult(content, error=error is not None)

    def _run(self, code: str) -> str:
        from IPython.core.formatters import PlainTextFormatter
        from IPython.core.inputtransformer2 import TransformerManager

        code = TransformerManager().transform_cell(code)  # type: ignore[no-untyped-call]  # not annotated there
        tree = compile(code, "cell.py", "exec", _COMPILER_FLAGS | ast.PyCF_ONLY_AST, True)
        assert isinstance(tree, ast.Module)
        last: ast.Expression | None = None
        if tree.body and isinstance(expression := tree.body[-1], ast.Expr):
            last = ast.Expression(expression.value)
            tree.body.pop()
        exec(compile(tree, "cell.py", "exec"), self._names)
        if last is None:
            return ""
        value = eval(compile(last, "cell.py", "eval"), self._names)
        if value is None or _ends_in_semicolon(code):
            return ""
        return str(PlainTextFormatter()(value))

    def shell(self, command: str) -> ToolResult:
        """Run a command with `/bin/sh` in the folder."""
        if "\0" in command:
            return ToolResult("the command holds a zero character", error=True)
        try:
            done = subprocess.run(
                ["/bin/sh", "-c", command],
                cwd=self.folder,
                env=os.environ | SHELL_ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=SHELL_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as e:
            note = f"stopped after {SHELL_SECONDS:g} seconds"
            return ToolResult(text.shell_text(text.from_bytes(e.stdout or b""), note=note), error=True)
        code = done.returncode if done.returncode >= 0 else 128 - done.returncode
        return ToolResult(text.shell_text(text.from_bytes(done.stdout), code), error=code != 0)


@contextlib.contextmanager
def _cell(folder: Path) -> Iterator[None]:
    """The surroundings of a notebook cell: the folder, no warnings, and pandas as wide as in a notebook."""
    import pandas as pd

    before = Path.cwd()
    os.chdir(folder)
    try:
        with warnings.catch_warnings(), pd.option_context("display.max_columns", 20, "display.width", 80):
            warnings.simplefilter("ignore")
            yield
    finally:
        os.chdir(before)


def _ends_in_semicolon(code: str) -> bool:
    """Whether the last token of the code is a semicolon, which hides the value in a notebook."""
    skipped = {tokenize.ENDMARKER, tokenize.NL, tokenize.NEWLINE, tokenize.COMMENT}
    last = ""
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type not in skipped:
            last = token.string
    return last == ";"
