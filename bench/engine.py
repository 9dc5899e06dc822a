"""What the grammar costs, and what a second turn costs beside the first.

    ./k2 bench engine --threads 2

The peer is the engine itself. Grammar: the time of a step in which `--batch` sequences get an id each, with random
weights of nano's shape at temperature 1, constrained (free text with tools declared, a forced call, an answer under a
schema) and not, in turns. A step in which some are already done is not counted, so what is compared is the same work;
that the constrained ones say valid JSON is checked first. Prefix: seconds until the first id of a prompt of
`--tokens`, and of the same prompt with its answer and 48 tokens more, on the model of about 100 million parameters.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _common import add_out, enter_child, machine, parser_of, ratio_with_interval, table, write_results

from serve import config_of

if TYPE_CHECKING:
    from openk2.engine import Batch, Request

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "kind": {"enum": ["small", "large"]},
        "items": {
            "type": "array",
            "items": {"type": "object", "properties": {"x": {"type": "number"}, "y": {"type": "string"}}},
        },
    },
    "required": ["name", "kind", "items"],
}
NEW = 64
NEW_TURN = 48


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--batch", type=int, default=16, help="sequences decoded together")
    parser.add_argument("--rounds", type=int, default=10, help="measured rounds of each side")
    parser.add_argument("--tokens", type=int, default=4096, help="length of the first turn")
    parser.add_argument("--threads", type=int, default=2)
    add_out(parser)
    arguments = parser.parse_args()
    if min(arguments.batch, arguments.rounds, arguments.tokens, arguments.threads) < 1:
        parser.error("batch, rounds, tokens and threads must be at least 1")
    enter_child(arguments.threads)
    import torch

    torch.set_num_threads(arguments.threads)
    grammar, prefix = grammar_share(arguments), second_turn(arguments)
    rows = [
        (name, f"{one['ms']:.2f}", f"{100 * (one['ratio'] - 1):+.1f} %",
         f"{100 * (one['ci95'][0] - 1):+.1f} to {100 * (one['ci95'][1] - 1):+.1f}")
        for name, one in grammar.items()
    ]  # fmt: skip
    markdown = (
        f"# The engine, {arguments.threads} thread(s)\n\n"
        + table((f"grammar, {arguments.batch} at a time", "ms a step", "more than without", "95 % interval"), rows)
        + f"\nA prompt of {arguments.tokens} tokens: first id after {prefix['first']:.2f} s. The next turn with "
        f"{NEW_TURN} tokens more: {prefix['second']:.3f} s, {100 * prefix['second'] / prefix['first']:.1f} %.\n"
    )
    write_results(arguments.out, "engine", {"machine": machine(), "grammar": grammar, "prefix": prefix}, markdown)


def grammar_share(arguments: argparse.Namespace) -> dict[str, Any]:
    import torch

    import openk2
    from openk2.chat import Tokenizer
    from openk2.core import ToolSpec
    from openk2.engine import Engine, Request
    from openk2.model import Transformer

    torch.manual_seed(0)
    tokenizer = Tokenizer.load(Path(openk2.__file__).parent / "weights" / "nano")
    engine = Engine(Transformer(config_of("nano")).eval(), tokenizer, max_batch=arguments.batch)
    tools = tuple(ToolSpec(f"tool_{i}", "", SCHEMA) for i in range(8))
    sides: dict[str, dict[str, Any]] = {
        "none": {"grammar": False},
        "tools declared": {"tools": tools},
        "a forced call": {"tools": tools, "must_call": True},
        "an answer under a schema": {"answer": SCHEMA},
    }
    draw = random.Random(0)

    def requests(options: dict[str, Any], count: int, most: int) -> list[Request]:
        return [
            Request(
                tuple(draw.randrange(5, 900) for _ in range(64)), most, temperature=1.0, seed=draw.randrange(1 << 30),
                **options,
            )
            for _ in range(count)
        ]  # fmt: skip

    for generation in engine.generate(requests(sides["an answer under a schema"], arguments.batch, 512)):
        json.loads(tokenizer.decode(list(generation.ids[:-1])))
    batch = engine.batch()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(arguments.rounds + 1):
        for name, options in sides.items():
            found = seconds_a_step(batch, requests(options, arguments.batch, NEW))
            if turn:
                seconds[name].append(found)
    out = {}
    for name, values in seconds.items():
        ratio, interval = ratio_with_interval(values, seconds["none"])
        out[name] = {"ms": 1e3 * statistics.median(values), "ratio": ratio, "ci95": interval, "seconds": values}
    return out


def seconds_a_step(batch: Batch, requests: list[Request]) -> float:
    """The median of the steps in which all of them get an id."""
    numbers = [batch.add(request) for request in requests]
    batch.step()
    steps = []
    while batch.busy:
        whole = batch.running == len(numbers)
        start = time.perf_counter()
        batch.step()
        if whole:
            steps.append(time.perf_counter() - start)
    return statistics.median(steps)


def second_turn(arguments: argparse.Namespace) -> dict[str, float]:
    import torch

    import openk2
    from openk2.chat import Tokenizer
    from openk2.engine import Engine, Request
    from openk2.model import Transformer

    torch.manual_seed(0)
    tokenizer = Tokenizer.load(Path(openk2.__file__).parent / "weights" / "nano")
    engine = Engine(Transformer(config_of("100m")).eval(), tokenizer)
    draw = random.Random(1)
    prompt = [draw.randrange(5, 900) for _ in range(arguments.tokens)]
    batch = engine.batch()

    def turn(ids: list[int]) -> tuple[float, list[int]]:
        start = time.perf_counter()
        number = batch.add(Request(tuple(ids), 16, grammar=False))
        done = dict(batch.step())
        while not any(part.ids for index, part in batch.parts({number: 0}) if index == number):
            done |= dict(batch.step())
        seconds = time.perf_counter() - start
        while batch.busy:
            done |= dict(batch.step())
        return seconds, list(done[number].ids)

    turn(prompt[:100][::-1])
    first, answer = turn(prompt)
    second, _ = turn([*prompt, *answer, *(draw.randrange(5, 900) for _ in range(NEW_TURN))])
    return {"first": first, "second": second}


if __name__ == "__main__":
    main()
