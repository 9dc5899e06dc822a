"""Names of policies."""

from __future__ import annotations

from pathlib import Path

import pytest

from openk2.core import Message, UserError
from openk2.model import save
from openk2.policy.endpoint import AnthropicPolicy, OpenAIPolicy
from openk2.policy.local import LocalPolicy
from openk2.policy.resolve import resolve_policy
from openk2.policy.scripted import ScriptedPolicy


async def test_a_saved_folder_answers_like_the_model_it_came_from(tmp_path: Path) -> None:
    origin = resolve_policy("random:test", seed=3)
    assert isinstance(origin, LocalPolicy)
    origin.engine.tokenizer.save(tmp_path)
    save(origin.engine.model, tmp_path)
    copy = resolve_policy(str(tmp_path))
    assert isinstance(copy, LocalPolicy)
    assert copy.name == str(tmp_path)
    dialog = [Message("user", "hello")]
    turns = [await p.act(dialog, [], max_tokens=6) for p in (origin, copy)]
    assert turns[0].completion_ids == turns[1].completion_ids
    for policy in (origin, copy):
        await policy.close()


async def test_the_random_model_depends_on_its_seed_alone() -> None:
    policies = [resolve_policy("random:test", seed=s, temperature=0.0) for s in (1, 1, 2)]
    turns = [await p.act([Message("user", "x")], [], max_tokens=8) for p in policies]
    assert turns[0].completion_ids == turns[1].completion_ids != turns[2].completion_ids
    for policy in policies:
        await policy.close()


def test_scripts(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text('{"role":"assistant","content":"hi"}\n')
    assert isinstance(resolve_policy(f"script:{path}"), ScriptedPolicy)
    for text in ("", "\n", '{"role":"user","content":"hi"}\n'):
        path.write_text(text)
        with pytest.raises(UserError, match=r"s\.jsonl has no message of the assistant's"):
            resolve_policy(f"script:{path}")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("no-such-model", "there is no model 'no-such-model'"),
        ("openai:x", "has no address"),
        ("openai:x@localhost:8000", "no address that begins with http"),
        ("anthropic:@http://localhost", "is incomplete"),
        ("moonshot:kimi-k2@http://localhost", "is incomplete"),
        ("gemini:x", "there is no model"),
        ("random:k2", "there is no model 'random:k2': use random:test"),
        ("random:", "there is no model 'random:'"),
        ("openai:x@http://[::1", r"'http://\[::1' is no address of a server"),
        ("openai:x@http://", "'http://' is no address"),
        ("openai:x@http://a b", "'http://a b' is no address"),
        ("openai:x@http://a:99999", "is no address"),
        ("anthropic:x@https://", "is no address"),
        ("openai:x@httpx://a", "is no address"),
        ("script:/no/such/file", "could not read"),
        ("how many rows are in the file " * 20, r"there is no model 'how many rows[^']{,80}\.\.\.'"),
        ("script:" + "x" * 5000, "could not read"),
        ("a\0b", "there is no model"),
        ("script:a\0b", "could not read"),
    ],
)
def test_unknown_names(spec: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        resolve_policy(spec)


def test_incomplete_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json"):
        resolve_policy(str(tmp_path))


def test_devices_that_are_not_here() -> None:
    for name in ("nonsense", "", "tpu", "cuda:99", "meta"):
        with pytest.raises(UserError, match="cannot be used here") as refused:
            resolve_policy("random:test", device=name)
        assert len(str(refused.value)) < 160


def test_addresses_of_endpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MOONSHOT", "ANTHROPIC"):
        monkeypatch.delenv(f"{name}_API_KEY", raising=False)
        with pytest.raises(UserError, match=f"set {name}_API_KEY in the environment"):
            resolve_policy(f"{name.lower()}:m")
        monkeypatch.setenv(f"{name}_API_KEY", "k")
    for spec, name, address in (
        ("openai:m@http://localhost:8000", "m", "http://localhost:8000/v1"),
        ("openai:m@http://localhost:8000/v1/", "m", "http://localhost:8000/v1/"),
        ("openai:m@https://a.example/api/paas/v4", "m", "https://a.example/api/paas/v4"),
        ("openai:@cf/meta/llama@https://a.example", "@cf/meta/llama", "https://a.example/v1"),
        ("moonshot:kimi-k2", "kimi-k2", "https://api.moonshot.ai/v1"),
    ):
        policy = resolve_policy(spec)
        assert isinstance(policy, OpenAIPolicy)
        assert (policy.name, policy.endpoint.model, policy.endpoint.base_url) == (spec, name, address)
    assert isinstance(resolve_policy("anthropic:claude@20240620"), AnthropicPolicy)


def test_a_key_that_no_header_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    for scheme, name in (("openai", "OPENAI"), ("anthropic", "ANTHROPIC")):
        monkeypatch.setenv(f"{name}_API_KEY", "clé")
        with pytest.raises(UserError, match=f"{name}_API_KEY is no key"):
            resolve_policy(f"{scheme}:m@http://localhost")
