"""The stand-in for Google lets in what Google's rules let in, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Mapping
from urllib.parse import urlsplit

import pytest

from tests.google import Google, Refused, demand
from tests.seaweed import BUCKET


def presigned() -> str:
    """Path and query of an address that our own bucket gives, which asks nobody for it."""
    parts = urlsplit(Google(1).connect("prefix").address("blobs/x", 300))
    return f"{parts.path}?{parts.query}"


def test_address_signed_for_google_is_taken_for_its_object() -> None:
    assert demand("GET", presigned(), {}) == f"/{BUCKET}/prefix/blobs/x"


@pytest.mark.parametrize(
    ("method", "change"),
    [
        ("PUT", ("", "")),
        ("GET", ("blobs/x", "blobs/y")),
        ("GET", ("Expires=300", "Expires=301")),
        ("GET", ("%2Fauto%2F", "%2Feu%2F")),
    ],
)
def test_address_is_good_for_what_was_signed_only(method: str, change: tuple[str, str]) -> None:
    with pytest.raises(Refused):
        demand(method, presigned().replace(*change), {})


def test_address_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    address, now = presigned(), time.time()
    monkeypatch.setattr(time, "time", lambda: now + 301)
    with pytest.raises(Refused, match="not good now"):
        demand("GET", address, {})


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer "}, {"authorization": "Bearer a.b.c"}])
def test_request_of_nobody_is_refused(headers: Mapping[str, str]) -> None:
    with pytest.raises(Refused):
        demand("GET", "/bucket/x", headers)
