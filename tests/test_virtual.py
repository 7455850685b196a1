"""A whole daemon with a virtual prefix: one name for hosted repositories and two upstreams."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cacheproxy.core.media import OCI_MANIFEST
from tests.faults.client import Heard, asking
from tests.faults.house import House, Image, hosts
from tests.origin import faults
from tests.origin.content import sha256
from tests.test_hosting import basic

SETTINGS = """
[[upstream]]
registry = "second.test"
prefix = "second"
url = "{url}"
allow_addresses = ["127.0.0.0/8"]
fresh = [{{ tags = "**", for = "0s" }}]
missing_for = "0s"
[[account]]
name = "alice"
secret = {{ file = "{secret}" }}
[[account]]
name = "reader"
secret = {{ file = "{secret}" }}
[[account]]
name = "stranger"
secret = {{ file = "{secret}" }}
[[grant]]
to = ["user:alice"]
allow = ["pull", "push", "list", "create"]
repositories = ["all/**", "closed/**", "platform/**", "docker-hub/**", "second/**"]
[[grant]]
to = ["user:reader"]
allow = ["pull"]
repositories = ["all/**", "docker-hub/**", "second/**"]
[[grant]]
to = ["user:stranger"]
allow = ["pull", "push", "create"]
repositories = ["platform/**", "docker-hub/**", "second/**"]
[[template]]
prefix = "platform"
applied_for = ["create-on-push"]
[[virtual]]
prefix = "all"
members = ["platform", "docker-hub", "second"]
push = "platform"
[[virtual]]
prefix = "closed"
members = ["platform", "docker-hub"]
"""

ALICE, READER, STRANGER = basic("alice"), basic("reader"), basic("stranger")


@asynccontextmanager
async def places(folder: Path) -> AsyncIterator[House]:
    """The second upstream is the token server's host: it has all images of the first, unless it is told."""
    (folder / "secret").write_text("s3cret")
    (folder / "secret").chmod(0o600)
    async with hosts(folder) as house:
        text = house.file.read_text() + SETTINGS.format(url=house.url(house.auth), secret=folder / "secret")
        house.file.write_text(text.replace("[log]", "[access]\nanonymous_pull = []\n[log]", 1))
        async with house.daemon():
            yield house


async def ask(
    house: House,
    path: str,
    who: dict[str, str] = ALICE,
    method: str = "GET",
    body: bytes = b"",
    kind: str = "",
) -> Heard:
    headers = {"Content-Length": str(len(body)), **({"Content-Type": kind} if kind else {}), **who}
    async with asking(house.clients, path, method, headers) as request:
        await request._stream.send_all(body)
        head = await request.head()
        return Heard(head.status, head.headers, await request.rest())


async def push(house: House, repository: str, tag: str, layer: bytes, who: dict[str, str] = ALICE) -> str:
    """Its digest."""
    config = b"{}"
    for blob in (config, layer):
        path = f"/v2/{repository}/blobs/uploads/?digest={sha256(blob)}"
        heard = await ask(house, path, who, "POST", blob, "application/octet-stream")
        assert heard.status == 201, heard
    described = [
        {"mediaType": "application/octet-stream", "digest": sha256(blob), "size": len(blob)}
        for blob in (config, layer)
    ]
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": described[0],
        "layers": described[1:],
    }
    body = json.dumps(manifest).encode()
    heard = await ask(house, f"/v2/{repository}/manifests/{tag}", who, "PUT", body, OCI_MANIFEST)
    assert heard.status == 201, heard
    return sha256(body)


def only_in_second(house: House, repository: str) -> None:
    for kind in ("manifest", "tags", "blob", "referrers"):
        house.registry.origin.fault({"kind": kind, "repo": repository}, faults.status(404))


async def pulled(house: House, name: str, image: Image, who: dict[str, str] = ALICE) -> None:
    for reference in (image.tag, image.digest):
        heard = await ask(house, f"/v2/{name}/manifests/{reference}", who)
        assert (heard.status, heard.body) == (200, image.manifest), heard
    for digest, blob in image.blobs.items():
        heard = await ask(house, f"/v2/{name}/blobs/{digest}", who)
        assert (heard.status, heard.body) == (200, blob), heard


async def tags(house: House, path: str) -> list[str]:
    heard = await ask(house, path)
    assert heard.status == 200, heard
    found: list[str] = json.loads(heard.body)["tags"]
    return found


async def test_the_first_place_that_has_it_serves_it(tmp_path: Path) -> None:
    async with places(tmp_path) as house:
        hub, second = house.image("library/debian", b"debian"), house.image("other/app", b"app")
        only_in_second(house, "other/app")
        await pulled(house, "all/debian", hub)
        await pulled(house, "all/library/debian", hub)
        await pulled(house, "all/other/app", second)
        assert (await ask(house, "/v2/all/no/such/manifests/latest")).status == 404
        assert (await ask(house, "/v2/all/none/tags/list")).status == 404
        house.drain()


async def test_a_place_that_fails_ends_it(tmp_path: Path) -> None:
    """Else whoever has the same name elsewhere would take its place."""
    async with places(tmp_path) as house:
        image = house.image("org/app", b"app")
        house.registry.origin.fault({"repo": "org/app"}, faults.status(500))
        for path in (
            "manifests/latest",
            f"manifests/{image.digest}",
            f"blobs/{image.layers[0]}",
            "tags/list",
        ):
            heard = await ask(house, f"/v2/all/org/app/{path}")
            assert heard.status == 502, (path, heard)
            assert "docker-hub" in heard.error["message"]
        assert house.auth.origin.requests("manifest") == 0
        house.drain()


async def test_a_hosted_repository_has_its_name_alone(tmp_path: Path) -> None:
    async with places(tmp_path) as house:
        house.image("tool", b"foreign", tag="1")
        house.image("tool", b"foreign 2", tag="99")
        house.image("library/tool", b"foreign", tag="1")
        house.image("library/tool", b"foreign 2", tag="99")
        ours = await push(house, "platform/tool", "1", b"ours")
        before = house.asked()
        heard = await ask(house, "/v2/all/tool/manifests/1")
        assert heard.headers["docker-content-digest"] == ours
        assert (await ask(house, "/v2/all/tool/manifests/99")).status == 404
        assert await tags(house, "/v2/all/tool/tags/list") == ["1"]
        assert (await ask(house, f"/v2/all/tool/blobs/{sha256(b'ours')}")).body == b"ours"
        assert house.asked() == before
        house.drain()


async def test_what_a_digest_names_is_found_wherever_it_is(tmp_path: Path) -> None:
    async with places(tmp_path) as house:
        image = house.image("library/tool", b"foreign")
        await push(house, "platform/tool", "1", b"ours")
        heard = await ask(house, f"/v2/all/tool/manifests/{image.digest}")
        assert (heard.status, heard.body) == (200, image.manifest)
        assert (await ask(house, f"/v2/all/tool/blobs/{image.layers[0]}")).body == b"foreign"
        house.drain()


async def test_tags_are_all_places_ones_by_pages(tmp_path: Path) -> None:
    async with places(tmp_path) as house:
        for tag in ("a", "c", "e"):
            house.image("org/app", b"x", tag=tag)
        assert await tags(house, "/v2/all/org/app/tags/list") == ["a", "c", "e"]
        heard = await ask(house, "/v2/all/org/app/tags/list?n=2")
        assert json.loads(heard.body)["tags"] == ["a", "c"]
        assert heard.headers["link"] == '</v2/all/org/app/tags/list?n=2&last=c>; rel="next"'
        assert await tags(house, "/v2/all/org/app/tags/list?n=2&last=c") == ["e"]
        assert "link" not in (await ask(house, "/v2/all/org/app/tags/list?n=2&last=c")).headers
        house.drain()


async def test_referrers_are_all_places_ones(tmp_path: Path) -> None:
    async with places(tmp_path) as house:
        image = house.image("org/app", b"x")
        theirs = house.content.add_referrer("org/app", image.digest, "application/sbom")
        config, kind = b"{}", "application/octet-stream"
        await ask(
            house, f"/v2/all/org/app/blobs/uploads/?digest={sha256(config)}", ALICE, "POST", config, kind
        )
        described = {"mediaType": "application/signature", "digest": sha256(config), "size": len(config)}
        subject = {"mediaType": OCI_MANIFEST, "digest": image.digest, "size": len(image.manifest)}
        body = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": described,
                "layers": [],
                "subject": subject,
            }
        ).encode()
        heard = await ask(
            house, f"/v2/all/org/app/manifests/{sha256(body)}", ALICE, "PUT", body, OCI_MANIFEST
        )
        assert heard.status == 201, heard
        heard = await ask(house, f"/v2/all/org/app/referrers/{image.digest}")
        listed = json.loads(heard.body)["manifests"]
        assert [each["digest"] for each in listed] == sorted([str(theirs), sha256(body)])
        signed = f"/v2/all/org/app/referrers/{image.digest}?artifactType=application/signature"
        heard = await ask(house, signed)
        assert [each["digest"] for each in json.loads(heard.body)["manifests"]] == [sha256(body)]
        assert heard.headers["oci-filters-applied"] == "artifactType"
        first = await ask(house, f"/v2/all/org/app/referrers/{image.digest}?n=1")
        assert len(json.loads(first.body)["manifests"]) == 1
        assert 'rel="next"' in first.headers["link"]
        house.drain()


async def test_pushes_go_to_the_member_that_takes_them(tmp_path: Path) -> None:
    async with places(tmp_path) as house:
        image = house.image("team/app", b"same layer")
        await pulled(house, "all/team/app", image)
        layer = image.layers[0]
        heard = await ask(house, f"/v2/all/team/app/blobs/{layer}", ALICE, "HEAD")
        assert heard.status == 404, "who pushes asks what is there already, where it pushes"
        assert (await ask(house, f"/v2/all/team/app/blobs/{layer}", READER, "HEAD")).status in (200, 401, 403)
        digest = await push(house, "all/team/app", "1", b"same layer")
        for name in ("all/team/app", "platform/team/app"):
            heard = await ask(house, f"/v2/{name}/manifests/1")
            assert heard.headers["docker-content-digest"] == digest
        assert (await ask(house, f"/v2/all/team/app/blobs/{layer}", ALICE, "HEAD")).status == 200
        house.drain()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_without_one_pushes_are_refused(tmp_path: Path, method: str) -> None:
    async with places(tmp_path) as house:
        what = "blobs/uploads/" if method == "POST" else "manifests/1"
        heard = await ask(house, f"/v2/closed/app/{what}", ALICE, method)
        assert (heard.status, heard.error["code"]) == (403, "DENIED")
        house.drain()


async def test_it_takes_the_right_there_and_in_each_place_that_is_looked_at(tmp_path: Path) -> None:
    """Who may not read a place learns neither what it has nor what is behind it, under that name."""
    async with places(tmp_path) as house:
        house.image("library/debian", b"debian")
        await push(house, "platform/secret", "1", b"secret")
        for name in ("debian", "secret", "nothing"):
            heard = await ask(house, f"/v2/all/{name}/manifests/1", READER)
            assert heard.status == 403
            assert f"all/{name}" in heard.error["message"]
            assert "platform" not in heard.error["message"]
        assert (await ask(house, "/v2/all/debian/manifests/latest", STRANGER)).status == 403
        assert (await ask(house, "/v2/all/x/blobs/uploads/", STRANGER, "POST")).status == 403
        assert (await ask(house, "/v2/docker-hub/debian/manifests/latest", READER)).status == 200
        house.drain()


async def test_a_token_for_it_is_good_there(tmp_path: Path) -> None:
    async with places(tmp_path) as house:
        image = house.image("library/debian", b"debian")
        for scope in ("pull", "pull,push"):
            heard = await ask(house, f"/token?scope=repository:all/debian:{scope}")
            who = {"Authorization": f"Bearer {json.loads(heard.body)['token']}"}
            if scope == "pull":
                await pulled(house, "all/debian", image, who)
                refused = await ask(house, "/v2/all/debian/blobs/uploads/", who, "POST")
                assert refused.status == 401
                assert 'scope="repository:all/debian:pull,push"' in refused.headers["www-authenticate"]
            else:
                await push(house, "all/debian", "mine", b"mine", who)
        house.drain()
