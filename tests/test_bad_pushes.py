"""What a whole daemon that hosts makes of bad input: the right code, nothing changed, no bytes left."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from cacheproxy.core.manifest import MAX_MANIFEST
from cacheproxy.core.media import DOCKER_LIST, DOCKER_MANIFEST, DOCKER_SCHEMA1, OCI_INDEX, OCI_MANIFEST
from tests.faults.client import Heard, asking
from tests.faults.remains import rows_of
from tests.origin.content import sha256
from tests.test_hosting import ALICE, CONFIG, LAYER, NOBODY, READER, Client, client, descriptor, image

pytestmark = pytest.mark.timeout(300)

TEAM, UPLOADS = "/v2/team/app", "/v2/team/app/blobs/uploads/"
OTHERS = "/v2/team/other/blobs/uploads/"

ROWS = {
    "repository": "name, settings",
    "image": "repository, digest, media_type, subject",
    "manifest": "digest, body",
    "tag": "repository, name, digest",
    "link": "repository, digest, size",
    "reference": "repository, image, digest",
    "child": "repository, image, digest",
    "absent": "repository, image, digest",
    "blob": "digest, size, generation",
    "upload": "id, repository, principal, received",
    "chunk": "place, size",
    "trash": "path",
}
"""What a refused request must not change, by table."""


def remains(c: Client) -> dict[str, object]:
    """Rows, and files with their sizes."""
    state = c.house.state
    with rows_of(state) as database:
        found: dict[str, object] = {
            table: sorted(database.execute(f"SELECT {columns} FROM {table}"))
            for table, columns in ROWS.items()
        }
    blobs = state / "blobs"
    found["files"] = sorted(
        (str(path.relative_to(blobs)), path.stat().st_size) for path in blobs.rglob("*") if path.is_file()
    )
    return found


@asynccontextmanager
async def unchanged(c: Client) -> AsyncIterator[None]:
    before = remains(c)
    yield
    assert remains(c) == before


def refused(heard: Heard, status: int, code: str) -> Heard:
    """With distribution's body, and a text for people."""
    assert (heard.status, heard.error["code"]) == (status, code), heard
    assert heard.headers["content-type"].startswith("application/json")
    assert heard.error["message"]
    return heard


async def begun(c: Client, data: bytes = b"hello") -> str:
    """The place of an upload that has these bytes."""
    heard = await c.ask("POST", UPLOADS)
    assert heard.status == 202
    heard = await c.ask("PATCH", heard.headers["location"], data)
    assert heard.status == 202
    return heard.headers["location"]


async def received(c: Client, place: str) -> str:
    heard = await c.ask("GET", place)
    assert heard.status == 204
    return heard.headers["range"]


# Blobs.


async def test_a_wrong_digest_ends_the_upload_and_leaves_nothing(tmp_path: Path) -> None:
    async with client(tmp_path) as c:
        await c.push("team/app", "v1")
        async with unchanged(c):
            place = await begun(c)
            refused(await c.ask("PUT", f"{place}?digest={sha256(b'other')}"), 400, "DIGEST_INVALID")
            refused(await c.ask("GET", place), 404, "BLOB_UPLOAD_UNKNOWN")
            heard = await c.ask("POST", f"{UPLOADS}?digest={sha256(b'other')}", b"hello")
            refused(heard, 400, "DIGEST_INVALID")


@pytest.mark.parametrize(
    "digest", ["sha256:short", "md5:" + "0" * 32, "sha256:" + "G" * 64, "", "sha256:" + "A" * 64, "sha256"]
)
async def test_what_is_no_digest_changes_nothing(tmp_path: Path, digest: str) -> None:
    async with client(tmp_path) as c:
        place = await begun(c)
        async with unchanged(c):
            refused(await c.ask("PUT", f"{place}?digest={digest}"), 400, "DIGEST_INVALID")
            refused(await c.ask("POST", f"{UPLOADS}?digest={digest}", b"x"), 400, "DIGEST_INVALID")
            refused(await c.ask("POST", f"{UPLOADS}?mount={digest}&from=team/app"), 400, "DIGEST_INVALID")
            refused(await c.ask("POST", f"{UPLOADS}?digest-algorithm=md5"), 400, "DIGEST_INVALID")
            if digest:
                refused(await c.ask("GET", f"{TEAM}/blobs/{digest}"), 400, "DIGEST_INVALID")


async def test_an_end_without_a_digest_changes_nothing(tmp_path: Path) -> None:
    async with client(tmp_path) as c:
        place = await begun(c)
        async with unchanged(c):
            refused(await c.ask("PUT", place), 400, "DIGEST_INVALID")


@pytest.mark.parametrize(
    ("span", "sent", "status", "code"),
    [
        ("6-8", b"abc", 416, "RANGE_INVALID"),  # a gap
        ("0-4", b"hello", 416, "RANGE_INVALID"),  # replayed
        ("3-6", b"abcd", 416, "RANGE_INVALID"),  # overlapping
        ("5-8", b"abc", 400, "SIZE_INVALID"),  # longer than what comes
        ("5-6", b"abc", 400, "SIZE_INVALID"),  # shorter
        ("7-5", b"abc", 400, "BLOB_UPLOAD_INVALID"),  # backwards
        ("5-", b"abc", 400, "BLOB_UPLOAD_INVALID"),
        ("bytes=-5", b"abc", 400, "BLOB_UPLOAD_INVALID"),
        ("0-99999999999999999999", b"abc", 400, "BLOB_UPLOAD_INVALID"),
        ("zero-two", b"abc", 400, "BLOB_UPLOAD_INVALID"),
    ],
)
@pytest.mark.parametrize("method", ["PATCH", "PUT"])
async def test_bytes_out_of_place_change_nothing(
    tmp_path: Path, method: str, span: str, sent: bytes, status: int, code: str
) -> None:
    async with client(tmp_path) as c:
        place = await begun(c)
        async with unchanged(c):
            target = place if method == "PATCH" else f"{place}?digest={sha256(b'hello' + sent)}"
            heard = refused(await c.ask(method, target, sent, Content_Range=span), status, code)
            if status == 416:
                assert heard.headers["range"] == "0-4"
                assert heard.headers["location"] == place
            assert await received(c, place) == "0-4"
        assert (await c.ask("PATCH", place, b" world", Content_Range="5-10")).status == 202


async def test_a_body_that_breaks_off_leaves_what_came_of_a_session_and_nothing_else(tmp_path: Path) -> None:
    async with client(tmp_path) as c:
        await c.push("team/app", "v1")
        before = remains(c)
        target = f"{UPLOADS}?digest={sha256(b'whole')}"
        async with asking(c.house.clients, target, "POST", {**ALICE, "Content-Length": "5"}) as request:
            await request._stream.send_all(b"who")
        with trio.fail_after(20):
            while remains(c) != before:
                await trio.sleep(0.02)


@pytest.mark.parametrize("session", ["0" * 32, "..", "%2e%2e%2fx", "A" * 32, "0" * 31, "0" * 5000, "x%00y"])
async def test_a_session_that_is_none_is_not_found(tmp_path: Path, session: str) -> None:
    async with client(tmp_path) as c:
        await c.push("team/app", "v1")
        async with unchanged(c):
            for method in ("GET", "PATCH", "PUT", "DELETE"):
                heard = await c.ask(method, f"{UPLOADS}{session}?digest={sha256(b'x')}", b"x")
                assert heard.status in (400, 404, 414), heard
                assert heard.error["code"]


async def test_a_foreign_session_is_as_one_that_is_none(tmp_path: Path) -> None:
    async with client(tmp_path) as c:
        await c.push("team/app", "v1")
        place = await begun(c)
        elsewhere = place.replace(UPLOADS, OTHERS)
        await c.push("team/other", "v1")
        async with unchanged(c):
            for method in ("GET", "PATCH", "PUT", "DELETE"):
                query = f"?digest={sha256(b'hello')}"
                heard = await c.ask(method, elsewhere + query, b"x")
                refused(heard, 404, "BLOB_UPLOAD_UNKNOWN")
                for who in (READER, NOBODY):
                    heard = await c.ask(method, place + query, b"x", who)
                    assert heard.status in (401, 403), heard
            assert await received(c, place) == "0-4"


# Quotas.


async def limited(c: Client, **quota: int) -> None:
    """As the command does."""
    body = json.dumps({"name": "team/app", "settings": quota}).encode()
    lines = (
        "POST /repositories/set HTTP/1.1",
        "Host: x",
        f"Content-Length: {len(body)}",
        "Connection: close",
    )
    async with await trio.open_unix_socket(str(c.house.state / "admin.sock")) as stream:
        await stream.send_all("\r\n".join([*lines, "", ""]).encode() + body)
        said = b"".join([data async for data in stream])
    assert b" 200 " in said.partition(b"\r\n")[0], said


async def test_a_full_repository_takes_no_more_bytes(tmp_path: Path) -> None:
    async with client(tmp_path) as c:
        body = await c.push("team/app", "v1")
        await c.push("team/other", "v1")
        assert (await c.blob("team/other", b"more")).status == 201
        await limited(c, quota_bytes=len(CONFIG) + len(LAYER))
        async with unchanged(c):
            for query in ("", f"?digest={sha256(b'more')}", f"?mount={sha256(b'more')}&from=team/other"):
                refused(await c.ask("POST", UPLOADS + query, b"more"), 429, "TOOMANYREQUESTS")
        assert (await c.ask("POST", f"{UPLOADS}?mount={sha256(LAYER)}&from=team/other")).status == 201
        assert (await c.manifest("team/app", "v2", body)).status == 201


@pytest.mark.parametrize("ends", ["PATCH", "PUT"])
async def test_an_upload_that_outgrows_its_repository_ends(tmp_path: Path, ends: str) -> None:
    async with client(tmp_path) as c:
        await c.push("team/app", "v1")
        await limited(c, quota_bytes=len(CONFIG) + len(LAYER) + 10)
        async with unchanged(c):
            place = await begun(c, b"hello")
            sent = b"x" * 1_000_000
            target = place if ends == "PATCH" else f"{place}?digest={sha256(b'hello' + sent)}"
            refused(await c.ask(ends, target, sent), 429, "TOOMANYREQUESTS")
            refused(await c.ask("GET", place), 404, "BLOB_UPLOAD_UNKNOWN")
        place = await begun(c, b"hello")
        assert (await c.ask("PUT", f"{place}?digest={sha256(b'hello')}")).status == 201


async def test_two_uploads_that_fit_one_by_one_do_not_both_get_in(tmp_path: Path) -> None:
    async with client(tmp_path) as c:
        await c.push("team/app", "v1")
        await limited(c, quota_bytes=len(CONFIG) + len(LAYER) + 10)
        first, second = await begun(c, b"6 byte"), await begun(c, b"6 more")
        assert (await c.ask("PUT", f"{first}?digest={sha256(b'6 byte')}")).status == 201
        before = remains(c)
        refused(await c.ask("PUT", f"{second}?digest={sha256(b'6 more')}"), 429, "TOOMANYREQUESTS")
        after = remains(c)
        assert after["blob"] == before["blob"]
        assert after["upload"] == []


async def test_a_repository_with_all_its_images_takes_no_more(tmp_path: Path) -> None:
    async with client(tmp_path) as c:
        await c.push("team/app", "v1")
        await limited(c, quota_images=1)
        async with unchanged(c):
            refused(await c.manifest("team/app", "v2", image("more")), 429, "TOOMANYREQUESTS")


# Manifests.

NESTED = b'{"schemaVersion":2,"config":' + b"[" * 10_000 + b"]" * 10_000 + b"}"
TWICE = image().replace(b'"schemaVersion": 2', b'"schemaVersion": 2, "schemaVersion": 2')
FOLDED = image().replace(b'"layers"', b'"Layers"')

AMBIGUOUS: dict[str, tuple[bytes, str]] = {
    "an image sent as an index": (image(), OCI_INDEX),
    "an image sent as another kind of image": (image(), DOCKER_MANIFEST),
    "an image that is an index, too": (image(manifests=[]), OCI_MANIFEST),
    "an index that is an image, too": (
        json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [], "layers": []}).encode(),
        OCI_INDEX,
    ),
    "an image that says it is an index": (image(mediaType=OCI_INDEX), OCI_MANIFEST),
    "an index that says it is Docker's": (
        json.dumps({"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": []}).encode(),
        OCI_INDEX,
    ),
    "schema 1": (
        b'{"schemaVersion":1,"fsLayers":[]}',
        DOCKER_SCHEMA1,
    ),
    "layers of schema 1": (image(fsLayers=[]), OCI_MANIFEST),
    "a key twice": (TWICE, OCI_MANIFEST),
    "a key in other letters": (FOLDED, OCI_MANIFEST),
    "10 000 levels": (NESTED, OCI_MANIFEST),
    "10 000 levels of arrays alone": (b"[" * 10_000, OCI_MANIFEST),
    "nothing": (b"", OCI_MANIFEST),
    "no JSON": (b"\x1f\x8b\x08\x00", OCI_MANIFEST),
    "a list": (b"[]", OCI_MANIFEST),
    "a digest that is none": (image(config={**descriptor(CONFIG), "digest": "sha256:../../x"}), OCI_MANIFEST),
    "a size below nothing": (image(config={**descriptor(CONFIG), "size": -1}), OCI_MANIFEST),
    "a size beyond all": (image(config={**descriptor(CONFIG), "size": 1 << 70}), OCI_MANIFEST),
    "a lone surrogate": (image().replace(b'"note": ""', b'"note": "\\ud800"'), OCI_MANIFEST),
    "a type that is no manifest's": (image(), "text/html; charset=x"),
}


async def test_a_manifest_that_may_mean_two_things_changes_nothing(tmp_path: Path) -> None:
    async with client(tmp_path) as c:
        await c.push("team/app", "v1")
        async with unchanged(c):
            for name, (body, media_type) in AMBIGUOUS.items():
                for reference in ("v1", "v2", sha256(body)):
                    heard = await c.manifest("team/app", reference, body, media_type)
                    assert (heard.status, heard.error["code"]) == (400, "MANIFEST_INVALID"), name


async def test_the_same_bytes_are_not_here_as_two_types(tmp_path: Path) -> None:
    bare = json.dumps({"schemaVersion": 2, "manifests": []}).encode()
    async with client(tmp_path) as c:
        await c.push("team/app", "v1")
        assert (await c.manifest("team/app", "v2", bare, OCI_INDEX)).status == 201
        async with unchanged(c):
            heard = await c.manifest("team/app", "v3", bare, DOCKER_LIST)
            refused(heard, 400, "MANIFEST_INVALID")


async def test_a_manifest_one_byte_too_large_changes_nothing(tmp_path: Path) -> None:
    async with client(tmp_path) as c:
        await c.push("team/app", "v1")
        async with unchanged(c):
            fields = {**ALICE, "Content-Length": str(MAX_MANIFEST + 1), "Content-Type": OCI_MANIFEST}
            async with asking(c.house.clients, f"{TEAM}/manifests/v2", "PUT", fields) as request:
                head = await request.head()
                refused(Heard(head.status, head.headers, await request.rest()), 413, "UNSUPPORTED")
            chunked = {**ALICE, "Transfer-Encoding": "chunked", "Content-Type": OCI_MANIFEST}
            async with asking(c.house.clients, f"{TEAM}/manifests/v2", "PUT", chunked) as request:
                piece = b"%x\r\n%b\r\n" % (1 << 16, b" " * (1 << 16))
                try:
                    for _ in range((MAX_MANIFEST >> 16) + 1):
                        await request._stream.send_all(piece)
                except trio.BrokenResourceError:
                    pass  # it has heard enough
                assert (await request.head()).status in (0, 413)


@pytest.mark.parametrize(
    ("reference", "status", "code"),
    [
        (sha256(b"another manifest"), 400, "DIGEST_INVALID"),
        ("sha256:short", 400, "DIGEST_INVALID"),
        (".hidden", 400, "TAG_INVALID"),
        ("a" * 129, 400, "TAG_INVALID"),
        ("with%20blank", 400, "TAG_INVALID"),
    ],
)
async def test_a_manifest_by_a_wrong_reference_changes_nothing(
    tmp_path: Path, reference: str, status: int, code: str
) -> None:
    async with client(tmp_path) as c:
        await c.push("team/app", "v1")
        async with unchanged(c):
            heard = await c.manifest("team/app", reference, image("x"))
            assert (heard.status, heard.error["code"]) in ((status, code), (404, "MANIFEST_INVALID")), heard


async def test_what_is_refused_makes_no_repository(tmp_path: Path) -> None:
    async with client(tmp_path) as c:
        async with unchanged(c):
            for name, (body, media_type) in AMBIGUOUS.items():
                heard = await c.manifest("team/new", "v1", body, media_type)
                assert heard.status == 400, name
            refused(await c.manifest("team/new", "v1", image()), 404, "MANIFEST_BLOB_UNKNOWN")
            refused(await c.manifest("team/new", sha256(b"x"), image()), 400, "DIGEST_INVALID")
            place = "/v2/team/new/blobs/uploads/"
            refused(await c.ask("POST", f"{place}?digest={sha256(b'y')}", b"x"), 400, "DIGEST_INVALID")
            refused(await c.ask("POST", f"{place}?digest=sha256:x", b"x"), 400, "DIGEST_INVALID")
            refused(await c.ask("POST", f"{place}?digest-algorithm=md5"), 400, "DIGEST_INVALID")
            refused(await c.ask("GET", "/v2/team/new/tags/list"), 404, "NAME_UNKNOWN")
        empty = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}).encode()
        assert (await c.manifest("team/new", "v1", empty, OCI_INDEX)).status == 201


LEVELS = 40


async def test_a_diamond_of_indexes_is_no_more_than_its_indexes(tmp_path: Path) -> None:
    """Each names two that name the same two below: 2 to the power of 40 ways to the bottom."""
    async with client(tmp_path) as c:
        await c.push("team/app", "bottom")
        below = [descriptor(image(), OCI_MANIFEST)] * 2
        bodies = []
        for level in range(LEVELS):
            pair = [
                json.dumps(
                    {
                        "schemaVersion": 2,
                        "mediaType": OCI_INDEX,
                        "manifests": below,
                        "annotations": {"at": f"{level}.{side}"},
                    }
                ).encode()
                for side in (0, 1)
            ]
            bodies += pair
            below = [descriptor(body, OCI_INDEX) for body in pair]
        for body in bodies:
            assert (await c.manifest("team/app", sha256(body), body, OCI_INDEX)).status == 201
        top = bodies[-1]
        assert (await c.manifest("team/app", "top", top, OCI_INDEX)).status == 201
        assert await c.says(f"{TEAM}/manifests/top") == top
        assert (await c.ask("GET", f"{TEAM}/referrers/{sha256(top)}")).status == 200
        for body in reversed(bodies):
            assert (await c.ask("DELETE", f"{TEAM}/manifests/{sha256(body)}")).status == 202


# Names.

ESCAPES = [
    "..",
    "../..",
    "team/../../etc",
    "%2e%2e/%2e%2e",
    "team%2F..%2F..",
    "team/.git",
    "team//app",
    "Team/App",
    "team/app%00",
    "team/app%0a",
    "team/%C3%A9",
    "a" * 300,
    "team/_catalog_",
    "team\\app",
]


def neighbours(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


@pytest.mark.parametrize("name", ESCAPES)
async def test_a_name_that_escapes_goes_nowhere(tmp_path: Path, name: str) -> None:
    async with client(tmp_path) as c:
        await c.push("team/app", "v1")
        outside = neighbours(tmp_path)
        async with unchanged(c):
            for method, rest, body in (
                ("POST", "blobs/uploads/", b""),
                ("POST", f"blobs/uploads/?digest={sha256(b'x')}", b"x"),
                ("POST", f"blobs/uploads/?mount={sha256(LAYER)}&from=team/app", b""),
                ("PUT", "manifests/v1", image()),
                ("GET", "tags/list", b""),
                ("DELETE", "manifests/v1", b""),
            ):
                heard = await c.ask(method, f"/v2/{name}/{rest}", body)
                assert 400 <= heard.status < 500, (method, rest, heard)
                assert heard.error["code"]
        assert neighbours(tmp_path) == outside


async def test_a_mount_from_a_name_that_escapes_is_an_upload_that_begins(tmp_path: Path) -> None:
    async with client(tmp_path) as c:
        await c.push("team/app", "v1")
        for source in ("..", "../../etc", "team%2F..%2Fx", "%00", ""):
            heard = await c.ask("POST", f"{UPLOADS}?mount={sha256(LAYER)}&from={source}")
            assert heard.status in (202, 400), heard
