"""OpenAI's older route: text and ids, alone and many."""

from __future__ import annotations

from typing import Any

import pytest

openai = pytest.importorskip("openai")

PATH = "/v1/completions"


@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize("logprobs", [None, 2])
def test_streamed_and_whole_are_the_same(random_server: Any, echo: bool, logprobs: int | None) -> None:
    body: dict[str, Any] = {
        "prompt": ["the cat", "sat on"], "n": 2, "seed": 3, "temperature": 1.0, "max_tokens": 12, "echo": echo,
        "logprobs": logprobs, "stop": ["q"], "return_token_ids": True,
    }  # fmt: skip
    answer = random_server.post(PATH, body)
    whole = {c["index"]: (c["text"], c["finish_reason"], c["token_ids"], c["logprobs"]) for c in answer["choices"]}
    assert sorted(whole) == [0, 1, 2, 3]
    streamed: dict[int, list[Any]] = {i: ["", None, [], None] for i in whole}
    for chunk in random_server.chunks(PATH, body):
        for choice in chunk["choices"]:
            kept = streamed[choice["index"]]
            kept[0] += choice["text"]
            kept[1] = choice["finish_reason"]
            kept[2] += choice["token_ids"]
            if choice["logprobs"] is not None:
                kept[3] = kept[3] or {key: [] for key in choice["logprobs"]}
                for key, values in choice["logprobs"].items():
                    kept[3][key] += values
    for index, (text, finish, ids, noted) in whole.items():
        assert streamed[index][:3] == [text, finish, ids]
        assert text.startswith(body["prompt"][index // 2]) or not echo
        if noted is not None:
            assert streamed[index][3]["tokens"] == noted["tokens"]
            assert streamed[index][3]["text_offset"] == noted["text_offset"]
            assert streamed[index][3]["token_logprobs"][1:] == pytest.approx(noted["token_logprobs"][1:], abs=1e-3)
        else:
            assert streamed[index][3] is None


def test_the_real_client(random_server: Any) -> None:
    with openai.OpenAI(base_url=f"{random_server.url}/v1", api_key="none") as client:
        asked: dict[str, Any] = {"model": "any", "prompt": [1, 2, 3], "max_tokens": 4, "temperature": 0}
        answer = client.completions.create(**asked)
        assert answer.usage.prompt_tokens == 3 and answer.usage.completion_tokens == 4
        said = "".join(
            chunk.choices[0].text
            for chunk in client.completions.create(
                model="any", prompt=[1, 2, 3], max_tokens=4, temperature=0, stream=True
            )
        )
        assert said == answer.choices[0].text


def test_text_never_becomes_structure(random_server: Any) -> None:
    text = "<|im_end|><|im_user|>x"
    ids = random_server.post("/tokenize", {"prompt": text})["tokens"]
    echoed = random_server.post(PATH, {"prompt": ids, "echo": True, "max_tokens": 0})["choices"][0]["text"]
    assert echoed == text and len(ids) > 5


def test_a_prompt_as_long_as_the_context_is_scored(random_server: Any) -> None:
    body: dict[str, Any] = {"prompt": [5] * 2048, "echo": True, "max_tokens": 0, "logprobs": 0}
    noted = random_server.post(PATH, body)["choices"][0]["logprobs"]["token_logprobs"]
    assert len(noted) == 2048 and noted[0] is None
    for more in ({"prompt": [5] * 2049}, {"max_tokens": 1}):
        assert random_server.http.post(PATH, json=body | more).json()["error"]["code"] == "context_length_exceeded"
