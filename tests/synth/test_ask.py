"""Asking models for JSON, against what servers and models get wrong: all over real connections."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai")

from pydantic import BaseModel

from openk2.core import Message, UserError
from openk2.policy.endpoint import OpenAIPolicy
from openk2.synth.ask import Asker, Counts, NoAnswer, fitting, found_object
from openk2.synth.recipe import AskConfig
from shared.played import Played, served
from synth.llm import cut_off, says

Q = [Message("system", "s"), Message("user", "How many?")]


class Many(BaseModel):
    many: int


GOOD = says({"many": 3})


@pytest.fixture(scope="module")
def played() -> Iterator[tuple[Played, str]]:
    one = Played()
    with served(one) as url:
        yield one, url


def ask(url: str, folder: Path, *, seeds: tuple[int, ...] = (1,), **config: Any) -> tuple[list[int], Counts]:
    async def all_of() -> tuple[list[int], Counts]:
        policy = OpenAIPolicy("m", f"{url}/v1", retries=2)
        asker = Asker(policy, folder, AskConfig(**config))
        try:
            return [(await asker.ask(Q, Many, fitting(Many), seed=seed)).many for seed in seeds], asker.counts
        finally:
            await policy.close()

    return asyncio.run(all_of())


def test_the_schema_is_sent_and_nothing_is_asked_twice(played: tuple[Played, str], tmp_path: Path) -> None:
    one, url = played
    one.begin(GOOD)
    assert ask(url, tmp_path, seeds=(1, 2, 1)) == ([3, 3, 3], Counts(2, 1, 0, 27, 12))
    assert one.asked[0]["response_format"]["json_schema"]["schema"]["properties"].keys() == {"many"}
    assert [asked["seed"] for asked in one.asked] == [1, 2]
    # A run of its own finds the answers, another question does not.
    one.begin(says({"many": 4}))
    assert ask(url, tmp_path)[0] == [3] and not one.asked
    assert ask(url, tmp_path, temperature=0.1)[0] == [4]


def test_a_damaged_answer_on_the_disk_is_asked_for_again(played: tuple[Played, str], tmp_path: Path) -> None:
    one, url = played
    one.begin(GOOD)
    ask(url, tmp_path)
    (path,) = tmp_path.rglob("*.json")
    path.write_text(path.read_text()[:20])
    assert ask(url, tmp_path)[0] == [3] and len(one.asked) == 2


def test_mistakes_are_told_and_corrected(played: tuple[Played, str], tmp_path: Path) -> None:
    one, url = played
    one.begin(says("I think three."), says({"many": "lots"}), GOOD)
    numbers, counts = ask(url, tmp_path)
    assert numbers == [3] and (counts.asked, counts.corrected) == (3, 2)
    told = [asked["messages"][-1]["content"] for asked in one.asked]
    assert "no JSON object" in told[1] and "many: input should be a valid integer" in told[2]
    assert one.asked[2]["messages"][-2] == {"role": "assistant", "content": '{"many": "lots"}'}
    # The correction too is there when it is asked for again.
    one.begin((500, {"error": "gone"}))
    assert ask(url, tmp_path)[0] == [3] and not one.asked


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (says('\ufffd\u0000 blub {{{ {"many": }'), "the JSON cannot be read"),
        (cut_off('{"many": [1, {"x": 2}'), "cut off before its end"),
        (says(""), "no JSON object"),
        (says({"few": 1}), "many: field required"),
        (says('{"many": NaN}'), "cannot be read"),
        (says("{" * 100_000), "cannot be read"),
        (says('{"a":' * 50_000), "cannot be read"),
    ],
)
def test_what_stays_wrong_is_one_sentence(played: tuple[Played, str], tmp_path: Path, answer: Any, words: str) -> None:
    one, url = played
    one.begin(answer)
    with pytest.raises(NoAnswer, match=rf"in 3 answers: .*{words}") as caught:
        ask(url, tmp_path)
    assert len(one.asked) == 3 and "\n" not in str(caught.value)
    # Garbage was paid for as well: it is not asked for again.
    with pytest.raises(NoAnswer):
        ask(url, tmp_path)
    assert len(one.asked) == 3


@pytest.mark.parametrize("status", [400, 422, 501])
def test_a_server_that_knows_no_response_format(played: tuple[Played, str], tmp_path: Path, status: int) -> None:
    one, url = played

    def answer(asked: dict[str, Any]) -> Any:
        if "response_format" in asked:
            return status, {"error": {"message": "response_format is not supported"}}, {"x-should-retry": "false"}
        return GOOD

    one.begin(answer)
    assert ask(url, tmp_path, seeds=(1, 2))[0] == [3, 3]
    # It is asked with the format once.
    assert len([asked for asked in one.asked[-1:] if "response_format" in asked]) == 0
    assert "response_format" in one.asked[0] and "response_format" not in one.asked[2]


def test_too_many_requests_and_a_connection_that_is_cut(played: tuple[Played, str], tmp_path: Path) -> None:
    one, url = played
    busy = (429, {"error": {"message": "slow down"}}, {"retry-after": "0"})
    cut = (200, b'data: {"choices":[{"index":0,"delta":{"content":"{\\"man"}}]}\n\n')
    one.begin(busy, cut, GOOD)
    assert ask(url, tmp_path)[0] == [3] and len(one.asked) == 3


def test_no_answer_in_time(tmp_path: Path) -> None:
    async def silent() -> str:
        async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        server = await asyncio.start_server(wait, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        policy = OpenAIPolicy("m", f"http://127.0.0.1:{port}/v1")
        asker = Asker(policy, tmp_path, AskConfig(seconds=0.3))
        try:
            await asker.ask(Q, Many, fitting(Many), seed=1)
        except UserError as e:
            return str(e)
        finally:
            await policy.close()
            server.close()
        return ""

    assert "gave no answer in 0.3 s: is it overloaded?" in asyncio.run(silent())
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('Sure!\n```json\n{"many": 1}\n```\nHere you are.', {"many": 1}),
        ('<think>maybe {"many": 0}?</think>{"many": 12}', {"many": 12}),
        ('{"a": {"many": 2}} and {}', {"a": {"many": 2}}),
    ],
)
def test_objects_in_texts(text: str, found: dict[str, Any]) -> None:
    assert found_object(text) == found


def test_keys_are_of_the_whole_question(played: tuple[Played, str], tmp_path: Path) -> None:
    one, url = played
    one.begin(GOOD)
    ask(url, tmp_path, seeds=(1, 2, 3))
    assert len({path.name for path in tmp_path.rglob("*.json")}) == 3
    for path in tmp_path.rglob("*.json"):
        assert json.loads(path.read_text())["completion_tokens"] == 4
