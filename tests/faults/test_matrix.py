"""Every fault, on everything that is asked of an upstream, with nothing here and with something here.

Whatever the client hears, the next pull after the fault is whole and right, by the same daemon.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults.client import Heard
from tests.faults.house import House, Image, house
from tests.faults.rows import (
    ASTRAY,
    BROKEN,
    CUT,
    DOWN,
    LATE,
    LIED,
    LIMITED,
    NO_BLOB,
    ROWS,
    Cut,
    Outcome,
    Row,
    Told,
    Well,
)
from tests.origin import faults
from tests.origin.faults import Fault

SMALL, LARGE = random.Random(1).randbytes(100_000), random.Random(2).randbytes(1_200_000)
MOST_TRIES = 6
"""Requests for one thing, with those for a connection that had been idle, or broke off after some progress: a
failing upstream is not stormed.
"""

COLUMNS = ("token", "HEAD manifest", "GET manifest", "GET blob")


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
async def test_fault_is_told_or_covered_and_passes(row: Row, column: str, folder: Path) -> None:
    async with house(folder, tls=row.tls, hasty=row.hasty) as h:
        if column == "token":
            h.registry.origin.auth = "bearer"
        await with_nothing_here(h, row, column)
        if column == "GET blob" and row.small is not None:
            await with_nothing_here(h, row, "GET small blob")
        await with_something_here(h, row, column)


UNCACHED = {
    "stall mid-body",
    "truncated",
    "reset before the body",
    "wrong bytes",
    "too long",
    "429",
    "5xx storm",
}


@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in ROWS if row.name in UNCACHED])
async def test_fault_is_told_alike_where_nothing_can_be_kept(row: Row, folder: Path) -> None:
    async with house(folder, hasty=row.hasty, cache='budget = "1B"') as h:
        await with_nothing_here(h, row, "GET blob")
        if row.small is not None:
            await with_nothing_here(h, row, "GET small blob")


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (faults.stall(-1), LATE),
        (faults.reset(-1), BROKEN),
        (faults.truncate(10), CUT),
        (faults.wrong_bytes(), CUT),
        (faults.gzip(), LIED),
        (faults.status(503), DOWN),
        (faults.status(403), DOWN),
        (faults.status(404), NO_BLOB),
        (faults.redirect("http://10.1.2.3/"), ASTRAY),
    ],
    ids=["no answer", "reset", "truncated", "wrong bytes", "gzip", "503", "403", "404", "redirect inside"],
)
async def test_storage_that_blobs_are_redirected_to_fails(
    fault: Fault, outcome: Outcome, folder: Path
) -> None:
    """What it refuses is no word of the registry's on our rights; and of ours it hears nothing."""
    async with house(folder, hasty=outcome == LATE) as h:
        h.registry.origin.auth = "bearer"
        h.registry.origin.redirect_blobs_to = h.url(h.storage)
        image = h.image("library/stored-elsewhere", LARGE)
        assert (await h.ask(image.manifest_path())).status == 200
        h.storage.origin.fault({"kind": "storage"}, fault)
        heard = await h.ask(image.blob_path(image.layers[0]))
        assert_heard(heard, outcome, "GET", LARGE)
        await h.heal()
        await h.pull(image)
        told = {name for seen in h.storage.origin.seen for name in seen.headers}
        assert told <= {"host", "user-agent", "accept-encoding", "range", "if-range"}


async def with_nothing_here(h: House, row: Row, column: str) -> None:
    """The client hears of it, or nothing short of an honest end."""
    image = h.image(f"library/cold-{len(column)}", *layers(column))
    path, right, method = image.manifest_path(), image.manifest, "GET"
    if column == "HEAD manifest":
        method = "HEAD"
    elif column.endswith("blob"):
        assert (await h.ask(path)).status == 200
        digest = image.layers["small" not in column]
        path, right = image.blob_path(digest), image.blobs[digest]
    before = h.asked(_kind(column))
    await inflict(row, column, h)
    assert_heard(await h.ask(path, method), _outcome(row, column), method, right)
    assert h.asked(_kind(column)) - before <= MOST_TRIES
    await assert_heard_by_ns(h, path, _outcome(row, column))
    await heal(h, row)
    await h.pull(image)


async def with_something_here(h: House, row: Row, column: str) -> None:
    """What a digest names needs no upstream. A tag is asked for again, and falls back on what is here."""
    image = latest = h.image("library/warm", *layers(f"warm {column}"))
    await h.pull(image)
    if column == "GET manifest":
        latest = h.image("library/warm", b"moved")
    h.registry.origin.tokens.clear()
    await inflict(row, column, h)
    before = h.asked()
    for path, right in [
        (image.manifest_path(image.digest), image.manifest),
        *((image.blob_path(digest), blob) for digest, blob in image.blobs.items()),
    ]:
        heard = await h.ask(path)
        assert (heard.status, heard.whole, heard.body == right) == (200, True, True)
    assert h.asked() == before
    if column != "GET blob":
        method = "HEAD" if column == "HEAD manifest" else "GET"
        heard = await h.ask(image.manifest_path(), method)
        assert_heard_with_something_here(heard, row, column, method, image, latest)
    await heal(h, row)
    await h.pull(latest)


async def heal(h: House, row: Row) -> None:
    await h.heal()
    if row.token == LIMITED:
        await h.calm()


def layers(column: str) -> tuple[bytes, ...]:
    """Of an image whose blobs matter, or do not; no two columns share one."""
    own = column.encode()
    return (SMALL + own, LARGE + own) if column.endswith("blob") else (own,)


async def inflict(row: Row, column: str, h: House) -> None:
    host = h.auth if column == "token" else h.registry
    match = {"kind": _kind(column)}
    if column == "GET manifest":
        match["method"] = "GET"
    await row.inflict(h, host, match)


def assert_heard(heard: Heard, outcome: Outcome, method: str, right: bytes) -> None:
    if isinstance(outcome, Told):
        assert heard.status == outcome.status, heard
        assert ("retry-after" in heard.headers) == (outcome.cause == "429")
        if method == "GET":
            assert heard.whole
            error = heard.error
            assert (error["code"], error["detail"]["cause"]) == (outcome.code, outcome.cause)
            assert error["detail"]["upstream"] == "docker-hub"
            assert error["detail"]["request"]
    elif isinstance(outcome, Cut):
        assert heard.status == 200
        assert len(heard.body) < len(right) == int(heard.headers["content-length"])
    else:
        assert (heard.status, heard.headers.get("warning")) == (200, None), heard
        assert heard.body == (right if method == "GET" else b"")


async def assert_heard_by_ns(h: House, path: str, outcome: Outcome) -> None:
    if isinstance(outcome, Told) and outcome.by_ns is not None:
        bare = path.replace("/docker-hub/", "/")
        heard = await h.ask(f"{bare}?ns=docker.io")
        assert heard.status == outcome.by_ns
        assert heard.error["detail"]["cause"] == outcome.cause
        assert heard.headers["retry-after"]


def assert_heard_with_something_here(
    heard: Heard, row: Row, column: str, method: str, image: Image, latest: Image
) -> None:
    outcome = _outcome(row, column)
    if row.bodies_only and column == "HEAD manifest":
        outcome = Well()
    if not isinstance(outcome, Told) or not outcome.may_be_stale:
        assert_heard(heard, outcome, method, latest.manifest)
        return
    assert heard.status == 200, heard
    assert heard.body == (image.manifest if method == "GET" else b"")
    assert heard.headers["docker-content-digest"] == image.digest
    assert f"({outcome.cause})" in heard.headers["warning"]
    assert int(heard.headers["age"]) >= 0


def _kind(column: str) -> str:
    return column.rpartition(" ")[2]


def _outcome(row: Row, column: str) -> Outcome:
    if column == "GET small blob" and row.small is not None:
        return row.small
    outcomes = {"token": row.token, "manifest": row.manifest, "blob": row.blob}
    return outcomes[_kind(column)]
