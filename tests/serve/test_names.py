from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from openk2.serve.names import ToolNames

RULE = re.compile(r"[a-zA-Z_][a-zA-Z0-9_-]{2,63}")


@given(
    st.lists(
        st.text(min_size=1, max_size=90) | st.sampled_from(["a.b", "a_b", "a b", "a_b_2"]), unique=True, max_size=8
    )
)
def test_names_are_lawful_different_and_mapped_back(names: list[str]) -> None:
    mapping = ToolNames(names)
    mapped = [mapping.to_model(name) for name in names]
    assert len(set(mapped)) == len(names)
    for name, lawful in zip(names, mapped, strict=True):
        assert RULE.fullmatch(lawful)
        assert mapping.to_client(lawful) == name
        assert lawful == name or not RULE.fullmatch(name)
    assert mapping.to_client("never_seen") == "never_seen"
