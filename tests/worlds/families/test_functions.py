"""The functions family: what is demonstrated passes, what is wrong fails, and the splits do not touch."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from typing import Any

import jsonschema
import pytest

from openk2.core import Demonstration, Family, Message, Split, Task, ToolCall, UserError, World, compact_json
from openk2.core.families import get_family
from openk2.worlds.families import lexicon, mix
from openk2.worlds.families.functions import FunctionsFamily, FunctionsWorld, mismatch, same, states
from openk2.worlds.families.functions_actions import purpose
from openk2.worlds.families.phrasing import BOOKS, Frame

FAMILY = FunctionsFamily()
SPLITS: tuple[Split, ...] = ("train", "test")


def replay(task: Task, demonstration: Demonstration) -> FunctionsWorld:
    """Run the demonstration's calls and questions through the world; its tool messages must be what the world says."""
    world = FunctionsWorld(task)
    messages = demonstration.messages
    for i, message in enumerate(messages):
        if message.role != "assistant":
            continue
        for k, call in enumerate(message.tool_calls):
            assert world.execute(call).content == messages[i + 1 + k].content
        if not message.tool_calls and i + 1 < len(messages):
            assert world.answer(message) == messages[i + 1]
    return world


@pytest.mark.parametrize("split", SPLITS)
def test_every_demonstration_passes(split: Split) -> None:
    for seed in range(1500):
        task = FAMILY.sample(split, seed)
        demonstration = FAMILY.demonstrate(task)
        world = replay(task, demonstration)
        verdict = world.judge(demonstration.messages)
        assert verdict.passed, (verdict.reason, task)
        assert world.answer(demonstration.messages[-1]) is None


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("skill", FAMILY.skills)
def test_calls_fit_the_declared_schemas(skill: str, split: Split) -> None:
    for seed in range(40):
        demonstration = FAMILY.demonstrate(FAMILY.sample_skill(skill, split, seed))
        schemas: dict[str, Any] = {tool.name: dict(tool.parameters) for tool in demonstration.tools}
        assert 1 <= len(schemas) == len(demonstration.tools) <= 8
        ids = [call for message in demonstration.messages for call in message.tool_calls]
        for index, call in enumerate(ids):
            assert call.id == f"functions.{call.name}:{index}"
            jsonschema.validate(call.parsed(), {**schemas[call.name], "additionalProperties": False})
            assert mismatch(call.parsed(), schemas[call.name]) == ""


def test_the_world_speaks_the_protocol() -> None:
    family: Family = get_family("functions")
    task = family.sample("test", 1)
    world = family.world(task)
    assert isinstance(world, World)


async def test_the_protocol_end_to_end() -> None:
    for skill in FAMILY.skills:
        task = FAMILY.sample_skill(skill, "test", 5)
        demonstration = FAMILY.demonstrate(task)
        world = FAMILY.world(task)
        assert tuple(await world.start(task)) == demonstration.messages[:2]
        for message in demonstration.messages:
            for call in message.tool_calls:
                await world.call(call)
            if message.role == "assistant" and not message.tool_calls:
                await world.reply(message)
        assert (await world.verify(demonstration.messages)).passed
        await world.close()


def test_a_seed_is_a_task() -> None:
    assert FAMILY.sample("test", 7) == FAMILY.sample("test", 7)
    assert FAMILY.sample("test", 7) != FAMILY.sample("test", 8)
    assert FAMILY.sample("test", 7).request != FAMILY.sample("train", 7).request


def test_an_unknown_skill_is_named() -> None:
    with pytest.raises(UserError, match="no skill 'juggle'"):
        FAMILY.sample_skill("juggle", "test", 0)


def test_requests_hold_what_has_to_be_copied() -> None:
    """Each argument of the first call is said by the user, in the same form or in words."""
    for seed in range(400):
        task = FAMILY.sample_skill("choose", "test", seed)
        for value in task.data["groups"][0][0]["arguments"].values():
            if isinstance(value, str):
                assert value in task.request


def test_the_test_mix_has_many_tools_chains_and_opaque_names() -> None:
    tasks = [FAMILY.sample("test", seed) for seed in range(1500)]
    many = sum(len(task.data["tools"]) >= 4 for task in tasks) / len(tasks)
    chains = sum(task.skill.startswith("chain") for task in tasks) / len(tasks)
    opaque = sum(task.data["opaque"] for task in tasks) / len(tasks)
    assert many >= 0.40
    assert chains >= 0.25
    assert 0.28 <= opaque <= 0.40


def test_opaque_names_share_no_word_with_the_request() -> None:
    for seed in range(600):
        task = FAMILY.sample("test", seed)
        if not task.data["opaque"]:
            continue
        said = set(re.findall(r"[a-z]{3,}", task.request.lower()))
        for group in task.data["groups"]:
            for call in group:
                assert not said & set(call["name"].split("_")), (call["name"], task.request)


def test_episodes_are_short() -> None:
    sizes = []
    for seed in range(500):
        demonstration = FAMILY.demonstrate(FAMILY.sample("train", seed))
        tools = compact_json([tool.to_openai() for tool in demonstration.tools])
        spoken = sum(
            len(m.content) + sum(len(c.id + c.arguments) for c in m.tool_calls) for m in demonstration.messages
        )
        sizes.append(len(tools) + spoken)
    assert sum(sizes) / len(sizes) < 1500
    assert max(sizes) < 4500


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for key, item in value.items() for text in (key, *strings(item))]
    if isinstance(value, list):
        return [text for item in value for text in strings(item)]
    return [value] if isinstance(value, str) else []


def names_and_values(task: Task) -> set[str]:
    """The words of tool names, parameters, enums, arguments and results."""
    texts: list[str] = []
    for tool in task.data["tools"]:
        texts.append(tool["function"]["name"])
        pending = [tool["function"]["parameters"]]
        while pending:
            for name, schema in pending.pop().get("properties", {}).items():
                texts += [name, *schema.get("enum", ())]
                pending.append(schema)
    for group in task.data["groups"]:
        for call in group:
            texts += strings(call["arguments"])
            if not call["error"]:
                texts += strings(json.loads(call["result"]))
    words = {word for text in texts for word in re.findall(r"[a-z]{3,}", text.lower())}
    return {word for word in words if not {word, word.rstrip("s")} & lexicon.SHARED}


def test_training_never_emits_a_held_out_name_or_value() -> None:
    seen: dict[Split, set[str]] = {"train": set(), "test": set()}
    for split in SPLITS:
        for seed in range(1500):
            seen[split] |= names_and_values(FAMILY.sample(split, seed))
    verbs = {lexicon.verbs("train", meaning)[0] for meaning in lexicon.VERBS}
    assert len(seen["test"]) > 1000
    assert not (seen["test"] & seen["train"]) - verbs


@pytest.mark.parametrize("split", SPLITS)
def test_training_never_uses_a_held_out_frame(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    used: Counter[Frame] = Counter()
    fill = Frame.fill

    def recorded(frame: Frame, *arguments: Any) -> Any:
        used[frame] += 1
        return fill(frame, *arguments)

    monkeypatch.setattr(Frame, "fill", recorded)
    for seed in range(1200):
        FAMILY.sample(split, seed)
    other: Split = "test" if split == "train" else "train"
    assert used
    assert not any(frame in used for book in BOOKS.values() for frame in book.by_split[other])


def wrong(task: Task, change: str) -> FunctionsWorld:
    """Replay with one thing done wrong."""
    world = FunctionsWorld(task)
    if "ask" in task.data and change != "silent":
        world.answer(Message("assistant", task.data["ask"]["question"]))
    calls = [expected for group in task.data["groups"] for expected in group]
    for i, expected in enumerate(calls):
        arguments = dict(expected["arguments"])
        if change == "value" and i == len(calls) - 1:
            key = next(iter(arguments))
            old = arguments[key]
            arguments[key] = (
                (not old) if isinstance(old, bool) else old + 1 if isinstance(old, int | float) else "wrong"
            )
        if change == "skip" and i == len(calls) - 1:
            continue
        world.execute(ToolCall("x", expected["name"], compact_json(arguments)))
    if change == "extra":
        world.execute(ToolCall("x", calls[-1]["name"], compact_json(calls[-1]["arguments"])))
    return world


WRONG = [
    (skill, change)
    for skill in ("single", "choose", "parallel", "chain2", "chain3", "repair", "ask")
    for change in ("value", "skip", "extra", "answer", *(("silent",) if skill == "ask" else ()))
]


@pytest.mark.parametrize(("skill", "change"), WRONG)
def test_what_is_wrong_fails(skill: str, change: str) -> None:
    failed = 0
    for seed in range(30):
        task = FAMILY.sample_skill(skill, "test", seed)
        last = task.data["groups"][-1][-1]["arguments"]
        if change == "value" and (not last or isinstance(next(iter(last.values())), list | dict)):
            continue
        answer = "The thing is done." if change == "answer" else task.data["answer"]
        world = wrong(task, "" if change == "answer" else change)
        flag = isinstance(task.data["must_say"][0], bool)
        if change == "answer" and flag:
            continue
        verdict = world.judge([Message("assistant", answer)])
        assert verdict.passed is False
        assert verdict.reason
        failed += 1
    assert failed > 15


def test_a_call_fails_where_no_tool_fits() -> None:
    task = FAMILY.sample_skill("none", "test", 3)
    tool = FunctionsWorld(task).tools[0]
    arguments = {name: example(schema) for name, schema in tool.parameters["properties"].items()}
    world = FunctionsWorld(task)
    world.execute(ToolCall("x", tool.name, compact_json(arguments)))
    assert world.judge([Message("assistant", task.data["answer"])]).passed is False
    assert FunctionsWorld(task).judge([Message("assistant", "Sure, it is done.")]).passed is False
    assert FunctionsWorld(task).judge([Message("assistant", "Sorry, none of my tools can do this.")]).passed


def example(schema: dict[str, Any]) -> Any:
    if "enum" in schema:
        return schema["enum"][0]
    plain: dict[str, Any] = {"string": "x", "integer": 1, "number": 1.5, "boolean": True, "array": []}
    if schema["type"] == "object":
        return {name: example(item) for name, item in schema["properties"].items()}
    return plain[schema["type"]]


def test_bad_calls_get_useful_errors_and_change_nothing() -> None:
    task = FAMILY.sample_skill("single", "test", 1)
    world = FunctionsWorld(task)
    name = world.tools[0].name
    for call, problem in (
        (ToolCall("x", "nothing", "{}"), "there is no tool nothing"),
        (ToolCall("x", name, "{"), "not a JSON object"),
        (ToolCall("x", name, "[]"), "not a JSON object"),
        (ToolCall("x", name, '{"zzz":1}'), "is missing"),
        (ToolCall("x", name, '{"zzz":' * 100_000), "not a JSON object"),
        (ToolCall("x", name, '{"zzz":1e999}'), "not a JSON object"),
        (ToolCall("x", name, r'{"\ud800":1}'), "half a character"),
        (ToolCall("x", name, r'{"zzz":["\udfff"]}'), "half a character"),
        (ToolCall("x", "\ud800", "{}"), "there is no tool ?"),
    ):
        result = world.execute(call)
        assert result.error
        assert problem in result.content
        result.content.encode()
    demonstration = FAMILY.demonstrate(task)
    for message in demonstration.messages:
        for call in message.tool_calls:
            world.execute(call)
    assert world.judge(demonstration.messages).passed


def test_the_same_call_again_returns_the_same_and_counts_against_it() -> None:
    task = FAMILY.sample_skill("single", "test", 3)
    world = FunctionsWorld(task)
    demonstration = FAMILY.demonstrate(task)
    (call,) = [call for message in demonstration.messages for call in message.tool_calls]
    first = world.execute(call)
    assert not first.error and world.execute(call) == first
    assert not world.judge(demonstration.messages).passed


def test_the_user_answers_once_and_only_when_asked() -> None:
    task = FAMILY.sample_skill("ask", "test", 2)
    world = FunctionsWorld(task)
    assert world.answer(Message("assistant", "Hello.")) is None
    assert world.answer(Message("assistant", "What do you want exactly?")) == Message("user", task.data["ask"]["reply"])
    assert world.answer(Message("assistant", "And what else?")) is None


def test_json_equality() -> None:
    assert same(3, 3.0) and same({"a": [1]}, {"a": [1]})
    assert not same(1, True) and not same("1", 1) and not same({"a": 1}, {}) and not same([1], [1, 2])


@pytest.mark.parametrize(
    ("answer", "value", "expected"),
    [
        ("The price is 4.5.", 4.5, True),
        ("The price is 14.5.", 4.5, False),
        ("It costs 42", 42, True),
        ("It costs 42.0 now", 42, True),
        ("It is KR-42.", 42, False),
        ("The owner is Mira Tolan.", "Mira Tolan", True),
        ("The owner is Mira Tolans.", "Mira Tolan", False),
        ("Yes, it is open.", True, True),
        ("No, it is not open.", True, False),
        ("No, it is not open.", False, True),
    ],
)
def test_values_in_answers(answer: str, value: Any, expected: bool) -> None:
    assert states(answer, value) is expected


def test_the_task_data_is_json() -> None:
    task = FAMILY.sample("test", 11)
    assert replace(task, data=json.loads(compact_json(task.data))) == task


@pytest.mark.parametrize(
    ("description", "starts", "expected"),
    [
        ("See the storage that a crate has.", ("crate", "storage"), "storage that a crate has"),
        ("Look up a crate's storage", ("crate", "storage"), "crate's storage"),
        ("Used to pause one silver", ("silver",), "silver"),
        ("Lets you pause a silver of yours.", ("silver",), "silver of yours"),
        ("What is up?", ("crate",), "what is up"),
    ],
)
def test_the_purpose_is_the_description_from_its_first_word_that_matters(
    description: str, starts: tuple[str, ...], expected: str
) -> None:
    assert purpose(description, *starts) == expected


def test_the_words_about_a_thing_never_begin_with_a_verb() -> None:
    """They begin with the thing, its attribute or its plural, which stand before the colon too."""
    for seed in range(300):
        for group in FAMILY.sample("train", seed).data["intents"]:
            for intent in group:
                about, colon, why = intent.removeprefix("For ").partition(": ")
                assert not colon or why.split()[0].rstrip("'s,:") in {w.rstrip("'s") for w in about.split()}, intent


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_turn_before_the_last_begins_with_what_it_is_for(split: Split) -> None:
    for seed in range(150):
        shown = FAMILY.demonstrate(FAMILY.sample(split, seed))
        descriptions = " ".join(tool.description for tool in shown.tools).lower()
        *turns, last = [message for message in shown.messages if message.role == "assistant"]
        for message in turns if turns else [last]:
            assert message.content.startswith("For ")
        for message in turns:
            for part in message.content.split(" Which ")[0].split("; "):
                about, _, why = part.partition(": ")
                assert why.rstrip(".") in descriptions
                assert about.removeprefix("For ").split()[0] in descriptions


def test_intents_do_not_show_in_the_world() -> None:
    """What a demonstration says first is neither offered to the model nor looked at by the verdict."""
    for seed in range(30):
        task = FAMILY.sample("test", seed)
        bare = replace(task, data={key: value for key, value in task.data.items() if key != "intents"})
        shown, plain = FAMILY.demonstrate(task), FAMILY.demonstrate(bare)
        assert shown.tools == plain.tools
        for messages in (shown.messages, plain.messages):
            world = FunctionsWorld(bare)
            for message in messages:
                if message.role == "assistant" and not message.tool_calls:
                    world.answer(message)
                for call in message.tool_calls:
                    world.execute(call)
            assert world.judge(messages).passed, task.request


def test_drills_are_small_and_belong_to_training() -> None:
    family = FunctionsFamily()
    for seed in range(60):
        shown = family.demonstrate(family.sample_skill("pick", "train", seed))
        assert 2 <= len(shown.tools) <= 4
        assert sum(len(message.tool_calls) for message in shown.messages) == 1
        called = {call.name for message in shown.messages for call in message.tool_calls}
        assert [len(tool.parameters["properties"]) for tool in shown.tools if tool.name in called] == [1]
    assert "pick" not in {family.sample("test", seed).skill for seed in range(300)}
    assert "pick" not in mix.proportions("functions", "test")
