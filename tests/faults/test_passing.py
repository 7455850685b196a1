"""What passes by itself is not heard of: the transfer goes on where it broke, and nothing comes twice."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from tests.faults.host import NAME
from tests.faults.house import House, house
from tests.origin import Plan, faults
from tests.origin.faults import Fault

SIZE = 1_500_000
LAYER = random.Random(3).randbytes(SIZE)
MIDDLE = 600_000
BLOB = {"kind": "blob"}


@dataclass(frozen=True)
class Setback:
    name: str
    happens: Callable[[House], Awaitable[None]]
    again: int = 0
    """Bytes that may be sent twice."""
    hasty: bool = False


def once(*one_after_the_other: Fault) -> Callable[[House], Awaitable[None]]:
    async def happens(h: House) -> None:
        for fault in one_after_the_other:
            h.registry.origin.fault(BLOB, fault, times=1)

    return happens


async def token_expires(h: House) -> None:
    h.registry.origin.auth = "bearer"

    def change(plan: Plan) -> None:
        h.registry.origin.tokens.clear()
        faults.truncate(MIDDLE)(plan)

    h.registry.origin.fault(BLOB, change, times=1)


async def signature_expires(h: House) -> None:
    """An object store's address is good for a while; the registry gives a new one."""
    h.registry.origin.redirect_blobs_to = h.url(h.storage)
    h.storage.origin.fault({"kind": "storage"}, faults.truncate(MIDDLE), times=1)
    h.storage.origin.fault({"kind": "storage"}, faults.status(403, body=b"<Error>"), times=1)


async def restarts(h: House) -> None:
    """The host ends every connection, and is back at once."""

    def change(plan: Plan) -> None:
        plan.rate = 20e6
        h.later(back)

    async def back() -> None:
        await trio.sleep(0.02)
        await h.registry.stop()
        await h.registry.start()

    h.registry.origin.fault(BLOB, change, times=1)


SETBACKS = (
    *(Setback(f"truncated after {n}", once(faults.truncate(n))) for n in (0, 1, MIDDLE, SIZE - 1)),
    *(Setback(f"reset after {n}", once(faults.reset(n)), again=n) for n in (-1, 0, 1, MIDDLE, SIZE - 1)),
    Setback("reset in the head", once(faults.reset_in_head())),
    Setback("twice", once(faults.truncate(MIDDLE), faults.truncate(MIDDLE))),
    Setback("stall", once(faults.stall(MIDDLE)), hasty=True),
    Setback("drip", once(faults.drip(50)), again=50, hasty=True),
    Setback("503 first", once(faults.status(503), faults.status(503))),
    Setback("503 then", once(faults.truncate(MIDDLE), faults.status(503), faults.reset(-1))),
    Setback("429 then", once(faults.truncate(MIDDLE), faults.status(429, {"Retry-After": "1"}))),
    Setback("no ranges then", once(faults.truncate(MIDDLE), faults.ignore_range()), again=MIDDLE),
    Setback(
        "another version", once(faults.both(faults.header("ETag", '"1"'), faults.truncate(MIDDLE))), MIDDLE
    ),
    Setback("weak ETag", once(faults.both(faults.header("ETag", 'W/"1"'), faults.truncate(MIDDLE)))),
    Setback("token expires", token_expires),
    Setback("signature expires", signature_expires),
    Setback("restart", restarts, again=SIZE),
)


@pytest.mark.parametrize("setback", SETBACKS, ids=[setback.name for setback in SETBACKS])
async def test_blob_comes_whole_and_once(setback: Setback, folder: Path) -> None:
    async with house(folder, hasty=setback.hasty) as h:
        image = h.image("library/layered", LAYER)
        digest = image.layers[0]
        assert (await h.ask(image.manifest_path())).status == 200
        await setback.happens(h)
        heard = await h.ask(image.blob_path(digest))
        assert (heard.status, heard.whole, heard.body == LAYER) == (200, True, True)
        sent = sum(host.origin.bytes_sent(digest) for host in h.hosts)
        assert SIZE <= sent <= SIZE + max(setback.again, 0)
        await h.pull(image)


MOMENTS: dict[str, Fault] = {
    "503": faults.status(503),
    "reset": faults.reset(-1),
    "reset in the head": faults.reset_in_head(),
    "truncated": faults.truncate(10),
}


@pytest.mark.parametrize("kind", ["token", "manifest"])
@pytest.mark.parametrize("fault", MOMENTS.values(), ids=MOMENTS)
async def test_moment_of_weakness_is_passed_over(kind: str, fault: Fault, folder: Path) -> None:
    async with house(folder) as h:
        h.registry.origin.auth = "bearer"
        image = h.image("library/layered", b"layer")
        for _ in range(2):  # with nothing here, then with something
            h.registry.origin.tokens.clear()
            for host in (h.registry, h.auth):
                host.origin.fault({"kind": kind}, fault, times=2)
            await h.pull(image)
            await h.heal()


async def test_token_that_expired_is_fetched_once_for_all_who_need_it(folder: Path) -> None:
    async with house(folder) as h:
        h.registry.origin.auth = "bearer"
        tags = [h.image("library/many", b"layer", str(n).encode(), tag=f"t{n}") for n in range(20)]
        await h.pull(tags[0])
        h.registry.origin.tokens.clear()
        fetched = h.asked("token")
        async with trio.open_nursery() as nursery:
            for image in tags:
                nursery.start_soon(h.pull, image)
        assert h.asked("token") == fetched + 1


async def test_mirror_goes_on_where_the_first_one_broke(folder: Path) -> None:
    async with house(folder, mirrored=True) as h:
        image = h.image("library/layered", LAYER)
        assert (await h.ask(image.manifest_path())).status == 200
        h.registry.origin.fault(BLOB, faults.truncate(MIDDLE))
        heard = await h.ask(image.blob_path(image.layers[0]))
        assert (heard.status, heard.body == LAYER) == (200, True)
        assert [seen.range for seen in h.storage.origin.seen] == [f"bytes={MIDDLE}-{SIZE - 1}"]
        assert "if-range" not in h.storage.origin.seen[0].headers
        await h.registry.stop()
        await h.pull(image)
        await h.heal()
        await h.pull(image)


async def test_ranged_transfers_mend_each_their_own(folder: Path) -> None:
    parallel = 'parallel = { from = "1MiB", ranges = 4 }'
    size = 40 << 20
    async with house(folder, cache=parallel) as h:
        digest = h.content.add_pattern_blob(size, repo="library/large")
        h.content.add_image("library/large", "latest", [digest])
        assert (await h.ask("/v2/docker-hub/library/large/manifests/latest")).status == 200
        h.registry.origin.fault(BLOB, faults.truncate(5 << 20), times=3)
        heard = await h.ask(f"/v2/docker-hub/library/large/blobs/{digest}")
        assert (heard.status, heard.whole) == (200, True)
        assert heard.body == h.content.blobs[digest].read(0, size)
        assert h.registry.origin.bytes_sent(digest) == size


async def test_foreign_layers_are_not_fetched_from_where_they_say(folder: Path) -> None:
    async with house(folder) as h:
        image = h.image("library/foreign", b"layer")
        elsewhere = f"http://{NAME}:{h.storage.port}/layer".encode()
        body = image.manifest.replace(b'"size"', b'"urls":["' + elsewhere + b'"],"size"')
        h.content.add_manifest(
            "library/foreign", body, "application/vnd.oci.image.manifest.v1+json", "latest"
        )
        assert (await h.ask(image.manifest_path())).body == body
        for digest, data in image.blobs.items():
            assert (await h.ask(image.blob_path(digest))).body == data
        assert h.storage.origin.seen == []
