"""What runs an answer in its sandbox, and says what its calls gave. It is sent there as text, see `openk2.rl.gym.code`.

The answer shares this process and may do to it what it likes. That wins nothing: what the calls must give is not here,
and what they gave is told as plain JSON, so that no object of the answer takes part in a comparison.
"""

import _ast
import _json
import os
from collections.abc import Callable
from typing import Any

_ONLY_TREE = 0x400
"""The flag of `compile` for a syntax tree; its name is in a module that takes longer to import than all else here."""


def plain(value: Any, depth: int = 0) -> str:
    """A value as JSON. Raises TypeError for all that is not exactly of a JSON type: a tuple, a Counter, a subclass."""
    kind = type(value)
    if depth > 50:
        raise TypeError("too deep")
    if value is None:
        return "null"
    if kind is bool:
        return "true" if value else "false"
    if kind is int or kind is float:
        return repr(value)
    if kind is str:
        return str(_json.encode_basestring_ascii(value))
    if kind is list:
        return "[" + ",".join([plain(item, depth + 1) for item in value]) + "]"
    if kind is dict and all(type(key) is str for key in value):
        parts = [_json.encode_basestring_ascii(key) + ":" + plain(item, depth + 1) for key, item in value.items()]
        return "{" + ",".join(parts) + "}"
    raise TypeError(f"a {kind.__name__} is not plain")


def outcome(work: Callable[[], Any]) -> str:
    """What a call comes to: its value, the class of what it raises, or that its value is not plain."""
    try:
        value = work()
    except BaseException as e:
        return '{"raises":' + plain(type(e).__name__) + "}"
    try:
        return '{"value":' + plain(value) + "}"
    except BaseException:
        return '{"other":true}'


def run_cell(source: str, names: dict[str, Any], number: int) -> Any:
    """Run a cell; its value is that of its last line, if that is an expression."""
    tree: Any = compile(source, f"cell {number}", "exec", _ONLY_TREE)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], _ast.Expr) else None
    exec(compile(tree, f"cell {number}", "exec"), names)
    return None if last is None else eval(compile(_ast.Expression(last.value), f"cell {number}", "eval"), names)


def run_cells(cells: list[str], case: str, variable: str) -> Any:
    """Run cells with the variables that the case sets. The variable's value at the end, or the last cell's."""
    names: dict[str, Any] = {"__name__": "notebook"}
    exec(case, names)
    value = None
    for number, cell in enumerate(cells, 1):
        value = run_cell(cell, names, number)
    return names[variable] if variable else value


def main(mark: str, cells: list[str], cases: list[str], function: bool, variable: str) -> None:
    """Run an answer on all cases and write what came of each behind the mark, in one piece."""
    write, leave, head = os.write, os._exit, f"\n{mark}"

    def end(text: str) -> None:
        data = (head + text).encode()
        while data:
            data = data[write(1, data) :]
        leave(0)

    names: dict[str, Any] = {"__name__": "answer"}
    if function:
        try:
            for cell in cells:
                exec(compile(cell, "answer", "exec"), names)
        except BaseException as e:
            end('{"failed":' + plain(type(e).__name__) + "}")
        found = [outcome(lambda case=case: eval(case, names)) for case in cases]  # type: ignore[misc]  # mypy cannot infer lambdas with defaults
    else:
        found = [outcome(lambda case=case: run_cells(cells, case, variable)) for case in cases]  # type: ignore[misc]  # mypy cannot infer lambdas with defaults
    end("[" + ",".join(found) + "]")
