"""Is a streamed answer the same message as a whole one? A black-box test of any server with OpenAI's chat route.

Each case is asked twice, once as a stream, with temperature 0 and the same seed, many cases at the same time. What is
checked is what agents break on: both answers are the same, every chunk can be read, calls name declared tools and have
arguments that satisfy their schemas, ids differ, and no marker of a chat format is in the text. A case whose whole
answer is another one when it is asked again says nothing about streams, and is counted apart; so is one that the
server refuses. An answer that cannot be read fails its case, and is compared with nothing.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from typing import Any

import httpx2
from jsonschema import Draft202012Validator
from rich.table import Table

from openk2.core import UserError
from openk2.core.errors import first_alone
from openk2.core.messages import compact_json
from openk2.core.progress import ConsoleReporter, new_console
from openk2.core.rates import Tally
from openk2.policy.addresses import check_address
from openk2.policy.events import read_events

CHECKS = {
    "same": "streamed and whole are the same message",
    "events": "every answer and chunk can be read, in an order that makes sense",
    "names": "calls name declared tools",
    "arguments": "arguments satisfy the tool's schema",
    "ids": "ids of calls are there and differ",
    "markers": "no marker of a chat format is in the text",
    "finish": "the reason for the end fits the message",
}
SHOWN = 5
_MARKERS = re.compile(r"<\|(tool_call|im_|start_header)|</?tool_call>|\[TOOL_CALLS\]|<function=")
_TIMEOUT = 300.0
_QUOTED = 120
"""So many characters of what a server says are repeated."""
_UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""What reading an answer raises that has another shape, or is no JSON."""

_CUT = (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.DecodingError)
"""What is raised where a server hangs up in the middle, or says nothing that can be unpacked."""


@dataclass(frozen=True, slots=True)
class Case:
    """A request, and what it is about."""

    kind: str
    body: dict[str, Any]


@dataclass(slots=True)
class Told:
    """What a client knows at the end, of the first choice."""

    content: str = ""
    calls: list[dict[str, str]] = field(default_factory=list)
    finish: str | None = None
    problems: list[str] = field(default_factory=list)
    """With reading it."""

    def same(self, other: Told) -> bool:
        return (self.content, self.calls, self.finish) == (other.content, other.calls, other.finish)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A server's no."""

    status: int
    reason: str

    def __str__(self) -> str:
        return f"status {self.status}, {self.reason!r}"


@dataclass(slots=True)
class Report:
    """What was found."""

    base_url: str
    cases: int
    refused: int = 0
    refusal: Refusal | None = None
    """The first one."""
    unrepeatable: int = 0
    checks: dict[str, Tally] = field(default_factory=lambda: {name: Tally() for name in CHECKS})
    failures: list[dict[str, Any]] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return all(tally.passed == tally.n for tally in self.checks.values()) and self.refused < self.cases

    def to_json(self) -> dict[str, Any]:
        return {
            "base_url": self.base_url,
            "passed": self.passed,
            "cases": self.cases,
            "refused": self.refused,
            "first_refusal": asdict(self.refusal) if self.refusal else None,
            "unrepeatable": self.unrepeatable,
            "checks": {name: tally.to_json() for name, tally in self.checks.items()},
            "failures": self.failures[:SHOWN],
        }


_SCHEMAS: dict[str, dict[str, Any]] = {
    "get_weather": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "set_alarm": {
        "type": "object",
        "properties": {
            "hour": {"type": "integer", "minimum": 0, "maximum": 23},
            "days": {"type": "array", "items": {"enum": ["mon", "tue", "wed"]}, "minItems": 1, "maxItems": 3},
        },
        "required": ["hour", "days"],
    },
    "write_note": {
        "type": "object",
        "properties": {
            "title": {"type": "string", "maxLength": 40},
            "body": {"type": "string"},
            "place": {
                "type": "object",
                "properties": {
                    "name": {"enum": ["Café", "\u6771\u4eac", 'the "Inn"']},
                    "floor": {"type": ["integer", "null"]},
                },
                "required": ["name"],
            },
        },
        "required": ["title", "body"],
    },
}
_REQUESTS = (
    "What is the weather in Paris?",
    "Wake me at seven on Monday and Tuesday, and note that I have to call the Caf\u00e9.",
    'Write a note with the title \u6771\u4eac and a long text, with "quotes", back\\slashes and\nlines.',
    "Say hello and nothing else.",
    "How is the weather in Oslo and in Rome? Ask for both at once.",
    "Explain in a few sentences what a token is. \U0001f44d",
)
_TOOLS = [
    {"type": "function", "function": {"name": name, "description": f"{name.replace('_', ' ')}.", "parameters": schema}}
    for name, schema in _SCHEMAS.items()
]


def make_cases(count: int, seed: int, model: str) -> list[Case]:
    """The same for the same arguments: text, calls of every kind, answers in JSON, stop texts, and cuts everywhere."""
    rng = random.Random(seed)
    cases = []
    for number in range(count):
        body: dict[str, Any] = {
            "model": model,
            "messages": [{"role": "user", "content": rng.choice(_REQUESTS)}],
            "temperature": 0,
            "seed": rng.randrange(2**31),
            "max_tokens": rng.choice([1, 2, 3, 5, 8, 13, 30, 60, 120, 250]),
        }
        kind = ("text", "auto", "required", "named", "history", "json", "stop")[number % 7]
        if kind in ("auto", "required", "named", "history"):
            body["tools"] = _TOOLS
        if kind == "required":
            body["tool_choice"], body["max_tokens"] = "required", rng.choice([120, 250])
        elif kind == "named":
            name = rng.choice(list(_SCHEMAS))
            body["tool_choice"] = {"type": "function", "function": {"name": name}}
            body["max_tokens"] = rng.choice([120, 250])
        elif kind == "history":
            function = {"name": "get_weather", "arguments": '{"city": "Paris"}'}
            calls = [{"id": "call_1", "type": "function", "function": function}]
            body["messages"] += [
                {"role": "assistant", "content": "", "tool_calls": calls},
                {"role": "tool", "tool_call_id": "call_1", "content": "12 \u00b0C, rain"},
                {"role": "user", "content": "And in Rome?"},
            ]  # fmt: skip
        elif kind == "json":
            body["max_tokens"] = 250
            body["messages"][0]["content"] += " Answer in JSON."
            schema = {"name": "answer", "schema": _SCHEMAS["set_alarm"]}
            body["response_format"] = rng.choice(
                [{"type": "json_object"}, {"type": "json_schema", "json_schema": schema}]
            )
        elif kind == "stop":
            body["stop"] = rng.sample(["e", " a", "the", ".", "\n"], 2)
        cases.append(Case(kind, body))
    return cases


async def test_streams(base_url: str, cases: list[Case], *, concurrency: int = 8, key: str = "none") -> Report:
    """Ask all cases. Raises UserError when the server cannot be reached or has no such route."""
    check_address(base_url)
    report = Report(base_url, len(cases))
    gate, reporter = asyncio.Semaphore(concurrency), ConsoleReporter()
    url = base_url.rstrip("/").removesuffix("/v1") + "/v1/chat/completions"
    async with httpx2.AsyncClient(timeout=_TIMEOUT, headers={"Authorization": f"Bearer {key}"}) as client:
        with reporter.stage("cases") as bar:
            done = 0

            async def one(case: Case) -> None:
                nonlocal done
                async with gate:
                    await _ask(client, url, case, report)
                done += 1
                bar(done, len(cases))

            try:
                with first_alone():
                    async with asyncio.TaskGroup() as group:
                        for case in cases:
                            group.create_task(one(case))
            except httpx2.HTTPError as failure:
                raise UserError(
                    f"{url} cannot be used ({type(failure).__name__}: {failure}): is a server running there? Name it "
                    "in --base-url"
                ) from failure
    return report


async def _ask(client: httpx2.AsyncClient, url: str, case: Case, report: Report) -> None:
    whole = await _whole(client, url, case.body)
    streamed = await _streamed(client, url, case.body)
    for answer in (whole, streamed):
        if isinstance(answer, Refusal):
            report.refusal = report.refusal or answer
    if isinstance(whole, Refusal) and isinstance(streamed, Refusal):
        report.refused += 1
        return
    if isinstance(whole, Refusal) or isinstance(streamed, Refusal):
        _note(report, case, "same", ["one of the two was refused"])
        return
    _note(report, case, "events", whole.problems + streamed.problems)
    if whole.problems:
        return
    differ = [] if whole.same(streamed) else [f"whole {_short(whole)}, streamed {_short(streamed)}"]
    if differ and not await _repeats(client, url, case, whole):
        report.unrepeatable += 1
    else:
        _note(report, case, "same", differ)
    declared = {tool["function"]["name"] for tool in case.body.get("tools", [])}
    for told in (whole, streamed):
        names = [call["name"] for call in told.calls]
        _note(report, case, "names", [f"{name!r} is not declared" for name in names if name not in declared])
        if told.calls:
            good = (call for call in told.calls if call["name"] in declared)
            _note(report, case, "arguments", [wrong for call in good if (wrong := _wrong_arguments(call)) is not None])
            ids = [call["id"] for call in told.calls]
            _note(report, case, "ids", [] if all(ids) and len(set(ids)) == len(ids) else [f"ids {ids}"])
        leaked = _MARKERS.search(told.content)
        _note(report, case, "markers", [f"{leaked[0]!r} in the text"] if leaked else [])
        _note(report, case, "finish", [] if _fits(told) else [f"finish_reason {told.finish!r} with {len(names)} calls"])


async def _repeats(client: httpx2.AsyncClient, url: str, case: Case, whole: Told) -> bool:
    """Whether the answer is the same when it is asked for again."""
    again = await _whole(client, url, case.body)
    return isinstance(again, Told) and again.same(whole)


def _note(report: Report, case: Case, check: str, problems: list[str]) -> None:
    report.checks[check].add(not problems)
    if problems:
        report.failures.append({"check": check, "kind": case.kind, "problem": problems[0][:300], "request": case.body})


def _short(told: Told) -> str:
    return compact_json({"content": told.content[-80:], "calls": told.calls, "finish": told.finish})[:140]


def _fits(told: Told) -> bool:
    if told.finish == "tool_calls":
        return bool(told.calls)
    return told.finish == "length" or (told.finish == "stop" and not told.calls)


def _wrong_arguments(call: dict[str, str]) -> str | None:
    try:
        Draft202012Validator(_SCHEMAS[call["name"]]).validate(json.loads(call["arguments"]))
    except Exception as e:  # JSON's and the schema's errors alike: the arguments are wrong
        return f"{call['name']}({call['arguments'][:120]}): {str(e).splitlines()[0]}"
    return None


async def _whole(client: httpx2.AsyncClient, url: str, body: dict[str, Any]) -> Told | Refusal:
    try:
        answer = await client.post(url, json=body)
    except _CUT as e:
        return Told(problems=[f"the whole answer breaks off: {e}"])
    if answer.status_code != 200:
        return _refusal(url, answer)
    try:
        choice = json.loads(answer.content)["choices"][0]
        message = choice["message"]
        calls = [{"id": _text(call, "id"), **_function(call)} for call in message.get("tool_calls") or []]
        return Told(_text(message, "content"), calls, choice["finish_reason"])
    except _UNREADABLE:
        return Told(problems=[f"the whole answer cannot be read: {answer.text[:_QUOTED]!r}"])


async def _streamed(client: httpx2.AsyncClient, url: str, body: dict[str, Any]) -> Told | Refusal:
    told = Told()
    async with client.stream("POST", url, json=body | {"stream": True}) as answer:
        if answer.status_code != 200:
            await answer.aread()
            return _refusal(url, answer)
        ended = False
        try:
            async with aclosing(read_events(answer)) as events:
                async for event in events:
                    ended = event.is_last
                    if not ended:
                        _take(told, event.data)
        except (*_CUT, UnicodeDecodeError) as e:
            told.problems.append(f"the stream breaks off: {e}")
        if not ended:
            told.problems.append("the stream does not end with [DONE]")
    if told.finish is None:
        told.problems.append("no chunk has a finish_reason")
    return told


def _take(told: Told, data: str) -> None:
    """One chunk."""
    try:
        choices = json.loads(data)["choices"]
        if choices:
            _add(told, choices[0]["delta"], choices[0].get("finish_reason"))
    except _UNREADABLE:
        told.problems.append(f"a chunk cannot be read: {data[:_QUOTED]!r}")


def _add(told: Told, delta: dict[str, Any], finish: str | None) -> None:
    if told.finish is not None and (delta.get("content") or delta.get("tool_calls")):
        told.problems.append("text or calls come behind the end")
    told.content += _text(delta, "content")
    for call in delta.get("tool_calls") or []:
        index, piece = call.get("index"), _function(call)
        if index == len(told.calls):
            if not piece["name"]:
                told.problems.append("a call begins without a name")
            told.calls.append({"id": _text(call, "id"), "name": piece["name"], "arguments": ""})
        elif not isinstance(index, int) or not 0 <= index < len(told.calls):
            told.problems.append(f"index {index} of a call does not follow")
            continue
        told.calls[index]["arguments"] += piece["arguments"]
    told.finish = finish or told.finish


def _function(call: dict[str, Any]) -> dict[str, str]:
    function = call.get("function") or {}
    return {"name": _text(function, "name"), "arguments": _text(function, "arguments")}


def _text(holder: dict[str, Any], name: str) -> str:
    """A field that is a text or left out. Raises TypeError if it is something else."""
    value = holder.get(name)
    if not isinstance(value, str | None):
        raise TypeError(f"{name} is no text")
    return value or ""


def _refusal(url: str, answer: httpx2.Response) -> Refusal:
    """Raises UserError unless it is this request that the server does not want."""
    status, text = answer.status_code, answer.text[:_QUOTED]
    if status in (401, 403, 404, 405):
        raise UserError(f"{url} answers {status} ({text!r}): check --base-url, the model's name and the key")
    return Refusal(status, text)


def run_stream_test(base_url: str, *, model: str, n: int, seed: int, concurrency: int, key: str, as_json: bool) -> bool:
    """Ask and print; whether all is well."""
    report = asyncio.run(test_streams(base_url, make_cases(n, seed, model), concurrency=concurrency, key=key))
    if as_json:
        print(json.dumps(report.to_json(), ensure_ascii=False))
        return report.passed
    table = Table(box=None, pad_edge=False)
    for column, side in (("check", "left"), ("passed", "right"), ("of", "right")):
        table.add_column(column, justify="right" if side == "right" else "left")
    for name, tally in report.checks.items():
        table.add_row(CHECKS[name], str(tally.passed), str(tally.n))
    console = new_console()
    console.print(table)
    console.print(
        f"{report.cases} cases, {report.refused} refused by the server, {report.unrepeatable} whose answer changes"
    )
    if report.refusal is not None:
        console.print(f"  first refusal: {report.refusal}", markup=False)
    for failure in report.failures[:SHOWN]:
        console.print(f"  {failure['check']} ({failure['kind']}): {failure['problem']}", markup=False)
    return report.passed
