"""Addresses and keys of other servers, checked before anything is asked of them."""

from __future__ import annotations

import os
import re
from ipaddress import ip_address
from urllib.parse import urlsplit

from openk2.core.errors import UserError

_NAME = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?")
_SHOWN = 80


def check_address(url: str) -> None:
    """Raises UserError unless it is an address that an HTTP client takes."""
    if not _is_address(url):
        raise UserError(f"{url[:_SHOWN]!r} is no address of a server: write one such as http://127.0.0.1:8000")


def _is_address(url: str) -> bool:
    if not url.isprintable() or " " in url:
        return False
    try:
        parts = urlsplit(url)
        # Asking for the port checks it.
        host, _ = parts.hostname or "", parts.port
        if "[" in parts.netloc or host.replace(".", "").isdigit():
            ip_address(host)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and (":" in host or _NAME.fullmatch(host) is not None)


def is_key(text: str) -> bool:
    """Whether a text can stand in a header, and is one word."""
    return text.isascii() and text.isprintable() and " " not in text


def environment_key(variable: str) -> str:
    """The key in the environment, `none` without one. Raises UserError for what no header can hold."""
    key = os.environ.get(variable, "").strip() or "none"
    if not is_key(key):
        raise UserError(f"{variable} is no key: it has characters that are not plain ASCII, or a blank in it")
    return key
