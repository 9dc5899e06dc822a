"""`openk2 model describe`: what a person and what a script gets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Run = Callable[..., Any]


def test_what_a_person_reads(cli: Run) -> None:
    done = cli("model", "describe", "k2")
    assert done.code == 0 and done.err == ""
    assert "1,026,408,209,408" in done.out and "1.83 x" in done.out
    assert max(map(len, done.out.splitlines())) <= 80


def test_what_a_script_reads(cli: Run) -> None:
    (event,) = cli("model", "describe", "test", "--heads", "8", "--json").events
    assert event["heads_compared"]["heads"] == [4, 8]
    assert {"total_parameters", "activated_parameters", "kv_cache_bytes_per_token"} <= event.keys()
    assert list(map(int, event["flops_per_token"])) == [1024, 2048]


def test_what_is_no_model(cli: Run) -> None:
    done = cli("model", "describe", "huge")
    assert done.code == 2 and "'huge' is neither a preset" in done.err and done.err.count("\n") == 1
    assert cli("model", "describe", "k2", "--heads", "0").code == 2
