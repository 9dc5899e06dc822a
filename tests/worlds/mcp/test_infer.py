"""What is inferred of tools: which row a call means, what is made under an id, and what a list is told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openk2.core import ToolCall, ToolResult
from openk2.worlds.mcp.infer import infer
from openk2.worlds.mcp.simulated import Simulated
from openk2.worlds.mcp.specs import Spec

TEXT, NUMBER = {"type": "string"}, {"type": "number"}


def spec(name: str, /, *required: str, **optional: Any) -> Spec:
    """A tool. Required parameters are texts, unless they are given once more."""
    properties = dict.fromkeys(required, TEXT) | optional
    return Spec(name, name, f"{name} it", {"type": "object", "properties": properties, "required": list(required)})


class App:
    """A simulation of some tools."""

    def __init__(self, *specs: Spec) -> None:
        simulation = infer("app", "Others", "App", specs)
        self.tools = set() if simulation is None else set(simulation.bridges)
        self._simulated = None if simulation is None else Simulated(simulation, specs)

    def __call__(self, name: str, /, **arguments: Any) -> ToolResult:
        assert self._simulated is not None
        return self._simulated.call(ToolCall("c", name, json.dumps(arguments)))

    def rows(self, name: str, /, **arguments: Any) -> Any:
        result = self(name, **arguments)
        assert not result.error, result.content
        return json.loads(result.content)


COLLECTIONS = (
    spec("create-collection", "database", "collection"),
    spec("list-collections", "database"),
    spec("drop-collection", "database", "collection"),
)


def test_a_row_is_meant_by_all_that_other_tools_need_for_it() -> None:
    app = App(*COLLECTIONS, spec("rename-collection", "database", "collection", "newName"))
    for database in ("shop", "blog"):
        app.rows("create-collection", database=database, collection="users")
    app.rows("rename-collection", database="shop", collection="users", newName="people")
    assert [row["collection"] for row in app.rows("list-collections", database="shop")] == ["people"]
    assert [row["collection"] for row in app.rows("list-collections", database="blog")] == ["users"]
    assert app("rename-collection", database="shop", collection="users", newName="x").error


def test_a_number_is_of_one_owner() -> None:
    number = {"type": "integer"}
    app = App(
        spec("create_issue", "repo", "title"),
        spec("get_issue", "repo", "issue_number", issue_number=number),
        spec("update_issue", "repo", "issue_number", issue_number=number, title=TEXT),
    )
    made = app.rows("create_issue", repo="a", title="old")
    assert app("update_issue", repo="b", issue_number=made["issue_number"], title="new").error
    app.rows("update_issue", repo="a", issue_number=made["issue_number"], title="new")
    (found,) = app.rows("get_issue", repo="a", issue_number=made["issue_number"])
    assert (found["repo"], found["title"]) == ("a", "new")


@pytest.mark.parametrize(
    "update",
    [
        spec("rename-collection", "database", "collection", "label"),
        spec("update-collection", "database", "collection", "newOwner"),
        spec("update-collection", "database", "collection", "old_text", "new_text"),
    ],
)
def test_a_change_that_says_not_what_becomes_what_is_not_inferred(update: Spec) -> None:
    assert App(*COLLECTIONS, update).tools == {one.name for one in COLLECTIONS}


def test_secrets_are_no_fields() -> None:
    get, update = spec("get_company", "company_id"), spec("update_company", "company_id", name=TEXT, api_token=TEXT)
    app = App(spec("create_company", "name", api_token=TEXT), get, update)
    made = app.rows("create_company", name="Acme", api_token="hush")
    assert "hush" not in str(made)
    assert "hush" not in str(app.rows("update_company", company_id=made["id"], name="B", api_token="hush"))
    assert "create_company" not in App(spec("create_company", "name", "api_token"), get, update).tools


@pytest.mark.parametrize("made, others", [("id", "id"), ("prompt_id", "prompt_id"), ("id", "promptId")])
def test_what_is_made_under_an_id_is_found_by_it(made: str, others: str) -> None:
    app = App(
        spec("add_prompt", made, "content"),
        spec("get_prompt", others),
        spec("update_prompt", others, "content"),
        spec("delete_prompt", others),
    )
    app.rows("add_prompt", **{made: "greet", "content": "hello"})
    again = app("add_prompt", **{made: "greet", "content": "again"})
    assert again.error and "there is such a prompt already" in again.content
    app.rows("update_prompt", **{others: "greet", "content": "good day"})
    assert [row["content"] for row in app.rows("get_prompt", **{others: "greet"})] == ["good day"]
    assert app("get_prompt", **{others: "other"}).error
    app.rows("delete_prompt", **{others: "greet"})
    assert app("get_prompt", **{others: "greet"}).error


@pytest.mark.parametrize(
    "create", [spec("create_prompt", "content", prompt_id=TEXT), spec("save_prompt", "prompt_id", "content")]
)
def test_an_id_that_may_be_chosen_or_be_there_is_left_to_a_model(create: Spec) -> None:
    assert not App(create, spec("get_prompt", "prompt_id"), spec("update_prompt", "prompt_id", "content")).tools


def test_a_state_that_the_values_do_not_have() -> None:
    status = {"type": "string", "enum": ["not started", "done"]}
    app = App(
        spec("create_task", "title"),
        spec("get_task", "task_id"),
        spec("update_task", "task_id", status=status),
        spec("approve_task", "task_id"),
    )
    made = app.rows("create_task", title="x")
    assert app.rows("approve_task", task_id=made["id"])["status"] == "approved"
    assert app("update_task", task_id=made["id"], status="approved").error
    assert app.rows("update_task", task_id=made["id"], status="done")["status"] == "done"


def visits(**optional: Any) -> App:
    create = spec("create_visit", "date", "price", price=NUMBER)
    return App(create, spec("get_visit", "visit_id"), spec("list_visits", **optional))


def test_bounds_of_a_list() -> None:
    app = visits(start_date=TEXT, end_date=TEXT, min_price=NUMBER, priceMax=NUMBER, limit={"type": "integer"})
    for day, price in ((1, 10), (2, 20), (3, 30)):
        app.rows("create_visit", date=f"3001-01-0{day}", price=price)

    def days(**arguments: Any) -> list[str]:
        return [row["date"][-1] for row in app.rows("list_visits", **{"start_date": "3001-01-01"} | arguments)]

    assert days() == ["1", "2", "3"]
    assert days(start_date="3001-01-02") == ["2", "3"] and days(end_date="3001-01-02") == ["1", "2"]
    assert days(min_price=20, priceMax=20) == ["2"] and days(limit=1) == ["1"]


@pytest.mark.parametrize(
    "name", ["state", "state_type", "filter", "timeMin", "timeMax", "start_time", "min_weight", "after", "unreadOnly"]
)
def test_a_filter_that_is_not_understood_is_not_ignored(name: str) -> None:
    assert "list_visits" in visits(pageToken=TEXT, page={"type": "integer"}).tools
    assert "list_visits" not in visits(**{name: TEXT}).tools
