"""The routes."""

from __future__ import annotations

import asyncio
import codecs
import hmac
import json
import logging
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, from_json
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from openk2 import __version__
from openk2.core.messages import compact_json
from openk2.serve import anthropic, chat, completions, playground, responses
from openk2.serve.answer import Ready
from openk2.serve.errors import ApiError, invalid, our_fault, unknown_key
from openk2.serve.local import LocalService
from openk2.serve.metrics import Metrics
from openk2.serve.service import Service
from openk2.serve.tokens import TokenizeRequest

_log = logging.getLogger("openk2.serve")
_Body = TypeVar("_Body", bound=BaseModel)
_Result = TypeVar("_Result")
_CLOSED_BY_CLIENT = 499
_KINDS = {
    "list_type": "input should be a valid array",
    "dict_type": "input should be an object",
    "model_type": "input should be an object",
}
"""What is wrong in the words of JSON, not in Python's."""
_SILENCE = 10.0
"""Seconds after which a stream begins although there is nothing to say. Most failures behind are known by then, with
all the times that a server there is tried again."""
_SMALL = 256 << 10
"""Bytes of a body that are read in a few milliseconds."""


def create_app(service: Service) -> FastAPI:
    """The ASGI application for one service."""
    app = _App(title="OpenK2", version=__version__, docs_url=None, redoc_url=None)
    metrics = Metrics(service)
    app.add_middleware(_Watch, metrics=metrics)

    async def read(request: Request, model: type[_Body]) -> tuple[_Body, dict[str, Any]]:
        """The checked body, and the body as it was sent."""
        _authorise(service, request)
        body = await _body(request, service.settings.max_body)
        return _parse(body, model) if len(body) <= _SMALL else await asyncio.to_thread(_parse, body, model)

    @app.post("/v1/chat/completions", openapi_extra=_takes(chat.ChatRequest))
    async def chat_completions(request: Request) -> Response:
        asked, raw = await read(request, chat.ChatRequest)
        ready = await asyncio.to_thread(lambda: service.prepare(asked.asked(service.settings, raw)))
        service.admit(ready.n)
        if asked.stream:
            return _Stream(chat.streamed(ready, asked), ApiError.openai, ready)
        return await _while_there(request, chat.whole(ready, asked))

    @app.post("/v1/responses", openapi_extra=_takes(responses.ResponsesRequest))
    async def respond(request: Request) -> Response:
        asked, _ = await read(request, responses.ResponsesRequest)
        ready = await asyncio.to_thread(lambda: service.prepare(asked.asked(service.settings)))
        service.admit(1)
        if asked.stream:
            return _Stream(responses.streamed(ready, asked), ApiError.openai, ready, named=True)
        return await _while_there(request, responses.whole(ready, asked))

    @app.post("/v1/completions", openapi_extra=_takes(completions.CompletionRequest))
    async def plain_completions(request: Request) -> Response:
        asked, _ = await read(request, completions.CompletionRequest)
        local = _local(service)
        requests = await asyncio.to_thread(asked.requests, local)
        service.admit(len(requests))
        if asked.stream:
            return _Stream(completions.streamed(local, asked, requests), ApiError.openai)
        return await _while_there(request, completions.whole(local, asked, requests))

    @app.post("/anthropic/v1/messages", openapi_extra=_takes(anthropic.MessagesRequest))
    @app.post("/v1/messages", openapi_extra=_takes(anthropic.MessagesRequest))
    async def messages(request: Request) -> Response:
        asked, _ = await read(request, anthropic.MessagesRequest)
        ready = await asyncio.to_thread(lambda: service.prepare(asked.asked(service.settings)))
        service.admit(1)
        if asked.stream:
            return _Stream(anthropic.streamed(ready), ApiError.anthropic, ready, named=True)
        return await _while_there(request, anthropic.whole(ready))

    @app.post("/anthropic/v1/messages/count_tokens", openapi_extra=_takes(anthropic.CountRequest))
    @app.post("/v1/messages/count_tokens", openapi_extra=_takes(anthropic.CountRequest))
    async def count_tokens(request: Request) -> Response:
        asked, _ = await read(request, anthropic.CountRequest)

        async def count() -> dict[str, Any]:
            found = await asyncio.to_thread(asked.asked, service.settings)
            return {"input_tokens": await service.count(found)}

        return await _while_there(request, count())

    @app.post("/v1/tokenizers/estimate-token-count", openapi_extra=_takes(chat.ChatRequest))
    async def estimate(request: Request) -> Response:
        asked, raw = await read(request, chat.ChatRequest)

        async def count() -> dict[str, Any]:
            found = await asyncio.to_thread(asked.asked, service.settings, raw)
            return {"data": {"total_tokens": await service.count(found)}}

        return await _while_there(request, count())

    @app.post("/tokenize", openapi_extra=_takes(TokenizeRequest))
    async def tokenize(request: Request) -> Response:
        asked, raw = await read(request, TokenizeRequest)
        ids = await asyncio.to_thread(asked.ids, _local(service), raw)
        return JSONResponse({"count": len(ids), "max_model_len": service.context, "tokens": ids})

    @app.get("/v1/models")
    async def models(request: Request) -> Response:
        _authorise(service, request)
        return JSONResponse({"object": "list", "data": [_model(service)]})

    @app.get("/v1/models/{name:path}")
    async def model(request: Request, name: str) -> Response:
        _authorise(service, request)
        if name != service.settings.name:
            raise ApiError(404, f"there is no model {name[:80]!r}: this server has {service.settings.name!r}")
        return JSONResponse(_model(service))

    # Some balancers ask for the head alone.
    @app.head("/health", include_in_schema=False)
    @app.get("/health")
    async def health() -> Response:
        return JSONResponse({"status": "ok"})

    @app.get("/metrics")
    async def prometheus() -> Response:
        text, kind = metrics.exposition()
        return Response(text, media_type=kind)

    playground.add_routes(app, service, lambda request: _authorise(service, request), read, _takes)

    async def refuse(request: Request, error: Exception) -> Response:
        own: Mapping[str, str] = {}
        if isinstance(error, HTTPException):
            own = error.headers or {}
            problem = f"{request.method} {request.url.path}: {error.detail}"
            error = ApiError(error.status_code, problem)
        elif isinstance(error, ClientDisconnect):
            return Response(status_code=_CLOSED_BY_CLIENT)
        elif not isinstance(error, ApiError):
            _log.error("request failed", exc_info=error)
            error = our_fault()
        if error.status >= 500 and error.__cause__ is not None:
            _log.error("the engine failed", exc_info=error.__cause__)
        headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
        return JSONResponse(_shape(request.url.path)(error), error.status, {**own, **headers})

    for kind in (ApiError, HTTPException, ClientDisconnect, Exception):
        app.add_exception_handler(kind, refuse)
    app.bodies = (
        chat.ChatRequest,
        responses.ResponsesRequest,
        completions.CompletionRequest,
        anthropic.MessagesRequest,
        anthropic.CountRequest,
        TokenizeRequest,
        *playground.BODIES,
    )
    return app


def _shape(path: str) -> Callable[[ApiError], dict[str, Any]]:
    """How errors of a route are written."""
    anthropic = path.startswith(("/v1/messages", "/anthropic"))
    return ApiError.anthropic if anthropic else ApiError.openai


def _takes(model: type[BaseModel]) -> dict[str, Any]:
    """What OpenAPI is told of a body that the route reads itself."""
    reference = {"$ref": f"#/components/schemas/{model.__name__}"}
    refused = {"description": "One sentence that names the field.", "content": {"application/json": {}}}
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": reference}}},
        "responses": {"400": refused},
    }


class _App(FastAPI):
    """With the bodies that `_takes` refers to in its OpenAPI document."""

    bodies: Sequence[type[BaseModel]] = ()

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            document = get_openapi(title=self.title, version=self.version, routes=self.routes)
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            for body in self.bodies:
                # Parts of different bodies may have the same name.
                schema = body.model_json_schema(ref_template=f"#/components/schemas/{body.__name__}.{{model}}")
                parts = schema.pop("$defs", {})
                schemas |= {body.__name__: schema} | {f"{body.__name__}.{name}": part for name, part in parts.items()}
            self.openapi_schema = document
        return self.openapi_schema


def _model(service: Service) -> dict[str, Any]:
    card: dict[str, Any] = {"id": service.settings.name, "object": "model", "created": 0, "owned_by": "openk2"}
    return card if service.context is None else card | {"max_model_len": service.context}


def _local(service: Service) -> LocalService:
    """The service, for routes that need the model's ids. Raises ApiError if the model is not here."""
    if isinstance(service, LocalService):
        return service
    raise ApiError(404, "this route needs the model's token ids, and the model is behind another server: ask that one")


def _authorise(service: Service, request: Request) -> None:
    keys = service.settings.keys
    if not keys:
        return
    given = request.headers.get("x-api-key")
    if not given:
        scheme, _, rest = (header := request.headers.get("authorization", "")).partition(" ")
        given = rest if scheme.lower() == "bearer" else header
    # Headers are bytes, and are here as Latin-1; the keys' file is in UTF-8.
    if sum(hmac.compare_digest(key.encode(), given.encode("latin-1")) for key in keys) == 0:
        raise unknown_key()


async def _body(request: Request, most: int) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise ApiError(413, f"the body is larger than {most} bytes: send less", code="request_too_large")
        parts.append(part)
    return b"".join(parts)


def _parse(body: bytes, model: type[_Body]) -> tuple[_Body, dict[str, Any]]:
    try:
        # Not in one with what follows: each holds the interpreter, and in between others have their turn.
        raw = from_json(body.removeprefix(codecs.BOM_UTF8))
    except ValueError as e:
        raise invalid(None, f"the body is not JSON ({e})") from None
    if not isinstance(raw, dict):
        raise invalid(None, "the body is no JSON object")
    try:
        return model.model_validate(raw), raw
    except ValidationError as e:
        error = _meant(e.errors(include_url=False))
        raise invalid(".".join(_path(error["loc"])) or None, _problem(error)) from None


def _meant(errors: list[ErrorDetails]) -> ErrorDetails:
    """The first error. Of a union every alternative has its own: the one that is meant fits until far inside."""
    field = _path(errors[0]["loc"])
    of_field = [error for error in errors if _path(error["loc"])[: len(field)] == field]
    return max(of_field, key=lambda error: (error["type"] == "too_long", len(_path(error["loc"]))))


def _path(location: tuple[int | str, ...]) -> list[str]:
    """Where a field is, without the alternatives of unions, which pydantic names in it."""
    parts = [str(part) for part in location if not (isinstance(part, str) and not part.replace("_", "").islower())]
    return [part for part in parts if part not in ("str", "int", "float", "bool") and "[" not in part]


def _problem(error: ErrorDetails) -> str:
    """What is wrong with a field."""
    kind, given = error["type"], error["input"]
    if kind == "too_long":
        there, most = error["ctx"]["actual_length"] or "more", error["ctx"]["max_length"]
        return f"there are {there}, and at most {most} are allowed"
    if kind == "literal_error" and isinstance(given, str):
        return f"{given[:40]!r} is not served here: use {error['ctx']['expected']}"
    return _KINDS.get(kind) or error["msg"][:1].lower() + error["msg"][1:]


class _Stream(EventSourceResponse):
    """Server-sent events. With `named`, each says its type.

    They begin when there is something to say: until then a refusal has a status. They also begin after some seconds of
    silence, as what is between here and the client takes a longer one for a failure. An error after the beginning is
    one more of them.
    """

    def __init__(
        self,
        chunks: AsyncGenerator[str, None],
        shape: Callable[[ApiError], dict[str, Any]],
        ready: Ready | None = None,
        *,
        named: bool = False,
    ) -> None:
        self._source = self._events()
        super().__init__(self._source, sep="\n")
        self._chunks = chunks
        self._shape = shape
        self._ready = ready
        self._named = named

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._beginning = asyncio.ensure_future(self._begin())
        try:
            if await _done(receive, asyncio.wait((self._beginning,), timeout=_SILENCE)) is None:
                return
            if self._beginning.done():
                self._beginning.result()
            # Given up at once when the client goes away, not when its memory is collected.
            async with aclosing(self._source):
                await super().__call__(scope, receive, send)
        finally:
            self._beginning.cancel()
            await asyncio.gather(self._beginning, return_exceptions=True)

    async def _begin(self) -> None:
        if self._ready is not None:
            await self._ready.begin()

    async def _events(self) -> AsyncGenerator[ServerSentEvent, None]:
        try:
            await self._beginning
            async with aclosing(self._chunks):
                async for chunk in self._chunks:
                    yield self._event(chunk)
        except ApiError as e:
            if e.__cause__ is not None:
                _log.error("the engine failed", exc_info=e.__cause__)
            yield self._event(compact_json(self._shape(e)))
        except Exception as e:
            # The stream has begun: it ends with the error, and not in the middle of a chunk.
            _log.error("request failed", exc_info=e)
            yield self._event(compact_json(self._shape(our_fault())))

    def _event(self, data: str) -> ServerSentEvent:
        # Some clients take these for the end of a line, as Python does.
        for end in "\x85\u2028\u2029":
            data = data.replace(end, f"\\u{ord(end):04x}")
        return ServerSentEvent(data, event=json.loads(data).get("type", "error") if self._named else None, sep="\n")


async def _while_there(request: Request, answer: Coroutine[Any, Any, dict[str, Any]]) -> Response:
    """The answer as JSON; given up when the client goes away."""
    done = await _done(request.receive, answer)
    if done is None:
        return Response(status_code=_CLOSED_BY_CLIENT)
    return Response(compact_json(done.result()), media_type="application/json")


async def _done(receive: Receive, work: Coroutine[Any, Any, _Result]) -> asyncio.Future[_Result] | None:
    """The work when it is done; None if the client has gone away before. Raises what it raises."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            return None
        working.result()
        return working
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class _Watch:
    """Counts requests, and logs each in one line of JSON, without what was said in it."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), _CLOSED_BY_CLIENT

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            seconds = time.perf_counter() - start
            route = scope.get("route")
            path = getattr(route, "path", "unknown")
            self._metrics.note(path, status, seconds)
            line = {"method": scope["method"], "path": scope["path"][:200], "status": status}
            # ASCII: a path may have characters in it that some readers take for the end of a line.
            _log.info(json.dumps(line | {"seconds": round(seconds, 4)}))
