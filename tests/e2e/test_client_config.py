"""Clients that `client-config` alone has set up: proven by --check, pulling through the cache, undone."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from bench.processes import Command, running, wait_until
from tests.e2e import clients
from tests.e2e.certificates import Certificate
from tests.e2e.clients import OFFICIAL, Client, Containerd, Docker, Podman
from tests.e2e.images import Library
from tests.e2e.programs import REPOSITORY, environment, installed, packaged, run
from tests.e2e.servers import Daemon, daemon, distribution

ENGINE = {"storage-driver": "vfs", "iptables": False, "ip-forward": False, "bridge": "none"}
"""What the machine's administrator has in daemon.json."""


Configured = Callable[[Path, Path, str], AbstractContextManager[Client]]
"""Starts a client of an empty store in a folder, by the files below a root."""


def client_config(daemon_folder: Path, root: Path, tool: str, *words: str) -> str:
    config = ("--config", daemon_folder / "cacheproxy.toml", "--root", root)
    command: list[str | Path] = [sys.executable, "-m", "cacheproxy", "client-config", tool, *words, *config]
    return run(command, root, {"PYTHONPATH": str(REPOSITORY)})


def contents(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


class ConfiguredPodman(Podman):
    """Reads the folder that client-config wrote, as a user's own."""

    def registries_conf(self, *mirrors: str) -> str:
        return ""

    def stored(self, *words: str) -> str:
        places = ("--root", self.folder / "root", "--runroot", self.folder / "run", "--storage-driver", "vfs")
        return self.run(packaged("podman"), *places, *words)


@contextmanager
def configured_podman(folder: Path, root: Path, mirror: str) -> Iterator[Client]:
    own, written = folder / ".config" / "containers", root / "etc/containers"
    (own / "registries.conf.d").mkdir(parents=True)
    for file in (written / "registries.conf.d").iterdir():
        (own / "registries.conf.d" / file.name).symlink_to(file)
    (own / "certs.d").symlink_to(written / "certs.d")
    yield ConfiguredPodman(folder, mirror)


class ConfiguredContainerd(Containerd):
    def __init__(self, folder: Path, root: Path, ctr: str) -> None:
        self.folder = folder
        self.program = ctr
        self.hosts = root / "etc/containerd/certs.d"


def configured_containerd(find: Callable[[str], str], settings: str) -> Configured:
    @contextmanager
    def start(folder: Path, root: Path, mirror: str) -> Iterator[Client]:
        client = ConfiguredContainerd(folder, root, find("ctr"))
        program, config, log = find("containerd"), folder / "containerd.toml", folder / "containerd.log"
        config.write_text(settings.format(folder=folder))
        with running(Command([program, "--config", str(config)], environment(folder)), log) as process:
            wait_until(lambda: clients.works(client.ctr, "version"), process, log)
            yield client

    return start


CERTIFICATES = """\
mkdir -p /etc/docker/certs.d && mount --bind "$0" /etc/docker/certs.d && exec "$@"
"""
"""The engine cannot be told of another folder: it sees ours there, and nobody else does."""


@contextmanager
def configured_docker(folder: Path, root: Path, mirror: str) -> Iterator[Client]:
    client, log = Docker(folder, mirror), folder / "dockerd.log"
    places = {"--data-root": "data", "--exec-root": "exec", "--pidfile": "docker.pid"}
    options = [word for option, name in places.items() for word in (option, str(folder / name))]
    file = ["--config-file", str(root / "etc/docker/daemon.json"), "--host", client.socket]
    certificates = ["unshare", "--mount", "sh", "-c", CERTIFICATES, str(root / "etc/docker/certs.d")]
    argv = [*certificates, packaged("dockerd"), *file, *options]
    with running(Command(argv, environment(folder)), log) as process:
        wait_until(lambda: clients.works(client.docker, "version"), process, log)
        yield client


CONFIGURED: dict[str, Configured] = {
    "docker": configured_docker,
    "podman": configured_podman,
    "containerd-1.6": configured_containerd(packaged, clients.CONTAINERD_1),
    "containerd-2.4": configured_containerd(installed, clients.CONTAINERD_2.replace("{transfer}", "")),
}


STRICT_ADDRESS = {"docker": "[::1]"}
"""The engine takes any certificate of 127.0.0.0/8."""


def assert_pulled_through(cache: Daemon, client: Client, library: Library) -> None:
    already, image = cache.metric("cacheproxy_served_bytes_total"), library.images["oci"]
    assert client.pull("oci") == getattr(image, client.tells)
    assert cache.metric("cacheproxy_served_bytes_total") - already > 1 << 20, "the layers came from there"


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("name", CONFIGURED)
def test_a_client_is_configured_proven_and_undone(
    name: str, secure: bool, library: Library, folder: Path, client_folder: Path
) -> None:
    """With TLS, the certificate is renewed under it."""
    certificate = Certificate(folder / "daemon")
    server = certificate.server if secure else ""
    address = STRICT_ADDRESS.get(name, "127.0.0.1") if secure else "127.0.0.1"
    root, tool = folder / "root", name.partition("-")[0]
    engine = root / "etc/docker/daemon.json"
    engine.parent.mkdir(parents=True)
    engine.write_text(json.dumps(ENGINE))
    before = contents(root)
    with (
        distribution(library.store, folder / "upstream") as upstream,
        daemon(folder / "daemon", upstream.url, address=address, server=server) as cache,
    ):
        client_config(folder / "daemon", root, tool, "--write")
        proof = client_config(folder / "daemon", root, tool, "--check", "--image", f"{OFFICIAL}:oci")
        assert library.images["oci"].digest in proof
        assert ("https://" in proof) == secure
        with CONFIGURED[name](client_folder, root, cache.host) as client:
            assert_pulled_through(cache, client, library)
            if secure:
                client.forget()
                certificate.renew_of(cache)
                assert_pulled_through(cache, client, library)
        client_config(folder / "daemon", root, tool, "--undo")
    assert contents(root) == before
