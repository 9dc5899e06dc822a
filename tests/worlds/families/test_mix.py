"""The test mix: proportions, and the freeze."""

from __future__ import annotations

from collections import Counter

import pytest

from openk2.core import Split, UserError
from openk2.core.families import get_family, sample_task
from openk2.worlds.families import lexicon, mix


@pytest.mark.parametrize("family", sorted(mix.MIX))
@pytest.mark.parametrize("split", ["train", "test"])
def test_proportions_are_what_is_drawn(family: str, split: Split) -> None:
    shares = mix.proportions(family, split)
    assert sum(shares.values()) == pytest.approx(1)
    rng = lexicon.make_rng("mix", split, 0)
    drawn = Counter(mix.draw_skill(rng, family, split) for _ in range(4000))
    for skill, share in shares.items():
        assert drawn[skill] / 4000 == pytest.approx(share, abs=0.03)


def test_a_quarter_of_the_functions_tasks_are_chains() -> None:
    shares = mix.proportions("functions", "test")
    assert sum(share for skill, share in shares.items() if skill.startswith("chain")) >= 0.25


def test_skills_of_the_mix_are_skills_of_the_family() -> None:
    for name in mix.MIX:
        assert set(mix.MIX[name]) == set(get_family(name).skills)


@pytest.mark.parametrize("family", sorted(mix.FROZEN))
def test_the_held_out_tasks_are_frozen(family: str) -> None:
    """If this fails, held-out tasks have changed: numbers measured before and after can not be compared."""
    assert mix.digest(family) == mix.FROZEN[family]


def test_an_unknown_family_is_named() -> None:
    with pytest.raises(UserError, match="no task family 'cooking'"):
        sample_task("cooking", "test", 0)
