from __future__ import annotations

import pytest
from obstore.store import MemoryStore

from cacheproxy.store.addresses import HANDED_OUT, Addresses
from cacheproxy.store.bucket import Bucket
from cacheproxy.store.errors import BlobMissing


class Signing(Bucket):
    signed = 0

    def address(self, key: str, seconds: float) -> str:
        self.signed += 1
        return f"https://store.test/{key}?{self.signed}"


@pytest.fixture
def bucket() -> Signing:
    bucket = Signing(MemoryStore(), "memory://test")
    bucket.put("a", 3, iter([b"abc"]))
    return bucket


async def test_address_is_given_to_many_until_half_its_time_is_over(bucket: Signing) -> None:
    now = 0.0
    addresses = Addresses(bucket, lambda: now)
    first = await addresses.get("a", 3)
    now = HANDED_OUT - 1
    assert await addresses.get("a", 3) == first
    now = HANDED_OUT
    assert await addresses.get("a", 3) != first
    assert bucket.signed == 2


@pytest.mark.parametrize(("key", "size"), [("b", 3), ("a", 4)])
async def test_nobody_is_sent_to_what_is_not_there(bucket: Signing, key: str, size: int) -> None:
    with pytest.raises(BlobMissing):
        await Addresses(bucket).get(key, size)
