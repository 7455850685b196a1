"""What `check-config` and the start say of issuers, before any of them is asked."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from cacheproxy.config import load
from cacheproxy.issuers import KeyRings
from cacheproxy.trial import tried
from cacheproxy.wiring import CannotStart
from tests.registry.issuer import EC, jwks

ISSUER = """
[[upstream]]
registry = "reg.test"
url = "http://127.0.0.1:9"
[[access.oidc]]
issuer = "https://token.actions.example"
audience = "cacheproxy"
principal = "ci:{{repository}}"
{more}
"""
TO_ALL = """
[[grant]]
to = ["*"]
allow = ["pull"]
"""


def written(folder: Path, more: str = "", after: str = "") -> Path:
    file = folder / "c.toml"
    file.write_text(ISSUER.format(more=more) + after)
    return file


@pytest.mark.parametrize(
    ("key", "content", "words"),
    [
        ("jwks", b"{}", r"its jwks: .*keys\.json is no JWK set"),
        ("jwks", b'{"keys": []}', r"its jwks: .*keys\.json has no key that signatures"),
        ("jwks", b" " * 300_000, r"its jwks: .*keys\.json has more than 262144 bytes"),
        ("ca", b"nonsense", "its ca cannot be used"),
    ],
)
async def test_files_that_are_none_are_named(tmp_path: Path, key: str, content: bytes, words: str) -> None:
    (tmp_path / "keys.json").write_bytes(content)
    config = load(written(tmp_path, f'{key} = "keys.json"'), {})
    (problem,) = (await tried(config)).problems
    assert problem.startswith("access.oidc https://token.actions.example: ")
    with pytest.raises(CannotStart, match=words):
        await KeyRings().open(config.access.oidc)


async def test_a_good_one_is_not_asked(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_bytes(jwks(EC))
    for more in ("", 'jwks = "keys.json"'):
        found = await tried(load(written(tmp_path, more), {}))
        assert (found.problems, found.warnings) == ([], [])


async def test_an_issuer_that_serves_everybody_is_warned_of(tmp_path: Path) -> None:
    found = await tried(load(written(tmp_path, after=TO_ALL), {}))
    assert len(found.warnings) == 1
    assert "say by claims whose tokens are meant" in found.warnings[0]
    meant = 'claims = { repository_owner = "acme" }'
    assert (await tried(load(written(tmp_path, meant, TO_ALL), {}))).warnings == []


async def test_rings_outlive_a_reload_unless_the_issuer_is_elsewhere(tmp_path: Path) -> None:
    rings = KeyRings()
    first = await rings.open(load(written(tmp_path), {}).access.oidc)
    (ring,) = first.values()
    ring.keys = {"known": None}  # type: ignore[dict-item]  # whatever it is
    again = await rings.open(load(written(tmp_path), {}).access.oidc)
    moved = await rings.open(load(written(tmp_path, 'jwks_uri = "https://b.example"'), {}).access.oidc)
    assert [list(each.keys) for found in (again, moved) for each in found.values()] == [["known"], []]
    await trio.lowlevel.checkpoint()
