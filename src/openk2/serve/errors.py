"""What a request is refused with: a status, a kind, and one sentence that names the field."""

from __future__ import annotations

from typing import Any

INVALID = "invalid_request_error"

_ANTHROPIC = {
    400: INVALID,
    401: "authentication_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


class ApiError(Exception):
    """A refusal.

    Args:
        status: the HTTP status.
        message: one sentence.
        kind: OpenAI's `type`, as Moonshot's platform names it.
        field: the field that is wrong, OpenAI's `param`.
        code: a word for machines.
        retry_after: seconds after which to ask again.
        details: more for machines, in Anthropic's words.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = INVALID,
        field: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.field = field
        self.code = code
        self.retry_after = retry_after
        self.details = details

    def openai(self) -> dict[str, Any]:
        """The error object of OpenAI's API."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.field, "code": self.code}}

    def anthropic(self) -> dict[str, Any]:
        """The error object of Anthropic's API."""
        kind = _ANTHROPIC.get(self.status, INVALID if self.status < 500 else "api_error")
        error: dict[str, Any] = {"type": kind, "message": self.message}
        return {"type": "error", "error": error | ({} if self.details is None else {"details": self.details})}


def invalid(field: str | None, problem: str, code: str | None = None) -> ApiError:
    """A request that is wrong in one field; the sentence begins with its name."""
    return ApiError(400, f"{field}: {problem}" if field else problem, field=field, code=code)


def unknown_key() -> ApiError:
    return ApiError(
        401,
        "the API key is missing or unknown: send it as `Authorization: Bearer KEY` or `x-api-key: KEY`",
        kind="invalid_authentication_error",
    )


def too_many(seconds: int) -> ApiError:
    return ApiError(
        429,
        f"all places and the queue are taken: try again in {seconds} s",
        kind="rate_limit_reached_error",
        retry_after=seconds,
    )


def shutting_down() -> ApiError:
    return ApiError(503, "the server is shutting down: try again later", kind="server_error", retry_after=5)


def our_fault() -> ApiError:
    return ApiError(500, "the server failed at this request; its log has the reason", kind="server_error")
