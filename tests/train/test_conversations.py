"""Conversations of one's own: read, refused, and learned from by a model that is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from openk2.chat import Tokenizer, parse
from openk2.cli.main import app
from openk2.core import UserError
from openk2.core.families import get_family
from openk2.core.progress import ConsoleReporter
from openk2.core.runs import read_manifest
from openk2.data.shards import Shards
from openk2.model import load
from openk2.policy.resolve import load_engine
from openk2.serve.chat import ChatRequest
from openk2.serve.prompt import render_prompt
from openk2.serve.service import Settings
from openk2.train.conversations import line_offsets, read_conversations
from openk2.train.episodes import join_chunks, make_chunk, plan_file_chunks
from openk2.train.recipe import TuneRecipe, load_recipe
from openk2.train.stages import run_recipe

NANO = Path(__file__).parents[2] / "src" / "openk2" / "weights" / "nano"


def conversation(number: int) -> dict[str, Any]:
    family = get_family("functions")
    shown = family.demonstrate(family.sample("train", number))
    return {
        "messages": [message.to_openai() for message in shown.messages],
        "tools": [tool.to_openai() for tool in shown.tools],
    }


def write(path: Path, count: int) -> Path:
    # Blank lines are none, and neither is the missing end of the last one.
    path.write_text("\n\n".join(json.dumps(conversation(i)) for i in range(count)))
    return path


def test_every_conversation_is_in_one_part(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.jsonl", 25)
    assert len(line_offsets(file)) == 25
    parts: dict[str, list[list[int]]] = {}
    for part in ("train", "valid"):
        chunks = plan_file_chunks(
            file, part, 100, folder=tmp_path / "chunks", tokenizer=NANO, max_tokens=1600, tool_dropout=0.0
        )
        for chunk in chunks:
            make_chunk(chunk)
        summary = join_chunks(chunks, tmp_path / part)
        assert summary[str(file)]["too_long"] == 0
        shards = Shards(tmp_path / part)
        parts[part] = [shards.document(i)[0].tolist() for i in range(len(shards))]
    assert [len(found) for found in parts.values()] == [22, 3]
    tokenizer = Tokenizer.load(NANO)
    for at, ids in enumerate([*parts["train"], *parts["valid"]]):
        users = [m["content"] for m in conversation(at)["messages"] if m["role"] == "user"]
        assert [m.content for m in parse(ids, tokenizer=tokenizer).messages if m.role == "user"] == users


def calling(arguments: str) -> str:
    """A conversation with a call that has these arguments."""
    function = {"name": "f", "arguments": arguments}
    message = {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": function}]}
    return json.dumps({"messages": [message]})


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "conversation 2: not JSON"),
        ("[]", "conversation 2: it is no object with a list of messages"),
        ('{"messages": [3]}', "conversation 2: a message, or a tool, is no object"),
        ('{"messages": [{"role": "user", "content": "hi"}]}', "conversation 2: the assistant says nothing"),
        ('{"messages": [{"role": "alien"}]}', "conversation 2: message role 'alien'"),
        ('{"messages": [{"role": "assistant", "content": "x"}], "tools": [{}]}', "conversation 2: "),
        ('{"messages": [{"role": "assistant", "content": "x"}], "tools": 5}', "conversation 2: its tools are a list"),
        (calling("{"), "conversation 2: the arguments of a call of 'f' are no JSON object"),
        (calling("[1]"), "conversation 2: the arguments of a call of 'f' are no JSON object"),
        (calling("[" * 100_000), "conversation 2: the arguments of a call of 'f' are no JSON object"),
    ],
)
def test_what_is_no_conversation_is_named(tmp_path: Path, line: str, words: str) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text(json.dumps(conversation(0)) + "\n" + line + "\n")
    with pytest.raises(UserError, match=words):
        list(read_conversations(file, 0, 0, 2))


def test_what_cannot_be_rendered_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.jsonl", 3)
    broken = {"messages": [{"role": "user", "content": "a\ud83d"}, {"role": "assistant", "content": "b"}]}
    file.write_text(file.read_text() + "\n" + json.dumps(broken) + "\n" + json.dumps(conversation(4)))
    (chunk,) = plan_file_chunks(
        file, "train", 1, folder=tmp_path / "chunks", tokenizer=NANO, max_tokens=1600, tool_dropout=0.0
    )
    with pytest.raises(UserError, match=r"mine\.jsonl, conversation 4: .*lone surrogate"):
        make_chunk(chunk)


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(UserError, match="has no conversations"):
        line_offsets(tmp_path / "empty.jsonl")
    with pytest.raises(UserError, match="cannot be read: No such file"):
        line_offsets(tmp_path / "none.jsonl")
    one = write(tmp_path / "one.jsonl", 1)
    with pytest.raises(UserError, match="one more is needed"):
        plan_file_chunks(one, "train", 9, folder=tmp_path, tokenizer=NANO, max_tokens=99, tool_dropout=0.0)


def recipe_text(start: str, files: list[str], more: str = "") -> str:
    return f"""
name = "mine"
workers = 1
start = {json.dumps(start)}
{more}
[episodes]
files = {json.dumps(files)}
train = {{ functions = 20 }}
valid = 3
[sft]
tokens = 9_000
micro_tokens = 3000
micro_batches = 1
lr = 0.002
warmup_steps = 2
valid_every = 2
valid_micro_batches = 1
"""


def test_nano_goes_on_from_where_it_is(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.jsonl", 30)
    path = tmp_path / "mine.toml"
    path.write_text(recipe_text("nano", [str(file)]))
    recipe = load_recipe(path)
    assert isinstance(recipe, TuneRecipe)
    run = run_recipe(recipe, tmp_path / "run", reporter=ConsoleReporter())
    manifest = read_manifest(run / "episodes")
    assert manifest is not None and manifest.results["train"][str(file)]["episodes"] == 27
    first = json.loads((run / "sft" / "metrics.jsonl").read_text().splitlines()[0])
    # A model that knew nothing would begin at ln(1024).
    assert first["loss"] < 2
    tuned, before = load(run / "instruct"), load(NANO)
    assert not bool((tuned.lm_head.weight == before.lm_head.weight).all())
    assert (run / "instruct" / "tokenizer.json").read_bytes() == (NANO / "tokenizer.json").read_bytes()
    # The same again is already there, and a changed file is no longer the same run.
    run_recipe(recipe, run, reporter=ConsoleReporter())
    write(file, 31)
    with pytest.raises(UserError, match=r"was made when .*mine\.jsonl had another content"):
        run_recipe(recipe, run, reporter=ConsoleReporter())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (recipe_text("nowhere", ["x.jsonl"]), "start = 'nowhere' is neither nano nor a model folder"),
        (recipe_text("nano", ["nowhere.jsonl"]), "episodes.files: nowhere.jsonl cannot be read"),
        (recipe_text("nano", [], "[pretrain]\ntokens = 5"), "there is no \\[pretrain\\]"),
        (recipe_text("nano", []).replace("train = { functions = 20 }", ""), "nothing to learn from"),
        (recipe_text("nano", []).replace("valid = 3", "valid = 3\nmax_tokens = 3000"), "exceeds the context of nano"),
    ],
)
def test_recipes_that_cannot_be(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    result = CliRunner().invoke(app, ["train", str(path), "--run", str(tmp_path / "run")], catch_exceptions=True)
    assert result.exit_code != 0
    with pytest.raises(UserError, match=words):
        run_recipe(load_recipe(path), tmp_path / "run", reporter=ConsoleReporter())


def test_what_is_learned_is_what_the_server_shows(tmp_path: Path) -> None:
    """Whatever ids, spaces, names and order of keys the file has, and without a system message of its own."""
    call = {"id": "call_7", "type": "function", "function": {"name": "stock", "arguments": '{ "product" : "glue" }'}}
    function = {"name": "stock", "description": "How many.", "strict": False}
    parameters = {"type": "object", "properties": {"product": {"type": "string"}}, "required": ["product"]}
    tools = [{"type": "function", "function": function | {"parameters": parameters}}]
    asked: list[dict[str, Any]] = [
        {"role": "user", "content": "How much glue?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_7", "content": "12"},
    ]
    said = {"role": "assistant", "content": "12."}
    rows = [[*first, *asked, said] for first in ([], [{"role": "developer", "content": "Sell."}])]
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join(json.dumps({"messages": row, "tools": tools}) for row in [*rows, rows[0]]))
    (chunk,) = plan_file_chunks(
        file, "train", 1, folder=tmp_path / "chunks", tokenizer=NANO, max_tokens=1600, tool_dropout=0.0
    )
    make_chunk(chunk)
    join_chunks([chunk], tmp_path / "train")
    shards, engine = Shards(tmp_path / "train"), load_engine(NANO, device=torch.device("cpu"))
    for at, row in enumerate(rows):
        body = {"model": "x", "messages": row[:-1], "tools": tools}
        prompt = list(render_prompt(engine, ChatRequest.model_validate(body).asked(Settings(name="x"), body)))
        ids = shards.document(at)[0].tolist()
        assert ids[: len(prompt)] == prompt
        assert engine.tokenizer.decode(ids[len(prompt) :]) == "12.<|im_end|>"
