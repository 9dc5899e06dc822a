"""The page at `/`, and what it needs besides the API: tasks in a simulated world, and a look into the tokens.

The server keeps nothing of a conversation. A world is deterministic, so each request carries the whole conversation and
its calls are made again in a fresh world; what comes of the last turn is the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Protocol, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from openk2.core import Limits, Message, Task, UserError, Verdict, World
from openk2.core.families import get_family, sample_task
from openk2.serve.chat import ChatRequest
from openk2.serve.errors import ApiError, invalid
from openk2.serve.fields import Ids
from openk2.serve.inspection import Inspected, Inspector
from openk2.serve.local import LocalService
from openk2.serve.prompt import engine_requests
from openk2.serve.service import Service

_FAMILY = "functions"
_MOST_CALLS = 128
_MOST_INSPECTED = 8192
_FILES = {
    "index.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "api.js": "text/javascript; charset=utf-8",
    "view.js": "text/javascript; charset=utf-8",
    "inspector.js": "text/javascript; charset=utf-8",
    "storage.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_HEADERS = {
    # Nothing from elsewhere, no inline code, and no page of others around ours.
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}

_Body = TypeVar("_Body", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class _Offer:
    """A held-out task that the page offers, and what it shows."""

    seed: int
    title: str
    about: str


# Tasks of the test split that the embedded nano solves. Whether it does is the world's verdict each time.
_OFFERS = (
    _Offer(1062, "Pick the right tool", "Four tools are declared and one of them fits."),
    _Offer(1176, "Follow a chain", "Each call needs what the one before it returned."),
    _Offer(1597, "Recover from an error", "The first call is refused, and the result says why."),
)


class TurnRequest(ChatRequest):
    """The conversation about a task up to the model's last turn."""

    task: str


class InspectRequest(ChatRequest):
    """A request for chat, and the ids that it was answered with."""

    token_ids: Ids


BODIES: tuple[type[BaseModel], ...] = (TurnRequest, InspectRequest)


class Read(Protocol):
    """Checks the key and the body of a request, and returns the body also as it was sent."""

    def __call__(self, request: Request, model: type[_Body]) -> Awaitable[tuple[_Body, dict[str, Any]]]: ...


def add_routes(
    app: FastAPI,
    service: Service,
    authorise: Callable[[Request], None],
    read: Read,
    takes: Callable[[type[BaseModel]], dict[str, Any]],
) -> None:
    """Adds the page, which anybody may have, and its routes. `takes` says in OpenAPI what body a route has."""
    one_at_a_time = asyncio.Semaphore(1)
    inspectors = cache(Inspector)

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return _file("index.html")

    @app.get("/page/{name}", include_in_schema=False)
    async def file(name: str) -> Response:
        return _file(name)

    @app.get("/playground")
    async def offers(request: Request) -> Response:
        authorise(request)
        tasks = await asyncio.to_thread(_tasks)
        shown = [_shown(offer, task) for offer, task in zip(_OFFERS, tasks.values(), strict=True)]
        about = {"model": service.settings.name, "context": service.context}
        return JSONResponse(about | {"inspector": isinstance(service, LocalService), "tasks": shown})

    @app.post("/playground/turn", openapi_extra=takes(TurnRequest))
    async def turn(request: Request) -> Response:
        asked, raw = await read(request, TurnRequest)

        def answer() -> dict[str, Any]:
            messages = list(asked.asked(service.settings, raw).messages)
            return asyncio.run(_turn(asked.task, messages))

        return JSONResponse(await asyncio.to_thread(answer))

    @app.post("/playground/inspect", openapi_extra=takes(InspectRequest))
    async def inspect(request: Request) -> Response:
        asked, raw = await read(request, InspectRequest)
        if not isinstance(service, LocalService):
            raise ApiError(404, "tokens cannot be inspected: the model is behind another server, and ids are not known")
        service.admit(1)
        async with one_at_a_time:
            answer = await asyncio.to_thread(lambda: _inspect(service, inspectors(service.engine), asked, raw))
        return JSONResponse(answer)


@cache
def _content(name: str) -> bytes:
    return files("openk2.serve").joinpath("page", name).read_bytes()


def _file(name: str) -> Response:
    if name not in _FILES:
        raise ApiError(404, f"the page has no file {name[:80]!r}")
    return Response(_content(name), media_type=_FILES[name], headers=_HEADERS)


@cache
def _tasks() -> dict[str, Task]:
    tasks = [sample_task(_FAMILY, "test", offer.seed) for offer in _OFFERS]
    return {task.id: task for task in tasks}


def _shown(offer: _Offer, task: Task) -> dict[str, Any]:
    tools = [tool.to_openai() for tool in get_family(_FAMILY).world(task).tools]
    return {"id": task.id, "title": offer.title, "about": offer.about, "request": task.request, "tools": tools}


async def _turn(name: str, messages: list[Message]) -> dict[str, Any]:
    """What the world says to the last turn: results of its calls, a user's reply, or the verdict. Raises ApiError."""
    task = _tasks().get(name)
    if task is None:
        raise invalid("task", f"there is no task {name[:80]!r}: use one of {', '.join(_tasks())}")
    turns = [message for message in messages if message.role == "assistant"]
    if not messages or messages[-1].role != "assistant":
        raise invalid("messages", "the last one is not the assistant's: the world answers what the model said")
    calls = sum(len(message.tool_calls) for message in turns)
    if calls > _MOST_CALLS:
        raise invalid("messages", f"there are {calls} calls in them, and at most {_MOST_CALLS} are made")
    world = get_family(_FAMILY).world(task)
    try:
        await world.start(task)
        said: list[dict[str, Any]] = []
        for message in turns:
            said = await _answer(world, message)
        verdict = None
        if not said:
            verdict = await world.verify(messages)
        elif len(turns) >= Limits().steps:
            verdict = Verdict(False, f"not finished after {len(turns)} turns")
    finally:
        await world.close()
    judged = None if verdict is None else {"passed": verdict.passed, "reason": verdict.reason}
    return {"messages": said, "verdict": judged}


async def _answer(world: World, message: Message) -> list[dict[str, Any]]:
    """Messages that follow a turn; none where the conversation is over."""
    if not message.tool_calls:
        reply = await world.reply(message)
        return [] if reply is None else [reply.to_openai()]
    results = []
    for call in message.tool_calls:
        result = await world.call(call)
        returned = Message("tool", result.content, tool_call_id=call.id, name=call.name)
        results.append(returned.to_openai() | {"error": result.error})
    return results


def _inspect(service: LocalService, inspector: Inspector, asked: InspectRequest, raw: dict[str, Any]) -> dict[str, Any]:
    """Every id of an answer. Heavy. Raises ApiError."""
    requests, _ = engine_requests(service.engine, asked.asked(service.settings, raw))
    prompt, ids = requests[0].prompt_ids, asked.token_ids
    if len(prompt) + len(ids) > _MOST_INSPECTED:
        problem = f"with the prompt there are {len(prompt) + len(ids)}, and at most {_MOST_INSPECTED} can be inspected"
        raise invalid("token_ids", problem)
    try:
        inspected = inspector.inspect(requests[0], ids)
    except UserError as e:
        raise invalid("token_ids", str(e)) from None
    return {
        "prompt_tokens": len(prompt),
        "vocabulary": service.tokenizer.vocab_size,
        "experts": service.engine.config.n_routed_experts,
        "layers": inspector.layers,
        "tokens": [_token(service, one) for one in inspected],
    }


def _token(service: LocalService, one: Inspected) -> dict[str, Any]:
    def text(token: int) -> str:
        return service.tokenizer.shown(token).decode("utf-8", "replace")

    return {
        "id": one.id,
        "text": text(one.id),
        "logprob": one.logprob,
        "allowed": one.allowed,
        "experts": one.experts,
        "top": [{"id": token, "text": text(token), "logprob": logprob} for token, logprob in one.top],
    }
