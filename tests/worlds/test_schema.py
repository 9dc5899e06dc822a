"""Schemas by the rules of their drafts, in bounded time and without the network."""

from __future__ import annotations

import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

pytest.importorskip("jsonschema")
pytest.importorskip("regex")

from openk2.worlds.schema import Schema

D3, D4, D7 = (f"http://json-schema.org/draft-0{number}/schema#" for number in (3, 4, 7))
D2020 = "https://json-schema.org/draft/2020-12/schema"
TUPLE = {"type": "array", "items": [{"type": "string"}, {"type": "integer"}], "additionalItems": False}


def of(part: Any, **more: Any) -> Schema:
    """The schema of an object with one property."""
    return Schema({"type": "object", "properties": {"a": part}, **more})


@pytest.mark.parametrize(
    ("schema", "right", "wrong"),
    [
        # A tuple, by draft-07 that is named and by none that is.
        (of(TUPLE, **{"$schema": D7}), ["x", 1], [1, "x"]),
        (of(TUPLE), ["x", 1], ["x", 1, 2]),
        (of({"type": "array", "prefixItems": [{"type": "string"}], "items": False}), ["x"], ["x", 1]),
        # In draft-07 `prefixItems` says nothing, as little as what is beside a reference.
        (of({"prefixItems": [{"type": "string"}], "type": "array"}, **{"$schema": D7}), [1], 1),
        (of({"$ref": "#/definitions/n", "minimum": 5}, definitions={"n": {"type": "integer"}}, **{"$schema": D7}), 1,
         "x"),
        (of({"$ref": "#/$defs/n", "minimum": 5}, **{"$defs": {"n": {"type": "integer"}}}), 5, 1),
        # Parts with names of their own.
        (of({"$ref": "#n"}, definitions={"n": {"$id": "#n", "type": "integer"}}, **{"$schema": D7}), 1, "x"),
        (of({"$ref": "n.json"}, definitions={"n": {"$id": "n.json", "type": "integer"}}, **{"$schema": D7}), 1, "x"),
        (of({"$ref": "http://x.test/n"}, **{"$id": "http://x.test/", "$defs": {"n": {"$id": "n", "type": "integer"}}}),
         1, "x"),
        # Bounds that are words.
        (of({"type": "number", "minimum": 0, "exclusiveMinimum": True}, **{"$schema": D4}), 0.1, 0),
        (of({"type": "number", "minimum": 0, "exclusiveMinimum": True}), 0.1, 0),
        (of({"type": "number", "exclusiveMinimum": 0}), 0.1, 0),
        # The name of a draft, as it is often written.
        (of(TUPLE, **{"$schema": "https://json-schema.org/draft-07/schema"}), ["x", 1], [1, "x"]),
        # What may be null by OpenAPI 3.0.
        (of({"type": "string", "nullable": True}), None, 1),
        (of({"type": "string", "enum": ["x"], "nullable": True}), None, "y"),
        (of({"nullable": True, "allOf": [{"$ref": "#/$defs/n"}]}, **{"$defs": {"n": {"type": "integer"}}}), None, "x"),
        (of({"type": "string", "nullable": False}), "x", None),
        # Decimal steps.
        (of({"type": "number", "multipleOf": 0.1}), 0.3, 0.35),
        (of({"type": "number", "multipleOf": 0.01}), 19.99, 19.999),
        (of({"type": "number", "multipleOf": 1e-7}), 1e300, 1.5e-8),
        (of({"type": "integer", "multipleOf": 3}), 9_000_000_000_000_000_000_003, 10_000_000_000_000_000_000_003),
        (of({"type": "number", "divisibleBy": 0.1}, **{"$schema": D3}), 0.3, 0.35),
        # A format is an annotation; patterns are ECMA's as far as they are Unicode's.
        (of({"type": "string", "format": "date"}), "not a date", 1),
        (of({"type": "string", "pattern": r"^\p{Lu}"}), "École", "école"),
        # True is no number, 1.0 is 1.
        (of({"type": "array", "uniqueItems": True}), [1, True, "1", [1], {"x": 1}], [{"x": 1}, {"x": 1.0}]),
    ],
)  # fmt: skip
def test_values_by_their_drafts(schema: Schema, right: Any, wrong: Any) -> None:
    assert schema.errors({"a": right}) == []
    assert schema.errors({"a": wrong}) != []


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"properties": {"a": {"type": "text"}}}, "no JSON Schema"),
        ({"$schema": D7, "properties": {"a": {"type": "text"}}}, "by the draft that it names"),
        ({"$schema": D2020, "properties": {"a": {"items": [{}]}}}, "by the draft that it names"),
        ({"properties": {"a": {"$ref": "other.json"}}}, "'other.json' is not in it"),
        ({"properties": {"a": {"$ref": "#/$defs/x"}}}, "is not in it"),
        ({"properties": {"a": {"$ref": "#/x/y"}}, "x": {"y": {"properties": 5}}}, "no JSON Schema"),
        ({"properties": {"a": {"$schema": D7, "type": "string"}}, "$schema": D2020}, "names another draft"),
        ({"$ref": "#"}, "nothing can be checked"),
        ({"properties": {"a": {"pattern": "("}}}, "nothing can be checked"),
        ({"properties": {"a": {"pattern": "(?:(?:[ab]{1000}){1000}){1000}"}}}, "repeats too much"),
        ({"patternProperties": {"a": {}}, "unevaluatedProperties": False}, "unevaluatedProperties"),
    ],
)
def test_what_cannot_be_checked_against_is_refused(schema: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Schema(schema)


def test_nothing_is_fetched() -> None:
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/x"
        for keyword in ("$ref", "$dynamicRef"):
            with pytest.raises(ValueError, match="is not in it"):
                of({keyword: url})
        with pytest.raises(ValueError, match="is not in it"):
            of({"$ref": "y"}, **{"$id": url, "$schema": D7})
        # Where nothing leads to it at first sight.
        with pytest.raises(ValueError, match="is not in it"):
            of({"$ref": "#/x/y"}, x={"y": {"not": {"$ref": url}}})
        of({"type": "string"}, **{"$schema": url}).errors({"a": 1})
    finally:
        server.shutdown()
        server.server_close()
    assert asked == []


def hard(kind: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A pattern that takes for ever, where the library might search it itself."""
    pattern = {"type": "string", "pattern": r"^(a|aa|[a-z])*[0-9]$"}
    yield {"properties": {"a": pattern}} | kind
    yield {"properties": {"a": {"$ref": "#/definitions/x"}}, "definitions": {"x": pattern}} | kind
    yield {"properties": {"a": pattern | kind}} | kind
    yield {"properties": {"a": {"$ref": "#"}}, "pattern": pattern["pattern"]} | kind


@pytest.mark.parametrize("schema", [*hard({"$schema": D7}), *list(hard({}))[:1]])
def test_a_pattern_has_its_time(schema: dict[str, Any]) -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        Schema(schema).errors({"a": "a" * 60 + "!"})
    assert time.monotonic() - began < 30


def test_many_parts_have_their_time() -> None:
    twice: dict[str, Any] = {"type": "object", "properties": {"a": {"$ref": "#/$defs/0"}}, "$defs": {}}
    for i in range(40):
        twice["$defs"][str(i)] = {"anyOf": [{"$ref": f"#/$defs/{i + 1}"}] * 2}
    twice["$defs"]["40"] = {"type": "string"}
    with pytest.raises(TimeoutError):
        Schema(twice).errors({"a": 1})
    unlike: list[Any] = [[{"x": i}, str(i)][i % 2] for i in range(50_000)]
    assert of({"type": "array", "uniqueItems": True}).errors({"a": unlike}) == []
    began = time.monotonic()
    of({"enum": unlike}, **{"$schema": D4})
    assert time.monotonic() - began < 60


def test_what_is_given_stays_as_it_is() -> None:
    given = {"$schema": D7, "type": "object", "properties": {"$schema": {"const": {"$schema": "x"}}}}
    schema = Schema(given)
    assert schema.errors({"$schema": {"$schema": "x"}}) == [] and schema.errors({"$schema": 1}) != []
    assert given["$schema"] == D7
