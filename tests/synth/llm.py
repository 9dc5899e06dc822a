"""Answers of models for a server to play: what is asked, and what one would say to that."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
Played = tuple[int, dict[str, Any]]


def _whole(message: dict[str, Any], finish: str) -> Played:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return 200, {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice],
                 "usage": USAGE}  # fmt: skip


def says(content: Any) -> Played:
    """An answer: a text, or what is written as JSON."""
    return _whole({"content": content if isinstance(content, str) else json.dumps(content)}, "stop")


def cut_off(content: str) -> Played:
    """An answer that was longer than it might be."""
    return _whole({"content": content}, "length")


def asked(body: dict[str, Any]) -> str:
    """The first question of a conversation."""
    return str(next(message["content"] for message in body["messages"] if message["role"] == "user"))


def names(body: dict[str, Any]) -> Played:
    """So many ideas as are wanted."""
    wanted = re.search(r"Name (\d+) ", asked(body))
    assert wanted is not None
    kind = "Area" if "categories" in asked(body) else "Field" if "domains" in asked(body) else "App"
    return says({"ideas": [{"name": f"{kind} {i}", "description": "Of its kind."} for i in range(int(wanted[1]))]})


def lending(name: str) -> dict[str, Any]:
    """A domain as a model may declare one: of its tools one never works."""
    return {
        "name": name, "category": "mine", "title": name.title(), "users": "members",
        "entities": {
            "members": {"prefix": "MEM", "singular": "member", "label": "name",
                        "fields": {"name": {"kind": "person"}, "points": {"type": "integer", "minimum": 0}}},
            "loans": {"prefix": "LOA", "singular": "loan", "fields": {
                "member": {"ref": "members"}, "until": {"type": "date"}, "status": {"values": ["open", "closed"]}}},
        },
        "tools": [
            {"name": "list_loans", "description": f"Loans of a member in {name}.", "ask": "list loans of {member_id}",
             "parameters": {"member_id": {"ref": "members"}},
             "returns": {"rows": "loans", "name": "l", "where": "l.member == member.id"}},
            {"name": "find_members", "description": f"Find members of {name} by a part of the name.",
             "ask": "find the members called {query}", "parameters": {"query": {}},
             "returns": {"rows": "members", "name": "m", "where": "lower(query) in lower(m.name)"}},
            {"name": "give_points", "description": f"Give points to a member in {name}.",
             "ask": "give {points} points to {member_id}",
             "parameters": {"member_id": {"ref": "members"}, "points": {"type": "integer", "minimum": 1, "maximum": 9}},
             "effects": [{"update": "member", "values": {"points": "member.points + points"}}],
             "returns": {"row": "member"}},
            {"name": "close_loan", "description": f"Close a loan in {name}.", "ask": "close {loan_id}",
             "parameters": {"loan_id": {"ref": "loans"}},
             "requires": [{"that": "loan.status == 'open'", "error": "Loan {loan.id} is {loan.status}."}],
             "effects": [{"update": "loan", "values": {"status": "'closed'"}}], "returns": {"row": "loan"}},
            {"name": "move_end", "description": f"Lend for longer or shorter in {name}.",
             "ask": "lend {loan_id} until {until}",
             "parameters": {"loan_id": {"ref": "loans"}, "until": {"type": "date"}},
             "effects": [{"update": "loan", "values": {"until": "until"}}], "returns": {"row": "loan"}},
            {"name": "win", "description": "Impossible.", "requires": [{"that": "1 > 2", "error": "Never today."}],
             "returns": {"values": {"won": "1"}}},
        ],
    }  # fmt: skip


def user(body: dict[str, Any]) -> Played:
    """A user who does what they are told, word by word."""
    question = asked(body)
    if "Begin the conversation" in question:
        return says({"say": question.partition("it exactly: ")[2].partition("\n\nAnswer with one JSON")[0]})
    last = question.partition("\n\nDecide.")[0].rpartition("Assistant: ")[2]
    facts = re.findall(r"^- (.+)$", question, re.M)
    heard = question.partition("The conversation so far:")[2]
    untold = [fact for fact in facts if fact not in heard.partition("\n\nDecide.")[0]]
    if "?" in last and untold:
        return says({"done": False, "say": " ".join(untold)})
    following = re.search(r"exactly as it is here: (.+?)\n\nAnswer with one JSON", question, re.S)
    return says({"done": True, "say": following[1] if following else ""})


def grades(*, clear: int = 5, honest: int = 5, true: int = 5) -> Callable[[dict[str, Any]], Played]:
    """A judge."""
    marks = {"clear": clear, "honest": honest, "true": true}

    def answer(body: dict[str, Any]) -> Played:
        order = re.findall(r"^- (clear|honest|true):", asked(body), re.M)
        return says({"marks": [{"criterion": n, "reason": "So it is.", "grade": marks[n]} for n in order]})

    return answer
