"""The clients: each pulls from a mirror on loopback, tells what it holds, and forgets it again."""

from __future__ import annotations

import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Literal

from bench.processes import Command, running, wait_until
from tests.e2e.programs import ProgramError, environment, installed, packaged, run

NAME = "library/debian"
SHORT = "debian"
OFFICIAL = f"docker.io/{NAME}"


class Client(ABC):
    """One client with an empty store in `folder`, set up to pull from `mirror` ("127.0.0.1:5000")."""

    tells: Literal["digest", "manifest", "config"]
    """Which digest of the image `pull` returns: the tag's, the platform's manifest's or its config's."""
    takes_all_platforms = False

    def __init__(self, folder: Path, mirror: str) -> None:
        self.folder = folder
        self.mirror = mirror

    @abstractmethod
    def pull(self, tag: str) -> str:
        """Pull the image; the digest by which the client now knows it."""

    @abstractmethod
    def forget(self) -> None:
        """Drop images and layers: the next pull fetches everything anew."""

    def run(self, *command: str | Path, **more: str) -> str:
        return run(command, self.folder, more)


class Skopeo(Client):
    """By a configured prefix, into a folder of bare files."""

    tells = "manifest"

    def pull(self, tag: str) -> str:
        target = self.folder / "images" / tag
        target.parent.mkdir(exist_ok=True)
        options = ("--quiet", "--insecure-policy", "--src-tls-verify=false", "--preserve-digests")
        source = f"docker://{self.mirror}/docker-hub/{NAME}:{tag}"
        self.run(packaged("skopeo"), "copy", *options, source, f"dir:{target}")
        return self.run(packaged("skopeo"), "manifest-digest", target / "manifest.json").strip()

    def forget(self) -> None:
        shutil.rmtree(self.folder / "images")


class Crane(Client):
    """By a bare name, all platforms, into an OCI layout."""

    tells = "digest"
    takes_all_platforms = True
    options: tuple[str, ...] = ("--insecure",)

    def pull(self, tag: str) -> str:
        target, source = self.folder / "layout", f"{self.mirror}/{NAME}:{tag}"
        shutil.rmtree(target, ignore_errors=True)
        self.run(installed("crane"), "pull", *self.options, "--format", "oci", source, target)
        return str(json.loads((target / "index.json").read_bytes())["manifests"][0]["digest"])

    def forget(self) -> None:
        shutil.rmtree(self.folder / "layout")


class Oras(Client):
    """By the registry's host in the path, all platforms, into an OCI layout."""

    tells = "digest"
    takes_all_platforms = True

    def pull(self, tag: str) -> str:
        oras, layout = installed("oras"), f"{self.folder}/layout:{tag}"
        source = f"{self.mirror}/{OFFICIAL}:{tag}"
        self.run(oras, "copy", "--no-tty", "--from-plain-http", "--to-oci-layout", source, layout)
        return self.run(oras, "resolve", "--oci-layout", layout).strip()

    def forget(self) -> None:
        shutil.rmtree(self.folder / "layout")


class Podman(Client):
    """By a mirror in registries.conf."""

    tells = "config"
    program = "podman"

    def __init__(self, folder: Path, mirror: str) -> None:
        super().__init__(folder, mirror)
        self.registries = folder / "registries.conf"
        self.use(mirror)
        self.policy = folder / "policy.json"
        self.policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')

    def use(self, *mirrors: str) -> None:
        """These mirrors in this order."""
        self.registries.write_text(self.registries_conf(*mirrors))

    def registries_conf(self, *mirrors: str) -> str:
        return '[[registry]]\nprefix = "docker.io"\nlocation = "docker.io"\n' + "".join(
            f'[[registry.mirror]]\nlocation = "{mirror}"\ninsecure = true\n' for mirror in mirrors
        )

    def pull(self, tag: str) -> str:
        policy = ("--signature-policy", str(self.policy))
        told = self.stored("pull", "--quiet", *policy, f"{OFFICIAL}:{tag}").split()[-1]
        return f"sha256:{told}"

    def forget(self) -> None:
        self.stored("rmi", "--all", "--force")

    def stored(self, *words: str) -> str:
        places = ("--root", self.folder / "root", "--runroot", self.folder / "run", "--storage-driver", "vfs")
        return self.run(
            packaged(self.program), *places, *words, CONTAINERS_REGISTRIES_CONF=str(self.registries)
        )


class Buildah(Podman):
    """By the registry's host in the path: what registries.conf makes of docker.io's names."""

    program = "buildah"

    def registries_conf(self, *mirrors: str) -> str:
        return f'[[registry]]\nprefix = "docker.io"\nlocation = "{mirrors[0]}/docker.io"\ninsecure = true\n'


class Docker(Client):
    """The engine's `registry-mirrors`, which asks for bare names."""

    tells = "config"

    @property
    def socket(self) -> str:
        return f"unix://{self.folder}/docker.sock"

    def pull(self, tag: str) -> str:
        self.docker("pull", "--quiet", f"{SHORT}:{tag}")
        return self.docker("image", "inspect", "--format", "{{.Id}}", f"{SHORT}:{tag}").strip()

    def forget(self) -> None:
        self.docker("image", "prune", "--all", "--force")

    def docker(self, *words: str) -> str:
        return self.run(packaged("docker"), "--host", self.socket, *words)


class Containerd(Client):
    """By `?ns=`, from hosts.toml; forbidden to fall back by `server`."""

    tells = "digest"

    def __init__(self, folder: Path, mirror: str, ctr: str) -> None:
        super().__init__(folder, mirror)
        self.program = ctr
        self.hosts = folder / "certs.d"
        (self.hosts / "docker.io").mkdir(parents=True)
        self.use(mirror)

    def use(self, *mirrors: str) -> None:
        """These mirrors in this order, and nobody else."""
        hosts = "".join(f'[host."http://{host}"]\ncapabilities = ["pull", "resolve"]\n' for host in mirrors)
        file = self.hosts / "docker.io" / "hosts.toml"
        file.write_text(f'server = "http://{mirrors[0]}"\n{hosts}')

    def pull(self, tag: str) -> str:
        options = ("--hosts-dir", self.hosts, "--snapshotter", "native", "--platform", "linux/amd64")
        self.ctr("images", "pull", *options, f"{OFFICIAL}:{tag}")
        rows = [line.split() for line in self.ctr("images", "list", f"name=={OFFICIAL}:{tag}").splitlines()]
        return rows[1][2]

    def forget(self) -> None:
        self.ctr("images", "remove", "--sync", *self.ctr("images", "list", "--quiet").split())
        if left := self.ctr("content", "list", "--quiet").split():
            raise ProgramError(f"containerd still holds {left}")

    def ctr(self, *words: str | Path) -> str:
        return self.run(*self.command(*words))

    def command(self, *words: str | Path) -> tuple[str | Path, ...]:
        return self.program, "--address", self.folder / "containerd.sock", *words


CONTAINERD_1 = """\
version = 2
root = "{folder}/root"
state = "{folder}/run"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{folder}/containerd.sock"
"""
CONTAINERD_2 = """\
version = 3
root = "{folder}/root"
state = "{folder}/run"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{folder}/containerd.sock"
[plugins."io.containerd.transfer.v1.local"]
{transfer}
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
platform = "linux/amd64"
snapshotter = "native"
"""
PARALLEL = "concurrent_layer_fetch_buffer = 1048576\nmax_concurrent_downloads = 4"
"""Layers in ranges of 1 MiB, four at a time."""

Started = Callable[[Path, str], AbstractContextManager[Client]]


def _without_daemon(client: Callable[[Path, str], Client]) -> Started:
    @contextmanager
    def start(folder: Path, mirror: str) -> Iterator[Client]:
        yield client(folder, mirror)

    return start


@contextmanager
def _docker(folder: Path, mirror: str) -> Iterator[Client]:
    client = Docker(folder, mirror)
    settings = {
        "hosts": [client.socket],
        "data-root": f"{folder}/data",
        "exec-root": f"{folder}/exec",
        "pidfile": f"{folder}/docker.pid",
        "storage-driver": "vfs",
        "registry-mirrors": [f"http://{mirror}"],
        "iptables": False,
        "ip-forward": False,
        "bridge": "none",
    }
    config, log = folder / "daemon.json", folder / "dockerd.log"
    config.write_text(json.dumps(settings))
    argv = [packaged("dockerd"), "--config-file", str(config)]
    with running(Command(argv, environment(folder)), log) as process:
        wait_until(lambda: works(client.docker, "version"), process, log)
        yield client


def _containerd(find: Callable[[str], str], settings: str) -> Started:
    @contextmanager
    def start(folder: Path, mirror: str) -> Iterator[Client]:
        client = Containerd(folder, mirror, find("ctr"))
        program, config, log = find("containerd"), folder / "containerd.toml", folder / "containerd.log"
        config.write_text(settings.format(folder=folder))
        with running(Command([program, "--config", str(config)], environment(folder)), log) as process:
            wait_until(lambda: works(client.ctr, "version"), process, log)
            yield client

    return start


def works(command: Callable[..., str], *words: str) -> bool:
    try:
        command(*words)
    except ProgramError:
        return False
    return True


CLIENTS: dict[str, Started] = {
    "dockerd": _docker,
    "podman": _without_daemon(Podman),
    "buildah": _without_daemon(Buildah),
    "skopeo": _without_daemon(Skopeo),
    "containerd-1.6": _containerd(packaged, CONTAINERD_1),
    "containerd-2.4": _containerd(installed, CONTAINERD_2.replace("{transfer}", "")),
    "containerd-2.4-parallel": _containerd(installed, CONTAINERD_2.replace("{transfer}", PARALLEL)),
    "crane": _without_daemon(Crane),
    "oras": _without_daemon(Oras),
}
