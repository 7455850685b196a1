"""Digests: canonical ones and nothing else."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cacheproxy.core.digest import Digest, InvalidDigest
from tests.core.names import digests

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize("text", [f"sha256:{HEX}", f"sha512:{HEX}{HEX}"])
def test_a_canonical_digest_is_read(text: str) -> None:
    assert Digest.parse(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        HEX,
        f"sha256:{HEX[:-1]}",
        f"sha256:{HEX}0",
        f"sha256:{HEX}\n",
        f"\nsha256:{HEX}",
        f"sha256:{HEX.upper()}",
        f"SHA256:{HEX}",
        f"sha256-{HEX}",
        f"sha512:{HEX}",
        f"sha256:{HEX}{HEX}",
        f"sha384:{HEX}{HEX[:32]}",
        f"md5:{HEX[:32]}",
        "sha256:../../etc/passwd",
        f"sha256:../..{HEX[6:]}",
        f"sha256:{HEX[:-1]}\u0661",
        f"sha256:{HEX[:-1]}\uff11",
        f"sha256:{HEX[:-1]}g",
        f"sha256: {HEX[1:]}",
        f"sha256+b64:{HEX}",
    ],
)
def test_what_is_not_canonical_is_refused(text: str) -> None:
    with pytest.raises(InvalidDigest):
        Digest.parse(text)


def test_the_constructor_checks_too() -> None:
    with pytest.raises(InvalidDigest):
        Digest("sha256:..")


@given(digests, st.integers(0, 200), st.characters())
def test_one_changed_character_makes_another_digest_or_none(digest: Digest, at: int, other: str) -> None:
    at %= len(digest)
    assume(digest[at] != other)
    text = digest[:at] + other + digest[at + 1 :]
    try:
        assert Digest.parse(text) != digest
    except InvalidDigest:
        assert not (at > 6 and other in "0123456789abcdef")


@given(st.text(max_size=80))
def test_any_text_is_refused_as_such_and_no_other_way(text: str) -> None:
    with pytest.raises(InvalidDigest):
        Digest.parse(text)


@given(digests)
def test_its_parts_make_it_up(digest: Digest) -> None:
    assert f"{digest.algorithm}:{digest.hex}" == digest


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_the_digest_of_bytes_is_their_hash(algorithm: str) -> None:
    assert Digest.of(b"abc", algorithm) == f"{algorithm}:{hashlib.new(algorithm, b'abc').hexdigest()}"


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_its_hasher_proves_the_bytes_in_pieces(algorithm: str) -> None:
    digest = Digest.of(b"abcdef", algorithm)
    hasher = digest.hasher()
    hasher.update(b"abc")
    hasher.update(memoryview(b"def"))
    assert hasher.hexdigest() == digest.hex


def test_a_digest_is_a_key_as_its_text_is() -> None:
    assert {f"sha256:{HEX}": 1}[Digest.parse(f"sha256:{HEX}")] == 1
