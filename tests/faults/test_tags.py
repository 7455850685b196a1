"""A tag means one thing by HEAD and another by GET, or nothing any more."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from tests.faults.client import Heard
from tests.faults.house import House, Image, house
from tests.origin import Plan, faults
from tests.origin.content import sha256
from tests.origin.faults import Fault

NOWHERE = sha256(b"never pushed")
HEAD = {"kind": "manifest", "method": "HEAD"}
GET = {"kind": "manifest", "method": "GET"}


def assert_is(heard: Heard, image: Image) -> None:
    assert (heard.status, heard.headers.get("warning")) == (200, None), heard
    assert heard.body == image.manifest
    assert heard.headers["docker-content-digest"] == image.digest == sha256(heard.body)


def gone(h: House, image: Image) -> None:
    """The upstream deletes the image, with its tag and its blobs."""
    del h.content.manifests[image.repository][image.digest]
    h.content.tags[image.repository].clear()
    h.content.links[image.repository].clear()


@pytest.mark.parametrize(
    "fault",
    [
        faults.status(405),
        faults.status(501),
        faults.status(404),
        faults.header("Docker-Content-Digest", None),
        faults.header("Docker-Content-Digest", "sha256:short"),
        faults.header("Docker-Content-Digest", NOWHERE),
    ],
    ids=["405", "501", "404", "no digest", "no digest at all", "digest of nothing"],
)
async def test_get_is_believed_where_head_is_of_no_use(fault: Fault, folder: Path) -> None:
    async with house(folder) as h:
        old = h.image("library/tagged", b"old")
        await h.pull(old)
        h.registry.origin.fault(HEAD, fault)
        assert_is(await h.ask(old.manifest_path()), old)
        new = h.image("library/tagged", b"new")
        assert_is(await h.ask(new.manifest_path()), new)
        await h.heal()
        await h.pull(new)


async def test_tag_that_moves_between_head_and_get_is_what_get_says(folder: Path) -> None:
    async with house(folder) as h:
        await h.pull(h.image("library/tagged", b"old"))
        head_says = h.image("library/tagged", b"short-lived")
        last = list[Image]()

        def moves(_: Plan) -> None:
            gone(h, head_says)
            last.append(h.image("library/tagged", b"last"))

        h.registry.origin.fault(HEAD, moves, times=1)
        assert_is(await h.ask(head_says.manifest_path()), last[0])
        await h.pull(last[0])


@pytest.mark.parametrize("fault", [faults.status(503), faults.stall(-1), faults.wrong_bytes(300)])
async def test_digest_that_head_told_of_is_not_waited_for_for_ever(fault: Fault, folder: Path) -> None:
    """HEAD told of an image that could not be had; by the time it could, the tag had moved on."""
    async with house(folder, hasty=True) as h:
        await h.pull(h.image("library/tagged", b"old"))
        head_says = h.image("library/tagged", b"short-lived")
        h.registry.origin.fault(GET, fault)
        await h.ask(head_says.manifest_path())
        gone(h, head_says)
        last = h.image("library/tagged", b"last")
        await h.heal()
        assert_is(await h.ask(last.manifest_path()), last)
        await h.pull(last)


async def test_digest_header_of_the_upstream_is_not_passed_on(folder: Path) -> None:
    async with house(folder) as h:
        image = h.image("library/tagged", b"layer")
        h.registry.origin.fault(GET, faults.header("Docker-Content-Digest", NOWHERE))
        assert_is(await h.ask(image.manifest_path()), image)
        await h.pull(image)


async def test_image_deleted_upstream_stays_by_digest_and_goes_by_tag(folder: Path) -> None:
    async with house(folder) as h:
        image = h.image("library/tagged", b"layer")
        await h.pull(image)
        gone(h, image)
        by_tag = await h.ask(image.manifest_path())
        assert (by_tag.status, by_tag.error["code"]) == (404, "MANIFEST_UNKNOWN")
        assert_is(await h.ask(image.manifest_path(image.digest)), image)
        for digest, data in image.blobs.items():
            assert (await h.ask(image.blob_path(digest))).body == data
        await h.pull(h.image("library/tagged", b"pushed again"))


async def test_what_was_missing_is_found_once_it_is_there(folder: Path) -> None:
    """The upstream is not asked twice in a moment, and not trusted to be right for longer."""
    async with house(folder, missing_for="300ms") as h:
        image = h.image("library/tagged", b"layer")
        there = dict(h.content.tags[image.repository])
        h.content.tags[image.repository].clear()
        asked = h.asked("manifest")
        for _ in range(5):
            assert (await h.ask(image.manifest_path())).status == 404
        assert h.asked("manifest") == asked + 1
        h.content.tags[image.repository].update(there)
        with trio.fail_after(30):
            while (await h.ask(image.manifest_path())).status == 404:
                await trio.sleep(0.05)
        await h.pull(image)


async def test_denial_is_not_remembered(folder: Path) -> None:
    async with house(folder, missing_for="1h") as h:
        image = h.image("library/tagged", b"layer")
        h.registry.origin.fault(GET, faults.status(403), times=1)
        assert (await h.ask(image.manifest_path())).status == 403
        await h.pull(image)
