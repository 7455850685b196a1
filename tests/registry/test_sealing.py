from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cacheproxy.registry.sealing import Seal, SealedElsewhere, is_clear

patient = settings(deadline=None)
"""A busy machine is no fault."""

KEY, OTHER = "0" * 63 + "1", "0" * 63 + "2"


def sealing(key: str = KEY) -> Seal:
    seal = Seal()
    seal.use(key)
    return seal


@patient
@given(st.binary(max_size=200), st.text(max_size=20))
def test_what_was_sealed_opens_in_its_place(secret: bytes, place: str) -> None:
    sealed = sealing().close(place, secret)
    assert not is_clear(sealed)
    assert sealing().open(place, sealed) == secret


def test_nothing_of_the_secret_shows_and_nothing_is_sealed_twice_alike() -> None:
    secret = b"a secret that is long enough"
    one, two = sealing().close("a", secret), sealing().close("a", secret)
    assert one != two
    assert secret[:8] not in one


def test_another_key_is_told() -> None:
    with pytest.raises(SealedElsewhere, match="key 7 is sealed with another key"):
        sealing(OTHER).open("key 7", sealing().close("key 7", b"secret"))


def test_what_was_moved_to_another_place_does_not_open() -> None:
    with pytest.raises(SealedElsewhere, match="damaged"):
        sealing().open("key 8", sealing().close("key 7", b"secret"))


@patient
@given(st.integers(0, 42), st.integers(1, 255))
def test_what_was_changed_does_not_open(at: int, change: int) -> None:
    sealed = bytearray(sealing().close("a", b"secret"))
    sealed[at] ^= change
    with pytest.raises(SealedElsewhere):
        sealing().open("a", bytes(sealed))


@patient
@given(st.binary(max_size=60))
def test_what_was_never_sealed_does_not_open(data: bytes) -> None:
    with pytest.raises(SealedElsewhere):
        sealing().open("a", data)


@pytest.mark.parametrize("text", ["", "0" * 63, "0" * 65, "g" * 64, "0" * 64 + "\n", "\u0660" * 64])
def test_what_is_no_key_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match="64 hexadecimal digits") as refused:
        Seal().use(text)
    assert text == "" or text not in str(refused.value)


def test_without_a_key_it_is_not_ready() -> None:
    assert not Seal().ready
    assert sealing().ready
