"""What each tool's files say, so that it pulls through the cache and goes to the registry when that is gone.

No file holds a credential: clients need none, and those of the upstreams are the daemon's.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

DIAL = "1s"
"""Before the registry itself is tried: containerd's 30 s make a build hang when the cache is off."""

HEADER = "# Written by cacheproxy client-config; --undo takes it back.\n"

HUB = "docker.io"

AUTHORITY = "cacheproxy.crt"
"""Beside it in a folder certs.d/HOST, a person may have others: docker and podman trust each *.crt there."""

CONFIG_PATH = 'config_path = "/etc/containerd/certs.d" (/etc/containerd/config.toml)'


class CannotMerge(Exception):
    """The file that is there cannot take the lines in; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Cache:
    """The cache as clients see it."""

    url: str
    """"http://127.0.0.1:5000"."""
    registries: tuple[str, ...]
    bare: str | None
    """The registry that names without one mean."""
    authority: str | None = None
    """PEM of who signed the cache's certificate; None: there is none, or clients trust it as it is."""

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc

    @property
    def plain(self) -> bool:
        return urlsplit(self.url).scheme == "http"


@dataclass(frozen=True, slots=True)
class Planned:
    """A file as it should be."""

    path: str
    text: Callable[[str | None], str]
    """From what it is without us; None: it is not there. Raises CannotMerge."""


@dataclass(frozen=True, slots=True)
class Tool:
    files: Callable[[Cache], list[Planned]]
    notes: Callable[[Cache], list[str]]
    """What else a person has to do."""


def _own(path: str, text: str) -> Planned:
    """A file that is ours alone."""

    def whole(before: str | None) -> str:
        if before is not None:
            raise CannotMerge("is there already: move it away, or put in by hand what is printed")
        return HEADER + text

    return Planned(path, whole)


def _authority(folder: str, cache: Cache) -> list[Planned]:
    """Who signed the cache's certificate, if clients have to be told."""
    return [] if cache.authority is None else [_own(f"{folder}/{AUTHORITY}", cache.authority)]


def hosts_toml(cache: Cache) -> str:
    """For containerd and for docker's containerd image store. There is no `server`: without the cache the
    registry itself is asked."""
    text = f'[host."{cache.url}"]\ncapabilities = ["pull", "resolve"]\ndial_timeout = "{DIAL}"\n'
    return text if cache.authority is None else f'{text}ca = "../{cache.host}/{AUTHORITY}"\n'


def _containerd(cache: Cache) -> list[Planned]:
    # containerd looks for "host_5000_" before "host:5000".
    folders = {name: f"{name.replace(':', '_')}_" if ":" in name else name for name in cache.registries}
    hosts = [
        _own(f"etc/containerd/certs.d/{folders[name]}/hosts.toml", hosts_toml(cache))
        for name in cache.registries
    ]
    return [*hosts, *_authority(f"etc/containerd/certs.d/{cache.host}", cache)]


def _docker(cache: Cache) -> list[Planned]:
    # The engine itself trusts what is in the folder of its mirror's host.
    hosts = [
        *(_own(f"etc/docker/certs.d/{name}/hosts.toml", hosts_toml(cache)) for name in cache.registries),
        *_authority(f"etc/docker/certs.d/{cache.host}", cache),
    ]
    if cache.bare != HUB:  # the engine asks its mirrors for bare names, and means Docker Hub
        return hosts
    return [Planned("etc/docker/daemon.json", lambda before: _daemon_json(before, cache.url)), *hosts]


def _daemon_json(before: str | None, url: str) -> str:
    try:
        settings = json.loads(before) if before and before.strip() else {}
        others = [mirror for mirror in settings.get("registry-mirrors", []) if mirror.rstrip("/") != url]
    except (ValueError, AttributeError, TypeError):
        raise CannotMerge("is not the JSON object that the engine takes: put it right first") from None
    return json.dumps({**settings, "registry-mirrors": [url, *others]}, indent=2) + "\n"


def _podman(cache: Cache) -> list[Planned]:
    return [
        _own("etc/containers/registries.conf.d/cacheproxy.conf", _registries_conf(cache)),
        *_authority(f"etc/containers/certs.d/{cache.host}", cache),
    ]


def _registries_conf(cache: Cache) -> str:
    insecure = "insecure = true\n" if cache.plain else ""
    return "\n".join(
        f'[[registry]]\nprefix = "{name}"\nlocation = "{name}"\n'
        f'[[registry.mirror]]\nlocation = "{cache.host}/{name}"\n{insecure}'
        for name in cache.registries
    )


def _buildkit(cache: Cache) -> list[Planned]:
    block = "".join(f'[registry."{name}"]\nmirrors = ["{cache.host}/{name}"]\n' for name in cache.registries)
    if cache.plain:
        block += f'[registry."{cache.host}"]\nhttp = true\n'
    elif cache.authority is not None:
        block += f'[registry."{cache.host}"]\nca = ["/etc/buildkit/{AUTHORITY}"]\n'
    return [
        Planned("etc/buildkit/buildkitd.toml", lambda before: _appended(before, block)),
        *_authority("etc/buildkit", cache),
    ]


def _appended(before: str | None, block: str) -> str:
    """Tables may stand at the end of any TOML file, if it does not have them yet."""
    text = f"{before.rstrip()}\n\n{HEADER}{block}" if before and before.strip() else HEADER + block
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise CannotMerge(
            "has one of these registries already, or is not TOML: put in by hand what is printed"
        ) from None
    return text


def _k3s(cache: Cache) -> list[Planned]:
    entries = "".join(f'  "{name}":\n    endpoint:\n      - "{cache.url}"\n' for name in cache.registries)
    text = f"mirrors:\n{entries}"
    if cache.authority is not None:
        text += f'configs:\n  "{cache.host}":\n    tls:\n      ca_file: "/etc/rancher/k3s/{AUTHORITY}"\n'
    return [_own("etc/rancher/k3s/registries.yaml", text), *_authority("etc/rancher/k3s", cache)]


TOOLS: Mapping[str, Tool] = {
    "docker": Tool(
        _docker,
        lambda cache: [
            "systemctl restart docker",
            "hosts.toml is for docker with the containerd image store; without it, "
            + (
                "only Docker Hub has a mirror"
                if cache.bare == HUB
                else "docker has no mirrors but of the Hub"
            ),
        ],
    ),
    "containerd": Tool(
        _containerd,
        lambda cache: [
            f"no restart is needed; the registry table of the CRI plugin must have {CONFIG_PATH}",
            "ctr takes --hosts-dir /etc/containerd/certs.d; nerdctl looks there by itself",
        ],
    ),
    "podman": Tool(_podman, lambda cache: ["nothing to restart; it is for buildah, skopeo and CRI-O too"]),
    "buildkit": Tool(
        _buildkit, lambda cache: ["restart buildkitd (docker buildx: create the builder with it)"]
    ),
    "k3s": Tool(_k3s, lambda cache: ["systemctl restart k3s (or k3s-agent), on each node"]),
}
