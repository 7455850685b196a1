from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cacheproxy.config.checks import conflicts
from cacheproxy.config.sections import Server, Upstream
from cacheproxy.config.toml_lines import Key
from cacheproxy.config.values import Surroundings


def upstream(registry: str, **keys: Any) -> Upstream:
    return Upstream.model_validate({"registry": registry, "url": f"https://{registry}", **keys})


def found(*upstreams: Upstream, server: Server | None = None) -> list[tuple[Key, Key]]:
    """The place of each conflict, and the other place that it names."""
    return [(conflict.key, conflict.other) for conflict in conflicts(server, list(enumerate(upstreams)))]


def prefix(number: int) -> Key:
    return ("upstream", number, "prefix")


def registry(number: int) -> Key:
    return ("upstream", number, "registry")


FINE: Sequence[Sequence[Upstream]] = [
    [upstream("a.io"), upstream("b.io")],
    [upstream("a.io"), upstream("a.io", prefix="second")],
    [upstream("a.io", prefix="team"), upstream("b.io", prefix="team-b")],
    [upstream("a.io", prefix="m/a"), upstream("b.io", prefix="m/b")],
    [upstream("a.io", default=True), upstream("b.io")],
    [upstream("a.io", hosts=("a.cache",)), upstream("b.io", hosts=("b.cache",))],
]


@pytest.mark.parametrize("upstreams", FINE)
def test_what_fits_together_is_no_conflict(upstreams: Sequence[Upstream]) -> None:
    assert found(*upstreams, server=Server(external_url="https://cache")) == []


@pytest.mark.parametrize(
    ("upstreams", "key", "other"),
    [
        ([upstream("a.io"), upstream("a.io")], prefix(1), prefix(0)),
        ([upstream("a.io", prefix="x"), upstream("b.io", prefix="x")], prefix(1), prefix(0)),
        ([upstream("a.io", prefix="x"), upstream("b.io", prefix="x/y")], prefix(1), prefix(0)),
        ([upstream("a.io", prefix="x/y"), upstream("b.io", prefix="x")], prefix(1), prefix(0)),
        (
            [upstream("a.io", prefix="x"), upstream("b.io", prefix="a.io")],
            prefix(1),
            registry(0),
        ),
        (
            [upstream("a.io", prefix="b.io/x"), upstream("b.io", prefix="y")],
            prefix(0),
            registry(1),
        ),
        ([upstream("a.io", prefix="a.io/x")], prefix(0), registry(0)),
        (
            [upstream("a.io", default=True), upstream("b.io", default=True)],
            ("upstream", 1, "default"),
            ("upstream", 0, "default"),
        ),
        (
            [upstream("a.io", hosts=("x", "y")), upstream("b.io", hosts=("z", "Y"))],
            ("upstream", 1, "hosts", 1),
            ("upstream", 0, "hosts", 1),
        ),
        ([upstream("a.io", hosts=("x", "x"))], ("upstream", 0, "hosts", 1), ("upstream", 0, "hosts", 0)),
    ],
)
def test_two_upstreams_that_cannot_both_be(upstreams: Sequence[Upstream], key: Key, other: Key) -> None:
    assert found(*upstreams) == [(key, other)]


def test_our_own_host_is_no_upstreams() -> None:
    server = Server(external_url="https://cache.example")
    assert found(upstream("a.io", hosts=("cache.example",)), server=server) == [
        (("upstream", 0, "hosts", 0), ("server", "external_url"))
    ]


def test_an_address_is_listened_on_once() -> None:
    server = Server(listen=("127.0.0.1:1", "unix:/a", "127.0.0.1:1"), metrics="unix:/a")
    assert found(server=server) == [
        (("server", "listen", 2), ("server", "listen", 0)),
        (("server", "metrics"), ("server", "listen", 1)),
    ]


def test_ports_that_the_kernel_chooses_differ() -> None:
    assert found(server=Server(listen=("127.0.0.1:0",), metrics="127.0.0.1:0")) == []


def test_every_conflict_says_where_the_other_place_is() -> None:
    upstreams = [upstream("a.io", default=True, hosts=("x",)), upstream("a.io", default=True, hosts=("x",))]
    texts = [conflict.text.format(other="file:7") for conflict in conflicts(None, list(enumerate(upstreams)))]
    assert len(texts) == 3
    assert all("file:7" in text for text in texts)


LOGIN = {"helper": "docker-credential-x"}


@pytest.mark.parametrize(
    ("keys", "other"),
    [
        ({}, ("upstream", 0)),
        ({"hosts": ("a.cache",), "credentials": LOGIN}, ("upstream", 0, "credentials")),
        (
            {"hosts": ("a.cache",), "client_certificate": {"certificate": __file__}},
            ("upstream", 0, "client_certificate"),
        ),
        ({"hosts": ("a.cache",), "mirrors": ("https://b.io",)}, ("upstream", 0, "mirrors")),
        ({"hosts": ("a.cache",), "default": True}, ("upstream", 0, "default")),
    ],
)
def test_the_callers_own_right_goes_with_a_host_and_with_nothing_of_ours(keys: Any, other: Key) -> None:
    around = Surroundings(Path(), {})
    table = {"registry": "a.io", "url": "https://a.io", "authority": "caller", **keys}
    caller = Upstream.model_validate(table, context=around)
    assert found(caller) == [(("upstream", 0, "authority"), other)]
    assert found(Upstream.model_validate({**table, "authority": "account"}, context=around)) == []


def test_the_callers_own_right_is_fine_with_a_host() -> None:
    assert (
        found(upstream("a.io", authority="caller", hosts=("a.cache",)), upstream("b.io", default=True)) == []
    )
