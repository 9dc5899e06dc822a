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


def test_the_same_prompt_many_times_is_drawn_anew_each_time(random_server: Any) -> None:
    body: dict[str, Any] = {"prompt": ["the cat"] * 4, "max_tokens": 12, "temperature": 1.0}
    assert len({choice["text"] for choice in random_server.post(PATH, body)["choices"]}) == 4
    one = random_server.post(PATH, body | {"prompt": "the cat", "seed": 5})["choices"][0]["text"]
    several = random_server.post(PATH, body | {"prompt": ["the cat", "sat"], "seed": 5})["choices"]
    assert several[0]["text"] == one


def test_choices_of_one_prompt_share_it_in_the_count(random_server: Any) -> None:
    body: dict[str, Any] = {"prompt": ["hello world", "this is"], "max_tokens": 3, "temperature": 1.0}
    one, three = (random_server.post(PATH, body | {"n": n})["usage"] for n in (1, 3))
    assert three["prompt_tokens"] == one["prompt_tokens"]
    assert 0 <= three["prompt_tokens_details"]["cached_tokens"] <= three["prompt_tokens"]


def test_a_scored_prompt_has_the_likeliest_ids_too(random_server: Any) -> None:
    """As harnesses ask that compare answers by their likelihood."""
    body: dict[str, Any] = {"prompt": "the cat sat", "echo": True, "max_tokens": 1, "logprobs": 2, "temperature": 0}
    noted = random_server.post(PATH, body)["choices"][0]["logprobs"]
    assert noted["top_logprobs"][0] is None and len(noted["tokens"]) > 3
    rows = zip(noted["tokens"], noted["token_logprobs"], noted["top_logprobs"], strict=True)
    for token, logprob, top in list(rows)[1:]:
        assert len(top) == 2 and logprob <= max(top.values()) + 1e-3
        assert token not in top or top[token] == pytest.approx(logprob, abs=1e-3)
    # What was computed for the answer, and for the prompt alone, is the same.
    longer = body | {"prompt": random_server.post("/tokenize", {"prompt": "the cat sat"})["tokens"], "max_tokens": 0}
    scored = random_server.post(PATH, longer)["choices"][0]["logprobs"]["top_logprobs"]
    assert [sorted(top.values()) for top in scored[1:]] == [
        pytest.approx(sorted(top.values()), abs=1e-3) for top in noted["top_logprobs"][1:-1]
    ]


@pytest.mark.parametrize("seed", range(20))
def test_offsets_point_into_the_text(random_server: Any, seed: int) -> None:
    body: dict[str, Any] = {
        "seed": seed,
        "prompt": "h\u00e9llo w\u00f6rld \U0001f600 cat",
        "echo": True,
        "max_tokens": 6,
        "logprobs": 0,
    }
    choice = random_server.post(PATH, body)["choices"][0]
    noted = choice["logprobs"]
    checked = 0
    for token, offset in zip(noted["tokens"], noted["text_offset"], strict=True):
        if "\ufffd" not in token and offset < len(choice["text"]):
            checked += 1
            assert choice["text"][offset : offset + len(token)] == token
    assert checked > 5


def test_a_top_p_next_to_nothing_leaves_the_likeliest(random_server: Any) -> None:
    body: dict[str, Any] = {"prompt": "a", "max_tokens": 5, "seed": 1}
    greedy = random_server.post(PATH, body | {"temperature": 0})["choices"][0]["text"]
    assert random_server.post(PATH, body | {"temperature": 1, "top_p": 1e-46})["choices"][0]["text"] == greedy
