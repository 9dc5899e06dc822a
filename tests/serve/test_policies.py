"""The endpoint policies against our own server: the loop runs on HTTP as it runs on the engine."""

from __future__ import annotations

from typing import Any

import pytest

from openk2.core import ContextOverflow, Limits, Message, Policy
from openk2.core.families import get_family
from openk2.policy.resolve import resolve_policy
from openk2.rollout import rollout


@pytest.mark.parametrize("scheme", ["openai", "anthropic"])
async def test_rollouts_are_those_of_the_local_policy(nano_server: Any, scheme: str) -> None:
    family = get_family("functions")
    local, remote = resolve_policy("nano"), resolve_policy(f"{scheme}:openk2-nano@{nano_server.url}")
    for seed in (3, 8):
        task = family.sample("test", seed)
        runs = [
            await rollout(policy, family.world(task), task, Limits(steps=6, tokens=200)) for policy in (local, remote)
        ]
        said = [[(m.role, m.content, [c.arguments for c in m.tool_calls]) for m in run.messages] for run in runs]
        assert said[0] == said[1]
        assert runs[0].verdict == runs[1].verdict
        for steps in zip(*(run.steps for run in runs), strict=True):
            ours, theirs = (step.turn for step in steps)
            assert theirs.usage is not None
            assert (theirs.usage.prompt_tokens, theirs.usage.completion_tokens) == (
                len(ours.prompt_ids), len(ours.completion_ids),
            )  # fmt: skip
    for policy in (local, remote):
        await policy.close()


@pytest.mark.parametrize("scheme", ["openai", "anthropic"])
async def test_what_does_not_fit_is_known(random_server: Any, scheme: str) -> None:
    policy: Policy = resolve_policy(f"{scheme}:any@{random_server.url}")
    with pytest.raises(ContextOverflow):
        await policy.act([Message("user", "word " * 5000)], [], max_tokens=5)
    await policy.close()
