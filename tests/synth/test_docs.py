"""What the documentation shows works as it stands there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from textwrap import indent
from typing import Any

import pytest

from openk2.synth import patterns
from openk2.synth.evolve import evolve
from openk2.synth.lexicon import read_sketches, sketches
from openk2.synth.wording import phrased
from openk2.worlds.apps.declaration import read_domain
from openk2.worlds.apps.filling import fill

PAGE = (Path(__file__).parents[2] / "docs" / "data-factory.md").read_text(encoding="utf-8")


def test_the_declared_domain_and_the_sketch_of_the_page() -> None:
    declared, sketched = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    domain = read_domain(tomllib.loads(declared))
    assert len(fill(domain, 0).rows("teas")) >= 3
    # Whatever is held back of a request, it reads well.
    told = {"guest_id": "me", "tea_id": "TEA-1001"}
    asks = [phrased(domain.tools[0].ask, told | grams) for grams in ({}, {"grams": "15"})]
    assert asks == ["sell me some grams of TEA-1001", "sell me 15 grams of TEA-1001"]
    (sketch,) = read_sketches(sketched, "the page")
    assert {"place_tea_sale", "create_tea_sale", "submit_tea_sale"} & evolve(sketch, 0).by_name.keys()


def test_the_pattern_of_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(yield .*?|n = t.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = vars(patterns.people_and_goods).copy()
    exec(f"def gift(things, t, rng):\n{indent(code, '    ')}", names)
    monkeypatch.setitem(patterns._WRITES, "order", (*patterns._WRITES["order"], names["gift"]))
    (shop,) = read_sketches(re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)[1], "the page")
    tool = evolve(shop, 0).by_name["gift_wrap_tea_sale"]
    assert tool.effects[0].values == {"wrapped": "True"}
    with_orders = [sketch for sketch in sketches() if any(noun.kind == "order" for noun in sketch.nouns)]
    for sketch in with_orders[:5]:
        assert evolve(sketch, 0).tools
