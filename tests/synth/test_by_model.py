"""A run of the factory whose domains, users and judges are a model behind a server: what it gets wrong as well."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai")
pytest.importorskip("duckdb")
pytest.importorskip("pyarrow")

from openk2.core import UserError
from openk2.core.runs import sha256_file
from openk2.data.lake import Lake
from openk2.synth.factory import run_factory
from openk2.synth.figures import figures_of
from openk2.synth.pictures import pictures_of
from openk2.synth.recipe import SynthRecipe
from openk2.synth.show import markdown
from openk2.synth.verify import verify_run
from shared.played import Played, served
from synth import llm

Answer = Callable[[dict[str, Any]], Any]


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[Played, str]]:
    played = Played()
    with served(played) as url:
        yield played, f"openai:m@{url}"


def recipe(model: str, **sections: dict[str, Any]) -> SynthRecipe:
    whole: dict[str, dict[str, Any]] = {
        "domains": {"count": 2, "tools": 60, "model": model},
        "users": {"model": model},
        "agents": {"per_domain": 1},
        "tasks": {"count": 12, "in_a_row": 2, "per_shard": 6},
        "ask": {"concurrency": 4},
    }
    for name, values in sections.items():
        whole[name] = whole.get(name, {}) | values
    return SynthRecipe.model_validate({"name": "small", "seed": 3, **whole})


def rows(run: Path, sql: str) -> list[tuple[Any, ...]]:
    return Lake(run).query(sql)[1]


def bytes_of(run: Path) -> dict[str, str]:
    return {str(path.relative_to(run)): sha256_file(path) for path in run.rglob("*") if path.is_file()}


def last(body: dict[str, Any]) -> str:
    return str(body["messages"][-1]["content"])


def inventor(body: dict[str, Any]) -> Any:
    """Invents five apps: one is right, one after a correction, one never, one is no JSON, one is there already."""
    question = llm.asked(body)
    if not question.startswith("Declare the app"):
        return llm.names(body)
    app = "".join(question.partition(kind)[2][0] for kind in ("Area ", "Field ", "App "))
    right = llm.lending(f"lending_{app}")
    wrong = json.loads(json.dumps(right))
    wrong["tools"][3]["requires"][0]["that"] = "loan.stat == 'open'"
    if app == "000":
        return llm.says("Here it is:\n```json\n" + json.dumps(right) + "\n```")
    if app == "001":
        return llm.says(right)
    if app == "100":
        right["tools"][2]["effects"][0]["values"]["points"] = "2 * points"
        return llm.says(right if "That cannot be used" in last(body) else wrong)
    if app == "010":
        return llm.says(wrong)
    return llm.cut_off(json.dumps(right)[:300])


def test_domains_by_model(server: tuple[Played, str], tmp_path: Path) -> None:
    played, model = server
    played.begin(inventor)
    small = recipe(model, domains={"by_model": 5}, tasks={"count": 40})
    run_factory(small, tmp_path, workers=1)
    invented = dict(rows(tmp_path, "select name, category from domains where name like 'lending%'"))
    assert invented == {"lending_000": "Area 0", "lending_100": "Area 1"}
    status = Lake(tmp_path).status()
    assert status["refused"] == {
        "no declaration can be read": 1, "the declaration is wrong": 1, "all of its tools are doubles": 1,
        "tool cannot be executed": 3,
    }  # fmt: skip
    details = rows(tmp_path, "select detail from refused where reason = 'the declaration is wrong'")
    assert "tool close_loan: requires.0" in details[0][0] and "stat" in details[0][0]
    told = [last(asked) for asked in played.asked if "That cannot be used" in last(asked)]
    assert any("tool close_loan: requires.0" in words for words in told) and any("cut off" in words for words in told)
    dropped = rows(tmp_path, "select name, dropped from tools where domain = 'lending_000' and dropped <> ''")
    assert dropped == [("win", "cannot be executed: Never today.")]
    # What differs in words alone is a double, and tasks are made in what was invented.
    assert rows(tmp_path, "select count(*) from tools where domain = 'lending_100' and dropped = 'name'")[0][0]
    assert rows(tmp_path, "select count(*) from trajectories where domain like 'lending%'")[0][0] > 0
    assert verify_run(tmp_path, workers=1).to_json()["disagreed"] == 0


def test_a_stopped_run_asks_nothing_twice(server: tuple[Played, str], tmp_path: Path) -> None:
    played, model = server
    small = recipe(model, domains={"by_model": 4})
    before: list[str] = []

    def breaks_down(body: dict[str, Any]) -> Any:
        if len(before) == 5:
            return 400, {"error": {"message": "no more today"}}, {"x-should-retry": "false"}
        before.append(json.dumps(body["messages"]))
        return inventor(body)

    played.begin(breaks_down)
    with pytest.raises(UserError, match="answers 400: no more today"):
        run_factory(small, tmp_path / "stopped", workers=1)
    assert len(list((tmp_path / "stopped").rglob("asked/*/*.json"))) == 5
    played.begin(inventor)
    run_factory(small, tmp_path / "stopped", workers=1)
    assert not set(before) & {json.dumps(asked["messages"]) for asked in played.asked}
    run_factory(small, tmp_path / "whole", workers=1)
    assert bytes_of(tmp_path / "stopped") == bytes_of(tmp_path / "whole")


def test_a_model_that_says_nothing_useful(server: tuple[Played, str], tmp_path: Path) -> None:
    played, model = server
    played.begin(llm.says("blub"))
    run_factory(recipe(model, domains={"by_model": 4}), tmp_path / "some", workers=1)
    assert Lake(tmp_path / "some").status()["refused"] == {"no categories were named": 1}
    with pytest.raises(UserError, match="there is not one domain"):
        run_factory(recipe(model, domains={"by_model": 4, "count": 0}), tmp_path / "none", workers=1)


def test_users_by_model(server: tuple[Played, str], tmp_path: Path) -> None:
    """A model that says what it is told to gives what the program gives, and all can be executed again without it."""
    played, model = server
    played.begin(llm.user)
    small = recipe(model, users={"by_model": True, "styles": ["polite", "terse"]}, tasks={"count": 24})
    run_factory(small, tmp_path, workers=1)
    assert rows(tmp_path, "select count(*) from attempts where passed is null")[0][0] == 0
    assert rows(tmp_path, "select count(*) from attempts where passed")[0][0] > 20
    played.begin((500, {"error": "gone"}))
    found = verify_run(tmp_path, workers=1)
    assert found.checked == found.agreed == Lake(tmp_path).status()["kept"] > 15
    (atif,) = rows(tmp_path, "select atif from trajectories limit 1")[0]
    data = json.loads(atif)["extra"]["task"]["data"]
    assert data["replies"][-1]["done"] and len([one for one in data["replies"] if one["done"]]) == len(data["turns"])
    assert data["style"] in ("polite", "terse")


def changed(**values: Any) -> Answer:
    """A user that says something else than it should in its answers."""

    def answer(body: dict[str, Any]) -> Any:
        _, good = llm.user(body)
        said = json.loads(good["choices"][0]["message"]["content"])
        if "done" not in said:
            return llm.says(said)
        return llm.says({key: value(said) if callable(value) else value for key, value in (said | values).items()})

    return answer


def mistaken(said: dict[str, Any]) -> str:
    """With other digits."""
    return str(said["say"]).replace("1", "7").replace("2", "8")


@pytest.mark.parametrize(
    ("answer", "kinds"),
    [
        (changed(say=mistaken), {"contradicts a fact", "leaves out"}),
        (changed(say=lambda said: said["say"] + " The code is QQQ-4711."), {"says what it cannot know yet"}),
        (changed(done=True), {"ends a request early"}),
        (changed(done=False), {"ends a request late"}),
        (lambda body: llm.says("I am a language model."), {"gives no answer that can be read"}),
    ],
)  # fmt: skip
def test_users_that_are_wrong(server: tuple[Played, str], tmp_path: Path, answer: Answer, kinds: set[str]) -> None:
    played, model = server
    played.begin(answer)
    run_factory(recipe(model, users={"by_model": True}, tasks={"count": 20}), tmp_path, workers=1)
    reasons = dict(
        rows(tmp_path, "select split_part(reason, ' (', 1), count(*) from attempts where passed is null group by 1")
    )
    assert reasons and all(reason.startswith("excluded: the user's model ") for reason in reasons)
    for kind in kinds:
        assert any(kind in reason for reason in reasons), reasons
    # Excluded is neither passed nor failed, and has no score.
    assert rows(tmp_path, "select count(*) from attempts where passed is null and score is not null")[0][0] == 0
    assert rows(tmp_path, "select count(*) from attempts where passed = false")[0][0] == 0
    # They are shown and reported like others.
    assert "no score" in markdown(tmp_path, n=20, seed=0)
    dropped = Lake(tmp_path).status()["dropped"]
    assert all(dropped[reason] == count for reason, count in reasons.items())


def test_a_user_that_cannot_be_asked(server: tuple[Played, str], tmp_path: Path) -> None:
    played, model = server
    asked: list[int] = []

    def sometimes(body: dict[str, Any]) -> Any:
        asked.append(1)
        if len(asked) % 9 == 0:
            return 400, {"error": {"message": "not now"}}, {"x-should-retry": "false"}
        return llm.user(body)

    played.begin(sometimes)
    small = recipe(model, users={"by_model": True})
    with pytest.raises(UserError, match=r"attempts had no answer, the last one because .*not now"):
        run_factory(small, tmp_path / "stopped", workers=1)
    played.begin(llm.user)
    run_factory(small, tmp_path / "stopped", workers=1)
    again = len(played.asked)
    run_factory(small, tmp_path / "whole", workers=1)
    assert again < len(played.asked) - again
    assert bytes_of(tmp_path / "stopped") == bytes_of(tmp_path / "whole")


def moody(body: dict[str, Any]) -> Any:
    """Grades badly if honesty comes before clearness."""
    question = llm.asked(body)
    first = question.index("- honest:") < question.index("- clear:")
    return llm.grades(honest=2 if first else 5)(body)


@pytest.mark.parametrize(
    ("answer", "grade", "dropped"),
    [
        (llm.grades(honest=4), 4.0, ""),
        (llm.grades(true=3), 3.0, "judged poor in manner"),
        (moody, None, "excluded: the judge disagrees with itself"),
        (lambda body: llm.says({"marks": [{"criterion": "clear", "reason": "r", "grade": 9}]}), None,
         "excluded: the judge gives no grades that can be read"),
    ],
)  # fmt: skip
def test_judges(server: tuple[Played, str], tmp_path: Path, answer: Answer, grade: float | None, dropped: str) -> None:
    played, model = server
    played.begin(answer)
    run_factory(recipe(model, judge={"model": model}), tmp_path, workers=1)
    judged = rows(tmp_path, "select judge, grade, verdict, reasons, excluded from judged")
    passed = rows(tmp_path, "select count(*) from attempts where passed")[0][0]
    assert len(judged) == passed > 5 and {row[1] for row in judged} == {grade}
    assert judged[0][0] == model and (grade is None or json.loads(judged[0][3])["clear"] == ["So it is."] * 2)
    status = Lake(tmp_path).status()
    assert status["dropped"].get(dropped, 0) == (passed if dropped else 0)
    assert status["kept"] > 0 if not dropped else status["kept"] == 0
    if grade is not None:
        # Twice each, with the criteria in both orders; the executable verdict is no matter for it.
        orders = [llm.asked(body).index("- clear:") < llm.asked(body).index("- true:") for body in played.asked]
        assert orders.count(True) == orders.count(False) == passed
    figures = figures_of(tmp_path)
    assert figures["grades"] == {"judged": passed, "given": {} if grade is None else {str(round(grade)): passed}}
    (picture,) = (one for one in pictures_of(figures) if one.name == "grades")
    assert picture.png().startswith(b"\x89PNG") and f"{0 if grade else passed:,} are excluded" in picture.says


def test_a_judge_that_breaks_down(server: tuple[Played, str], tmp_path: Path) -> None:
    played, model = server
    asked: list[str] = []

    def sometimes(body: dict[str, Any]) -> Any:
        asked.append(json.dumps(body["messages"]))
        if len(asked) % 5 == 0:
            asked.pop()
            asked.append("")
            return 400, {"error": {"message": "not now"}}, {"x-should-retry": "false"}
        return llm.grades()(body)

    played.begin(sometimes)
    small = recipe(model, judge={"model": model})
    with pytest.raises(UserError, match=r"attempts could not be judged, the last one because .*not now"):
        run_factory(small, tmp_path, workers=1)
    assert rows(tmp_path, "select count(*) from attempts where passed")[0][0] > 5
    played.begin(llm.grades())
    run_factory(small, tmp_path, workers=1)
    assert not {json.dumps(body["messages"]) for body in played.asked} & set(asked)
    assert {row[0] for row in rows(tmp_path, "select grade from trajectories")} == {5.0}


def test_the_same_model_needs_one(tmp_path: Path) -> None:
    small = SynthRecipe.model_validate({"name": "small", "domains": {"by_model": 3, "count": 1}})
    with pytest.raises(UserError, match=r"domains.model is that of the attempts.*give --model"):
        run_factory(small, tmp_path, workers=1)
