"""A model plays tools: code keeps the records, checks what is said, and no failure of the model's is the caller's."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("jsonschema")

from openk2.core import Message, ToolCall, Turn, UserError
from openk2.synth.ask import Asker
from openk2.synth.recipe import AskConfig
from openk2.synth.simulator import Records, Simulator
from openk2.worlds.mcp.specs import Spec

NOTE = {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}
SPECS = [Spec("add_note", "addNote", "Adds a note.", NOTE), Spec("get_note", "getNote", "A note by its title.", NOTE)]
TEA = {"collection": "notes", "id": "tea", "record": {"title": "tea", "text": "two bags"}}


class Model:
    """Says what it is given, one after the other, and remembers what it was asked."""

    name = "said"

    def __init__(self, *answers: Any) -> None:
        self._answers = [answer if isinstance(answer, str) else json.dumps(answer) for answer in answers]
        self.asked: list[str] = []

    async def act(self, messages: Any, tools: Any, *, max_tokens: int) -> Turn:
        self.asked.append(messages[-1].content)
        return Turn(Message("assistant", self._answers.pop(0)), "stop")

    async def close(self) -> None:
        pass


def simulator(model: Model, folder: Path, path: Path | None = None) -> Simulator:
    return Simulator("Notes", "Writing", SPECS, Asker(model, folder, AskConfig()), Records("Notes", path))


def call(name: str, **arguments: Any) -> ToolCall:
    return ToolCall("c", name, json.dumps(arguments))


async def test_what_is_written_is_shown_to_the_next_call(tmp_path: Path) -> None:
    model = Model({"result": {"ok": True}, "changes": [TEA]}, {"result": TEA["record"]})
    played = simulator(model, tmp_path)
    assert json.loads((await played.call(call("add_note", title="tea"))).content) == {"ok": True}
    assert played.records.content() == {"notes": {"tea": TEA["record"]}}
    assert json.loads((await played.call(call("get_note", title="tea"), {"rows": [1]})).content) == TEA["record"]
    assert "two bags" not in model.asked[0]
    for words in ("two bags", 'addNote with {"title":"tea"}: {"ok":true}', '"rows":[1]', "A note by its title."):
        assert words in model.asked[1]


async def test_the_same_calls_need_no_model_again(tmp_path: Path) -> None:
    first = simulator(Model({"result": 1, "changes": [TEA]}), tmp_path)
    again = simulator(Model(), tmp_path)
    for played in (first, again):
        assert (await played.call(call("add_note", title="tea"))).content == "1"
        assert played.records.content() == {"notes": {"tea": TEA["record"]}}


async def test_the_records_of_a_file_are_there_the_next_time(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    played = simulator(Model({"result": 1, "changes": [TEA]}), tmp_path, path)
    await played.call(call("add_note", title="tea"))
    played.records.close()
    assert Records("Notes", path).content() == {"notes": {"tea": TEA["record"]}}
    with pytest.raises(UserError, match="has the records of 'Notes', and not of 'Ships': name a new file"):
        Records("Ships", path)
    path.write_text("no database, and longer than a header would be" * 9)
    with pytest.raises(UserError, match=r"state\.db cannot be used: .*name a new file"):
        Records("Notes", path)


@pytest.mark.parametrize(
    "wrong, words",
    [
        ({"error": "no", "changes": [TEA]}, "a call with an error must not have changes"),
        ({"changes": [TEA, TEA | {"id": "x", "record": None}]}, "result: give one"),
        ({"result": 1, "changes": [TEA, TEA | {"id": "x", "record": None}]}, "there is no record 'x'"),
        ({"result": 1, "changes": [TEA | {"record": {"text": "x" * 70_000}}]}, "more than 60000 letters"),
        ({"result": "\ud800"}, "half a character"),
        ('{"result": 1e999}', "too large to be written"),
        ('{"result": NaN}', "cannot be read"),
    ],
)
async def test_a_mistake_is_told_and_changes_nothing(wrong: Any, words: str, tmp_path: Path) -> None:
    model = Model(wrong, {"result": "then"})
    played = simulator(model, tmp_path)
    assert (await played.call(call("add_note", title="tea"))).content == '"then"'
    assert words in model.asked[1] and played.records.content() == {} and not played.failures


async def test_a_model_that_fails_is_counted_and_is_not_the_callers_fault(tmp_path: Path) -> None:
    played = simulator(Model("what?", "what?", "what?"), tmp_path)
    result = await played.call(call("add_note", title="tea"))
    assert result.error and "the simulation has failed, not the call" in result.content
    assert played.failures == 1 and played.records.content() == {}


async def test_arguments_that_do_not_fit_are_refused_without_the_model(tmp_path: Path) -> None:
    played = simulator(Model(), tmp_path)
    for wrong in (call("add_note"), call("add_note", title=1), call("other"), ToolCall("c", "add_note", "{")):
        assert (await played.call(wrong)).error
    assert not played.failures


async def test_calls_at_once_see_each_other(tmp_path: Path) -> None:
    model = Model({"result": 1, "changes": [TEA]}, {"result": 2})
    played = simulator(model, tmp_path)
    results = await asyncio.gather(*(played.call(call("add_note", title=title)) for title in ("tea", "milk")))
    assert [result.content for result in results] == ["1", "2"] and "two bags" in model.asked[1]


async def test_an_error_of_the_tool_is_an_error(tmp_path: Path) -> None:
    played = simulator(Model({"error": "no such note"}), tmp_path)
    result = await played.call(call("get_note", title="tea"))
    assert result.error and json.loads(result.content) == {"error": "no such note"}


async def test_what_could_not_be_used_is_asked_for_again(tmp_path: Path) -> None:
    model = Model("", "", "", {"result": 1})
    played = Simulator("Notes", "", SPECS, Asker(model, tmp_path, AskConfig(), again=True), Records("Notes"))
    assert (await played.call(call("add_note", title="tea"))).error
    assert (await played.call(call("add_note", title="tea"))).content == "1"


@pytest.mark.parametrize(
    "answer",
    [{"result": 1, "error": None, "changes": None}, {"result": 1, "jsonrpc": "2.0"}, {"result": 1, "error": " "}],
)
async def test_what_models_write_for_nothing_is_nothing(answer: Any, tmp_path: Path) -> None:
    assert (await simulator(Model(answer), tmp_path).call(call("add_note", title="tea"))).content == "1"


async def test_a_state_that_breaks_is_no_end(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    played = simulator(Model({"result": 1, "changes": [TEA]}, {"result": 2, "changes": [TEA]}), tmp_path, path)
    await played.call(call("add_note", title="tea"))
    with sqlite3.connect(path) as other:
        other.execute("UPDATE records SET record = '{'")
    result = await played.call(call("add_note", title="milk"))
    assert result.error and "the simulation has failed, not the call" in result.content
    with sqlite3.connect(path) as other:
        other.execute("DROP TABLE records")
    assert (await played.call(call("add_note", title="milk"))).error and played.failures == 2


@pytest.mark.parametrize("table, words", [("other (x)", "of another program"), ("records (x)", "no such column")])
def test_another_programs_database_is_left_alone(table: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    with sqlite3.connect(path) as connection:
        connection.execute(f"CREATE TABLE {table}")
    before = path.read_bytes()
    with pytest.raises(UserError, match=words):
        Records("Notes", path)
    assert path.read_bytes() == before


def test_a_state_needs_a_folder(tmp_path: Path) -> None:
    for path, words in ((tmp_path / "no" / "x.db", "there is no folder"), (tmp_path, "it is a folder")):
        with pytest.raises(UserError, match=words):
            Records("Notes", path)
