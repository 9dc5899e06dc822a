"""Two thousand schemas: every call of whatever weights is valid JSON Schema (draft 2020-12), within 2,048 tokens."""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from jsonschema import Draft202012Validator

PATH = "/v1/chat/completions"
NAMES = ("a", "größe", "名前", 'with "quotes"', "back\\slash", "new\nline", "a b", "x_1", "😀", "$ref", "items")
PATTERNS = ("^[a-z]{2,9}$", "^a+b$", r"^\d{3}-\d{4}$", "^(yes|no)$", "^[é中]+$")
TEXTS = ("thé", "東京", 'say "x"', "\\", "\t", "plain", "</s>", "<|im_end|>", "")


def scalar(rng: random.Random) -> dict[str, Any]:
    low = rng.randrange(-100, 100)
    return rng.choice(
        [
            {"type": "string"},
            {"type": "string", "minLength": rng.randrange(4), "maxLength": 4 + rng.randrange(30)},
            {
                "type": "string",
                "pattern": rng.choice(["^[a-z]{2,9}$", "^a+b$", r"^\d{3}-\d{4}$", "^(yes|no)$", "^[é中]+$"]),
            },
            {"type": "string", "format": rng.choice(["date", "date-time", "time", "uuid", "ipv4"])},
            {"type": "integer", "minimum": low, "maximum": low + rng.randrange(1, 1000)},
            {"type": "number"},
            {"type": "integer", "multipleOf": rng.choice([2, 5, 10])},
            {"type": "boolean"},
            {"type": ["integer", "null"]},
            {"enum": rng.sample([*TEXTS, 1, -2.5, True, None], 3)},
            {"const": rng.choice(TEXTS)},
        ]
    )


def part(rng: random.Random, depth: int) -> dict[str, Any]:
    if depth == 0 or rng.random() < 0.4:
        return {"$ref": "#/$defs/node"} if rng.random() < 0.12 else scalar(rng)
    kind = rng.choice(["object", "object", "array", "anyOf", "map"])
    if kind == "array":
        least = rng.randrange(3)
        return {"type": "array", "items": part(rng, depth - 1), "minItems": least, "maxItems": least + rng.randrange(4)}
    if kind == "anyOf":
        return {"anyOf": [part(rng, depth - 1) for _ in range(rng.randrange(1, 4))]}
    if kind == "map":
        return {"type": "object", "additionalProperties": scalar(rng)}
    return an_object(rng, depth)


def an_object(rng: random.Random, depth: int) -> dict[str, Any]:
    names = rng.sample(NAMES, rng.randrange(1, 5))
    schema: dict[str, Any] = {"type": "object", "properties": {name: part(rng, depth - 1) for name in names}}
    if required := [name for name in names if rng.random() < 0.6]:
        schema["required"] = required
    if rng.random() < 0.3:
        schema["additionalProperties"] = False
    return schema


def make_schema(seed: int) -> dict[str, Any]:
    rng = random.Random(seed)
    node = {
        "type": "object",
        "properties": {"value": scalar(rng), "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]},
                       "children": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
        "required": ["value"],
        "additionalProperties": False,
    }  # fmt: skip
    return an_object(rng, 3) | {"$defs": {"node": node}}


def call(server: Any, seed: int) -> str:
    """Ask for a call, whole or streamed, with more or less room; its arguments."""
    schema = make_schema(seed)
    body: dict[str, Any] = {
        "messages": [{"role": "user", "content": "act"}],
        "tools": [{"type": "function", "function": {"name": "act", "parameters": schema}}],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "temperature": (0.0, 1.0, 2.0)[seed % 3],
        "seed": seed,
        "max_tokens": (300, 600, 1200)[seed % 7 % 3],
    }
    if seed % 2:
        calls = server.post(PATH, body)["choices"][0]["message"]["tool_calls"]
        assert len(calls) == 1
        arguments = calls[0]["function"]["arguments"]
    else:
        deltas = [c["choices"][0]["delta"] for c in server.chunks(PATH, body) if c["choices"]]
        arguments = "".join(c["function"]["arguments"] for d in deltas for c in d.get("tool_calls", []))
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(json.loads(arguments))
    return str(arguments)


def run(server: Any, seeds: range) -> None:
    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(lambda seed: call(server, seed), seeds))


def test_some_schemas(random_server: Any, nano_server: Any) -> None:
    run(random_server, range(16))
    run(nano_server, range(24, 30))
    # The grammar forces an id in the middle of one that the way out has.
    run(nano_server, range(3433, 3434))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_thousand_schemas(random_server: Any, nano_server: Any) -> None:
    run(random_server, range(1000, 2500))
    run(nano_server, range(2500, 3500))
