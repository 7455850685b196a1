"""The kinds of values in the configuration: how each is written, and what is said when it is not.

Every parser raises ValueError "what is wrong; what to do". None repeats a value that could be a secret.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated
from urllib.parse import SplitResult, parse_qsl, urlsplit

from pydantic import AfterValidator, BeforeValidator, ValidationInfo

from cacheproxy.core.errors import OCIError
from cacheproxy.core.name import parse_repository, parse_requested
from cacheproxy.core.patterns import Patterns
from cacheproxy.core.units import parse_duration, parse_share, parse_size

HUB = "docker.io"
BUCKETS = ("s3", "gs", "az")
"""Schemes of object stores: S3 and what speaks as it does, Google Cloud Storage, Azure."""
_HUB_HOSTS = frozenset({"index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"})


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a relative path and an unset key depend on."""

    folder: Path
    """Of the configuration file: where the paths in it start."""
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Amount:
    """So many bytes, or a share of the file system."""

    bytes: int = 0
    share: float = 0.0

    def of(self, total: int) -> int:
        """Bytes, in a file system of `total` bytes."""
        return self.bytes + int(self.share * total)


@dataclass(frozen=True, slots=True)
class BucketURL:
    """A place in an object store."""

    scheme: str
    bucket: str
    prefix: str
    """Keys begin with it and a "/"; "": they begin at once."""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.prefix}".rstrip("/")


def bucket_url(value: str) -> BucketURL:
    """Raises ValueError for what is no URL of an object store."""
    scheme, _, rest = value.partition("://")
    bucket, _, prefix = rest.rstrip("/").partition("/")
    if scheme not in BUCKETS:
        raise ValueError(f"{scheme}:// is no store of blobs; write a path, or {', '.join(BUCKETS)} and ://")
    if not re.fullmatch("[a-z0-9][a-z0-9._-]{1,62}", bucket):
        raise ValueError('names no bucket; write it as "s3://bucket/prefix"')
    segments = prefix.split("/") if prefix else []
    if any(not re.fullmatch("[A-Za-z0-9._-]+", segment) or not segment.strip(".") for segment in segments):
        raise ValueError("has a prefix that is none; write plain segments, or leave it out")
    return BucketURL(scheme, bucket, prefix)


def _endpoint(value: object) -> str:
    text = _text(value, 'a URL in quotes, as "https://s3.eu-central-1.amazonaws.com"')
    return text and _with_path(_url(text, "https", "http"))


def _collector(value: object) -> str:
    text = _text(value, 'a URL in quotes, as "http://127.0.0.1:4318"')
    if not text:
        return ""
    if "@" in text:
        raise ValueError("holds credentials; take them out, they go into $OTEL_EXPORTER_OTLP_HEADERS")
    return _with_path(_url(text, "https", "http"))


def _with_path(parts: SplitResult) -> str:
    if parts.query or parts.fragment:
        raise ValueError("ends after its path; take out what begins with ? or #")
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path}".rstrip("/")


def _duration(value: object) -> float:
    return parse_duration(_text(value, 'a duration in quotes, as "90s", "5m", "24h" or "30d"'))


def _passing(seconds: float) -> float:
    if seconds == math.inf:
        raise ValueError('must end; write a duration, as "60s"')
    return seconds


def postgres_url(value: object) -> str | None:
    """As libpq reads it, but without a password; None when it is none at all."""
    if not isinstance(value, str) or not value.startswith(("postgresql://", "postgres://")):
        return None
    try:
        url = urlsplit(value)
        given = {name for name, _ in parse_qsl(url.query, keep_blank_values=True)}
    except ValueError:
        raise ValueError("is not a URL; write postgresql://user@host/database") from None
    if url.netloc.rpartition("@")[0].partition(":")[2] or given & {"password", "sslpassword"}:
        raise ValueError(
            "no password belongs here; write it into a file as PostgreSQL's .pgpass is, and name that by"
            " ?passfile=/path or $PGPASSFILE"
        )
    return value


def _size(value: object) -> int:
    return parse_size(_text(value, 'a size in quotes, as "64KiB" or "200GiB"'))


def _amount(value: object) -> Amount:
    text = _text(value, 'a size or a share of the file system in quotes, as "200GiB" or "5%"')
    return Amount(share=parse_share(text)) if text.endswith("%") else Amount(bytes=parse_size(text))


def _text(value: object, wanted: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be {wanted}")  # noqa: TRY004  # pydantic collects ValueError only
    return value


def _network(value: object) -> IPv4Network | IPv6Network:
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    text = _text(value, 'a network in quotes, as "10.0.0.0/8"')
    try:
        return ip_network(text)
    except ValueError:
        pass
    try:
        meant = ip_network(text, strict=False)
    except ValueError:
        raise ValueError('is not a network; write "10.0.0.0/8", "2001:db8::/32" or an address') from None
    raise ValueError(f'has bits beyond its mask; write "{meant}", or the address alone')


def _file(value: object, info: ValidationInfo) -> Path:
    """A file that is read at start: relative to the configuration file, and there."""
    path = surroundings(info).folder / _text(value, "a path in quotes")
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"there is no {path}; paths start at the configuration file") from None
    except OSError:
        # Only the daemon's user may look there.
        return path
    return path


def surroundings(info: ValidationInfo) -> Surroundings:
    return info.context if isinstance(info.context, Surroundings) else Surroundings(Path(), {})


def _patterns(value: object) -> Patterns:
    if isinstance(value, Patterns):
        return value
    texts = value if isinstance(value, tuple) else (value,)
    wanted = 'a pattern in quotes, as "library/**", or a list of them'
    return Patterns(tuple(_text(text, wanted) for text in texts))


def _registry(value: object) -> str:
    text = _text(value, 'the name of a registry in quotes, as "ghcr.io"')
    if "://" in text:
        raise ValueError("is the name clients use, without https://; the address goes into url")
    if text in _HUB_HOSTS:
        raise ValueError(f'is one of the hosts of "{HUB}"; write that')
    try:
        host, _, _ = parse_requested(f"{text}/repository").partition("/")
    except OCIError:
        host = ""
    if not text or host != text:
        raise ValueError('is not a host; write it in lower case, as "ghcr.io" or "localhost:5000"')
    return text


def _prefix(value: object, info: ValidationInfo) -> str:
    if value == info.data.get("registry"):
        return str(value)  # the default; a registry's port makes it a name of its own kind
    try:
        return parse_repository(_text(value, 'a prefix in quotes, as "docker-hub"'))
    except OCIError:
        raise ValueError('is not a name; write it in lower case, as "docker-hub" or "mirror/hub"') from None


def _host(value: object) -> str:
    text = _text(value, 'a host in quotes, as "hub.cache.example"').lower()
    if not _HOST.fullmatch(text):
        raise ValueError('is not a host; write it as clients do, "hub.cache.example" or with its port')
    return text


_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?|\[[0-9a-f:.]+\](:[0-9]{1,5})?")


def _origin(value: object) -> str:
    """The address of a registry, "https://host[:port][/path]": where its /v2/ is."""
    if value == "":
        raise ValueError("is missing; no registry is known by this name, so its address is needed")
    parts = _url(_text(value, 'a URL in quotes, as "https://registry.example"'), "https", "http")
    path = parts.path.rstrip("/")
    if not re.fullmatch("(/[A-Za-z0-9._~-]+)*", path) or {".", ".."} & set(path.split("/")):
        raise ValueError("has a path that is none; write plain segments, or leave it out")
    if path.endswith("/v2"):
        raise ValueError("ends before /v2/; leave that out, it is added")
    if parts.query or parts.fragment:
        raise ValueError("ends with its path; take out what comes after it")
    return f"{parts.scheme}://{parts.netloc.lower()}{path}"


def _hook(value: object) -> str:
    """The address of a receiver of events: whole, with path and query."""
    parts = _url(_text(value, 'a URL in quotes, as "https://hooks.example/registry"'), "https", "http")
    rest = parts._replace(scheme="", netloc="", fragment="").geturl()
    if parts.fragment or not rest.isascii() or not rest.isprintable() or " " in rest:
        raise ValueError("has a path that is none; write what is not plain as %XX, and nothing after #")
    return f"{parts.scheme}://{parts.netloc.lower()}{rest or '/'}"


def _proxy(value: object) -> str:
    text = _text(value, 'a URL in quotes, as "http://proxy.example:3128"')
    return _bare(_url(text, "http"), "http://proxy.example:3128")


def _url(text: str, *schemes: str) -> SplitResult:
    wanted = " or ".join(f"{scheme}://" for scheme in schemes)
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError("is not a URL; look at its host and port") from None
    if parts.scheme not in schemes:
        raise ValueError(f"is not a URL of this kind; begin it with {wanted}")
    if parts.username is not None or parts.password is not None:
        raise ValueError("holds credentials; take them out, they go into credentials")
    if not parts.hostname or not _HOST.fullmatch(parts.netloc.lower()) or port == 0:
        raise ValueError("names no host that could be asked; look at its spelling")
    return parts


def _bare(parts: SplitResult, example: str) -> str:
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(f'ends after the host and port; write it as "{example}"')
    return f"{parts.scheme}://{parts.netloc.lower()}"


def _external_url(value: object) -> str:
    text = _text(value, 'a URL in quotes, as "https://cache.example"')
    return text and _bare(_url(text, "https", "http"), "https://cache.example")


_LISTEN = 'an address in quotes, as "127.0.0.1:5000", "[::1]:5000", "unix:/run/http.sock" or "systemd:http"'


def _listen(value: object) -> str:
    text = _text(value, _LISTEN)
    if text.startswith("systemd:"):
        if not re.fullmatch("systemd:[A-Za-z0-9_.@-]+", text):
            raise ValueError('names no socket; write the FileDescriptorName= of the unit, as "systemd:http"')
        return text
    if text.startswith("unix:/"):
        return text
    host, mark, port = text.rpartition(":")
    if not mark or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535 or not _is_bindable(host):
        raise ValueError(f"is not an address to listen on; write {_LISTEN}")
    return f"{host}:{port}"


def _admin(value: object, info: ValidationInfo) -> str:
    """A unix socket: who may open it may do everything, so it is never in the network."""
    wanted = 'a unix socket in quotes, as "unix:admin.sock"'
    path = _text(value, wanted).removeprefix("unix:")
    if path == value or not path or path.endswith("/"):
        raise ValueError(f"must be {wanted}")
    folder = surroundings(info).environment.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    return f"unix:{Path(folder, path)}"


def _is_bindable(host: str) -> bool:
    """An address, or this host by name: what a name means may change between this check and the start."""
    if host == "localhost":
        return True
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        return False
    return bracketed == (address.version == 6)


Duration = Annotated[float, BeforeValidator(_duration)]
"""Seconds; inf: for ever."""
PassingDuration = Annotated[float, BeforeValidator(_duration), AfterValidator(_passing)]
"""Seconds, and not for ever."""
Size = Annotated[int, BeforeValidator(_size)]
"""Bytes."""
AmountOf = Annotated[Amount, BeforeValidator(_amount)]
Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]
File = Annotated[Path, BeforeValidator(_file)]
PatternList = Annotated[Patterns, BeforeValidator(_patterns)]
Registry = Annotated[str, BeforeValidator(_registry)]
Prefix = Annotated[str, BeforeValidator(_prefix)]
Collector = Annotated[str, BeforeValidator(_collector)]
"""The address of an OTLP receiver, perhaps with a path; "": there is none."""
Host = Annotated[str, BeforeValidator(_host)]
Origin = Annotated[str, BeforeValidator(_origin)]
HookURL = Annotated[str, BeforeValidator(_hook)]
ProxyURL = Annotated[str, BeforeValidator(_proxy)]
Endpoint = Annotated[str, BeforeValidator(_endpoint)]
"""The address of an object store; "": the scheme's own."""
ExternalURL = Annotated[str, BeforeValidator(_external_url)]
Listen = Annotated[str, BeforeValidator(_listen)]
"""host:port, unix:/path, or systemd:name for a socket that the service manager opened."""
AdminSocket = Annotated[str, BeforeValidator(_admin)]
"""unix:path; a relative one starts at `state`, if there is no $RUNTIME_DIRECTORY."""
