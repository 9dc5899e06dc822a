"""Function calls that others ask for: the single-turn categories of bfcl-eval, judged by its own checker.

    ./k2 bench bfcl nano runs/mine/instruct --python PYTHON     # PYTHON has bfcl-eval
    ./k2 bench bfcl openai:NAME@URL --python PYTHON --category multiple --limit 50

For evaluation alone: nothing of it is ever trained on. Types are declared by JSON Schema's names, and dots in names of
functions as underscores, as bfcl-eval does it itself for models that call functions. Greedy; a model of this project
gets the system message that it knows. Where two models answer, the difference is paired by question.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from _common import add_out, parser_of, table, write_results

from openk2.core import NANO_SYSTEM, ContextOverflow, Message, Policy, ToolSpec, UserError
from openk2.core.progress import ConsoleReporter
from openk2.core.rates import Tally
from openk2.policy.local import LocalPolicy
from openk2.policy.resolve import resolve_policy

CATEGORIES = ("simple_python", "multiple")
TOKENS = 256
_TYPES = {"dict": "object", "float": "number", "tuple": "array", "any": "string"}


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("model", nargs="+", help="as --model elsewhere")
    parser.add_argument("--python", required=True, help="a Python with bfcl-eval")
    parser.add_argument("--category", nargs="+", choices=CATEGORIES, default=list(CATEGORIES))
    parser.add_argument("--limit", type=int, help="so many questions of each category")
    parser.add_argument("--concurrency", type=int, default=16)
    add_out(parser)
    options = parser.parse_args()
    found: dict[str, Any] = {}
    for model in options.model:
        found[model] = {name: measure(model, name, options) for name in options.category}
    rows = [
        [model, name, one["n"], f"{one['rate']:.1%}", f"{one['ci95'][0]:.1%} to {one['ci95'][1]:.1%}", one["wrong"]]
        for model, categories in found.items()
        for name, one in categories.items()
    ]
    lines = ["# Function calls of bfcl-eval", ""]
    lines.append(table(["model", "category", "n", "right", "95 % interval", "most frequent errors"], rows))
    for other in options.model[1:]:
        for name in options.category:
            first, second = (set(found[model][name]["passed_ids"]) for model in (options.model[0], other))
            only = len(first - second), len(second - first)
            lines.append(f"{name}: {only[1]} right in {other} alone, {only[0]} in {options.model[0]} alone  ")
    write_results(options.out, "bfcl", found, "\n".join(lines) + "\n")


def measure(model: str, category: str, options: argparse.Namespace) -> dict[str, Any]:
    """How many questions of a category a model answers rightly."""
    script = [options.python, str(Path(__file__).with_name("_bfcl.py"))]
    questions = [json.loads(line) for line in run([*script, "ask", category])][: options.limit]
    answers = asyncio.run(answered(model, questions, options.concurrency))
    given = "".join(json.dumps({"id": name, "calls": calls}) + "\n" for name, calls in answers)
    errors = run([*script, "check", category], given)
    tally, wrong, passed = Tally(), Counter[str](), []
    for (name, calls), error in zip(answers, errors, strict=True):
        tally.add(not error)
        wrong.update([error.partition(":")[2] or error] if error and calls else ["no call"] if error else [])
        passed += [] if error else [name]
    most = ", ".join(f"{error} {count}" for error, count in wrong.most_common(3))
    return tally.to_json() | {"wrong": most, "passed_ids": passed}


def run(command: list[str], given: str = "") -> list[str]:
    """What a program prints. Ends with its last words if it fails."""
    done = subprocess.run(command, input=given, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command[0]} cannot run bfcl-eval: {(done.stderr.splitlines() or ['it failed'])[-1]}")
    return done.stdout.splitlines()


async def answered(model: str, questions: list[dict[str, Any]], concurrency: int) -> list[tuple[str, list[Any]]]:
    """The calls for each question."""
    policy, gate, done = resolve_policy(model), asyncio.Semaphore(concurrency), 0
    with ConsoleReporter().stage(model) as bar:

        async def one(question: dict[str, Any]) -> tuple[str, list[Any]]:
            nonlocal done
            async with gate:
                calls = await called(policy, question)
            done += 1
            bar(done, len(questions))
            return question["id"], calls

        try:
            return list(await asyncio.gather(*map(one, questions)))
        finally:
            await policy.close()


async def called(policy: Policy, question: dict[str, Any]) -> list[Any]:
    """The calls of one answer, as bfcl-eval's checker reads them; none that cannot be read."""
    messages = [Message.from_openai(raw) for raw in question["question"][0]]
    if isinstance(policy, LocalPolicy) and messages[0].role != "system":
        messages.insert(0, Message("system", NANO_SYSTEM))
    tools = [
        ToolSpec(one["name"].replace(".", "_"), one["description"], schema(one["parameters"]))
        for one in question["function"]
    ]
    try:
        turn = await policy.act(messages, tools, max_tokens=TOKENS)
        return [{call.name: call.parsed()} for call in turn.message.tool_calls]
    except (ContextOverflow, UserError, ValueError):
        return []


def schema(raw: Any) -> Any:
    """The same schema with JSON Schema's names of types."""
    if isinstance(raw, list):
        return [schema(part) for part in raw]
    if not isinstance(raw, dict):
        return raw
    return {
        key: _TYPES.get(part, part) if key == "type" and isinstance(part, str) else schema(part)
        for key, part in raw.items()
    }


if __name__ == "__main__":
    main()
