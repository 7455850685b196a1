"""The pushing side of blobs, as clients see it: statuses, headers, addresses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cacheproxy.api.caller import Caller
from cacheproxy.api.uploads import Uploads
from cacheproxy.core import operations as ops
from cacheproxy.core.access import Access
from cacheproxy.core.digest import Digest
from cacheproxy.core.errors import OCIError
from cacheproxy.core.patterns import Patterns
from cacheproxy.core.query import parse_query
from cacheproxy.core.rights import Principal, Right, Rule, Rules
from cacheproxy.edge.message import Peer, Request, Response
from cacheproxy.registry.push import Push
from cacheproxy.store.disk import DiskContent
from cacheproxy.store.pushing import Pushing
from cacheproxy.store.sqlite import SQLite
from cacheproxy.store.uploads import UploadFiles
from tests.store.hosting import host

TEAM, OTHER, SECRET = "team/app", "team/other", "secret/app"
DATA = b"hello"
DIGEST = Digest.of(DATA)
MINE = Rule(frozenset({"*"}), frozenset(Right), Patterns(("**", "!secret/**")))
ALICE = Caller(Principal("user:alice"), 0, Access([]), Rules([MINE]))


def request(method: str, body: bytes = b"", query: str = "", **headers: str) -> Request:
    rest = [body] if body else []

    async def receive() -> bytes:
        return rest.pop() if rest else b""

    async def read(_: int) -> bytes:
        return body

    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request(method, f"/?{query}", fields, Peer(None, "http"), "id", read, receive)


class Client:
    def __init__(self, uploads: Uploads) -> None:
        self.uploads = uploads

    async def begin(self, query: str = "", body: bytes = b"", name: str = TEAM) -> Response:
        asked = request("POST", body, query)
        return await self.uploads.begin(ops.Uploads(name), name, asked, parse_query(query), ALICE)

    async def append(self, session: str, body: bytes, **headers: str) -> Response:
        asked = request("PATCH", body, **headers)
        return await self.uploads.append(ops.Upload(TEAM, session), TEAM, asked, {}, ALICE)

    async def finish(self, session: str, query: str, body: bytes = b"", **headers: str) -> Response:
        asked = request("PUT", body, query, **headers)
        return await self.uploads.finish(ops.Upload(TEAM, session), TEAM, asked, parse_query(query), ALICE)

    async def session(self) -> str:
        return dict((await self.begin()).headers)["Docker-Upload-UUID"]


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with SQLite.open(tmp_path / "rows.db") as database:
        await host(database, TEAM, OTHER, SECRET)
        content = DiskContent(tmp_path / "content")
        push = Push(Pushing(database), UploadFiles(content.root), content, lambda: 1e9)
        yield Client(Uploads(push, lambda name, _: None if "." in name else name))


def told(response: Response) -> tuple[int, dict[str, str]]:
    return response.status, dict(response.headers)


async def test_an_upload_begins_with_its_address(client: Client) -> None:
    status, headers = told(await client.begin())
    session = headers["Docker-Upload-UUID"]
    assert status == 202
    assert headers["Location"] == f"/v2/{TEAM}/blobs/uploads/{session}"
    assert headers["Range"] == "0-0"


async def test_a_piece_is_answered_with_how_far_it_is(client: Client) -> None:
    session = await client.session()
    status, headers = told(await client.append(session, DATA))
    assert (status, headers["Range"]) == (202, "0-4")
    status, headers = told(
        await client.uploads.status(ops.Upload(TEAM, session), TEAM, request("GET"), {}, ALICE)
    )
    assert (status, headers["Range"]) == (204, "0-4")
    assert headers["Location"].endswith(session)


@pytest.mark.parametrize("told_range", ["0-4", "bytes 0-4/*", "bytes=0-4"])
async def test_a_piece_may_say_where_it_belongs(client: Client, told_range: str) -> None:
    session = await client.session()
    assert (await client.append(session, DATA, content_range=told_range, content_length="5")).status == 202


async def test_a_piece_out_of_order_hears_where_to_go_on(client: Client) -> None:
    session = await client.session()
    await client.append(session, DATA)
    with pytest.raises(OCIError) as caught:
        await client.append(session, DATA, content_range="0-4")
    headers = dict(caught.value.headers)
    assert caught.value.status == 416
    assert headers["Range"] == "0-4"
    assert headers["Location"] == f"/v2/{TEAM}/blobs/uploads/{session}"


@pytest.mark.parametrize(
    ("told_range", "code"),
    [("4-0", "BLOB_UPLOAD_INVALID"), ("x", "BLOB_UPLOAD_INVALID"), ("0-9", "SIZE_INVALID")],
)
async def test_a_range_that_is_none_is_refused(client: Client, told_range: str, code: str) -> None:
    session = await client.session()
    with pytest.raises(OCIError) as caught:
        await client.append(session, DATA, content_range=told_range, content_length="5")
    assert (caught.value.status, caught.value.code) == (400, code)


async def test_the_end_is_answered_with_the_blobs_address(client: Client) -> None:
    session = await client.session()
    await client.append(session, DATA[:3])
    status, headers = told(await client.finish(session, f"digest={DIGEST}", DATA[3:], content_range="3-4"))
    assert status == 201
    assert headers["Location"] == f"/v2/{TEAM}/blobs/{DIGEST}"
    assert headers["Docker-Content-Digest"] == DIGEST


@pytest.mark.parametrize("query", ["", "digest=sha256:abc", "digest=md5:00"])
async def test_an_end_without_a_digest_is_refused_and_the_upload_stays(client: Client, query: str) -> None:
    session = await client.session()
    with pytest.raises(OCIError) as caught:
        await client.finish(session, query, DATA)
    assert (caught.value.status, caught.value.code) == (400, "DIGEST_INVALID")
    assert (await client.finish(session, f"digest={DIGEST}", DATA)).status == 201


async def test_a_blob_in_one_request(client: Client) -> None:
    status, headers = told(await client.begin(f"digest={DIGEST}", DATA))
    assert (status, headers["Docker-Content-Digest"]) == (201, DIGEST)


async def test_the_algorithm_may_be_said_first(client: Client) -> None:
    digest = Digest.of(DATA, "sha512")
    begun = dict((await client.begin("digest-algorithm=sha512")).headers)
    assert (await client.finish(begun["Docker-Upload-UUID"], f"digest={digest}", DATA)).status == 201
    with pytest.raises(OCIError, match="DIGEST_INVALID"):
        await client.begin("digest-algorithm=md5")


async def test_a_mount_needs_no_upload(client: Client) -> None:
    await client.begin(f"digest={DIGEST}", DATA)
    status, headers = told(await client.begin(f"mount={DIGEST}&from={TEAM}", name=OTHER))
    assert (status, headers["Location"]) == (201, f"/v2/{OTHER}/blobs/{DIGEST}")
    assert (await client.begin(f"mount={DIGEST}", name=SECRET)).status == 201


@pytest.mark.parametrize("source", ["team/none", "other.example/x", SECRET, OTHER])
async def test_a_mount_that_cannot_be_is_an_upload(client: Client, source: str) -> None:
    await client.begin(f"digest={DIGEST}", DATA, name=SECRET)
    assert (await client.begin(f"mount={DIGEST}&from={source}")).status == 202


async def test_a_mount_from_anywhere_passes_over_what_the_caller_may_not_read(client: Client) -> None:
    await client.begin(f"digest={DIGEST}", DATA, name=SECRET)
    assert (await client.begin(f"mount={DIGEST}")).status == 202


async def test_an_upload_is_cancelled(client: Client) -> None:
    session = await client.session()
    asked = request("DELETE")
    assert (await client.uploads.cancel(ops.Upload(TEAM, session), TEAM, asked, {}, ALICE)).status == 204
    with pytest.raises(OCIError, match="BLOB_UPLOAD_UNKNOWN"):
        await client.append(session, DATA)


async def test_a_blob_is_deleted(client: Client) -> None:
    await client.begin(f"digest={DIGEST}", DATA)
    asked = request("DELETE")
    assert (await client.uploads.delete(ops.Blob(TEAM, DIGEST), TEAM, asked, {}, ALICE)).status == 202
