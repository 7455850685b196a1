"""The scripted origin says what it should, and errs exactly as it is told."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import trio
import trustme

from tests.origin import Content, Framing, Origin, faults

DATA = bytes(range(256)) * 1024


@pytest.fixture
async def origin(nursery: trio.Nursery) -> Origin:
    started = Origin()
    await nursery.start(started.serve)
    return started


@pytest.fixture
async def client(origin: Origin) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=origin.url, trust_env=False, timeout=5) as opened:
        yield opened


def blob_path(origin: Origin, data: bytes = DATA) -> str:
    return f"/v2/a/b/blobs/{origin.add_blob(data)}"


async def test_image_is_pulled_by_tag_and_counted(origin: Origin, client: httpx.AsyncClient) -> None:
    digest = origin.add_image("a/b", "1", layers=(b"one", b"two"))
    answer = await client.get("/v2/a/b/manifests/1")
    assert answer.headers["docker-content-digest"] == digest
    layers = [layer["digest"] for layer in answer.json()["layers"]]
    assert [(await client.get(f"/v2/a/b/blobs/{layer}")).content for layer in layers] == [b"one", b"two"]
    assert [seen.kind for seen in origin.seen] == ["manifest", "blob", "blob"]
    assert (origin.blob_transfers(layers[0]), origin.bytes_sent(layers[0])) == (1, 3)


async def test_blob_belongs_to_its_repository(origin: Origin, client: httpx.AsyncClient) -> None:
    digest = origin.add_blob(b"x", "a/b")
    assert (await client.head(f"/v2/a/b/blobs/{digest}")).headers["content-length"] == "1"
    assert (await client.get(f"/v2/other/blobs/{digest}")).json()["errors"][0]["code"] == "BLOB_UNKNOWN"


async def test_head_has_length_and_no_body(origin: Origin, client: httpx.AsyncClient) -> None:
    answer = await client.head(blob_path(origin))
    assert (answer.headers["content-length"], answer.content) == (str(len(DATA)), b"")
    assert (await client.get("/v2/")).status_code == 200, "the connection is still in step"
    assert origin.connections == 1


async def test_large_blob_comes_whole_from_a_file(origin: Origin, client: httpx.AsyncClient) -> None:
    digest = origin.add_pattern_blob(5 << 20, seed="s")
    answer = await client.get(f"/v2/a/b/blobs/{digest}")
    assert "sha256:" + hashlib.sha256(answer.content).hexdigest() == digest


@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [
        ("bytes=0-", 0, len(DATA)),
        ("bytes=5-9", 5, 10),
        ("bytes=-3", len(DATA) - 3, len(DATA)),
        ("bytes=9-999999999", 9, len(DATA)),
    ],
)
async def test_range(origin: Origin, client: httpx.AsyncClient, header: str, start: int, stop: int) -> None:
    answer = await client.get(blob_path(origin), headers={"Range": header})
    assert (answer.status_code, answer.content) == (206, DATA[start:stop])
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(DATA)}"


async def test_range_beyond_the_end_is_416(origin: Origin, client: httpx.AsyncClient) -> None:
    answer = await client.get(blob_path(origin), headers={"Range": f"bytes={len(DATA)}-"})
    assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{len(DATA)}")


async def test_if_range_of_another_etag_gets_everything(origin: Origin, client: httpx.AsyncClient) -> None:
    path = blob_path(origin)
    etag = (await client.head(path)).headers["etag"]
    same = await client.get(path, headers={"Range": "bytes=5-", "If-Range": etag})
    other = await client.get(path, headers={"Range": "bytes=5-", "If-Range": '"other"'})
    assert (same.status_code, other.status_code) == (206, 200)


async def test_without_ranges_everything_is_200(origin: Origin, client: httpx.AsyncClient) -> None:
    origin.ranges = False
    answer = await client.get(blob_path(origin), headers={"Range": "bytes=5-9"})
    assert (answer.status_code, answer.content, answer.headers.get("accept-ranges")) == (200, DATA, None)


async def test_tags_are_paged_by_link(origin: Origin, client: httpx.AsyncClient) -> None:
    for tag in "cab":
        origin.add_image("a/b", tag)
    origin.page = 2
    first = await client.get("/v2/a/b/tags/list")
    assert first.json() == {"name": "a/b", "tags": ["a", "b"]}
    second = await client.get(first.links["next"]["url"])
    assert (second.json()["tags"], second.links) == (["c"], {})


async def test_referrers_by_api_and_by_fallback_tag(origin: Origin, client: httpx.AsyncClient) -> None:
    subject = origin.add_image("a/b", "1")
    made = origin.add_referrer("a/b", subject, "application/x.sbom")
    origin.add_referrer("a/b", subject, "application/x.other")
    filtered = await client.get(f"/v2/a/b/referrers/{subject}", params={"artifactType": "application/x.sbom"})
    assert [child["digest"] for child in filtered.json()["manifests"]] == [made]
    origin.referrers_api = False
    assert (await client.get(f"/v2/a/b/referrers/{subject}")).status_code == 404
    fallback = await client.get(f"/v2/a/b/manifests/{subject.replace(':', '-')}")
    assert len(fallback.json()["manifests"]) == 2


async def test_index_names_platforms(origin: Origin, client: httpx.AsyncClient) -> None:
    children = [origin.add_image("a/b", layers=(name,), docker=True) for name in (b"amd", b"arm")]
    origin.add_index("a/b", "multi", children, ("linux/amd64", "linux/arm64"), docker=True)
    answer = (await client.get("/v2/a/b/manifests/multi")).json()
    assert [child["platform"]["architecture"] for child in answer["manifests"]] == ["amd64", "arm64"]


async def test_basic_auth(origin: Origin, client: httpx.AsyncClient) -> None:
    origin.auth, origin.users = "basic", {"u": "p"}
    assert (await client.get("/v2/")).headers["www-authenticate"] == 'Basic realm="origin"'
    assert (await client.get("/v2/", auth=("u", "p"))).status_code == 200


async def test_bearer_token_opens_its_repository_only(origin: Origin, client: httpx.AsyncClient) -> None:
    origin.auth = "bearer"
    path = blob_path(origin)
    refused = await client.get(path)
    assert f'realm="{origin.url}/token"' in refused.headers["www-authenticate"]
    assert 'scope="repository:a/b:pull"' in refused.headers["www-authenticate"]
    issued = await client.get("/token", params={"service": "origin", "scope": "repository:a/b:pull"})
    bearer = {"Authorization": f"Bearer {issued.json()['token']}"}
    assert (await client.get(path, headers=bearer)).content == DATA
    other = await client.get(path.replace("a/b", "c/d"), headers=bearer)
    assert 'error="insufficient_scope"' in other.headers["www-authenticate"]
    origin.tokens.clear()
    assert (await client.get(path, headers=bearer)).status_code == 401


async def test_token_needs_right_credentials_when_given(origin: Origin, client: httpx.AsyncClient) -> None:
    origin.auth, origin.users = "bearer", {"u": "p"}
    assert (await client.get("/token", auth=("u", "wrong"))).status_code == 401
    assert (await client.get("/token", auth=("u", "p"))).status_code == 200
    origin.anonymous = False
    assert (await client.get("/token")).status_code == 401


async def test_blob_redirect_leads_to_storage_of_another_origin(
    origin: Origin, client: httpx.AsyncClient, nursery: trio.Nursery
) -> None:
    storage = Origin(origin.content)
    origin.redirect_blobs_to = await nursery.start(storage.serve)
    path = blob_path(origin)
    assert (await client.get(path)).status_code == 307
    assert (await client.get(path, follow_redirects=True)).content == DATA
    assert [seen.kind for seen in storage.seen] == ["storage"]


async def test_fault_takes_what_matches_after_skip_and_so_often(
    origin: Origin, client: httpx.AsyncClient
) -> None:
    path = blob_path(origin)
    rule = origin.fault({"kind": "blob", "method": "GET"}, faults.status(503), times=2, skip=1)
    codes = [(await client.get(path)).status_code for _ in range(4)]
    assert (codes, rule.hits) == ([200, 503, 503, 200], 2)
    assert (await client.get("/v2/")).status_code == 200


async def test_fault_matches_by_function_and_path(origin: Origin, client: httpx.AsyncClient) -> None:
    origin.fault(lambda seen: seen.range is not None, faults.status(500))
    origin.fault({"path": "^/v2/c/"}, faults.status(502))
    path = blob_path(origin)
    assert (await client.get(path, headers={"Range": "bytes=1-"})).status_code == 500
    assert (await client.get("/v2/c/tags/list")).status_code == 502
    origin.heal()
    assert (await client.get(path)).status_code == 200


async def test_status_carries_headers_and_body(origin: Origin, client: httpx.AsyncClient) -> None:
    origin.fault({}, faults.status(429, {"Retry-After": "7"}, b"slow down"))
    answer = await client.get("/v2/")
    assert (answer.status_code, answer.headers["retry-after"], answer.text) == (429, "7", "slow down")


@pytest.mark.parametrize(
    ("fault", "error", "count"),
    [
        (faults.truncate(1000), httpx.RemoteProtocolError, 1000),
        (faults.reset(1000), httpx.ReadError, 1000),
        (faults.stall(1000), httpx.ReadTimeout, 1000),
        (faults.claims(+5), httpx.RemoteProtocolError, len(DATA)),
    ],
)
async def test_body_ends_badly_after_so_many_bytes(
    origin: Origin, client: httpx.AsyncClient, fault: faults.Fault, error: type[Exception], count: int
) -> None:
    origin.fault({"kind": "blob"}, fault)
    got = b""
    with pytest.raises(error):  # noqa: PT012 (what came before the error counts too)
        async with client.stream("GET", blob_path(origin), timeout=0.2) as answer:
            async for chunk in answer.aiter_raw():
                got += chunk
    assert (got, origin.seen[0].sent) == (DATA[:count], count)


@pytest.mark.parametrize("fault", [faults.refuse(), faults.truncate(-1)])
async def test_no_answer_at_all(origin: Origin, client: httpx.AsyncClient, fault: faults.Fault) -> None:
    origin.fault({}, fault, times=1)
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        await client.get("/v2/")
    assert origin.seen[0].status == 0


async def test_head_ends_in_its_middle(origin: Origin) -> None:
    path = blob_path(origin)
    origin.fault({"kind": "blob"}, faults.reset_in_head())
    got = b""
    async with await trio.open_tcp_stream("127.0.0.1", httpx.URL(origin.url).port or 0) as stream:
        await stream.send_all(f"GET {path} HTTP/1.1\r\n\r\n".encode())
        with pytest.raises(trio.BrokenResourceError):  # noqa: PT012 (what came before counts too)
            while True:
                got += await stream.receive_some()
    assert got.startswith(b"HTTP/1.1 200 ")
    assert b"\r\n\r\n" not in got


async def test_refusing_resets_every_connection(origin: Origin, client: httpx.AsyncClient) -> None:
    origin.refusing = True
    with pytest.raises(httpx.TransportError):
        await client.get("/v2/")
    origin.heal()
    assert (await client.get("/v2/")).status_code == 200


async def test_shorter_claim_ends_the_body_early(origin: Origin, client: httpx.AsyncClient) -> None:
    origin.fault({"kind": "blob"}, faults.claims(-5))
    assert (await client.get(blob_path(origin, b"0123456789"))).content == b"01234"


async def test_longer_body_is_framed_well(origin: Origin, client: httpx.AsyncClient) -> None:
    origin.fault({"kind": "blob"}, faults.longer(3))
    assert (await client.get(blob_path(origin, b"abc"))).content == b"abc\0\0\0"


@pytest.mark.parametrize("framing", [Framing.CHUNKED, Framing.CLOSE])
async def test_no_length(origin: Origin, client: httpx.AsyncClient, framing: Framing) -> None:
    origin.fault({"kind": "blob"}, faults.no_length(framing))
    answer = await client.get(blob_path(origin))
    assert (answer.content, answer.headers.get("content-length")) == (DATA, None)


async def test_wrong_bytes_change_one_of_them(origin: Origin, client: httpx.AsyncClient) -> None:
    origin.fault({"kind": "blob"}, faults.wrong_bytes(at=-1))
    assert (await client.get(blob_path(origin, b"abc"))).content == b"ab" + bytes([ord("c") ^ 0xFF])


async def test_gzip_says_so(origin: Origin, client: httpx.AsyncClient) -> None:
    origin.fault({"kind": "blob"}, faults.gzip())
    async with client.stream("GET", blob_path(origin)) as answer:
        raw = b"".join([chunk async for chunk in answer.aiter_raw()])
    assert (answer.headers["content-encoding"], gzip.decompress(raw)) == ("gzip", DATA)


async def test_header_is_replaced_or_gone(origin: Origin, client: httpx.AsyncClient) -> None:
    origin.fault({}, faults.both(faults.header("etag", None), faults.header("docker-content-digest", "lie")))
    answer = await client.get(blob_path(origin))
    assert (answer.headers.get("etag"), answer.headers["docker-content-digest"]) == (None, "lie")


async def test_bad_range_names_other_bytes(origin: Origin, client: httpx.AsyncClient) -> None:
    origin.fault({"kind": "blob"}, faults.bad_range(shift=2, total=7))
    answer = await client.get(blob_path(origin), headers={"Range": "bytes=5-9"})
    assert (answer.content, answer.headers["content-range"]) == (DATA[5:10], "bytes 7-11/7")


async def test_ignored_range_is_a_whole_200(origin: Origin, client: httpx.AsyncClient) -> None:
    origin.fault({"kind": "blob"}, faults.ignore_range())
    answer = await client.get(blob_path(origin), headers={"Range": "bytes=5-9"})
    assert (answer.status_code, answer.content, "content-range" in answer.headers) == (200, DATA, False)


async def test_delay_and_latency_hold_the_status_line_back(origin: Origin, client: httpx.AsyncClient) -> None:
    origin.latency = 0.05
    origin.fault({}, faults.delay(0.05))
    begun = time.monotonic()
    await client.get("/v2/")
    assert time.monotonic() - begun >= 0.1


async def test_rate_paces_each_connection_smoothly(origin: Origin, client: httpx.AsyncClient) -> None:
    origin.rate = 20 << 20
    arrivals = [time.monotonic()]
    async with client.stream("GET", blob_path(origin, DATA * 16)) as answer:
        arrivals.extend([time.monotonic() async for _ in answer.aiter_raw()])
    assert 0.15 < arrivals[-1] - arrivals[0] < 0.5, "4 MiB at 20 MiB/s: 0.2 s"
    steps = sorted(after - before for before, after in itertools.pairwise(arrivals))
    assert steps[len(steps) * 3 // 4] < 0.010


async def test_drip_is_as_slow_as_it_says(origin: Origin, client: httpx.AsyncClient) -> None:
    origin.fault({}, faults.drip(100))
    begun = time.monotonic()
    assert (await client.get(blob_path(origin, b"x" * 21))).content == b"x" * 21
    assert 0.15 < time.monotonic() - begun < 0.5


async def test_tls(nursery: trio.Nursery) -> None:
    authority = trustme.CA()
    served, trusted = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(served)
    authority.configure_trust(trusted)
    origin = Origin()
    await nursery.start(lambda task_status: origin.serve(ssl_context=served, task_status=task_status))
    async with httpx.AsyncClient(base_url=origin.url, verify=trusted, trust_env=False) as client:
        assert (await client.get(blob_path(origin))).content == DATA


def test_pattern_follows_from_its_seed() -> None:
    one, same, other = Content(), Content(), Content()
    assert (
        one.add_pattern_blob(100, "a") == same.add_pattern_blob(100, "a") != other.add_pattern_blob(100, "b")
    )


def test_process_serves_images_and_is_steered() -> None:
    command = [sys.executable, "-m", "tests.origin", "--blob-size", "2MiB", "--image", "a/b:1=1KiB,2KiB"]
    root = Path(__file__).parent.parent
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert [blob["size"] for blob in ready["images"][0]["blobs"]] == [1024, 2048]
        with httpx.Client(base_url=ready["url"], trust_env=False) as client:
            made = client.post("/_image", json={"repository": "n", "tag": "t", "sizes": [7]}).json()
            digest = made["blobs"][0]["digest"]
            assert len(client.get(f"/v2/n/blobs/{digest}").content) == 7
            assert client.get("/_seen").json()["blobs"] == {digest: {"transfers": 1, "bytes": 7}}
            assert client.post("/_set", json={"ranges": False}).status_code == 200
            assert client.post("/_set", json={"nothing": 1}).status_code == 400
            client.post("/_reset")
            assert client.get("/_seen").json()["seen"] == []
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
