"""The client of a registry, before an origin that answers well, badly, and wickedly."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest
import trio

from cacheproxy.core.digest import Digest
from cacheproxy.core.failures import Cause, UpstreamError
from cacheproxy.core.manifest import MAX_MANIFEST
from cacheproxy.core.media import ACCEPT, OCI_INDEX, OCI_MANIFEST
from cacheproxy.upstream.blobstream import BlobStream
from cacheproxy.upstream.registry import Registry
from cacheproxy.upstream.settings import FileSecret, FixedLogin
from tests.origin import Framing, Origin, faults
from tests.upstream.servers import descriptors
from tests.upstream.stage import registry

ABSENT = Digest("sha256:" + "0" * 64)
DATA = bytes(range(256)) * 4096
SECRETS = ("authorization", "cookie", "proxy-authorization", "via")


@pytest.fixture
async def origin(nursery: trio.Nursery) -> Origin:
    return await started(nursery)


async def started(nursery: trio.Nursery, origin: Origin | None = None) -> Origin:
    origin = origin or Origin()
    await nursery.start(origin.serve)
    return origin


async def blob(
    client: Registry, digest: str, start: int = 0, stop: int | None = None, endpoint: int = 0
) -> bytes:
    wanted = client.open_blob("a/b", Digest(digest), endpoint=endpoint, start=start, stop=stop)
    async with wanted as stream:
        return b"".join([chunk async for chunk in stream.chunks])


async def cause(call: object) -> Cause:
    with pytest.raises(UpstreamError) as caught:
        await call  # type: ignore[misc]
    return caught.value.cause


# Manifests


async def test_manifest_comes_with_its_type_and_a_digest_of_our_own(origin: Origin) -> None:
    digest = origin.add_image("a/b", "1")
    origin.fault({"kind": "manifest"}, faults.header("Docker-Content-Digest", ABSENT))
    async with registry(origin) as client:
        fetched = await client.get_manifest("a/b", "1")
    assert (fetched.digest, fetched.media_type) == (digest, OCI_MANIFEST)
    assert Digest.of(fetched.body) == digest


async def test_all_our_media_types_and_identity_are_asked_for(origin: Origin) -> None:
    origin.add_image("a/b", "1")
    async with registry(origin, user_agent="agent/1", via="us") as client:
        await client.get_manifest("a/b", "1")
    headers = origin.seen[0].headers
    assert {name: headers[name] for name in ("accept", "accept-encoding", "user-agent", "via")} == {
        "accept": ACCEPT,
        "accept-encoding": "identity",
        "user-agent": "agent/1",
        "via": "1.1 us",
    }


async def test_head_tells_without_the_body(origin: Origin) -> None:
    digest = origin.add_image("a/b", "1")
    async with registry(origin) as client:
        head = await client.head_manifest("a/b", "1")
    assert (head.digest, head.media_type, head.manifest) == (digest, OCI_MANIFEST, None)
    assert [seen.method for seen in origin.seen] == ["HEAD"]


@pytest.mark.parametrize(
    "fault",
    [
        faults.status(405),
        faults.status(404),
        faults.status(501),
        faults.header("Docker-Content-Digest", None),
        faults.header("Docker-Content-Digest", "sha256:short"),
    ],
)
async def test_head_that_tells_nothing_is_followed_by_one_get(origin: Origin, fault: faults.Fault) -> None:
    digest = origin.add_image("a/b", "1")
    origin.fault({"method": "HEAD"}, fault)
    async with registry(origin) as client:
        head = await client.head_manifest("a/b", "1")
    assert head.manifest is not None
    assert (head.digest, head.manifest.digest, head.size) == (digest, digest, len(head.manifest.body))
    assert [seen.method for seen in origin.seen] == ["HEAD", "GET"]


async def test_head_by_digest_needs_no_digest_header(origin: Origin) -> None:
    digest = Digest(origin.add_image("a/b"))
    origin.fault({"method": "HEAD"}, faults.header("Docker-Content-Digest", None))
    async with registry(origin) as client:
        assert (await client.head_manifest("a/b", digest)).digest == digest
    assert len(origin.seen) == 1


async def test_what_is_not_there_is_missing(origin: Origin) -> None:
    async with registry(origin) as client:
        assert await cause(client.head_manifest("a/b", "1")) is Cause.MISSING
        assert await cause(client.get_manifest("a/b", ABSENT)) is Cause.MISSING
        assert await cause(client.head_blob("a/b", ABSENT)) is Cause.MISSING
        assert await cause(blob(client, ABSENT)) is Cause.MISSING
        assert await cause(client.list_tags("not/there")) is Cause.MISSING


@pytest.mark.parametrize("size", [MAX_MANIFEST, MAX_MANIFEST + 1])
@pytest.mark.parametrize("framing", Framing)
async def test_manifest_has_four_mebibytes_at_most(origin: Origin, size: int, framing: Framing) -> None:
    origin.add_manifest("a/b", b" " * size, OCI_MANIFEST, "1")
    origin.fault({"kind": "manifest"}, faults.no_length(framing))
    async with registry(origin) as client:
        if size <= MAX_MANIFEST:
            assert len((await client.get_manifest("a/b", "1")).body) == size
        else:
            assert await cause(client.get_manifest("a/b", "1")) is Cause.PROTOCOL
            assert origin.seen[0].sent <= size + 65536


async def test_manifest_of_another_digest_is_refused_and_the_next_one_is_not(origin: Origin) -> None:
    digest = Digest(origin.add_image("a/b", "1"))
    origin.fault({"kind": "manifest"}, faults.wrong_bytes(), times=1)
    async with registry(origin) as client:
        assert await cause(client.get_manifest("a/b", digest)) is Cause.PROTOCOL
        assert (await client.get_manifest("a/b", digest)).digest == digest


async def test_manifest_is_verified_by_the_algorithm_it_was_asked_with(origin: Origin) -> None:
    origin.add_manifest("a/b", b"{}", OCI_INDEX)
    digest = Digest.of(b"{}", "sha512")
    origin.content.tags["a/b"][digest] = Digest.of(b"{}")
    async with registry(origin) as client:
        assert (await client.get_manifest("a/b", digest)).digest == digest


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd", "x-gzip", "gzip, identity", "deflate, gzip"])
async def test_encoded_bodies_are_refused(origin: Origin, coding: str) -> None:
    origin.add_image("a/b", "1")
    digest = origin.add_blob(DATA)
    origin.fault({"method": "GET"}, faults.both(faults.gzip(), faults.header("Content-Encoding", coding)))
    async with registry(origin) as client:
        assert await cause(client.get_manifest("a/b", "1")) is Cause.PROTOCOL
        assert await cause(blob(client, digest)) is Cause.PROTOCOL
        assert await cause(client.list_tags("a/b")) is Cause.PROTOCOL


# Blobs


async def test_blob_comes_whole(origin: Origin) -> None:
    digest = origin.add_pattern_blob(3 << 20)
    async with registry(origin) as client, client.open_blob("a/b", Digest(digest), endpoint=0) as stream:
        told = (stream.status, stream.start, stream.total, stream.ranges, stream.etag)
        whole = hashlib.sha256()
        async for chunk in stream.chunks:
            whole.update(chunk)
    assert told == (200, 0, 3 << 20, True, f'"{digest}"')
    assert "sha256:" + whole.hexdigest() == digest
    assert origin.seen[0].range is None


@pytest.mark.parametrize(
    ("start", "stop", "header"), [(5, None, "bytes=5-"), (0, 10, "bytes=0-9"), (100, 200, "bytes=100-199")]
)
async def test_part_of_a_blob_comes_by_range(
    origin: Origin, start: int, stop: int | None, header: str
) -> None:
    digest = origin.add_blob(DATA)
    async with registry(origin) as client:
        wanted = client.open_blob("a/b", Digest(digest), endpoint=0, start=start, stop=stop)
        async with wanted as stream:
            assert (stream.status, stream.start, stream.total, stream.ranges) == (206, start, len(DATA), True)
            assert b"".join([chunk async for chunk in stream.chunks]) == DATA[start:stop]
    assert origin.seen[0].range == header


async def test_origin_without_ranges_says_so(origin: Origin) -> None:
    digest = Digest(origin.add_blob(DATA))
    origin.ranges = False
    async with registry(origin) as client, client.open_blob("a/b", digest, endpoint=0, start=5) as stream:
        assert (stream.status, stream.start, stream.ranges) == (200, 0, False)


async def test_etag_goes_with_a_range_only(origin: Origin) -> None:
    digest = Digest(origin.add_blob(DATA))
    async with registry(origin) as client:
        for start in (0, 5):
            async with client.open_blob("a/b", digest, endpoint=0, start=start, etag='"old"') as stream:
                assert stream.status == 200, "the ETag is another one: the range is not given"
    assert [seen.headers.get("if-range") for seen in origin.seen] == [None, '"old"']


@pytest.mark.parametrize("etag", ['W/"weak"', "bare", '"', '"a"b"'])
async def test_only_strong_etags_are_told(origin: Origin, etag: str) -> None:
    digest = Digest(origin.add_blob(DATA))
    origin.fault({"kind": "blob"}, faults.header("ETag", etag))
    async with registry(origin) as client, client.open_blob("a/b", digest, endpoint=0) as stream:
        assert stream.etag is None


@pytest.mark.parametrize(
    "fault",
    [
        faults.header("Content-Range", None),
        faults.header("Content-Range", "bytes 9-5/100"),
        faults.header("Content-Range", "bytes 5-7/1048576"),
        faults.status(416),
    ],
)
async def test_part_that_is_not_the_one_it_claims_is_refused(origin: Origin, fault: faults.Fault) -> None:
    digest = origin.add_blob(DATA)
    origin.fault({"kind": "blob"}, fault)
    async with registry(origin) as client:
        assert await cause(blob(client, digest, 5, 10)) is Cause.PROTOCOL


async def test_part_that_nobody_asked_for_is_refused(origin: Origin) -> None:
    digest = origin.add_blob(DATA)
    partial = {"Content-Range": f"bytes 0-3/{len(DATA)}"}
    origin.fault({"kind": "blob"}, faults.status(206, partial, b"abcd"))
    async with registry(origin) as client:
        assert await cause(blob(client, digest)) is Cause.PROTOCOL


@pytest.mark.parametrize(
    ("fault", "before"),
    [(faults.truncate(1000), 1000), (faults.reset(1000), 1000), (faults.claims(5), len(DATA))],
)
async def test_body_that_breaks_off_is_a_broken_connection(
    origin: Origin, fault: faults.Fault, before: int
) -> None:
    digest = Digest(origin.add_blob(DATA))
    origin.fault({"kind": "blob"}, fault)
    received = bytearray()

    async def read(stream: BlobStream) -> None:
        async for chunk in stream.chunks:
            received.extend(chunk)

    async with registry(origin) as client, client.open_blob("a/b", digest, endpoint=0) as stream:
        assert await cause(read(stream)) is Cause.CONNECT
    assert bytes(received) == DATA[:before]


async def test_blob_of_unknown_length_has_no_total(origin: Origin) -> None:
    digest = Digest(origin.add_blob(DATA))
    origin.fault({"kind": "blob"}, faults.no_length())
    async with registry(origin) as client, client.open_blob("a/b", digest, endpoint=0) as stream:
        assert stream.total is None
        assert b"".join([chunk async for chunk in stream.chunks]) == DATA


async def test_head_of_a_blob_tells_its_size(origin: Origin) -> None:
    digest = Digest(origin.add_blob(DATA))
    async with registry(origin) as client:
        assert await client.head_blob("a/b", digest) == len(DATA)
    assert [seen.method for seen in origin.seen] == ["HEAD"]


@pytest.mark.parametrize("data", [b"", b"x", DATA])
@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("status", [404, 405])
async def test_size_is_asked_by_get_where_head_does_not_work(
    origin: Origin, data: bytes, ranges: bool, status: int
) -> None:
    digest = Digest(origin.add_blob(data))
    origin.ranges = ranges
    origin.fault({"method": "HEAD"}, faults.status(status))
    async with registry(origin) as client:
        assert await client.head_blob("a/b", digest) == len(data)


async def test_blob_slots_are_for_blobs_only(origin: Origin, autojump_clock: trio.testing.MockClock) -> None:
    digest = Digest(origin.add_blob(DATA))
    origin.add_image("a/b", "1")
    async with registry(origin, connections=2) as client:
        async with client.open_blob("a/b", digest, endpoint=0), client.open_blob("a/b", digest, endpoint=0):
            with trio.move_on_after(5) as waiting:
                async with client.open_blob("a/b", digest, endpoint=0):
                    pass
            await client.get_manifest("a/b", "1")
            assert await client.head_blob("a/b", digest) == len(DATA)
        assert waiting.cancelled_caught, "the third waits for a slot"
        async with client.open_blob("a/b", digest, endpoint=0):
            pass


# Redirects


@pytest.fixture
async def store(nursery: trio.Nursery, origin: Origin) -> Origin:
    """Another host that has the blobs, and is a stranger to the registry."""
    store = await started(nursery, Origin(origin.content))
    origin.redirect_blobs_to = store.url
    return store


async def test_redirected_blob_is_read_and_the_store_hears_no_secret(
    origin: Origin, store: Origin, tmp_path: Path
) -> None:
    origin.auth, origin.users = "basic", {"u": "p"}
    digest = origin.add_blob(DATA)
    async with registry(origin, credentials=login(tmp_path), via="us") as client:
        assert await blob(client, digest, 5) == DATA[5:]
        assert await client.head_blob("a/b", Digest(digest)) == len(DATA)
    assert [seen.authorization is not None for seen in origin.seen] == [False, True, True]
    assert [(seen.method, seen.range) for seen in store.seen] == [("GET", "bytes=5-"), ("HEAD", None)]
    assert not any(name in seen.headers for seen in store.seen for name in SECRETS)


async def test_redirect_is_never_remembered(origin: Origin, store: Origin) -> None:
    digest = origin.add_blob(DATA)
    async with registry(origin) as client:
        for _ in range(2):
            await blob(client, digest)
    assert (len(origin.seen), len(store.seen)) == (2, 2)


async def test_chain_over_a_stranger_never_gets_the_secret_back(
    origin: Origin, store: Origin, nursery: trio.Nursery, tmp_path: Path
) -> None:
    origin.auth, origin.users = "basic", {"u": "p"}
    attacker = await started(nursery)
    digest = origin.add_blob(DATA)
    store.fault({"kind": "storage"}, faults.redirect(f"{attacker.url}/x"))
    attacker.fault({"path": "/x"}, faults.redirect(f"{origin.url}/v2/other/blobs/{digest}"))
    async with registry(origin, credentials=login(tmp_path)) as client:
        assert await cause(blob(client, digest)) is Cause.SERVER
    assert attacker.seen
    assert not any(name in seen.headers for seen in attacker.seen for name in SECRETS)
    assert origin.seen[-1].authorization is None, "who was led here by a stranger does not show who he is"


async def test_redirect_on_the_same_origin_keeps_the_secret(origin: Origin, tmp_path: Path) -> None:
    origin.auth, origin.users = "basic", {"u": "p"}
    origin.add_image("a/b", "1")
    origin.fault({"reference": "old"}, faults.redirect("/v2/a/b/manifests/1"), skip=1)
    async with registry(origin, credentials=login(tmp_path)) as client:
        await client.get_manifest("a/b", "old")
    assert origin.seen[-1].authorization is not None


@pytest.mark.parametrize("hops", [5, 6])
async def test_at_most_five_redirects_are_followed(origin: Origin, hops: int) -> None:
    digest = origin.add_blob(DATA)
    for n in range(hops):
        next_url = f"/hop/{n + 1}" if n + 1 < hops else f"/_storage/{digest}"
        path = rf"^/hop/{n}$" if n else "^/v2/a/b/blobs/"
        origin.fault({"path": path}, faults.redirect(next_url))
    async with registry(origin) as client:
        if hops <= 5:
            assert await blob(client, digest) == DATA
        else:
            assert await cause(blob(client, digest)) is Cause.PROTOCOL
            assert len(origin.seen) == 6


async def test_redirect_loop_is_refused(origin: Origin) -> None:
    digest = origin.add_blob(DATA)
    origin.fault({"kind": "blob"}, faults.redirect(f"/v2/a/b/blobs/{digest}"))
    async with registry(origin) as client:
        assert await cause(blob(client, digest)) is Cause.PROTOCOL
    assert len(origin.seen) == 1


@pytest.mark.parametrize("location", ["http://10.0.0.1/x", "http://169.254.169.254/", "http://[fd00::1]/x"])
async def test_redirect_to_an_inner_address_is_refused(origin: Origin, location: str) -> None:
    digest = origin.add_blob(DATA)
    origin.fault({"kind": "blob"}, faults.redirect(location))
    async with registry(origin) as client:
        assert await cause(blob(client, digest)) is Cause.GATE


@pytest.mark.parametrize("status", [401, 403])
async def test_store_that_refuses_is_a_failure_and_no_denial(
    origin: Origin, store: Origin, status: int
) -> None:
    digest = origin.add_blob(DATA)
    store.fault({"kind": "storage"}, faults.status(status, {"WWW-Authenticate": "Basic"}), times=1)
    async with registry(origin) as client:
        assert await cause(blob(client, digest)) is Cause.SERVER
        assert await blob(client, digest) == DATA


async def test_store_that_takes_no_head_is_asked_for_one_byte(origin: Origin, store: Origin) -> None:
    digest = Digest(origin.add_blob(DATA))
    store.fault({"method": "HEAD"}, faults.status(403))
    async with registry(origin) as client:
        assert await client.head_blob("a/b", digest) == len(DATA)
    assert [(seen.method, seen.range) for seen in store.seen] == [("HEAD", None), ("GET", "bytes=0-0")]


# Tokens and passwords


def login(folder: Path, password: str = "p") -> FixedLogin:
    path = folder / "password"
    path.write_text(password)
    return FixedLogin("u", FileSecret(path))


async def test_anonymous_token_opens_what_is_public(origin: Origin) -> None:
    origin.auth = "bearer"
    digest = origin.add_image("a/b", "1", layers=(DATA,))
    async with registry(origin) as client:
        assert (await client.head_manifest("a/b", "1")).digest == digest
        await client.get_manifest("a/b", "1")
        assert await blob(client, Digest.of(DATA)) == DATA
    assert (origin.requests("token"), len(origin.seen)) == (1, 5), "one 401, one token, three answers"


async def test_twenty_pulls_at_once_fetch_one_token(origin: Origin) -> None:
    origin.auth, origin.latency = "bearer", 0.05
    origin.add_image("a/b", "1")
    async with registry(origin) as client, trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(client.get_manifest, "a/b", "1")
    assert origin.requests("token") == 1


async def test_token_that_ends_on_the_way_is_replaced_once(origin: Origin) -> None:
    origin.auth = "bearer"
    digest = origin.add_blob(DATA)
    async with registry(origin) as client:
        await blob(client, digest)
        origin.tokens.clear()
        assert await blob(client, digest, 100) == DATA[100:]
    assert origin.requests("token") == 2


async def test_registry_that_refuses_every_token_is_given_up(origin: Origin) -> None:
    origin.auth = "bearer"
    origin.fault({"kind": "token"}, faults.status(200, {}, b'{"token":"worthless"}'))
    async with registry(origin) as client:
        assert await cause(client.get_manifest("a/b", "1")) is Cause.AUTH
    assert [seen.kind for seen in origin.seen] == ["manifest", "token", "manifest"]


async def test_token_is_fetched_without_a_blob_slot(origin: Origin) -> None:
    """Or a single slot would wait for itself."""
    origin.auth = "bearer"
    digest = origin.add_blob(DATA)
    async with registry(origin, connections=1) as client:
        with trio.fail_after(30):
            assert await blob(client, digest) == DATA


async def test_password_goes_to_the_upstream_and_not_to_its_mirror(
    origin: Origin, nursery: trio.Nursery, tmp_path: Path
) -> None:
    mirror = await started(nursery)
    for one in (origin, mirror):
        one.auth, one.users, one.anonymous = "bearer", {"u": "p"}, False
    origin.fault({"kind": "manifest"}, faults.status(503))
    async with registry(origin, mirror, credentials=login(tmp_path)) as client:
        await cause(client.get_manifest("a/b", "1"))
        assert await cause(blob(client, ABSENT, endpoint=1)) is Cause.AUTH
    assert all(seen.authorization is None for seen in mirror.seen)


async def test_realm_elsewhere_gets_nothing(origin: Origin, nursery: trio.Nursery, tmp_path: Path) -> None:
    attacker = await started(nursery)
    origin.auth, origin.users, origin.realm = "bearer", {"u": "p"}, f"{attacker.url}/token"
    async with registry(origin, credentials=login(tmp_path)) as client:
        assert await cause(client.get_manifest("a/b", "1")) is Cause.GATE
    assert (attacker.connections, attacker.seen) == (0, [])


async def test_realm_on_a_listed_host_is_used(origin: Origin, nursery: trio.Nursery, tmp_path: Path) -> None:
    tokens = await started(nursery)
    tokens.tokens, tokens.users = origin.tokens, {"u": "p"}
    origin.auth, origin.realm = "bearer", f"{tokens.url}/token"
    origin.add_image("a/b", "1")
    listed = (tokens.url.removeprefix("http://"),)
    async with registry(origin, credentials=login(tmp_path), token_hosts=listed) as client:
        await client.get_manifest("a/b", "1")
    assert [seen.kind for seen in tokens.seen] == ["token"]


async def test_denial_has_the_reason_that_was_given(origin: Origin) -> None:
    body = b'{"errors":[{"code":"DENIED","message":"not\\nfor you"}]}'
    origin.fault({"kind": "manifest"}, faults.status(403, {}, body))
    async with registry(origin) as client:
        with pytest.raises(UpstreamError, match="answered 403: DENIED: not for you") as caught:
            await client.get_manifest("a/b", "1")
    assert (caught.value.cause, caught.value.status) == (Cause.AUTH, 403)


# Failures


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, Cause.PROTOCOL),
        (403, Cause.AUTH),
        (410, Cause.MISSING),
        (500, Cause.SERVER),
        (502, Cause.SERVER),
        (503, Cause.SERVER),
        (204, Cause.PROTOCOL),
        (302, Cause.PROTOCOL),
    ],
)
async def test_statuses_have_their_causes(origin: Origin, status: int, expected: Cause) -> None:
    origin.fault({}, faults.status(status))
    async with registry(origin) as client:
        assert await cause(blob(client, ABSENT)) is expected


async def test_host_that_is_not_there_cannot_be_reached() -> None:
    async with registry("http://127.0.0.1:1") as client:
        assert await cause(blob(client, ABSENT)) is Cause.CONNECT


async def test_throttled_registry_is_not_asked_again_before_its_time(origin: Origin) -> None:
    origin.fault({"kind": "manifest"}, faults.status(429, {"Retry-After": "30"}))
    digest = origin.add_blob(DATA)
    async with registry(origin) as client:
        for _ in range(3):
            with pytest.raises(UpstreamError) as caught:
                await client.get_manifest("a/b", "1")
            assert caught.value.cause is Cause.THROTTLED
            assert caught.value.retry_after == pytest.approx(30, abs=1)
        assert len(origin.seen) == 1
        assert await blob(client, digest) == DATA


async def test_connection_is_used_again(origin: Origin) -> None:
    origin.add_image("a/b", "1")
    async with registry(origin) as client:
        for _ in range(3):
            await client.head_manifest("a/b", "1")
            await client.get_manifest("a/b", "1")
    assert origin.connections == 1


# Lists


async def test_tags_come_from_all_pages(origin: Origin) -> None:
    for tag in ("c", "a", "b", "d", "e"):
        origin.add_image("a/b", tag)
    origin.page = 2
    async with registry(origin) as client:
        assert await client.list_tags("a/b") == ["a", "b", "c", "d", "e"]
    assert origin.requests("tags") == 3


async def test_referrers_are_the_descriptors_of_the_api(origin: Origin) -> None:
    subject = origin.add_image("a/b", "1")
    referrer = origin.add_referrer("a/b", subject, "application/x")
    async with registry(origin) as client:
        found = await client.referrers("a/b", Digest(subject))
    assert [(one["digest"], one["artifactType"]) for one in found or ()] == [(referrer, "application/x")]


async def test_registry_without_the_referrers_api_has_none(origin: Origin) -> None:
    origin.referrers_api = False
    async with registry(origin) as client:
        assert await client.referrers("a/b", ABSENT) is None


async def test_path_of_the_url_comes_before_the_api(origin: Origin) -> None:
    origin.fault(
        {"path": "^/ghcr.io/v2/a/b/manifests/1$"}, faults.status(200, {"Content-Type": OCI_INDEX}, b"{}")
    )
    async with registry(f"{origin.url}/ghcr.io/") as client:
        assert (await client.get_manifest("a/b", "1")).body == b"{}"


# Cancellation


async def test_clients_that_go_away_at_any_moment_leave_nothing_taken(
    origin: Origin, store: Origin, nursery: trio.Nursery
) -> None:
    """Neither slots nor connections nor locks: afterwards everything works at once."""
    origin.auth, origin.token_seconds = "bearer", 60
    digest = origin.add_image("a/b", "1", layers=(DATA,))
    chance = random.Random(7)

    async def client_that_goes(client: Registry) -> None:
        with trio.move_on_after(chance.expovariate(200)):
            await client.get_manifest("a/b", digest)
            await blob(client, Digest.of(DATA))

    async with registry(origin, connections=2) as client:
        await blob(client, Digest.of(DATA))
        before = descriptors()
        for _ in range(20):
            origin.tokens.clear()
            async with trio.open_nursery() as crowd:
                for _ in range(20):
                    crowd.start_soon(client_that_goes, client)
        with trio.fail_after(30):
            for _ in range(3):
                assert await blob(client, Digest.of(DATA)) == DATA
                assert (await client.get_manifest("a/b", "1")).digest == digest
        assert descriptors() <= before + 8


# Ping


async def test_ping_tells_the_upstreams_clock(origin: Origin) -> None:
    origin.fault({"method": "GET"}, faults.header("Date", "Tue, 24 Nov 2026 12:00:00 GMT"))
    async with registry(origin) as client:
        assert await client.ping(0, 5.0) == 1795521600.0


async def test_ping_logs_in(origin: Origin, tmp_path: Path) -> None:
    origin.auth, origin.users["me"] = "bearer", "right"
    secret = tmp_path / "secret"
    secret.write_text("wrong")
    login = FixedLogin("me", FileSecret(secret))
    async with registry(origin, credentials=login) as client:
        assert await cause(client.ping(0, 5.0)) is Cause.AUTH
    secret.write_text("right")
    async with registry(origin, credentials=login) as client:
        await client.ping(0, 5.0)
