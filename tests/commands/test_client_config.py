from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trustme
from click.testing import CliRunner

from cacheproxy import app, cli, config
from cacheproxy.commands.clients.tools import TOOLS
from tests.commands.desk import Desk, at_desk
from tests.faults.house import hosts


def url(desk: Desk) -> str:
    host, port = desk.house.clients
    return f"http://{host}:{port}"


@pytest.mark.parametrize("tool", TOOLS)
async def test_what_is_written_is_proven_and_undone(tool: str, folder: Path) -> None:
    root = folder / "root"
    async with at_desk(folder) as desk:
        desk.house.image("library/a", b"layer")
        options = ("client-config", tool, "--root", root)
        assert "wrote" in await desk.says(*options, "--write", "--url", url(desk))
        said = await desk.says(*options, "--check", "--image", "docker.io/library/a")
        assert all(line.startswith("ok  ") for line in said.splitlines())
        assert "sha256:" in said
        assert "removed" in await desk.says(*options, "--undo")
        assert not [path for path in root.rglob("*") if path.is_file()]
        assert "nothing to undo" in await desk.refuses(*options, "--undo")


AUTHORITY = trustme.CA()


@asynccontextmanager
async def secure_desk(folder: Path, *, whole: bool) -> AsyncIterator[tuple[Desk, str]]:
    """And the address. The daemon's certificate is of AUTHORITY, which its chain holds if that is `whole`."""
    issued = AUTHORITY.issue_cert("127.0.0.1")
    chain = [*issued.cert_chain_pems, AUTHORITY.cert_pem] if whole else issued.cert_chain_pems
    (folder / "tls.pem").write_bytes(b"".join(pem.bytes() for pem in (*chain, issued.private_key_pem)))
    async with hosts(folder) as house, trio.open_nursery() as nursery:
        text = house.file.read_text()
        house.file.write_text(text.replace("[server]", '[server]\ntls = { certificate = "tls.pem" }'))
        house.image("library/a", b"layer")
        drain = trio.Event()
        bound = await nursery.start(app.main, config.load(house.file), drain)
        yield Desk(house), f"https://{bound['listen'][0]}"
        drain.set()


@pytest.mark.parametrize("tool", TOOLS)
async def test_what_is_written_for_a_private_authority_is_proven_and_undone(tool: str, folder: Path) -> None:
    root = folder / "root"
    async with secure_desk(folder, whole=True) as (desk, secure):
        options = ("client-config", tool, "--root", root)
        await desk.says(*options, "--write", "--url", secure)
        said = await desk.says(*options, "--check", "--image", "docker.io/library/a")
        assert "sha256:" in said
        assert "https://" in said
        written = [path for path in root.rglob("*") if path.is_file()]
        assert not [path for path in written if b"PRIVATE KEY" in path.read_bytes()]
        await desk.says(*options, "--undo")
        assert not [path for path in root.rglob("*") if path.is_file()]


async def test_an_authority_outside_of_the_chain_has_to_be_said(folder: Path) -> None:
    AUTHORITY.cert_pem.write_to_path(folder / "ca.pem")
    async with secure_desk(folder, whole=False) as (desk, secure):
        options = ("client-config", "containerd", "--root", folder / "root")
        writes = (*options, "--write", "--url", secure)
        checks = (*options, "--check", "--image", "docker.io/library/a")
        await desk.says(*writes)
        said = await desk.refuses(*checks)
        assert "hosts.toml trusts the system's authorities, and not the certificate that is shown" in said
        assert "--write with --ca" in said
        await desk.says(*writes, "--ca", folder / "ca.pem")
        assert "sha256:" in await desk.says(*checks)


async def test_an_authority_that_is_none_is_refused(folder: Path) -> None:
    async with hosts(folder) as house:
        options = ("client-config", "podman", "--ca", house.file)
        assert "holds no certificate" in await Desk(house).refuses(*options, "--url", "https://c")
        assert "nothing to trust at http://c" in await Desk(house).refuses(*options, "--url", "http://c")


async def test_an_image_that_the_cache_cannot_have_proves_nothing(folder: Path) -> None:
    async with at_desk(folder) as desk:
        options = ("client-config", "containerd", "--root", folder / "root")
        await desk.says(*options, "--write", "--url", url(desk))
        said = await desk.refuses(*options, "--check", "--image", "docker.io/library/none")
    assert "404" in said
    assert said.count("\n") == 1


async def test_a_cache_that_is_not_there_proves_nothing(folder: Path) -> None:
    async with hosts(folder) as house:
        desk = Desk(house)
        options = ("client-config", "containerd", "--root", folder / "root")
        await desk.says(*options, "--write", "--url", "http://127.0.0.1:9")
        said = await desk.refuses(*options, "--check", "--image", "docker.io/library/a")
    assert "is the daemon running, and reachable?" in said


async def test_without_a_wish_it_is_printed_only(folder: Path) -> None:
    async with hosts(folder) as house:
        said = await Desk(house).says("client-config", "podman", "--url", "http://c:5000")
    assert said.startswith("# /etc/containers/registries.conf.d/cacheproxy.conf\n")
    assert 'location = "c:5000/docker.io"' in said


@pytest.mark.parametrize("address", ["http://user:secret@c", "c:5000", "http://c/path"])
async def test_an_address_that_is_none_is_refused(address: str, folder: Path) -> None:
    async with hosts(folder) as house:
        said = await Desk(house).refuses("client-config", "k3s", "--url", address)
    assert "without a path or credentials" in said


CONFIGURED = """
[server]
listen = {listen}
{server}
[[upstream]]
registry = "docker.io"
"""


@pytest.mark.parametrize(
    ("listen", "server", "expected"),
    [
        ('["unix:/run/x", "127.0.0.1:5000"]', "", 'host."http://127.0.0.1:5000"'),
        ('["127.0.0.1:5000"]', 'external_url = "https://cache.example"', 'host."https://cache.example"'),
    ],
)
def test_the_address_is_the_configurations(listen: str, server: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(CONFIGURED.format(listen=listen, server=server))
    result = CliRunner().invoke(cli.main, ["client-config", "containerd", "--config", f"{tmp_path}/c.toml"])
    assert expected in result.stdout


def test_an_address_that_clients_cannot_use_has_to_be_said(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(CONFIGURED.format(listen='["0.0.0.0:5000"]', server=""))
    result = CliRunner().invoke(cli.main, ["client-config", "podman", "--config", f"{tmp_path}/c.toml"])
    assert result.exit_code == 1
    assert "say --url" in result.stderr
