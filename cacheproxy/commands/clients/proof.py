"""Proof that a tool's files lead to the cache: they are read as the tool reads them, and what it would ask is
asked."""

from __future__ import annotations

import http.client
import json
import re
import ssl
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from cacheproxy.core.image import DEFAULT_TAG, parse_image
from cacheproxy.core.media import ACCEPT

WITHIN = 60.0
"""Seconds for one answer: a cold tag waits for its upstream."""


class NotProven(Exception):
    """The message says what is not as it should be, and what to do."""


@dataclass(frozen=True, slots=True)
class Image:
    registry: str
    repository: str
    reference: str

    @property
    def manifest(self) -> str:
        return f"{self.repository}/manifests/{self.reference}"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request of a client."""

    method: str
    url: str
    file: Path
    """That says so."""
    trusts: tuple[Path, ...] = ()
    """Who may have signed the cache's certificate, besides the system's authorities."""


def image_of(text: str) -> Image:
    """Raises OCIError, and NotProven for a name without its registry."""
    parsed = parse_image(text)
    registry, _, repository = parsed.name.partition("/")
    if not repository or not ("." in registry or ":" in registry or registry == "localhost"):
        raise NotProven(f"{text}: write it with its registry, as docker.io/library/alpine:latest")
    if registry == "docker.io" and "/" not in repository:
        repository = f"library/{repository}"
    return Image(registry, repository, parsed.reference or DEFAULT_TAG)


def requests(tool: str, root: Path, image: Image) -> list[Asked]:
    """What the tool asks the cache for this image, by its files below `root`. Raises NotProven."""
    try:
        asked = list(_READERS[tool](root, image))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise NotProven(f"the files of {tool} cannot be read as it reads them: {error!r}") from error
    if not asked:
        raise NotProven(
            f"no file of {tool} below {root} says where {image.registry} is mirrored: --write first"
        )
    return asked


def ask(asked: Asked) -> str:
    """What the answer says that the image is. Raises NotProven."""
    parts = urlsplit(asked.url)
    connection = _connection(asked)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request(asked.method, target, headers={"Accept": ACCEPT})
        answer = connection.getresponse()
        body = answer.read()
    except ssl.SSLCertVerificationError as error:
        raise NotProven(
            f"{asked.url}: {asked.file} trusts {_named(asked.trusts)}, and not the certificate that is shown:"
            f" {error.verify_message}; if somebody else signed it, --write with --ca"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise NotProven(
            f"{asked.url}: no answer: {error!r}; is the daemon running, and reachable?"
        ) from error
    finally:
        connection.close()
    if answer.status != 200:
        raise NotProven(f"{asked.url}: answered {answer.status} {_reason(body) or answer.reason}")
    if answer.getheader("Docker-Distribution-API-Version") is None:
        raise NotProven(f"{asked.url}: whoever answers is no registry")
    return answer.getheader("Docker-Content-Digest") or "answers"


def _connection(asked: Asked) -> http.client.HTTPConnection:
    parts = urlsplit(asked.url)
    if parts.scheme == "http":
        return http.client.HTTPConnection(parts.netloc, timeout=WITHIN)
    trusting = ssl.create_default_context()
    trusting.verify_flags &= ~ssl.VERIFY_X509_STRICT  # the tools are no stricter than that
    for authority in asked.trusts:
        try:
            trusting.load_verify_locations(authority)
        except OSError as error:  # of OpenSSL, too
            raise NotProven(f"{authority}, by {asked.file}: cannot be used: {error}") from error
    return http.client.HTTPSConnection(parts.netloc, timeout=WITHIN, context=trusting)


def _named(authorities: Iterable[Path]) -> str:
    return " ".join(["the system's authorities", *(f"and {path}" for path in authorities)])


def _reason(body: bytes) -> str:
    try:
        return str(json.loads(body)["errors"][0]["message"])
    except (ValueError, KeyError, IndexError, TypeError):
        return ""


# What each tool makes of its files.


def _docker(root: Path, image: Image) -> Iterator[Asked]:
    """The engine asks its mirrors, for Docker Hub; with the containerd image store it does as containerd."""
    engine = root / "etc/docker/daemon.json"
    settings = json.loads(engine.read_text()) if engine.exists() else {}
    if image.registry == "docker.io" and (mirrors := settings.get("registry-mirrors")):
        mirror = str(mirrors[0]).rstrip("/")
        trusts = _in(root / "etc/docker/certs.d" / urlsplit(mirror).netloc)
        yield Asked("GET", f"{mirror}/v2/", engine, trusts)
        yield Asked("HEAD", f"{mirror}/v2/{image.manifest}", engine, trusts)
    yield from _hosts(root, root / "etc/docker/certs.d" / image.registry / "hosts.toml", image)


def _containerd(root: Path, image: Image) -> Iterator[Asked]:
    certificates, name = root / "etc/containerd/certs.d", image.registry
    with_port = f"{name.replace(':', '_')}_" if ":" in name else name
    for folder in dict.fromkeys((with_port, name, "_default")):
        if (certificates / folder).is_dir():
            yield from _hosts(root, certificates / folder / "hosts.toml", image)
            return


def _hosts(root: Path, file: Path, image: Image) -> Iterator[Asked]:
    if not file.exists():
        return
    hosts = tomllib.loads(file.read_text()).get("host")
    if not hosts:
        return
    first, settings = next(iter(hosts.items()))
    authorities = settings.get("ca", ())
    authorities = [authorities] if isinstance(authorities, str) else authorities
    # Those without a leading slash start at the file's folder.
    trusts = tuple(_below(root, file.parent, name) for name in authorities)
    yield Asked("HEAD", f"{first}/v2/{image.manifest}?ns={quote(image.registry)}", file, trusts)


def _below(root: Path, folder: Path, name: str) -> Path:
    return root / name.lstrip("/") if name.startswith("/") else folder / name


def _in(folder: Path) -> tuple[Path, ...]:
    """All that docker and podman trust of a host."""
    return tuple(sorted(folder.glob("*.crt")))


def _podman(root: Path, image: Image) -> Iterator[Asked]:
    for file in sorted((root / "etc/containers/registries.conf.d").glob("*.conf")):
        for registry in tomllib.loads(file.read_text()).get("registry", ()):
            if registry.get("prefix", registry.get("location")) != image.registry or not registry.get(
                "mirror"
            ):
                continue
            mirror = registry["mirror"][0]
            scheme = "http" if mirror.get("insecure") else "https"
            host, _, prefix = mirror["location"].partition("/")
            trusts = _in(root / "etc/containers/certs.d" / host)
            yield Asked("GET", f"{scheme}://{host}/v2/", file, trusts)
            yield Asked("GET", f"{scheme}://{host}/v2/{prefix}/{image.manifest}", file, trusts)
            return


def _buildkit(root: Path, image: Image) -> Iterator[Asked]:
    file = root / "etc/buildkit/buildkitd.toml"
    registries = tomllib.loads(file.read_text()).get("registry", {}) if file.exists() else {}
    for mirror in registries.get(image.registry, {}).get("mirrors", ())[:1]:
        host, _, prefix = mirror.partition("/")
        settings = registries.get(host, {})
        scheme = "http" if settings.get("http") else "https"
        trusts = tuple(_below(root, file.parent, name) for name in settings.get("ca", ()))
        url = f"{scheme}://{host}/v2/{prefix}/{image.manifest}?ns={quote(image.registry)}"
        yield Asked("HEAD", url, file, trusts)


def _k3s(root: Path, image: Image) -> Iterator[Asked]:
    """k3s makes hosts.toml of it, and containerd asks."""
    file = root / "etc/rancher/k3s/registries.yaml"
    text = file.read_text() if file.exists() else ""
    entry = re.search(rf'(?m)^  "?{re.escape(image.registry)}"?:\n +endpoint:\n +- "([^"]+)"$', text)
    if entry:
        host = re.escape(urlsplit(entry[1]).netloc)
        authority = re.search(rf'(?m)^  "?{host}"?:\n +tls:\n +ca_file: "?([^"\n]+)"?$', text)
        trusts = () if authority is None else (_below(root, file.parent, authority[1]),)
        yield Asked("HEAD", f"{entry[1]}/v2/{image.manifest}?ns={quote(image.registry)}", file, trusts)


_READERS: Mapping[str, Callable[[Path, Image], Iterator[Asked]]] = {
    "docker": _docker,
    "containerd": _containerd,
    "podman": _podman,
    "buildkit": _buildkit,
    "k3s": _k3s,
}
