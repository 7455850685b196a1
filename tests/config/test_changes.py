"""What another configuration would change."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.config import load
from cacheproxy.config.changes import changes, feasible
from cacheproxy.config.kinds import duration, share, size
from cacheproxy.core.units import parse_duration, parse_share, parse_size


def said(tmp_path: Path, old: str, new: str) -> list[str]:
    (tmp_path / "old.toml").write_text(old)
    (tmp_path / "new.toml").write_text(new)
    return [
        str(change) for change in changes(load(tmp_path / "old.toml", {}), load(tmp_path / "new.toml", {}))
    ]


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("", 'cache.budget = "200GiB"', '~ cache.budget = "200GiB"  (was "50%")'),
        ("", 'cache.parallel = "never"', '- cache.parallel.from = "64MiB"'),
        ("", 'cache.finish_fill = "never"', '~ cache.finish_fill = "never"  (was "50%")'),
        ("", 'server.trusted_proxies = ["10.0.0.1"]', '~ server.trusted_proxies = ["10.0.0.1/32"]  (was [])'),
        ("", 'storage.objects.region = "eu"', '~ storage.objects.region = "eu"  (was "")'),
        ("", "log.requests = false", "~ log.requests = false  (was true)"),
    ],
)
def test_a_key_that_differs_is_said_as_the_file_says_it(
    old: str, new: str, line: str, tmp_path: Path
) -> None:
    assert line in [said_line.replace(f"{tmp_path}/", "") for said_line in said(tmp_path, old, new)]


def test_the_same_said_otherwise_is_no_change(tmp_path: Path) -> None:
    old = '[[upstream]]\nregistry = "quay.io"\nkeep = "1d"\n[log]\nlevel = "info"\n'
    assert said(tmp_path, old, '[[upstream]]\nregistry = "quay.io"\nkeep = "24h"\n') == []


def test_upstreams_are_matched_by_what_they_are_not_by_where_they_stand(tmp_path: Path) -> None:
    quay, ghcr = '[[upstream]]\nregistry = "quay.io"\n', '[[upstream]]\nregistry = "ghcr.io"\n'
    assert said(tmp_path, quay, ghcr + quay + "connections = 3\n")[-1:] != []
    lines = said(tmp_path, quay, ghcr + quay + "connections = 3\n")
    assert "~ upstream.quay.io.connections = 3  (was 16)" in lines
    assert '+ upstream.ghcr.io.url = "https://ghcr.io"' in lines
    assert not [line for line in lines if "order" in line]
    assert said(tmp_path, quay + ghcr, ghcr + quay) == [
        '~ upstream.order = ["ghcr.io", "quay.io"]  (was ["quay.io", "ghcr.io"])'
    ]


def test_an_upstream_that_goes_is_taken_out_key_by_key(tmp_path: Path) -> None:
    quay = '[[upstream]]\nregistry = "quay.io"\n'
    lines = said(tmp_path, quay + '[[upstream]]\nregistry = "ghcr.io"\nprefix = "gh"\n', quay)
    assert {line[0] for line in lines} == {"-"}
    assert '- upstream.ghcr.io as gh.prefix = "gh"' in lines


@pytest.mark.parametrize(
    ("new", "live"),
    [
        ('server.listen = ["127.0.0.1:1"]', False),
        ('server.external_url = "https://cache.example"', True),
        ('server.trusted_proxies = ["10.0.0.1"]', True),
        ('server.tls.certificate = "new.toml"', True),
        ('storage.state = "elsewhere"', False),
        ('storage.objects.redirect = ["10.0.0.0/8"]', True),
        ('storage.objects.region = "eu"', False),
        ('log.level = "debug"', True),
        ('cache.min_free = "1GiB"', True),
        ("access.anonymous_pull = []", True),
        ('[[upstream]]\nregistry = "quay.io"', True),
    ],
)
def test_what_takes_a_restart(new: str, live: bool, tmp_path: Path) -> None:
    (tmp_path / "new.toml").write_text(new)
    found = changes(load(None, {}), load(tmp_path / "new.toml", {}))
    assert found
    assert {change.live for change in found if str(change.key[0]) in new} == {live}


@given(st.integers(0, 10**9))
def test_words_of_durations_mean_what_they_came_from(seconds: int) -> None:
    assert parse_duration(duration(seconds)) == seconds


@given(st.integers(0, 10**14))
def test_words_of_sizes_mean_what_they_came_from(count: int) -> None:
    assert parse_size(size(count)) == count


@given(st.integers(0, 100))
def test_words_of_shares_mean_what_they_came_from(percent: int) -> None:
    assert parse_share(share(parse_share(f"{percent}%"))) == parse_share(f"{percent}%")


def test_a_running_daemon_becomes_what_it_can_and_the_rest_is_still_to_come(tmp_path: Path) -> None:
    (tmp_path / "new.toml").write_text(
        """
        server = { listen = ["127.0.0.1:1"], external_url = "https://cache.example" }
        storage = { database = "other.db", objects = { redirect = ["10.0.0.0/8"], region = "eu" } }
        log.level = "debug"
        """
    )
    old, new = load(None, {}), load(tmp_path / "new.toml", {})
    now = feasible(old, new)
    assert {change.name for change in changes(old, now)} == {
        "server.external_url",
        "storage.objects.redirect",
        "log.level",
    }
    assert all(not change.live for change in changes(now, new))
    assert {"server.listen", "storage.database"} <= {change.name for change in changes(now, new)}
