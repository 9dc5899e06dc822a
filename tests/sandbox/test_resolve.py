"""What is chosen, what is said about it, and who must agree."""

from collections.abc import Iterator

import pytest

from openk2.core import UserError
from openk2.sandbox import Sandbox, box, resolve, resolve_sandbox


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    resolve._usable.cache_clear()
    resolve._consented.clear()
    yield
    resolve._usable.cache_clear()
    resolve._consented.clear()


@pytest.fixture
def nothing_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "_find_sandlock", lambda: "this kernel has no Landlock")
    monkeypatch.setattr(resolve, "_find_bubblewrap", lambda: "not installed")


def test_what_works_here_is_used_without_asking() -> None:
    if resolve._usable()[0] is None:
        pytest.skip("no sandbox works here")

    def ask(question: str) -> bool:
        raise AssertionError(question)

    assert resolve_sandbox(ask).kind in ("sandlock", "bubblewrap")


def test_refusal_is_one_sentence_with_the_reasons(nothing_works: None) -> None:
    with pytest.raises(UserError) as caught:
        resolve_sandbox()
    assert "no Landlock" in str(caught.value) and "--yes" in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(UserError):
        resolve_sandbox(lambda question: False)


def test_consent_is_asked_once_and_holds(nothing_works: None) -> None:
    asked = []

    def ask(question: str) -> bool:
        asked.append(question)
        return True

    found = resolve_sandbox(ask)
    assert found.kind == "none" and "rights of your user" in found.notice
    assert resolve_sandbox() is found and len(asked) == 1


def test_a_sandbox_that_does_not_confine_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "_find_sandlock", lambda: Sandbox("none"))
    monkeypatch.setattr(resolve, "_find_bubblewrap", lambda: Sandbox("bubblewrap", bwrap="/no/such/bwrap"))
    with pytest.raises(UserError, match=r"write everywhere.*bubblewrap"):
        resolve_sandbox()


def test_a_machine_that_is_too_busy_is_no_reason_to_go_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "_find_sandlock", lambda: Sandbox("sandlock"))
    monkeypatch.setattr(box, "PROBE_SECONDS", (1e-6, 1e-6))
    with pytest.raises(UserError, match="too busy"):
        resolve_sandbox(consent=True)


@pytest.mark.parametrize(("abi", "kind"), [(0, None), (1, "sandlock"), (5, "sandlock"), (6, "sandlock")])
def test_older_kernels_are_weaker_and_it_is_said(monkeypatch: pytest.MonkeyPatch, abi: int, kind: str | None) -> None:
    sandlock = pytest.importorskip("sandlock")
    monkeypatch.setattr(sandlock, "landlock_abi_version", lambda: abi)
    found = resolve._find_sandlock()
    if kind is None:
        assert found == "this kernel has no Landlock"
    else:
        assert isinstance(found, Sandbox) and ("weaker" in found.notice) == (abi < 6)
