"""The words of tools' names and parameters, and what they say of what a tool does."""

from __future__ import annotations

import re

CREATE = frozenset({"create", "add", "new", "insert", "post", "register", "save", "make", "store"})
GET = frozenset({"get", "read", "fetch", "retrieve", "show", "describe", "view", "load", "lookup"})
LIST = frozenset({"list", "search", "find", "query", "browse", "filter"})
UPDATE = frozenset({"update", "edit", "modify", "set", "rename", "change", "patch"})
DELETE = frozenset({"delete", "remove", "destroy", "drop", "erase"})
STATE = {
    "complete": "completed", "close": "closed", "reopen": "open", "open": "open", "archive": "archived",
    "unarchive": "active", "cancel": "cancelled", "approve": "approved", "reject": "rejected", "enable": "enabled",
    "disable": "disabled", "activate": "active", "deactivate": "inactive", "pause": "paused", "resume": "active",
    "publish": "published", "unpublish": "unpublished", "lock": "locked", "unlock": "unlocked", "pin": "pinned",
    "unpin": "unpinned", "start": "started", "stop": "stopped", "finish": "finished", "mute": "muted",
    "unmute": "unmuted", "ban": "banned", "unban": "active", "accept": "accepted", "decline": "declined",
    "restore": "active", "suspend": "suspended", "star": "starred", "unstar": "unstarred",
}  # fmt: skip
WAYS = (("create", CREATE), ("list", LIST), ("update", UPDATE), ("delete", DELETE), ("get", GET))
WRITES = frozenset({"create", "update", "delete", "state"})
MANY = frozenset({"batch", "bulk", "many", "multi", "multiple"})
ENDS = frozenset({"by", "for", "from", "with", "in", "of", "to", "on", "at", "and", "using", "as", "via"})
FILLERS = frozenset({
    "a", "an", "the", "all", "new", "my", "details", "detail", "info", "information", "data", "list", "single",
    "specific", "existing"
})  # fmt: skip
PAGING = frozenset({
    "limit", "page", "offset", "cursor", "per_page", "page_size", "page_token", "max_results", "max", "count",
    "top", "skip", "sort", "sort_by", "order", "order_by", "sort_order", "direction", "fields", "format", "verbose",
    "include", "page_number", "size", "start_cursor", "starting_after", "next_token", "pagination",
    "results_per_page", "num_results"
})  # fmt: skip
_SECRET = re.compile(r"(?:.*_)?(?:api_?key|token|auth|secret|credentials?)")
STORES = frozenset({"save", "store"})
"""What makes a row, or replaces the one of that id."""
FROM = frozenset({"start", "from", "after", "since", "min", "minimum", "begin"})
TO = frozenset({"end", "to", "before", "until", "max", "maximum"})
MOMENTS = frozenset({"date", "time", "datetime", "at", "on", "start", "end", "created", "updated", "due"})
LIMITS = ("limit", "max_results", "page_size", "per_page", "max", "top", "count", "size", "num_results")
SEARCH = frozenset({"query", "q", "search", "keyword", "keywords", "text", "term", "search_term", "search_query"})
NATURAL = ("name", "path", "file_path", "filepath", "filename", "slug", "title", "key", "url", "username", "email")


def tokens(name: str) -> list[str]:
    """The words of a name: snake_case, kebab-case or camelCase."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+", name)]


def singular(word: str) -> str:
    """English, as far as names of tools need it."""
    if len(word) < 4 or word.endswith(("ss", "us", "is", "news", "series")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("sses", "xes", "ches", "shes", "zes")):
        return word[:-2]
    return word[:-1] if word.endswith("s") else word


def is_verb(word: str) -> bool:
    """Whether it says what a tool does."""
    return word in STATE or any(word in verbs for _, verbs in WAYS)


def is_secret(name: str) -> bool:
    """Whether a parameter gives access: it is no part of a row."""
    return _SECRET.fullmatch(name) is not None
