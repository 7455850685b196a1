"""A whole daemon that hosts: who may do what, and which repository a name means."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from cacheproxy.core.manifest import MAX_MANIFEST
from cacheproxy.core.media import OCI_INDEX, OCI_MANIFEST
from tests.faults.client import Heard, asking
from tests.faults.house import House, house
from tests.origin.content import sha256

HOSTING = """
hosts = ["hub.test"]
[[account]]
name = "alice"
secret = {{ file = "{secret}" }}
groups = ["team"]
[[account]]
name = "reader"
secret = {{ file = "{secret}" }}
[[account]]
name = "nobody"
secret = {{ file = "{secret}" }}
[[grant]]
to = ["group:team"]
allow = ["pull", "push", "list", "create", "delete"]
repositories = ["team/**", "debian", "docker-hub/**"]
[[grant]]
to = ["user:reader"]
allow = ["pull", "list"]
repositories = "team/app"
[[grant]]
to = ["user:nobody"]
allow = ["pull"]
repositories = "elsewhere"
[[template]]
prefix = "ROOT"
applied_for = ["create-on-push"]
[[template]]
prefix = "team/fixed"
applied_for = ["create-on-push"]
tag_mutability = "immutable"
sparse = "nothing"
"""

CONFIG, LAYER = b"{}", b"layer"
IMAGE = "application/octet-stream"


def basic(name: str, secret: str = "s3cret") -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()}


ALICE, READER, NOBODY = basic("alice"), basic("reader"), basic("nobody")


class Client:
    def __init__(self, house: House) -> None:
        self.house = house

    async def ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        who: dict[str, str] = ALICE,
        **headers: str,
    ) -> Heard:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        if method in ("PUT", "POST", "PATCH"):
            fields["Content-Length"] = str(len(body))
        with trio.fail_after(20):
            async with asking(self.house.clients, path, method, {**who, **fields}) as request:
                if body:
                    await request._stream.send_all(body)
                head = await request.head()
                return Heard(head.status, head.headers, await request.rest())

    async def blob(self, repository: str, data: bytes) -> Heard:
        return await self.ask("POST", f"/v2/{repository}/blobs/uploads/?digest={sha256(data)}", data)

    async def manifest(
        self, repository: str, reference: str, body: bytes, media_type: str = OCI_MANIFEST
    ) -> Heard:
        path = f"/v2/{repository}/manifests/{reference}"
        return await self.ask("PUT", path, body, Content_Type=media_type)

    async def push(self, repository: str, tag: str, note: str = "") -> bytes:
        for data in (CONFIG, LAYER):
            heard = await self.blob(repository, data)
            assert heard.status == 201, heard
        body = image(note)
        heard = await self.manifest(repository, tag, body)
        assert heard.status == 201, heard
        return body

    async def says(self, path: str, who: dict[str, str] = ALICE) -> bytes:
        heard = await self.ask("GET", path, who=who)
        assert heard.status == 200, heard
        return heard.body


def descriptor(data: bytes, media_type: str = IMAGE) -> dict[str, object]:
    return {"mediaType": media_type, "digest": sha256(data), "size": len(data)}


def image(note: str = "", **more: object) -> bytes:
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(CONFIG),
        "layers": [descriptor(LAYER)],
        "annotations": {"note": note},
    }
    return json.dumps({**document, **more}).encode()


@asynccontextmanager
async def client(folder: Path) -> AsyncIterator[Client]:
    secret = folder / "secret"
    secret.write_text("s3cret")
    secret.chmod(0o600)
    hosting = HOSTING.format(secret=secret) + "[access]\nanonymous_pull = []\n"
    async with house(folder, upstream=hosting) as built:
        yield Client(built)
        built.drain()  # rows are read on several connections, which stay open: they are no leak


async def test_what_is_pushed_is_pulled(tmp_path: Path) -> None:
    async with client(tmp_path) as c:
        body = await c.push("team/app", "v1")
        for reference in ("v1", sha256(body)):
            for who in (ALICE, READER):
                assert await c.says(f"/v2/team/app/manifests/{reference}", who) == body
            head = await c.ask("HEAD", f"/v2/team/app/manifests/{reference}")
            assert head.headers["docker-content-digest"] == sha256(body)
            assert head.headers["content-length"] == str(len(body))
        assert await c.says(f"/v2/team/app/blobs/{sha256(LAYER)}") == LAYER


async def test_a_tag_that_moves_or_goes_is_not_answered_from_memory(tmp_path: Path) -> None:
    async with client(tmp_path) as c:
        path = "/v2/team/app/manifests/v1"
        first = await c.push("team/app", "v1")
        assert await c.says(path) == await c.says(path) == first
        second = await c.push("team/app", "v1", "moved")
        assert await c.says(path) == await c.says(path) == second
        assert (await c.ask("DELETE", path)).status == 202
        assert (await c.ask("GET", path)).status == 404
        assert await c.says(f"/v2/team/app/manifests/{sha256(second)}") == second
        assert (await c.manifest("team/app", "v1", first)).status == 201
        assert await c.says(path) == first
        assert (await c.ask("DELETE", f"/v2/team/app/manifests/{sha256(first)}")).status == 202
        assert (await c.ask("GET", path)).status == 404


async def test_an_image_that_no_tag_means_is_not_answered_from_memory_once_it_is_deleted(
    tmp_path: Path,
) -> None:
    async with client(tmp_path) as c:
        body = await c.push("team/app", "v1")
        path = f"/v2/team/app/manifests/{sha256(body)}"
        assert (await c.ask("DELETE", "/v2/team/app/manifests/v1")).status == 202
        assert await c.says(path) == await c.says(path) == body
        assert (await c.ask("DELETE", path)).status == 202
        assert (await c.ask("GET", path)).status == 404


async def test_a_hosted_name_beats_the_default_upstreams_from_its_first_push_on(tmp_path: Path) -> None:
    async with client(tmp_path) as c:
        cached = c.house.image("library/debian", LAYER)
        path = "/v2/debian/manifests/latest"
        by_digest = f"/v2/debian/manifests/{cached.digest}"
        for asked in (path, by_digest):
            assert await c.says(asked) == await c.says(asked) == cached.manifest
        hosted = await c.push("debian", "latest")
        assert await c.says(path) == hosted
        assert (await c.ask("GET", by_digest)).status == 404
        assert await c.says(f"/v2/docker-hub/library/debian/manifests/{cached.digest}") == cached.manifest


@pytest.mark.parametrize(
    ("path", "host"),
    [
        ("/v2/docker-hub/library/debian/manifests/v1", "cache.test"),
        ("/v2/docker.io/library/debian/manifests/v1", "cache.test"),
        ("/v2/library/debian/manifests/v1?ns=docker.io", "cache.test"),
        ("/v2/team/app/manifests/v1", "hub.test"),
    ],
)
async def test_nothing_is_pushed_to_an_upstream(tmp_path: Path, path: str, host: str) -> None:
    async with client(tmp_path) as c:
        heard = await c.ask("PUT", path, image(), Content_Type=OCI_MANIFEST, Host=host)
        assert (heard.status, heard.error["code"]) == (403, "DENIED")
        assert "is an upstream's" in heard.error["message"]


async def test_who_has_no_right_does_not_learn_what_there_is(tmp_path: Path) -> None:
    async with client(tmp_path) as c:
        await c.push("team/app", "v1")
        for who in (NOBODY, {}):
            for noun in ("manifests/v1", "tags/list", f"blobs/{sha256(LAYER)}"):
                there = await c.ask("GET", f"/v2/team/app/{noun}", who=who)
                nowhere = await c.ask("GET", f"/v2/team/not/{noun}", who=who)
                assert _alike(there, "app") == _alike(nowhere, "not")
                assert there.status in (401, 403)


def _alike(heard: Heard, name: str) -> tuple[int, str, str]:
    told = heard.error["message"].replace(f"team/{name}", "NAME")
    return heard.status, told, heard.headers.get("www-authenticate", "").replace(f"team/{name}", "NAME")


@pytest.mark.parametrize(
    ("method", "rest"),
    [
        ("DELETE", "manifests/v1"),
        ("DELETE", f"blobs/{sha256(LAYER)}"),
        ("PATCH", "blobs/uploads/0123456789abcdef0123456789abcdef"),
        ("PUT", f"blobs/uploads/0123456789abcdef0123456789abcdef?digest={sha256(LAYER)}"),
        ("DELETE", "blobs/uploads/0123456789abcdef0123456789abcdef"),
    ],
)
async def test_only_what_begins_a_push_makes_a_repository(tmp_path: Path, method: str, rest: str) -> None:
    async with client(tmp_path) as c:
        heard = await c.ask(method, f"/v2/team/new/{rest}")
        assert (heard.status, heard.error["code"]) == (404, "NAME_UNKNOWN")
        assert json.loads(await c.says("/v2/_catalog"))["repositories"] == []


@pytest.mark.parametrize("who", [READER, NOBODY, basic("alice", "wrong"), {}])
async def test_who_may_not_push_changes_nothing(tmp_path: Path, who: dict[str, str]) -> None:
    async with client(tmp_path) as c:
        await c.push("team/app", "v1")
        tags = await c.says("/v2/team/app/tags/list")
        for method, rest in (
            ("POST", "blobs/uploads/"),
            ("PUT", "manifests/v2"),
            ("DELETE", "manifests/v1"),
        ):
            heard = await c.ask(method, f"/v2/team/app/{rest}", image(), who)
            assert heard.status in (401, 403), heard
        assert await c.says("/v2/team/app/tags/list") == tags


async def test_the_catalog_shows_what_the_caller_may_list_by_the_page(tmp_path: Path) -> None:
    async with client(tmp_path) as c:
        for name in ("team/app/b", "team/app", "team/app-b"):
            await c.blob(name, LAYER)
        heard = await c.ask("GET", "/v2/_catalog?n=2")
        assert json.loads(heard.body) == {"repositories": ["team/app", "team/app-b"]}
        assert heard.headers["link"] == '</v2/_catalog?n=2&last=team%2Fapp-b>; rel="next"'
        assert json.loads(await c.says("/v2/_catalog?n=2&last=team/app-b"))["repositories"] == ["team/app/b"]
        assert json.loads(await c.says("/v2/_catalog?n=0"))["repositories"] == []
        assert json.loads(await c.says("/v2/_catalog", READER))["repositories"] == ["team/app"]
        assert json.loads(await c.says("/v2/_catalog", NOBODY))["repositories"] == []
        assert (await c.ask("GET", "/v2/_catalog", who={})).status == 401


async def test_tags_are_listed_in_the_order_of_their_bytes(tmp_path: Path) -> None:
    async with client(tmp_path) as c:
        await c.push("team/app", "b")
        body = image("more")
        heard = await c.manifest("team/app", f"{sha256(body)}?tag=a&tag=B&tag=_c&tag=a", body)
        assert (heard.status, heard.headers["location"]) == (201, f"/v2/team/app/manifests/{sha256(body)}")
        assert json.loads(await c.says("/v2/team/app/tags/list"))["tags"] == ["B", "_c", "a", "b"]
        heard = await c.ask("GET", "/v2/team/app/tags/list?n=2&last=B")
        assert json.loads(heard.body)["tags"] == ["_c", "a"]
        assert heard.headers["link"] == '</v2/team/app/tags/list?n=2&last=a>; rel="next"'
        for page in ("n=0", "last=zzz"):
            heard = await c.ask("GET", f"/v2/team/app/tags/list?{page}")
            assert (json.loads(heard.body)["tags"], "link" in heard.headers) == ([], False)


async def test_referrers_are_filtered_and_paged(tmp_path: Path) -> None:
    async with client(tmp_path) as c:
        subject = await c.push("team/app", "v1")
        pushed: dict[str, str] = {}
        for kind in ("a/sig", "a/sig", "a/sbom"):
            body = image(str(len(pushed)), subject=descriptor(subject, OCI_MANIFEST), artifactType=kind)
            heard = await c.manifest("team/app", sha256(body), body)
            assert heard.headers["oci-subject"] == sha256(subject)
            pushed[sha256(body)] = kind
        path = f"/v2/team/app/referrers/{sha256(subject)}"
        heard = await c.ask("GET", path)
        assert heard.headers["content-type"] == OCI_INDEX
        assert {m["digest"]: m["artifactType"] for m in json.loads(heard.body)["manifests"]} == pushed
        signatures = sorted(digest for digest, kind in pushed.items() if kind == "a/sig")
        heard = await c.ask("GET", f"{path}?artifactType=a/sig&n=1")
        assert heard.headers["oci-filters-applied"] == "artifactType"
        assert [m["digest"] for m in json.loads(heard.body)["manifests"]] == signatures[:1]
        following = heard.headers["link"].partition("<")[2].partition(">")[0]
        heard = await c.ask("GET", following)
        assert [m["digest"] for m in json.loads(heard.body)["manifests"]] == signatures[1:]
        assert "link" not in heard.headers


@pytest.mark.parametrize(
    ("body", "media_type", "status", "code"),
    [
        (image(), OCI_INDEX, 400, "MANIFEST_INVALID"),
        (image(manifests=[]), OCI_MANIFEST, 400, "MANIFEST_INVALID"),
        (image(layers=[descriptor(b"not here")]), OCI_MANIFEST, 404, "MANIFEST_BLOB_UNKNOWN"),
        (b"[" * 10_000, OCI_MANIFEST, 400, "MANIFEST_INVALID"),
        (b"", OCI_MANIFEST, 400, "MANIFEST_INVALID"),
    ],
    ids=["type", "ambiguous", "missing", "deep", "empty"],
)
async def test_a_manifest_that_is_wrong_is_refused_whole(
    tmp_path: Path, body: bytes, media_type: str, status: int, code: str
) -> None:
    async with client(tmp_path) as c:
        await c.push("team/app", "v1")
        heard = await c.manifest("team/app", "v2", body, media_type)
        assert (heard.status, heard.error["code"]) == (status, code)
        assert json.loads(await c.says("/v2/team/app/tags/list"))["tags"] == ["v1"]


async def test_a_manifest_that_is_too_large_is_not_even_read(tmp_path: Path) -> None:
    async with client(tmp_path) as c:
        path, fields = "/v2/team/app/manifests/v1", {**ALICE, "Content-Length": str(MAX_MANIFEST + 1)}
        async with asking(c.house.clients, path, "PUT", fields) as request:
            assert (await request.head()).status == 413


async def test_a_digest_that_is_not_the_bodys_is_refused(tmp_path: Path) -> None:
    async with client(tmp_path) as c:
        await c.push("team/app", "v1")
        heard = await c.manifest("team/app", sha256(b"other"), image("x"))
        assert (heard.status, heard.error["code"]) == (400, "DIGEST_INVALID")


async def test_a_layer_that_is_to_be_had_elsewhere_need_not_be_here(tmp_path: Path) -> None:
    kind = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    async with client(tmp_path) as c:
        await c.blob("team/app", CONFIG)
        body = image(layers=[descriptor(b"elsewhere", kind)])
        assert (await c.manifest("team/app", "v1", body)).status == 201


async def test_a_template_has_its_say(tmp_path: Path) -> None:
    async with client(tmp_path) as c:
        body = await c.push("team/fixed/app", "v1")
        assert (await c.manifest("team/fixed/app", "v1", body)).status == 201
        heard = await c.manifest("team/fixed/app", "v1", image("moved"))
        assert (heard.error["code"], heard.status) == ("TAG_INVALID", 400)
        children = [descriptor(b"{ }", OCI_MANIFEST)]
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children}
        sparse = json.dumps(index).encode()
        heard = await c.manifest("team/fixed/app", "v2", sparse, OCI_INDEX)
        assert heard.error["code"] == "MANIFEST_BLOB_UNKNOWN"
        await c.blob("team/app", LAYER)
        assert (await c.manifest("team/app", "v2", sparse, OCI_INDEX)).status == 201


async def test_a_manifest_may_be_named_by_its_sha512(tmp_path: Path) -> None:
    import hashlib

    async with client(tmp_path) as c:
        body = await c.push("team/app", "v1")
        digest = "sha512:" + hashlib.sha512(body).hexdigest()
        heard = await c.manifest("team/app", digest, body)
        assert (heard.status, heard.headers["docker-content-digest"]) == (201, digest)
        assert await c.says(f"/v2/team/app/manifests/{digest}") == body
        assert (await c.ask("DELETE", f"/v2/team/app/manifests/{digest}")).status == 202
        assert await c.says("/v2/team/app/manifests/v1") == body


@pytest.mark.parametrize("harm", [lambda file: file.unlink(), lambda file: os.truncate(file, 2)])
async def test_a_pushed_blob_that_is_damaged_is_said_to_be_gone_and_can_be_pushed_again(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    async with client(tmp_path) as c:
        await c.push("team/app", "v1")
        (file,) = (tmp_path / "state").rglob(f"{sha256(LAYER).removeprefix('sha256:')}.*")
        harm(file)
        path = f"/v2/team/app/blobs/{sha256(LAYER)}"
        heard = await c.ask("GET", path)
        assert (heard.status, b"push it again" in heard.body) == (404, True)
        assert (await c.ask("HEAD", path)).status == 404
        assert (await c.blob("team/app", LAYER)).status == 201
        assert await c.says(path) == LAYER


async def test_a_name_below_a_template_is_no_other_registrys(tmp_path: Path) -> None:
    async with client(tmp_path) as c:
        heard = await c.ask("GET", "/v2/team/fixed/app/manifests/v1")
        assert heard.status == 404
        assert c.house.asked() == 0
