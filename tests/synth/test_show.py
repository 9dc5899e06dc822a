"""Tasks to read: drawn at random, and as they are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

pytest.importorskip("duckdb")
pytest.importorskip("pyarrow")

from openk2.core import UserError
from openk2.core.atif import from_atif
from openk2.data.lake import Lake
from openk2.synth.show import _fenced, _inline, markdown
from openk2.worlds.apps.world import AppTask
from shared.runs import damaged, few


def drawn(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"^## Task (\d+):", text, re.MULTILINE)]


def test_a_draw_is_one_of_the_seed() -> None:
    one, again, other = (markdown(few(), n=5, seed=seed) for seed in (1, 1, 2))
    assert one == again and len(drawn(one)) == 5 and drawn(one) != drawn(other)
    everything = Lake(few()).query("SELECT number FROM attempts ORDER BY 1")[1]
    assert drawn(markdown(few(), n=1000, seed=1)) == [number for (number,) in everything]


def test_all_is_there_as_it_was_said() -> None:
    text = markdown(few(), n=1000, seed=1)
    for (atif,) in Lake(few()).query("SELECT atif FROM attempts")[1]:
        trajectory = from_atif(json.loads(atif))
        for message in trajectory.messages:
            assert not message.content or f"\n{message.content}\n```" in text
            assert all(
                f"calls `{call.name}`" in text and f"\n{call.arguments}\n```" in text for call in message.tool_calls
            )
        task = AppTask.model_validate(trajectory.task.data)
        for turn in task.turns:
            assert _inline(turn.say) in text and all(_inline(fact.answer) in text for fact in turn.facts)
        assert all(f"`{name}`" in text for name in task.rubric.pattern)


def test_without_trajectories_the_tasks_are_left() -> None:
    short, whole = (markdown(few(), n=5, seed=1, trajectories=wanted) for wanted in (False, True))
    assert short.count("### The rubric") == whole.count("### The rubric") == 5
    assert "### The trajectory" in whole and "### The trajectory" not in short and len(short) < len(whole) / 2


def test_what_became_of_it(tmp_path: Path) -> None:
    run = damaged(tmp_path)
    text = markdown(run, n=1000, seed=0)
    assert "score 0.40, dropped (failed: state at the end)" in text and text.count(", kept.") > 20
    (run / "synth" / "kept.parquet").unlink()
    assert "not decided yet" in markdown(run, n=1, seed=0)
    with pytest.raises(UserError, match="is not a run of the data factory"):
        markdown(tmp_path / "none", n=1, seed=0)


def test_text_cannot_end_its_fence() -> None:
    assert _fenced("a ``` b ````") == "`````\na ``` b ````\n`````\n"
    assert _inline("a_b *c*\n[d](e) <f>") == r"a\_b \*c\* \[d\](e) \<f\>"
