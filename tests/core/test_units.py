"""Durations, sizes and shares."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.core.units import parse_duration, parse_share, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("5m", 300),
        ("24h", 86400),
        ("30d", 2592000),
        ("500ms", 0.5),
        ("1.5h", 5400),
        ("0s", 0),
        ("forever", math.inf),
    ],
)
def test_a_duration_is_in_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0B", 0),
        ("512B", 512),
        ("64KiB", 65536),
        ("4MiB", 4 << 20),
        ("200GiB", 200 << 30),
        ("2TiB", 2 << 40),
        ("0.5KiB", 512),
    ],
)
def test_a_size_is_in_bytes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "share"), [("0%", 0), ("5%", 0.05), ("50%", 0.5), ("100%", 1), ("2.5%", 0.025)]
)
def test_a_share_is_between_0_and_1(text: str, share: float) -> None:
    assert parse_share(text) == pytest.approx(share)


BAD = ["", " ", "s", "1", "-1s", "+1s", "1 s", " 1s", "1s\n", "1_0s", "\u0661s", "1h30m", ".5h", "5.h"]


@pytest.mark.parametrize("text", [*BAD, "1S", "1w", "1KiB", "5%", "Forever", "never"])
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match='"5m"'):
        parse_duration(text)


@pytest.mark.parametrize("text", [*BAD, "1s", "5%", "1kb", "1GB", "1Gi", "1gib", "forever", "9" * 400 + "B"])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match='"200GiB"'):
        parse_size(text)


@pytest.mark.parametrize("text", [*BAD, "1s", "1KiB", "101%", "100.1%", "0.5", "50 %"])
def test_what_is_no_share_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match='"100%"'):
        parse_share(text)


@given(st.integers(0, 10**9), st.sampled_from([("s", 1), ("m", 60), ("h", 3600), ("d", 86400)]))
def test_whole_durations_are_exact(count: int, unit: tuple[str, int]) -> None:
    assert parse_duration(f"{count}{unit[0]}") == count * unit[1]
