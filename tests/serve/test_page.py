"""The page and its routes: what they answer, and what they refuse."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from openk2.core.families import get_family, sample_task
from shared.played import Played, served

HUMIDITY = "functions/test/1062"
ASK = {"messages": [{"role": "user", "content": "What is the weather in Paris?"}], "max_tokens": 60}


def refusal(server: Any, path: str, body: Any, status: int = 400) -> str:
    answer = server.http.post(path, json=body)
    assert answer.status_code == status, answer.text
    return str(answer.json()["error"]["message"])


def test_the_page_and_its_files(random_server: Any) -> None:
    page = random_server.http.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    names = set(re.findall(r'"/page/([\w.]+)"', page.text))
    assert {"page.js", "page.css", "icon.svg"} <= names
    for name in list(names):
        answer = random_server.http.get(f"/page/{name}")
        assert answer.status_code == 200
        names |= set(re.findall(r'from "\./([\w.]+)"', answer.text))
    assert names | {"index.html"} == {file.name for file in files("openk2.serve").joinpath("page").iterdir()}
    for name in names:
        answer = random_server.http.get(f"/page/{name}")
        assert answer.status_code == 200
        for one in (page, answer):
            assert one.headers["content-security-policy"].startswith("default-src 'self'")
            assert "unsafe" not in one.headers["content-security-policy"]
            assert one.headers["x-content-type-options"] == "nosniff"
    assert random_server.http.get("/page/nothing.js").json()["error"]["message"] == "the page has no file 'nothing.js'"


def test_the_page_asks_nobody_else_and_inserts_only_text() -> None:
    folder = files("openk2.serve").joinpath("page")
    for file in folder.iterdir():
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "//" not in re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE), file
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|style=|onclick=", text), file


def test_the_tasks_are_held_out_and_the_world_judges_them(random_server: Any) -> None:
    offered = random_server.http.get("/playground").json()
    assert offered["model"] == random_server.name
    assert offered["inspector"] is True
    assert len(offered["tasks"]) == 3
    family = get_family("functions")
    for shown in offered["tasks"]:
        _, split, seed = shown["id"].split("/")
        task = sample_task("functions", "test", int(seed))
        assert (split, shown["request"]) == ("test", task.request)
        right = family.demonstrate(task).messages[1:]
        for end, message in enumerate(right, 1):
            if message.role != "assistant":
                continue
            body = {"task": shown["id"], "messages": [m.to_openai() for m in right[:end]]}
            answer = random_server.post("/playground/turn", body)
            if message.tool_calls:
                assert answer["verdict"] is None
                assert [m["content"] for m in answer["messages"]] == [m.content for m in right[end : end + 1]]
        assert answer["verdict"] == {"passed": True, "reason": "the calls are right and the answer has their results"}
        silent = {"role": "assistant", "content": "It is done."}
        body["messages"] = [body["messages"][0], silent]
        assert random_server.post("/playground/turn", body)["verdict"]["passed"] is False


def calls(name: str, arguments: str, times: int = 1) -> dict[str, Any]:
    one = {"id": f"functions.{name}:0", "type": "function", "function": {"name": name, "arguments": arguments}}
    return {"role": "assistant", "content": "", "tool_calls": [one] * times}


def test_calls_that_are_wrong_are_results_and_a_model_that_never_answers_fails(random_server: Any) -> None:
    user = {"role": "user", "content": "Check it"}
    for name, arguments, words in (
        ("get_humidity", '{"region":"Rome"}', "nothing found"),
        ("get_humidity", "{", "not a JSON object"),
        ("get_humidity", '{"place":"Hanoi"}', "region"),
        ("nothing", "{}", "no tool"),
    ):
        body = {"task": HUMIDITY, "messages": [user, calls(name, arguments)]}
        answer = random_server.post("/playground/turn", body)
        assert answer["verdict"] is None
        assert answer["messages"][0]["error"] is True
        assert words in answer["messages"][0]["content"]
    turn = calls("get_humidity", '{"region":"Hanoi"}')
    answer = random_server.post("/playground/turn", {"task": HUMIDITY, "messages": [user] + [turn] * 12})
    assert answer["verdict"] == {"passed": False, "reason": "not finished after 12 turns"}


SAID = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello"}]


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("turn", {"messages": SAID}, "task: field required"),
        ("turn", {"task": 7, "messages": SAID}, "task: input should be a valid string"),
        ("turn", {"task": "functions/test/1", "messages": SAID}, "task: there is no task 'functions/test/1': use one"),
        ("turn", {"task": HUMIDITY}, "messages: field required"),
        ("turn", {"task": HUMIDITY, "messages": []}, "messages: the last one is not the assistant's"),
        ("turn", {"task": HUMIDITY, "messages": SAID[:1]}, "messages: the last one is not the assistant's"),
        ("turn", {"task": HUMIDITY, "messages": [3]}, "messages.0: input should be an object"),
        ("turn", {"task": HUMIDITY, "messages": [{"role": "assistant", "tool_calls": 3}]}, "messages.0: "),
        ("turn", {"task": HUMIDITY, "messages": [{"role": "assistant", "tool_calls": [3]}]}, "messages.0: "),
        ("turn", {"task": HUMIDITY, "messages": [calls("x", "{}", 129)]}, "messages: there are 129 calls"),
        ("inspect", ASK, "token_ids: field required"),
        ("inspect", ASK | {"token_ids": "a"}, "token_ids: input should be a valid"),
        ("inspect", ASK | {"token_ids": [1.5]}, "token_ids.0: "),
        ("inspect", ASK | {"token_ids": []}, "token_ids: there are 0 ids, and the completion has 1 to 60"),
        ("inspect", ASK | {"token_ids": [1] * 61}, "token_ids: there are 61 ids, and the completion has 1 to 60"),
        ("inspect", ASK | {"token_ids": [1] * 9000}, "token_ids: with the prompt there are"),
        ("inspect", ASK | {"token_ids": [1, -1]}, "token_ids: number 1, id -1, cannot come there"),
        ("inspect", ASK | {"token_ids": [1, 10**9]}, "token_ids: number 1, id 1000000000, cannot come there"),
        ("inspect", {"messages": [], "token_ids": [1]}, "messages: there is none"),
    ],
)
def test_bad_input_gets_one_sentence(random_server: Any, path: str, body: Any, words: str) -> None:
    assert refusal(random_server, f"/playground/{path}", body).startswith(words)


def test_what_is_inspected_is_what_was_generated(nano_server: Any, tools: list[dict[str, Any]]) -> None:
    body = ASK | {"tools": tools[:1], "tool_choice": "required", "logprobs": True, "top_logprobs": 2}
    choice = nano_server.post("/v1/chat/completions", body | {"return_token_ids": True})["choices"][0]
    found = nano_server.post("/playground/inspect", body | {"token_ids": choice["token_ids"]})
    content = choice["logprobs"]["content"]
    assert [token["text"] for token in found["tokens"]] == [entry["token"] for entry in content]
    for token, entry in zip(found["tokens"], content, strict=True):
        assert token["logprob"] == pytest.approx(entry["logprob"], abs=1e-3)
        assert [one["text"] for one in token["top"][:2]] == [one["token"] for one in entry["top_logprobs"]]
        assert len(token["experts"]) == len(found["layers"])
    # The tool's whole header is forced, as there is only one; what is looked up is free.
    allowed = {token["text"]: token["allowed"] for token in found["tokens"]}
    assert allowed["<|tool_call_begin|>"] == allowed["<|tool_call_argument_begin|>"] == 1
    assert max(allowed.values()) > 100


def test_behind_another_server_there_is_no_inspector(start: Callable[..., Any]) -> None:
    with served(Played((200, {}))) as url:
        server = start("--model", f"openai:m@{url}")
        assert server.http.get("/playground").json()["inspector"] is False
        words = refusal(server, "/playground/inspect", ASK | {"token_ids": [1]}, 404)
        assert words == "tokens cannot be inspected: the model is behind another server, and ids are not known"


def test_the_page_is_for_all_and_its_routes_need_the_key(start: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("one\n")
    (tmp_path / "keys").chmod(0o600)
    server = start("--model", "random:test", "--api-key-file", str(tmp_path / "keys"))
    for path in ("/", "/page/page.js"):
        assert server.http.get(path).status_code == 200
    assert server.http.get("/playground").status_code == 401
    assert server.http.get("/playground", headers={"Authorization": "Bearer one"}).status_code == 200
    for path in ("turn", "inspect"):
        assert "API key" in refusal(server, f"/playground/{path}", {}, 401)
