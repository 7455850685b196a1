from __future__ import annotations

import pytest

from cacheproxy.core.digest import Digest
from cacheproxy.core.manifest import Descriptor
from cacheproxy.registry.prefetch import NotPrefetched, chosen


def child(os: str | None, architecture: str = "", variant: str | None = None) -> Descriptor:
    platform = {"os": os, "architecture": architecture, "variant": variant} if os else None
    return Descriptor("", Digest.of(f"{os}/{architecture}/{variant}".encode()), 1, {}, platform=platform)


AMD, ARM6, ARM7 = child("linux", "amd64"), child("linux", "arm", "v6"), child("linux", "arm", "v7")
ATTESTATION, NESTED = child("unknown", "unknown"), child(None)
ALL = [AMD, ARM6, ARM7, ATTESTATION, NESTED]


@pytest.mark.parametrize(
    ("platforms", "expected"),
    [
        (["linux/amd64"], [AMD, NESTED]),
        (["linux/arm"], [ARM6, ARM7, NESTED]),
        (["linux/arm/v7"], [ARM7, NESTED]),
        (["linux/amd64", "linux/arm/v6"], [AMD, ARM6, NESTED]),
        (["all"], ALL),
    ],
)
def test_images_are_chosen_by_platform(platforms: list[str], expected: list[Descriptor]) -> None:
    assert chosen(ALL, frozenset(platforms)) == expected


def test_no_image_for_the_platform_is_a_failure() -> None:
    with pytest.raises(NotPrefetched, match="no image for linux/s390x, but for linux/amd64, linux/arm/v6"):
        chosen([AMD, ARM6], frozenset({"linux/s390x"}))


def test_an_image_has_no_children() -> None:
    assert chosen([], frozenset({"linux/amd64"})) == []
