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
    own = folder / ".config" / "containers" / "registries.conf.d"
    own.mkdir(parents=True)
    for file in (root / "etc/containers/registries.conf.d").iterdir():
        (own / file.name).symlink_to(file)
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


@contextmanager
def configured_docker(folder: Path, root: Path, mirror: str) -> Iterator[Client]:
    client, log = Docker(folder, mirror), folder / "dockerd.log"
    places = {"--data-root": "data", "--exec-root": "exec", "--pidfile": "docker.pid"}
    options = [word for option, name in places.items() for word in (option, str(folder / name))]
    file = ["--config-file", str(root / "etc/docker/daemon.json"), "--host", client.socket]
    argv = [packaged("dockerd"), *file, *options]
    with running(Command(argv, environment(folder)), log) as process:
        wait_until(lambda: clients.works(client.docker, "version"), process, log)
        yield client


CONFIGURED: dict[str, Configured] = {
    "docker": configured_docker,
    "podman": configured_podman,
    "containerd-1.6": configured_containerd(packaged, clients.CONTAINERD_1),
    "containerd-2.4": configured_containerd(installed, clients.CONTAINERD_2.replace("{transfer}", "")),
}


def fetched(cache: Daemon) -> float:
    return cache.metric("cacheproxy_served_bytes_total")


@pytest.mark.parametrize("name", CONFIGURED)
def test_a_client_is_configured_proven_and_undone(
    name: str, library: Library, folder: Path, client_folder: Path
) -> None:
    root, tool = folder / "root", name.partition("-")[0]
    engine = root / "etc/docker/daemon.json"
    engine.parent.mkdir(parents=True)
    engine.write_text(json.dumps(ENGINE))
    before = contents(root)
    with (
        distribution(library.store, folder / "upstream") as upstream,
        daemon(folder / "daemon", upstream.url) as cache,
    ):
        client_config(folder / "daemon", root, tool, "--write")
        proof = client_config(folder / "daemon", root, tool, "--check", "--image", f"{OFFICIAL}:oci")
        assert library.images["oci"].digest in proof
        with CONFIGURED[name](client_folder, root, cache.host) as client:
            already = fetched(cache)
            image = library.images["oci"]
            assert client.pull("oci") == getattr(image, client.tells)
            assert fetched(cache) - already > 1 << 20, "the layers came through the cache"
        client_config(folder / "daemon", root, tool, "--undo")
    assert contents(root) == before
