from __future__ import annotations

import ipaddress
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from trio.testing import MockClock

from cacheproxy.api.callers import Callers
from cacheproxy.api.dispatch import Door
from cacheproxy.api.distribution import Distribution
from cacheproxy.api.ready import ReadyAnswers
from cacheproxy.core.access import Access, Grant
from cacheproxy.core.blob import BlobBroken
from cacheproxy.core.digest import Digest
from cacheproxy.core.failures import Cause
from cacheproxy.core.media import OCI_INDEX, OCI_MANIFEST
from cacheproxy.core.patterns import Patterns
from cacheproxy.core.routing import Routes, UpstreamRoute
from cacheproxy.edge.message import BlobBody, Peer, Request, Response
from cacheproxy.registry.fill import FillView
from cacheproxy.registry.grants import Standing
from cacheproxy.store.errors import StoreBusy, StoreSuspect
from tests.registry.conftest import pattern
from tests.registry.world import HOUR, FakeRegistry, World, manifest, world

SIZE = 2 << 20
BLOB = pattern(SIZE)
IMAGE = manifest(b"{}", BLOB)
DIGEST, BLOB_DIGEST = Digest.of(IMAGE), Digest.of(BLOB)

ALLOWED = ipaddress.ip_address("10.0.0.9")
STRANGER = ipaddress.ip_address("192.0.2.1")


class Client:
    """Asks a door as the edge does, and reads the answer as a client would."""

    def __init__(self, door: Door, cache: World) -> None:
        self.door = door
        self.cache = cache

    async def ask(
        self,
        target: str,
        method: str = "GET",
        address: ipaddress.IPv4Address | ipaddress.IPv6Address | None = ALLOWED,
        stranger: bool = False,
        **headers: str,
    ) -> Response:
        async def no_body(_: int) -> bytes:
            return b""

        fields = {"host": "cache.example", **{k.replace("_", "-"): v for k, v in headers.items()}}
        peer = Peer(address, "http", forwarded_by_stranger=stranger)
        return await self.door.handle(Request(method, target, fields, peer, "00000000000000aa", no_body))

    def at_once(self, target: str, method: str = "GET", **headers: str) -> bytes | None:
        fields = {"host": "cache.example", **{k.replace("_", "-"): v for k, v in headers.items()}}
        ready = self.door.immediate(method, target, fields, Peer(ALLOWED, "http"))
        return None if ready is None else ready.head + b"\r\n" + ready.body


@asynccontextmanager
async def client(folder: Path, **settings: Any) -> AsyncIterator[Client]:
    upstream = FakeRegistry(data=BLOB)
    upstream.push("latest", IMAGE)
    async with world(folder, upstream, **settings) as cache:
        routes = Routes(
            [UpstreamRoute("hub.example", "hub", ("hub.cache.example",), library=True, default=True)]
        )
        access = Access([Grant((ipaddress.ip_network("10.0.0.0/8"),), Patterns(("**", "!hub/secret/**")))])
        distribution = Distribution(cache.manifests, cache.blobs, cache.listings)
        callers = Callers(access, Standing([]), None, "", lambda: cache.now)
        door = Door(routes, callers, distribution, None, ReadyAnswers(), "us-1", lambda: cache.now)
        yield Client(door, cache)


def header(response: Response, name: str) -> str | None:
    found = [value for field, value in response.headers if field.lower() == name.lower()]
    assert len(found) < 2, f"{name} twice"
    return found[0] if found else None


async def body(response: Response) -> bytes:
    if isinstance(response.body, bytes):
        return response.body
    return await _bytes_of(response.body)


async def _bytes_of(sent: BlobBody) -> bytes:
    got = bytearray()
    try:
        for part in sent.parts:
            if isinstance(part, bytes):
                got += part
                continue
            at = part.start
            while at < part.stop:
                count = await sent.view.available(at, part)
                fd = sent.view.fileno()
                data = os.pread(fd, count, at) if fd is not None else await sent.view.read(at, count)
                got += data
                at += len(data)
    finally:
        sent.view.close()
    assert len(got) == sent.length
    return bytes(got)


async def error(response: Response) -> dict[str, Any]:
    assert header(response, "content-type") == "application/json"
    (first,) = msgspec.json.decode(await body(response))["errors"]
    assert first["detail"]["request"] == "00000000000000aa"
    found: dict[str, Any] = first
    return found


async def test_the_ping_says_what_we_speak(tmp_path: Path, clock: MockClock) -> None:
    async with client(tmp_path) as c:
        response = await c.ask("/v2/")
    assert response.status == 200
    assert header(response, "docker-distribution-api-version") == "registry/2.0"


@pytest.mark.parametrize(
    ("target", "namespace"),
    [
        ("/v2/hub/library/debian/manifests/latest", None),
        ("/v2/hub.example/library/debian/manifests/latest", None),
        ("/v2/library/debian/manifests/latest", None),
        ("/v2/debian/manifests/latest", None),
        ("/v2/library/debian/manifests/latest?ns=hub.example", "hub.example"),
        ("/v2/hub.example/library/debian/manifests/latest?ns=hub.example", "hub.example"),
    ],
)
async def test_every_way_of_asking_reaches_the_same_image(
    tmp_path: Path, clock: MockClock, target: str, namespace: str | None
) -> None:
    async with client(tmp_path) as c:
        response = await c.ask(target)
        again = await c.ask("/v2/hub/library/debian/manifests/latest")
    assert (await body(response), response.upstream) == (IMAGE, "hub")
    assert again.outcome == "hit"
    assert header(response, "oci-namespace") == namespace


async def test_a_manifest_comes_with_its_headers(tmp_path: Path, clock: MockClock) -> None:
    async with client(tmp_path) as c:
        response = await c.ask("/v2/debian/manifests/latest")
    assert header(response, "content-type") == OCI_MANIFEST
    assert header(response, "docker-content-digest") == DIGEST
    assert header(response, "etag") == f'"{DIGEST}"'
    assert header(response, "vary") == "Accept"


async def test_a_digest_may_be_kept_for_ever(tmp_path: Path, clock: MockClock) -> None:
    async with client(tmp_path) as c:
        response = await c.ask(f"/v2/debian/manifests/{DIGEST}")
    assert header(response, "cache-control") == "max-age=31536000, immutable"


async def test_a_known_manifest_is_not_sent_again(tmp_path: Path, clock: MockClock) -> None:
    async with client(tmp_path) as c:
        response = await c.ask(f"/v2/debian/manifests/{DIGEST}", if_none_match=f'"{DIGEST}"')
    assert (response.status, await body(response)) == (304, b"")


async def test_a_warm_manifest_is_ready_at_once(tmp_path: Path, clock: MockClock) -> None:
    target = "/v2/debian/manifests/latest"
    async with client(tmp_path) as c:
        assert c.at_once(target) is None
        await c.ask(target)
        answer = c.at_once(target)
        c.cache.pass_time(HOUR)
        assert c.at_once(target) is None
    assert answer is not None
    head, _, sent = answer.partition(b"\r\n\r\n")
    assert sent == IMAGE
    assert f"Content-Length: {len(IMAGE)}".encode() in head


async def test_a_warm_head_is_ready_without_a_body(tmp_path: Path, clock: MockClock) -> None:
    async with client(tmp_path) as c:
        await c.ask("/v2/debian/manifests/latest", "HEAD")
        answer = c.at_once("/v2/debian/manifests/latest", "HEAD")
    assert answer is not None
    assert answer.endswith(b"\r\n\r\n")


async def test_a_stale_manifest_says_so_and_is_not_ready(tmp_path: Path, clock: MockClock) -> None:
    async with client(tmp_path) as c:
        await c.ask("/v2/debian/manifests/latest")
        c.cache.pass_time(2 * HOUR)
        c.cache.upstream.failure = Cause.SERVER
        response = await c.ask("/v2/debian/manifests/latest")
        assert c.at_once("/v2/debian/manifests/latest") is None
    assert (response.status, response.outcome, header(response, "age")) == (200, "stale", "7200")
    warning = header(response, "warning")
    assert warning is not None
    assert warning.startswith('299 - "served from the cache: hub failed')


async def test_a_blob_comes_whole_with_its_headers(tmp_path: Path, clock: MockClock) -> None:
    async with client(tmp_path) as c:
        await c.ask("/v2/debian/manifests/latest")
        response = await c.ask(f"/v2/debian/blobs/{BLOB_DIGEST}")
        sent = await body(response)
    assert (response.status, sent == BLOB, response.outcome) == (200, True, "miss")
    assert header(response, "docker-content-digest") == BLOB_DIGEST
    assert header(response, "accept-ranges") == "bytes"
    assert header(response, "content-type") == "application/octet-stream"


async def test_head_of_a_blob_says_its_length_and_fetches_nothing(tmp_path: Path, clock: MockClock) -> None:
    async with client(tmp_path) as c:
        await c.ask("/v2/debian/manifests/latest")
        response = await c.ask(f"/v2/debian/blobs/{BLOB_DIGEST}", "HEAD")
        assert c.cache.upstream.answers == []
    assert (response.status, response.length, response.body) == (200, SIZE, b"")


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-1", 0, 2),
        ("bytes=100-199", 100, 200),
        ("bytes=1000-", 1000, SIZE),
        ("bytes=-7", SIZE - 7, SIZE),
    ],
)
async def test_a_range_is_answered_with_just_that(
    tmp_path: Path, clock: MockClock, asked: str, start: int, stop: int
) -> None:
    async with client(tmp_path) as c:
        await c.ask("/v2/debian/manifests/latest")
        response = await c.ask(f"/v2/debian/blobs/{BLOB_DIGEST}", range=asked)
        sent = await body(response)
    assert (response.status, sent) == (206, BLOB[start:stop])
    assert header(response, "content-range") == f"bytes {start}-{stop - 1}/{SIZE}"


async def test_several_ranges_come_as_parts(tmp_path: Path, clock: MockClock) -> None:
    async with client(tmp_path) as c:
        await c.ask("/v2/debian/manifests/latest")
        response = await c.ask(f"/v2/debian/blobs/{BLOB_DIGEST}", range="bytes=0-9,100-109")
        sent = await body(response)
    kind = header(response, "content-type") or ""
    assert response.status == 206
    assert kind.startswith("multipart/byteranges; boundary=")
    boundary = kind.partition("boundary=")[2].encode()
    parts = sent.split(b"--" + boundary)
    assert [part.partition(b"\r\n\r\n")[2].rstrip(b"\r\n") for part in parts[1:3]] == [
        BLOB[:10].rstrip(b"\r\n"),
        BLOB[100:110].rstrip(b"\r\n"),
    ]
    assert parts[3] == b"--\r\n"


async def test_a_range_past_the_end_is_refused_with_the_size(tmp_path: Path, clock: MockClock) -> None:
    async with client(tmp_path) as c:
        await c.ask("/v2/debian/manifests/latest")
        response = await c.ask(f"/v2/debian/blobs/{BLOB_DIGEST}", range=f"bytes={SIZE}-")
    assert (response.status, response.upstream) == (416, "hub")
    assert header(response, "content-range") == f"bytes */{SIZE}"


async def test_a_range_of_another_version_is_ignored(tmp_path: Path, clock: MockClock) -> None:
    async with client(tmp_path) as c:
        await c.ask("/v2/debian/manifests/latest")
        response = await c.ask(f"/v2/debian/blobs/{BLOB_DIGEST}", range="bytes=0-9", if_range='"sha256:0"')
        await body(response)
    assert response.status == 200


async def test_an_upstream_that_fails_before_the_first_byte_is_no_200(
    tmp_path: Path, clock: MockClock
) -> None:
    async with client(tmp_path) as c:
        await c.ask("/v2/debian/manifests/latest")
        from tests.registry.fakes import refuses

        c.cache.upstream.faults = [refuses(Cause.SERVER)] * 9
        response = await c.ask(f"/v2/debian/blobs/{BLOB_DIGEST}")
        found = await error(response)
    assert response.status == 502
    assert found["detail"]["cause"] == "5xx"


async def test_a_blob_that_cannot_be_sent_now_is_a_503_of_its_upstream(
    tmp_path: Path, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> int:
        raise BlobBroken("the download was ended by a shutdown")

    async with client(tmp_path) as c:
        await c.ask("/v2/debian/manifests/latest")
        monkeypatch.setattr(FillView, "available", broken)
        response = await c.ask(f"/v2/debian/blobs/{BLOB_DIGEST}?ns=hub.example")
        found = await error(response)
    assert (response.status, found["code"], response.upstream) == (503, "UNAVAILABLE", "hub")
    assert header(response, "retry-after") == "5"
    assert header(response, "oci-namespace") == "hub.example"


@pytest.mark.parametrize(
    ("cause", "status", "code"),
    [
        (Cause.AUTH, 403, "DENIED"),
        (Cause.MISSING, 404, "MANIFEST_UNKNOWN"),
        (Cause.SERVER, 502, "UNAVAILABLE"),
        (Cause.TIMEOUT, 504, "UNAVAILABLE"),
        (Cause.DNS, 503, "UNAVAILABLE"),
        (Cause.TLS, 502, "UNAVAILABLE"),
    ],
)
async def test_what_a_client_hears_of_an_upstreams_failure(
    tmp_path: Path, clock: MockClock, cause: Cause, status: int, code: str
) -> None:
    async with client(tmp_path) as c:
        c.cache.upstream.failure = cause
        response = await c.ask("/v2/debian/manifests/latest")
        found = await error(response)
    assert (response.status, found["code"], found["detail"]["upstream"]) == (status, code, "hub")


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/v2/hub/debian/manifests/latest", 429),
        ("/v2/hub.example/debian/manifests/latest", 429),
        ("/v2/debian/manifests/latest", 503),
        ("/v2/debian/manifests/latest?ns=hub.example", 503),
    ],
)
async def test_throttling_is_told_by_how_it_was_asked(
    tmp_path: Path, clock: MockClock, target: str, status: int
) -> None:
    async with client(tmp_path) as c:
        c.cache.upstream.failure = Cause.THROTTLED
        response = await c.ask(target)
    assert response.status == status
    assert header(response, "retry-after") is not None


async def test_a_remembered_404_is_a_negative_outcome(tmp_path: Path, clock: MockClock) -> None:
    async with client(tmp_path) as c:
        assert (await c.ask("/v2/debian/manifests/nope")).outcome == "miss"
        assert (await c.ask("/v2/debian/manifests/nope")).outcome == "negative"


async def test_tags_are_paged_with_a_link(tmp_path: Path, clock: MockClock) -> None:
    async with client(tmp_path) as c:
        for tag in ("a", "b", "c"):
            c.cache.upstream.push(tag, IMAGE)
        first = await c.ask("/v2/hub/library/debian/tags/list?n=2")
        rest = await c.ask("/v2/hub/library/debian/tags/list?n=2&last=b")
    assert msgspec.json.decode(await body(first)) == {"name": "hub/library/debian", "tags": ["a", "b"]}
    assert header(first, "link") == '</v2/hub/library/debian/tags/list?n=2&last=b>; rel="next"'
    assert msgspec.json.decode(await body(rest))["tags"] == ["c", "latest"]
    assert header(rest, "link") is None


async def test_referrers_are_an_index_and_can_be_filtered(tmp_path: Path, clock: MockClock) -> None:
    sbom = {
        "mediaType": OCI_MANIFEST,
        "digest": str(Digest.of(b"s")),
        "size": 1,
        "artifactType": "application/sbom",
    }
    other = {
        "mediaType": OCI_MANIFEST,
        "digest": str(Digest.of(b"o")),
        "size": 1,
        "artifactType": "application/other",
    }
    async with client(tmp_path) as c:
        c.cache.upstream.listed_referrers = [sbom, other]
        whole = await c.ask(f"/v2/debian/referrers/{DIGEST}")
        only = await c.ask(f"/v2/debian/referrers/{DIGEST}?artifactType=application%2Fsbom")
    assert header(whole, "content-type") == OCI_INDEX
    assert msgspec.json.decode(await body(whole))["manifests"] == [sbom, other]
    assert msgspec.json.decode(await body(only))["manifests"] == [sbom]
    assert header(only, "oci-filters-applied") == "artifactType"


async def test_a_stranger_is_denied(tmp_path: Path, clock: MockClock) -> None:
    async with client(tmp_path) as c:
        responses = [
            await c.ask(target, address=STRANGER) for target in ("/v2/", "/v2/debian/manifests/latest")
        ]
        assert c.cache.upstream.calls == []
    assert [response.status for response in responses] == [403, 403]
    assert (await error(responses[1]))["code"] == "DENIED"


async def test_a_repository_that_is_taken_away_is_denied(tmp_path: Path, clock: MockClock) -> None:
    async with client(tmp_path) as c:
        assert (await c.ask("/v2/hub/secret/x/manifests/latest")).status == 403


async def test_forwarding_by_a_stranger_voids_what_the_address_allows(
    tmp_path: Path, clock: MockClock
) -> None:
    async with client(tmp_path) as c:
        response = await c.ask("/v2/debian/manifests/latest", stranger=True)
        assert "trusted_proxies" in (await error(response))["message"]


async def test_a_ready_answer_is_not_given_to_who_may_not_have_it(tmp_path: Path, clock: MockClock) -> None:
    async with client(tmp_path) as c:
        await c.ask("/v2/debian/manifests/latest")
        stranger = Peer(STRANGER, "http")
        fields = {"host": "cache.example"}
        assert c.door.immediate("GET", "/v2/debian/manifests/latest", fields, stranger) is None


@pytest.mark.parametrize(
    ("method", "target", "status", "code"),
    [
        ("PUT", "/v2/debian/manifests/latest", 403, "DENIED"),
        ("POST", "/v2/debian/blobs/uploads/", 403, "DENIED"),
        ("DELETE", "/v2/debian/manifests/latest", 405, "UNSUPPORTED"),
        ("GET", "/v2/_catalog", 404, "UNSUPPORTED"),
        ("GET", "/v1/search", 404, "UNSUPPORTED"),
        ("GET", "/v2/Debian/manifests/latest", 400, "NAME_INVALID"),
        ("GET", "/v2/debian/blobs/sha256:short", 400, "DIGEST_INVALID"),
        ("GET", "/v2/debian/tags/list?n=many", 400, "PAGINATION_NUMBER_INVALID"),
        ("GET", "/v2/debian/manifests/latest?ns=other.example", 404, "NAME_UNKNOWN"),
    ],
)
async def test_what_is_wrong_is_refused_with_a_code(
    tmp_path: Path, clock: MockClock, method: str, target: str, status: int, code: str
) -> None:
    async with client(tmp_path) as c:
        response = await c.ask(target, method)
        found = await error(response)
        assert c.cache.upstream.calls == []
    assert (response.status, found["code"]) == (status, code)


async def test_a_daemon_that_is_its_own_upstream_says_so(tmp_path: Path, clock: MockClock) -> None:
    async with client(tmp_path) as c:
        response = await c.ask("/v2/debian/manifests/latest", via="1.1 us-1")
    assert response.status == 508


async def test_a_fault_of_ours_is_named_in_the_answer(
    tmp_path: Path, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise ZeroDivisionError

    async with client(tmp_path) as c:
        monkeypatch.setattr(c.cache.manifests, "get", broken)
        response = await c.ask("/v2/debian/manifests/latest")
        found = await error(response)
    assert response.status == 500
    assert "ZeroDivisionError" in found["message"]


@pytest.mark.parametrize(
    "target", [f"/v2/hub/library/alpine/manifests/{DIGEST}", f"/v2/hub/library/alpine/blobs/{BLOB_DIGEST}"]
)
async def test_rows_that_cannot_be_read_are_a_503_that_tells_no_secrets(
    tmp_path: Path, clock: MockClock, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    async def away(*_: object) -> None:
        raise StoreBusy(16, "database: no route to db.corp.example")

    async with client(tmp_path) as c:
        monkeypatch.setattr(c.cache.records, "image", away)
        monkeypatch.setattr(c.cache.records, "blob", away)
        response = await c.ask(target)
        assert (response.status, header(response, "retry-after")) == (503, "5")
        assert (await error(response))["code"] == "UNAVAILABLE"
        assert "db.corp.example" not in str(response.body)


async def test_rows_that_cannot_be_read_are_told_without_a_traceback(
    tmp_path: Path, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def damaged(*_: object) -> None:
        raise StoreSuspect(5, "disk I/O error in /var/lib/secret")

    async with client(tmp_path) as c:
        monkeypatch.setattr(c.cache.records, "blob", damaged)
        response = await c.ask(f"/v2/hub/library/debian/blobs/{BLOB_DIGEST}")
        assert (response.status, header(response, "retry-after")) == (503, "5")
        told = await error(response)
        assert (told["code"], told["message"]) == ("UNAVAILABLE", StoreSuspect.told)
        assert "secret" not in str(response.body)
