from __future__ import annotations

import pytest

from cacheproxy.edge import grammar


@pytest.mark.parametrize(
    "text", ["a", "cache.example:5000", "my_registry", "127.0.0.1", "[::1]:5000", "[fe80::1]"]
)
def test_hosts(text: str) -> None:
    assert grammar.host(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a/../b?x#y",
        "user@a",
        "a:b",
        "a:",
        "a:123456",
        "[::1",
        "::1",
        "a b",
        "a,b",
        "a\n",
        "é",
        "%61",
        "a:1:2",
    ],
)
def test_what_is_no_host(text: str) -> None:
    assert grammar.host(text) is None
