"""What docs/rl.md says can be done."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from openk2.core.families import GYM

TEXT = (Path(__file__).parents[2] / "docs" / "rl.md").read_text(encoding="utf-8")


async def test_the_family_of_the_page_works() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    names: dict[str, Any] = {}
    exec(code, names)
    family = names["Mention"]()
    words = {split: {family.sample(split, seed).data["word"] for seed in range(50)} for split in ("train", "test")}
    assert not words["train"] & words["test"]
    for seed in range(20):
        task = family.sample("train", seed)
        assert family.check(task, family.gold(task)).passed
        assert not family.check(task, "no").passed
        verdict = await family.world(task).verify(family.demonstrate(task).messages)
        assert verdict.reward == 1.0


def test_all_families_are_told() -> None:
    for name in GYM:
        assert f"`{name}`" in TEXT, name
