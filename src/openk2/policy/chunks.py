"""OpenAI's chunks and answers, read with a tolerance for what servers get wrong."""

from __future__ import annotations

from typing import Any

from openk2.core import Usage
from openk2.policy.draft import Draft
from openk2.policy.failures import Unreadable

_MOST_TOKENS = 2**53
"""More than any answer has, and so many that readers of JSON still read each number as it is."""


def take_chunk(draft: Draft, chunk: dict[str, Any]) -> None:
    """Add a chunk of a stream. Raises what reading raises if it has another form."""
    draft.usage = _usage(chunk.get("usage")) or draft.usage
    choices = chunk.get("choices") or []
    if choices:
        choice = _only(choices)
        # Moonshot's platform gives the usage here.
        draft.usage = _usage(choice.get("usage")) or draft.usage
        _add(draft, choice.get("delta") or {})
        draft.finish = choice.get("finish_reason") or draft.finish
        draft.stop = _stop(choice) or draft.stop


def whole_answer(answer: dict[str, Any]) -> Draft:
    """The answer that came at once. Raises Unreadable, or what reading raises if it has another form."""
    choice = _only(answer["choices"])
    draft = Draft(finish=choice.get("finish_reason") or "stop", stop=_stop(choice))
    _add(draft, choice.get("message") or {})
    draft.usage = _usage(answer.get("usage"))
    return draft


def _usage(raw: Any) -> Usage | None:
    if not isinstance(raw, dict) or (prompt := token_count(raw.get("prompt_tokens"))) is None:
        return None
    details = raw.get("prompt_tokens_details")
    cached = token_count(details.get("cached_tokens")) if isinstance(details, dict) else None
    return Usage(prompt, token_count(raw.get("completion_tokens")) or 0, min(cached or 0, prompt))


def token_count(said: Any) -> int | None:
    """A count of tokens, which some servers give as 5.0 or "5". What no count can be is none."""
    try:
        count = max(said if isinstance(said, int) else int(float(said)), 0)
    except (TypeError, ValueError, OverflowError):
        return None
    return count if count <= _MOST_TOKENS else None


def _only(choices: list[dict[str, Any]]) -> dict[str, Any]:
    """The choice of an answer that was asked for one. Raises ValueError if it is another one."""
    if len(choices) != 1 or choices[0].get("index") not in (0, None):
        raise Unreadable("it has another choice than the only one that was asked for, the number 0")
    return choices[0]


def _add(draft: Draft, said: dict[str, Any]) -> None:
    """A message, or a piece of it."""
    draft.add_text("content", _text(said.get("content")))
    # Two names of the same, of which some servers give both.
    thought = said.get("reasoning_content") or said.get("reasoning")
    draft.add_text("reasoning", thought if isinstance(thought, str) else "")
    refusal = said.get("refusal")
    draft.add_text("refusal", refusal if isinstance(refusal, str) else "")
    pieces = said.get("tool_calls") or []
    for piece in pieces:
        index = piece.get("index")
        if index is None and not piece.get("id") and len(pieces) > 1:
            # Whole calls side by side.
            index = len(draft.calls)
        draft.add_call(index, piece.get("id"), piece.get("function") or {})
    # What OpenAI had before there were several calls.
    if not pieces and (function := said.get("function_call")):
        draft.add_call(0, None, function)


def _stop(choice: dict[str, Any]) -> str | None:
    """The stop text that ended a choice, in vLLM's and in SGLang's words. An id that ended it is none."""
    found = choice.get("stop_reason") or choice.get("matched_stop")
    return found if isinstance(found, str) else None


def _text(content: Any) -> str:
    """Content, which may be a list of parts."""
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return content or ""
