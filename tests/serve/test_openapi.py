"""Whatever fits our OpenAPI document, or does not, is answered with something else than a 500."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

schemathesis = pytest.importorskip("schemathesis")

OPERATIONS = (
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/responses"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/messages"),
    ("POST", "/anthropic/v1/messages"),
    ("POST", "/v1/messages/count_tokens"),
    ("POST", "/v1/tokenizers/estimate-token-count"),
    ("POST", "/tokenize"),
    ("POST", "/playground/turn"),
    ("POST", "/playground/inspect"),
    ("GET", "/playground"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{name}"),
    ("GET", "/health"),
    ("GET", "/metrics"),
)


@pytest.fixture(scope="module")
def document(random_server: Any) -> Any:
    return schemathesis.openapi.from_url(f"{random_server.url}/openapi.json")


def test_the_document_has_every_route(document: Any) -> None:
    paths = {(found.ok().method.upper(), found.ok().path) for found in document.get_all_operations()}
    assert set(OPERATIONS) - paths == set()


@pytest.mark.parametrize("mode", ["positive", "negative"])
@pytest.mark.parametrize(("method", "path"), OPERATIONS, ids=[path for _, path in OPERATIONS])
def test_no_request_ends_in_a_failure_of_ours(document: Any, method: str, path: str, mode: str) -> None:
    if mode == "negative" and method == "GET":
        pytest.skip("nothing about it can be wrong")
    operation = document[path][method]

    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(case=operation.as_strategy(generation_mode=schemathesis.GenerationMode(mode)))
    def ask(case: Any) -> None:
        if isinstance(case.body, dict):
            # Answers need not be long.
            for field in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
                if type(case.body.get(field)) is int:
                    case.body[field] = min(case.body[field], 20)
            case.body.setdefault("max_tokens", 20)
            case.body.setdefault("max_output_tokens", 20)
        answer = case.call(timeout=60)
        assert answer.status_code < 500, (answer.status_code, answer.text[:300])
        if answer.status_code >= 400:
            assert answer.json()["error"]["message"]

    ask()
