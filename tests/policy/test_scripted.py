"""Scripts: in order, by conversation, from files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from openk2.core import Message, Policy, ToolCall, UserError
from openk2.policy.scripted import ScriptedPolicy

CALLS = Message("assistant", "on it", (ToolCall("", "f", "{}"), ToolCall("", "g", '{"a":1}')))
MORE = Message("assistant", tool_calls=(ToolCall("", "f", "{}"), ToolCall("mine", "f", "{}")))
ANSWER = Message("assistant", "done")


async def test_answers_follow_the_conversation() -> None:
    policy = ScriptedPolicy([Message("user", "ignored"), CALLS, MORE, ANSWER])
    assert isinstance(policy, Policy)
    dialog = [Message("user", "go")]
    ids = []
    for finish in ("tool_calls", "tool_calls", "stop"):
        turn = await policy.act(dialog, [], max_tokens=1)
        assert turn.finish_reason == finish
        ids += [c.id for c in turn.message.tool_calls]
        dialog.append(turn.message)
    assert ids == ["functions.f:0", "functions.g:1", "functions.f:2", "mine"]
    assert dialog[-1] == ANSWER
    with pytest.raises(UserError, match="3 answers"):
        await policy.act(dialog, [], max_tokens=1)
    # Another conversation starts from the beginning: nothing is remembered.
    assert (await policy.act(dialog[:1], [], max_tokens=1)).message.content == "on it"
    await policy.close()


async def test_scripts_from_files(tmp_path: Path) -> None:
    path = tmp_path / "script.jsonl"
    path.write_text("\n".join(json.dumps(m.to_openai()) for m in (CALLS, ANSWER)) + "\n\n")
    policy = ScriptedPolicy.from_file(path)
    assert (await policy.act([], [], max_tokens=1)).message.tool_calls[1].arguments == '{"a":1}'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "line 1 is not JSON"),
        ("[1]", "line 1 is not a JSON object"),
        ("[" * 100_000, "line 1 is not JSON"),
        ('\n{"role":"x"}', "line 2: .*role 'x'"),
        ('{"role":"assistant","tool_calls":["x"]}', "line 1: a tool call must be"),
    ],
)
def test_damaged_scripts_are_named(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "script.jsonl"
    path.write_text(text)
    with pytest.raises(UserError, match=words):
        ScriptedPolicy.from_file(path)
    with pytest.raises(UserError, match=r"could not read the script .*none\.jsonl"):
        ScriptedPolicy.from_file(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match="more than 10 MB"):
        ScriptedPolicy.from_file("/dev/zero")
    with pytest.raises(UserError, match="no file behind it"):
        ScriptedPolicy.from_file("")
