"""A whole daemon that hosts, and whatever may be sent to it: names, digests, ranges, manifests.

Each request is answered, with a status below 500 and, from 400 on, in the distribution's own words.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cacheproxy.core.media import KINDS
from tests.faults.client import Heard
from tests.origin.content import sha256
from tests.test_hosting import CONFIG, LAYER, Client, client, descriptor, image

pytestmark = pytest.mark.timeout(300)

EXAMPLES = 100
"""Of each kind: some 10 ms each."""

Ask = Callable[..., Heard]
fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)

DIGESTS = st.one_of(
    st.just(sha256(LAYER)),
    st.from_regex(r"sha(256|512):[0-9a-fA-F]{60,66}", fullmatch=True),
    st.from_regex(r"[a-z0-9+._-]{1,12}:[0-9a-zA-Z=_/.-]{0,140}", fullmatch=True),
    st.text(max_size=80),
)
PARTS = st.one_of(
    st.sampled_from(
        ["team", "app", "..", ".", "", "_catalog", "v2", "blobs", "uploads", "manifests", "tags"]
    ),
    st.from_regex(r"[a-z0-9]+([._-][a-z0-9]+)*", fullmatch=True),
    st.text(max_size=20),
)
NAMES = st.lists(PARTS, max_size=6).map("/".join)
TAILS = st.one_of(
    st.sampled_from(["tags/list", "blobs/uploads/", f"blobs/{sha256(LAYER)}", "manifests/v1", "referrers/x"]),
    st.builds("{}/{}".format, st.sampled_from(["blobs", "manifests", "referrers", "blobs/uploads"]), DIGESTS),
    NAMES,
)
METHODS = st.sampled_from(["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"])
QUERIES = st.dictionaries(
    st.sampled_from(
        ["digest", "mount", "from", "n", "last", "tag", "ns", "artifactType", "digest-algorithm"]
    ),
    st.one_of(DIGESTS, NAMES, st.integers().map(str)),
    max_size=3,
)
NUMBERS = st.integers(min_value=-(1 << 70), max_value=1 << 70)
SPANS = st.one_of(
    st.builds("{}-{}".format, NUMBERS, NUMBERS),
    st.builds("bytes {}-{}/{}".format, NUMBERS, NUMBERS, NUMBERS),
    st.builds("bytes={}-{}".format, st.one_of(st.just(""), NUMBERS), st.one_of(st.just(""), NUMBERS)),
    st.lists(st.builds("{}-{}".format, NUMBERS, NUMBERS), max_size=9).map(
        lambda spans: "bytes=" + ",".join(spans)
    ),
    st.from_regex(r"[ -~]{0,40}", fullmatch=True),
)
JSONS = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.floats(), st.text(max_size=30), DIGESTS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=12), inner, max_size=4)
    ),
    max_leaves=20,
)
FIELDS = [
    "schemaVersion",
    "mediaType",
    "config",
    "layers",
    "manifests",
    "subject",
    "annotations",
    "artifactType",
]
TYPES = st.one_of(
    st.sampled_from([*KINDS, "", "application/json"]), st.from_regex(r"[a-z/+.;=]{0,40}", fullmatch=True)
)


async def whatever(folder: Path, fuzz: Callable[[Ask], None]) -> None:
    """`fuzz` runs in a thread, as hypothesis wants it, against a daemon that has one image."""
    async with client(folder) as c:
        await c.push("team/app", "v1")
        await trio.to_thread.run_sync(fuzz, partial(asked, c))
        assert await c.says("/v2/team/app/blobs/" + sha256(LAYER)) == LAYER


def asked(c: Client, method: str, path: str, body: bytes = b"", **headers: Any) -> Heard:
    heard = trio.from_thread.run(partial(c.ask, method, path, body, **headers))
    assert 200 <= heard.status < 500, (method, path, body, headers, heard)
    if heard.status >= 400 and method != "HEAD":
        assert heard.error["code"], heard
    return heard


def target(name: str, tail: str, query: dict[str, str] | None = None) -> str:
    words = "&".join(f"{key}={quote(value, safe='')}" for key, value in (query or {}).items())
    return f"/v2/{quote(name)}/{quote(tail, safe='/:')}" + (f"?{words}" if words else "")


async def test_any_path_and_query_are_answered(tmp_path: Path) -> None:
    def fuzz(ask: Ask) -> None:
        @fuzzed
        @given(METHODS, NAMES, TAILS, QUERIES)
        def answered(method: str, name: str, tail: str, query: dict[str, str]) -> None:
            ask(method, target(name, tail, query))

        answered()

    await whatever(tmp_path, fuzz)


async def test_any_digest_is_answered(tmp_path: Path) -> None:
    def fuzz(ask: Ask) -> None:
        @fuzzed
        @given(DIGESTS, st.binary(max_size=20))
        def answered(digest: str, data: bytes) -> None:
            name = quote(digest, safe="")
            heard = ask("POST", f"/v2/team/app/blobs/uploads/?digest={name}", data)
            assert (heard.status == 201) == (digest == sha256(data))
            for method in ("GET", "HEAD"):
                ask(method, f"/v2/team/app/blobs/{name}")
            ask("GET", f"/v2/team/app/manifests/{name}")
            ask("GET", f"/v2/team/app/referrers/{name}")

        answered()

    await whatever(tmp_path, fuzz)


async def test_any_range_is_answered(tmp_path: Path) -> None:
    def fuzz(ask: Ask) -> None:
        place = ask("POST", "/v2/team/app/blobs/uploads/").headers["location"]
        received = 0

        @fuzzed
        @given(SPANS, st.binary(max_size=20))
        def answered(span: str, data: bytes) -> None:
            nonlocal received
            heard = ask("GET", f"/v2/team/app/blobs/{sha256(LAYER)}", Range=span)
            assert heard.status in (200, 206, 400, 416)
            heard = ask("PATCH", place, data, Content_Range=span)
            if heard.status == 202:
                received += len(data)
            assert ask("GET", place).headers["range"] == f"0-{max(received - 1, 0)}"

        answered()

    await whatever(tmp_path, fuzz)


async def test_any_manifest_is_answered(tmp_path: Path) -> None:
    def fuzz(ask: Ask) -> None:
        @fuzzed
        @given(st.dictionaries(st.sampled_from(FIELDS), JSONS, max_size=4), TYPES, st.integers(0, 400))
        def answered(fields: dict[str, Any], media_type: str, cut: int) -> None:
            whole = image(**fields)
            for body in (whole, whole[:cut], json.dumps(fields).encode()):
                heard = ask("PUT", "/v2/team/app/manifests/fuzzed", body, Content_Type=media_type)
                if heard.status == 201:
                    assert ask("GET", "/v2/team/app/manifests/fuzzed").body == body

        answered()

    await whatever(tmp_path, fuzz)


async def test_any_bytes_are_answered(tmp_path: Path) -> None:
    def fuzz(ask: Ask) -> None:
        @fuzzed
        @given(
            st.binary(max_size=200), st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=3)
        )
        def answered(data: bytes, changes: list[tuple[int, int]]) -> None:
            body = bytearray(image(layers=[descriptor(LAYER)], config=descriptor(CONFIG)))
            for at, byte in changes:
                body[at % len(body)] = byte
            for sent in (data, bytes(body)):
                ask("PUT", "/v2/team/app/manifests/fuzzed", sent)

        answered()

    await whatever(tmp_path, fuzz)
