"""Playing the agent: what is typed acts, is taken back, completes, and is judged."""

from __future__ import annotations

import json
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from openk2.synth.catalogue import domain_of
from openk2.synth.evolve import evolve
from openk2.synth.lexicon import sketches
from openk2.synth.play import Session, drawn_task, free_task
from openk2.worlds.apps.declaration import Domain
from openk2.worlds.apps.world import Apps, AppTask


@cache
def domain() -> Domain:
    return evolve(next(sketch for sketch in sketches() if sketch.name == "dairy_farm"), 0)


APPS = Apps(lambda _: domain())


def session(task: AppTask | None = None) -> Session:
    return Session(APPS, domain(), task or free_task(domain(), 0, None), free=task is None, as_json=True)


def said(session: Session, capsys: pytest.CaptureFixture[str], *lines: str) -> list[dict[str, Any]]:
    """The events of some lines."""
    capsys.readouterr()
    for line in lines:
        session.line(line)
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def as_lines(task: AppTask, *, quoted: bool) -> list[str]:
    """What a person types who goes the way of the plan."""
    lines = []
    for turn in task.plan:
        lines += [f"say {turn.question}"] if turn.question else []
        for call in (call for wave in turn.waves for call in wave):
            pairs = [
                f"{name}={shlex.quote(value if isinstance(value, str) else json.dumps(value))}"
                for name, value in call.arguments.items()
            ]
            lines.append(f"call {call.name} " + (" ".join(pairs) if quoted else json.dumps(call.arguments)))
        lines.append(f"say {turn.answer}")
    return lines


@pytest.mark.parametrize("quoted", [True, False])
def test_who_goes_the_way_of_the_expert_passes(quoted: bool, capsys: pytest.CaptureFixture[str]) -> None:
    passed = 0
    for seed in range(6):
        task = drawn_task(APPS, domain(), seed, None)
        if task.faults.timeout or task.faults.rate_limit:
            continue
        one = session(task)
        events = said(one, capsys, *as_lines(task, quoted=quoted))
        assert one.over and one.grade is not None and one.grade.passed, events
        assert [event["event"] for event in events[-2:]] == ["verdict", "expert"] and events[-2]["score"] == 1.0
        one.close()
        passed += 1
    assert passed >= 3


def test_few_tools_are_those_that_are_needed() -> None:
    whole = drawn_task(APPS, domain(), 3, None)
    few = drawn_task(APPS, domain(), 3, 1)
    assert set(whole.rubric.pattern) == set(few.tools) < set(whole.tools)
    assert few.turns == whole.turns
    assert len(free_task(domain(), 0, 5).tools) == 5


def test_the_example_of_a_domain_has_a_task_for_every_number() -> None:
    example = domain_of(str(Path(__file__).parents[2] / "examples" / "tool_library.toml"), 0)
    apps = Apps(lambda _: example)
    for seed in range(13):
        task = drawn_task(apps, example, seed, None)
        begun = apps.state(example.name, task.state_seed)
        loans = [loan for loan in begun.rows("loans") if loan["status"] == "out"]
        assert len({loan["tool"] for loan in loans}) == len(loans)


def test_giving_up_is_not_passed(capsys: pytest.CaptureFixture[str]) -> None:
    one = session(drawn_task(APPS, domain(), 3, None))
    verdict, expert = said(one, capsys, "give up")
    assert one.over and not verdict["passed"] and verdict["wrong"] and expert["turns"][0]["answer"]
    one.close()


def test_a_call_is_taken_back(capsys: pytest.CaptureFixture[str]) -> None:
    one = session()
    tool = domain().by_name["record_dairy_cow"]
    barn = one._world.state.rows("cow_barns")[0]["id"]
    given = {"cow_barn_id": barn, "name": "Vera", "breed": None, "lactation_no": 2, "pregnant": False}
    given["breed"] = (tool.parameters["breed"].values or ("x",))[0]
    call = f"call record_dairy_cow {json.dumps({key: given[key] for key in tool.parameters})}"
    done = said(one, capsys, call, "diff", "undo", "diff", "undo")
    assert [event["event"] for event in done] == ["call", "tool_result", "diff", "undo", "diff", "mistake"]
    assert not done[1]["error"] and "Vera" in done[2]["changes"][0] and done[4]["changes"] == []
    one.close()


def test_an_answer_is_not_taken_back(capsys: pytest.CaptureFixture[str]) -> None:
    one = session(drawn_task(APPS, domain(), 3, None))
    *_, mistake = said(one, capsys, "say What?", "undo")
    assert "cannot be taken back" in mistake["sentence"]
    one.close()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("cal", "did you mean call?"),
        ("give", "did you mean give up?"),
        ("call", "name a tool, or its number"),
        ("call 0", "there is no tool 0"),
        ("call 99999999999999999999", "there is no tool"),
        ("call get_dairy_co", "did you mean get_dairy_cow?"),
        ("call get_dairy_cow COW-1", "has no name: write key=value"),
        ("call get_dairy_cow a='b", "a quotation mark is missing"),
        ("call get_dairy_cow {a", "are not JSON"),
        ("call get_dairy_cow {" + '"a":[' * 9999, "are not JSON"),
        ("show nothing_of_this", "there is no tool"),
        ("state cows", "there is no entity 'cows'"),
        ("state dairy_cows COW-0", "no row of dairy_cows has the id"),
        ("tools qqqq", "no tool has 'qqqq'"),
        ("say hello", "--task SEED brings a user"),
        ("give up", "quit leaves it"),
        ("undo", "no call to take back"),
    ],
)
def test_mistakes_are_sentences(line: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    one = session()
    (event,) = said(one, capsys, line)
    assert event["event"] == "mistake" and words in event["sentence"] and not one.over
    one.close()


def test_looking_behind_the_tools(capsys: pytest.CaptureFixture[str]) -> None:
    one = session()
    counts, rows, row, tool, tools = said(
        one, capsys, "state", "state dairy_cows", "state dairy_cows DAI-1002", "show get_dairy_cow", "tools milk box"
    )
    assert counts["entities"]["dairy_cows"] == len(rows["rows"]) > 1
    assert [found["id"] for found in row["rows"]] == ["DAI-1002"]
    assert tool["schema"]["required"] == ["dairy_cow_id"] and tool["returns"]
    assert 0 < len(tools["tools"]) < len(one.names)
    assert one.names[tools["tools"][0]["number"] - 1] == tools["tools"][0]["name"]
    one.close()


@pytest.mark.parametrize(
    ("before", "word", "found"),
    [
        ("", "ca", ["call"]),
        ("", "g", ["give up"]),
        ("call ", "get_dairy_c", ["get_dairy_cow"]),
        ("show ", "get_dairy_c", ["get_dairy_cow"]),
        ("call get_dairy_cow ", "", ["dairy_cow_id="]),
        ("call get_dairy_cow dairy_cow_id=1 ", "", []),
        ("call 9999 ", "", []),
        ("state ", "dairy", ["dairy_cows"]),
        ("say ", "x", []),
    ],
)
def test_completion(before: str, word: str, found: list[str]) -> None:
    one = session()
    assert one.completions(before, word) == found
    one.close()
