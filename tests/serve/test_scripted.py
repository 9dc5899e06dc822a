"""A server whose answers are written down."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

ASK = [{"role": "user", "content": "go"}]


def test_the_script_answers_by_the_conversation_alone(start: Callable[..., Any], tmp_path: Path) -> None:
    script = tmp_path / "script.jsonl"
    made = {
        "id": "",
        "type": "function",
        "function": {"name": "look", "arguments": '{"where": "a long way from here"}'},
    }
    lines = [
        {"role": "assistant", "content": "I look.", "tool_calls": [made]},
        {"role": "assistant", "content": "Here\u2028\x85."},
    ]
    script.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines))
    server = start("--model", f"script:{script}")
    for _ in range(2):
        choice = server.post("/v1/chat/completions", {"messages": ASK})["choices"][0]
        message = choice["message"]
        assert choice["finish_reason"] == "tool_calls" and message["content"] == "I look."
        [call] = message["tool_calls"]
        assert (call["id"], call["function"]) == ("functions.look:0", made["function"])
    turns = [*ASK, message, {"role": "tool", "tool_call_id": call["id"], "content": "nothing"}]
    chunks = server.chunks("/v1/chat/completions", {"messages": turns})
    assert "".join(c["delta"].get("content", "") for chunk in chunks for c in chunk["choices"]) == "Here\u2028\x85."
    answer = server.http.post("/v1/chat/completions", json={"messages": [*turns, lines[1], *ASK]})
    assert answer.status_code == 400 and "has 2 answers" in answer.json()["error"]["message"]
