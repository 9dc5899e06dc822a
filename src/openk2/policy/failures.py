"""Why an endpoint gave no answer, in one sentence and in its own words, whichever of their shapes they have."""

from __future__ import annotations

import html
import math
import re
import time
from email.utils import mktime_tz, parsedate_tz
from typing import Any

from openk2.core import ContextOverflow, UserError
from openk2.core.messages import as_unicode

TIMEOUT = 600.0
"""Seconds that an endpoint has for what comes next."""
_TOO_LONG = re.compile(
    r"context.?(length|window|size|is)\b|too long|maximum.{0,20}(tokens|length)|prompt is longer|model token limit",
    re.I,
)
_QUOTA = re.compile(r"insufficient_quota|exceeded_current_quota_error")
"""What OpenAI and Moonshot call it when nothing is left to pay with: waiting does not help."""
_PAGE = re.compile(r"\s*(<!doctype html|<html|<head|<body)", re.I)
_TITLE = re.compile(r"<title[^>]*>([^<]+)", re.I)
_TAG = re.compile(r"<[^>]*>")
_MOST_LETTERS = 500
_MOST_SECONDS = 1e5


class BrokenOff(Exception):
    """An answer that did not come to its end: what the server said of it, if anything."""


class Unreadable(ValueError):
    """An answer that is not in the form of the API: what is wrong with it."""


class EndpointError(UserError):
    """The endpoint gave no answer. `status` is its HTTP status, if it came so far, `said` its own words, `retry_after`
    the seconds that it asked to wait, and `quota` its word for it if nothing is left to pay with."""

    def __init__(
        self,
        problem: str,
        status: int | None = None,
        *,
        retry_after: int | None = None,
        said: str = "",
        quota: str | None = None,
    ) -> None:
        super().__init__(problem)
        self.status = status
        self.retry_after = retry_after
        self.said = said
        self.quota = quota


def failed(where: str, error: Exception, package: Any) -> UserError:
    """What to raise for an error of a client, whose package that is, or of reading. ContextOverflow if the conversation
    does not fit."""
    import httpx2

    cause = (error.__cause__ or error) if isinstance(error, package.APIConnectionError) else error
    if isinstance(error, package.APITimeoutError) or isinstance(cause, httpx2.TimeoutException):
        return EndpointError(f"{where} gave no answer in {TIMEOUT:.0f} s: is it overloaded?", 504)
    if isinstance(cause, httpx2.TooManyRedirects):
        return EndpointError(f"{where} sends from address to address without an end: is it the right one?")
    if isinstance(cause, httpx2.DecodingError):
        return EndpointError(f"{where} gives answers that cannot be read ({cause})")
    if isinstance(cause, httpx2.ProxyError | httpx2.UnsupportedProtocol):
        return EndpointError(f"{where} cannot be reached: {cause}")
    if isinstance(error, package.APIConnectionError):
        return EndpointError(f"{where} cannot be reached ({cause}): is a server running there?")
    if isinstance(error, BrokenOff | httpx2.RequestError):
        return EndpointError(f"{where} broke off in the middle of its answer{of_it(str(error))}")
    if isinstance(error, package.APIStatusError):
        return _refused(where, error, package)
    if isinstance(error, package.APIError | Unreadable):
        return EndpointError(f"{where} gives answers that cannot be read{of_it(words(str(error)))}")
    # Python's own words for it would say nothing of the server.
    return EndpointError(f"{where} gives answers that cannot be read: they are not in the form of the API")


def _refused(where: str, error: Any, package: Any) -> UserError:
    said = words(error.body) or as_unicode(error.message)[:_MOST_LETTERS]
    if isinstance(error, package.AuthenticationError):
        return EndpointError(f"{where} does not accept the API key: set it in the environment", 401, said=said)
    if error.status_code in (400, 413) and _TOO_LONG.search(said):
        return ContextOverflow(f"{where}: {said}")
    return EndpointError(
        f"{where} answers {error.status_code}: {said}",
        error.status_code,
        retry_after=_retry_after(error.response.headers.get("retry-after", "")),
        said=said,
        quota=found[0] if error.status_code == 429 and (found := _QUOTA.search(error.response.text)) else None,
    )


def of_it(said: str) -> str:
    """The server's words behind a sentence of ours."""
    return f": {said}" if said else ""


def failure(data: Any, event: str = "") -> str | None:
    """What an answer or a piece of it, perhaps with the name of its event, says of a failure; None if it is none."""
    if not isinstance(data, dict):
        return None
    if data.get("error") or data.get("object") == "error" or event == "error":
        return words(data) or "an error without a word"
    return None


def words(said: Any) -> str:
    """What the body of a failure says."""
    return as_unicode(_words(said))[:_MOST_LETTERS]


def _words(said: Any, depth: int = 5) -> str:
    if isinstance(said, str):
        return _of_page(said[: 20 * _MOST_LETTERS]) if _PAGE.match(said) else said.strip()
    if depth and isinstance(said, list):
        return "; ".join(filter(None, (_words(one, depth - 1) for one in said)))
    if depth and isinstance(said, dict):
        found = (_words(said.get(key), depth - 1) for key in ("message", "error", "detail", "msg"))
        # FastAPI's word for the field that is wrong.
        field = said.get("loc")
        place = ".".join(map(str, field)) + ": " if isinstance(field, list) else ""
        return next((place + one for one in found if one), "")
    return ""


def _of_page(page: str) -> str:
    """What a page of HTML is about: no API answers with one."""
    title = _TITLE.search(page)
    text = " ".join(html.unescape(title[1] if title else _TAG.sub(" ", page)).split())
    return f"a page of HTML ({text[:100]}): is the address right?"


def _retry_after(said: str) -> int | None:
    """The seconds that a header names, as a number or as a date."""
    try:
        seconds = float(said)
    except ValueError:
        date = parsedate_tz(said)
        if date is None:
            return None
        try:
            seconds = mktime_tz(date) - time.time()
        except (ValueError, OverflowError):
            return None
    return math.ceil(max(seconds, 0)) if seconds < _MOST_SECONDS else None


async def no_second_try_without_quota(response: Any) -> None:
    """A hook for a client's responses: it would try again what only paying can change."""
    if response.status_code == 429 and _QUOTA.search((await response.aread()).decode(errors="replace")):
        response.headers["x-should-retry"] = "false"
