"""Exports and imports of running daemons."""

from __future__ import annotations

import io
import stat
import tarfile
from pathlib import Path

import pytest
import trio

from cacheproxy.core.digest import Digest
from cacheproxy.core.name import fallback_tag
from tests.commands.desk import at_desk
from tests.commands.layouts.memory import Memory
from tests.commands.layouts.test_moving import export, held, unpack
from tests.commands.sites import site

BIG = bytes(range(256)) * 16384
"""4 MiB: more than is read at once."""


def images() -> Memory:
    """An index of two, with a signature by its tag, and what refers to what refers to it."""
    registry = Memory()
    children = [registry.image("team/app", data) for data in (BIG, b"other")]
    index = registry.index("team/app", *children, tag="v1")
    sbom = registry.image("team/app", b"sbom", subject=index)
    registry.image("team/app", b"of the sbom", subject=sbom)
    registry.image("team/app", b"signature", tag=f"{fallback_tag(index)}.sig")
    registry.image("team/web", BIG, tag="v2")
    return registry


async def test_images_go_from_one_daemon_to_another(folder: Path) -> None:
    registry, file = images(), folder / "x.tar"
    async with site(folder / "here") as here, site(folder / "there") as there:
        await here.take(registry)
        said = await here.says("export", "team/app:v1", "team/web:v2", file)
        assert said.stdout == ""
        assert "exported 5 images, 6 blobs of 4.0 MiB (sha256:" in said.stderr
        assert (await there.says("import", file)).stdout == (
            "imported 6 blobs (4.0 MiB sent), 7 manifests and 3 tags\n"
        )
        assert await there.lacks(registry) == []
        again = (await there.says("import", file)).stdout
        assert again == "imported 0 blobs (0 B sent), 0 manifests and 0 tags\n"
        other = (await there.says("import", file, "--to", "mirror")).stdout
        assert other == "imported 6 blobs (0 B sent), 7 manifests and 3 tags\n"
        assert await there.lacks(registry, below="mirror/") == []


async def test_a_delta_goes_on_from_an_earlier_export(folder: Path) -> None:
    registry, monday, tuesday = images(), folder / "monday.tar", folder / "tuesday.tar"
    async with site(folder / "here") as here, site(folder / "there") as there:
        await here.take(registry)
        await here.says("export", "team/app:v1", monday)
        registry.image("team/app", BIG, b"new", tag="v3")
        await here.take(registry)
        await here.says("export", "team/app:v3", "team/web:v2", "--since", monday, tuesday)
        assert Digest.of(b"new") in held(tuesday)
        assert Digest.of(BIG) not in held(tuesday)
        refused = await there.refuses("import", tuesday)
        assert "goes on from another export (monday.tar, sha256:" in refused
        await there.says("import", monday)
        await there.says("import", tuesday)
        assert await there.lacks(registry) == []


async def test_an_export_passes_through_a_pipe(folder: Path) -> None:
    registry = images()
    async with site(folder / "here") as here, site(folder / "there") as there:
        await here.take(registry)
        piped = (await here.says("export", "team/app:v1", "team/web:v2", "-")).stdout_bytes
        await there.says("import", "-", given=piped)
        assert await there.lacks(registry) == []


async def test_a_cached_image_is_exported_with_what_has_to_be_fetched_for_it(folder: Path) -> None:
    async with at_desk(folder) as desk, site(folder / "there") as there:
        image = desk.house.image("library/debian", BIG, b"small", tag="12")
        await desk.says("export", "debian:12", folder / "x.tar")
        assert held(folder / "x.tar") == {Digest(image.digest), *map(Digest, image.blobs)}
        await desk.house.quiet()
        asked = desk.house.asked("blob")
        await desk.says("export", "docker-hub/library/debian:12", folder / "y.tar")
        assert desk.house.asked("blob") == asked
        assert (folder / "x.tar").read_bytes() == (folder / "y.tar").read_bytes()
        await there.says("import", folder / "x.tar", "--to", "mirror")
        assert await there.means("mirror/docker-hub/library/debian", "12") == image.digest


async def test_a_virtual_name_is_exported_and_imported_by_its_places(folder: Path) -> None:
    registry = Memory()
    digest = registry.image("team/app", BIG, tag="v1")
    async with site(folder / "here") as here, site(folder / "there") as there:
        await here.take(registry)
        await here.says("export", "all/app:v1", folder / "x.tar")
        await there.says("import", folder / "x.tar")
        assert await there.lacks(registry) == []
        export(registry, folder / "y.tar", "team/app:v1")
        await there.says("import", folder / "y.tar", "--to", "all")
        assert await there.means("team/team/app", "v1") == digest


@pytest.mark.parametrize("to", ["up", "up/x", "reg.test", "read"])
async def test_nothing_is_imported_into_what_is_an_upstreams(folder: Path, to: str) -> None:
    export(images(), folder / "x.tar", "team/app:v1")
    async with site(folder / "there") as there:
        assert "is an upstream's" in await there.refuses("import", folder / "x.tar", "--to", to)


async def test_a_cache_without_accounts_takes_no_images(folder: Path) -> None:
    export(images(), folder / "x.tar", "team/app:v1")
    async with at_desk(folder) as desk:
        assert "no account is configured" in await desk.refuses("import", folder / "x.tar")


async def test_an_immutable_tag_stays_where_it_is(folder: Path) -> None:
    first, second = Memory(), Memory()
    stays = first.image("app", b"first", tag="v1")
    second.image("app", b"second", tag="v1")
    export(first, folder / "1.tar", "app:v1")
    export(second, folder / "2.tar", "app:v1")
    async with site(folder / "there") as there:
        await there.says("import", folder / "1.tar", "--to", "fixed")
        assert "TAG_INVALID" in await there.refuses("import", folder / "2.tar", "--to", "fixed")
        assert await there.means("fixed/app", "v1") == stays
        await there.says("import", folder / "1.tar", "--to", "fixed")


async def test_a_quota_holds(folder: Path) -> None:
    export(images(), folder / "x.tar", "team/app:v1")
    async with site(folder / "there") as there:
        assert "quota" in await there.refuses("import", folder / "x.tar", "--to", "small")
        assert await there.tags("small/team/app") == []


async def test_wrong_bytes_leave_nothing_that_is_tagged(folder: Path) -> None:
    file = folder / "x.tar"
    export(images(), file, "team/app:v1")
    file.write_bytes(file.read_bytes().replace(b"of the sbom", b"of no sbom!"))
    async with site(folder / "there") as there:
        assert "DIGEST_INVALID" in await there.refuses("import", file)
        assert await there.tags("team/app") == []
        assert list((folder / "there" / "state" / "blobs" / "uploads").iterdir()) == []


async def test_missing_blobs_are_named_and_nothing_is_sent(folder: Path) -> None:
    export(images(), folder / "x.tar", "team/app:v1")
    unpack(folder / "x.tar", folder / "layout")
    missing = Digest.of(b"sbom")
    (folder / "layout" / "blobs" / "sha256" / missing.hex).unlink()
    async with site(folder / "there") as there:
        assert f"missing, here and in it: {missing}" in await there.refuses("import", folder / "layout")
        assert await there.tags("team/app") == []
        assert not await there.has("team/app", Digest.of(BIG))


@pytest.mark.parametrize(
    "reference", ["nobody/nothing", "team/app:none", f"team/app@sha256:{'0' * 64}", "Team"]
)
async def test_what_is_not_there_is_not_exported(folder: Path, reference: str) -> None:
    async with site(folder / "here") as here:
        await here.take(images())
        await here.refuses("export", "team/app:v1", reference, folder / "x.tar")
        assert not (folder / "x.tar").exists()


async def test_a_name_that_is_none_is_refused(folder: Path) -> None:
    export(images(), folder / "x.tar", "team/app:v1")
    async with site(folder / "there") as there:
        assert "not a repository name" in await there.refuses("import", folder / "x.tar", "--to", "A/b")
        assert "No such file" in await there.refuses("import", folder / "none.tar")


async def test_what_is_pushed_at_the_socket_is_the_operators(folder: Path) -> None:
    """No network, no account: only who may open the socket."""
    async with site(folder / "here") as here:
        await here.take(images())
        socket = await trio.Path(folder / "here" / "state" / "admin.sock").stat()
        assert stat.S_IMODE(socket.st_mode) == 0o660
        assert (await here.says("repository", "list")).stdout.count("team/") == 2


async def test_a_tar_without_an_index_is_no_layout(folder: Path) -> None:
    with tarfile.open(folder / "x.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("manifest.json"), io.BytesIO())
    async with site(folder / "there") as there:
        assert "it has no oci-layout at its top" in await there.refuses("import", folder / "x.tar")
