"""What is an address and what a key."""

from __future__ import annotations

import pytest

from openk2.core import UserError
from openk2.policy.addresses import check_address, environment_key


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:8000", "https://a.example/v1/", "http://localhost", "http://[::1]:80/v1", "http://user:x@a_b"],
)
def test_addresses(url: str) -> None:
    check_address(url)


@pytest.mark.parametrize(
    "url",
    ["", "nonsense", "a:80", "http://", "http://:80", "ftp://a", "http://a b", "http://[::1", "http://[zz]",
     "http://[v1.a]", "http://a:99999", "http://a:x", "http://a\n", "http://a..b", "http://\u2603", "http://999.1.1.1",
     "http://" + "a" * 64, "http://a\ud800"],
)  # fmt: skip
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(UserError, match="is no address of a server"):
        check_address(url)


def test_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for given, key in ((None, "none"), ("", "none"), ("  ", "none"), ("sk-1", "sk-1"), ("sk-1\n", "sk-1")):
        monkeypatch.delenv("A_KEY", raising=False)
        if given is not None:
            monkeypatch.setenv("A_KEY", given)
        assert environment_key("A_KEY") == key
    for given in ("cl\u00e9", "a\nb", "\u043a\u043b\u044e\u0447"):
        monkeypatch.setenv("A_KEY", given)
        with pytest.raises(UserError, match="A_KEY is no key"):
            environment_key("A_KEY")
