"""What can be configured: the tables of the file, what each key means, and what holds where none is written.

A key is here only together with what it does.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator

from cacheproxy.config.base import Section as Section
from cacheproxy.config.base import written as written
from cacheproxy.config.federation import MTLS, OIDC
from cacheproxy.config.presets import PRESETS
from cacheproxy.config.values import (
    AdminSocket,
    AmountOf,
    BucketURL,
    Collector,
    Duration,
    Endpoint,
    ExternalURL,
    File,
    Host,
    Listen,
    Network,
    Origin,
    PassingDuration,
    PatternList,
    Prefix,
    ProxyURL,
    Registry,
    Size,
    bucket_url,
    postgres_url,
    surroundings,
)
from cacheproxy.core.failures import Cause
from cacheproxy.core.patterns import Patterns
from cacheproxy.core.units import parse_share


def _one_worker(count: int) -> int:
    if count != 1:
        raise ValueError(f"{count} workers are not built yet; leave it at 1")
    return count


class Server(Section):
    listen: tuple[Listen, ...] = Field(default=("127.0.0.1:5000",), min_length=1)
    """Where clients connect."""
    metrics: Listen = "127.0.0.1:5001"
    """Where /metrics, /livez and /readyz are."""
    admin: AdminSocket = written("unix:admin.sock")
    """Where the commands talk to the daemon: in $RUNTIME_DIRECTORY, else in `state`."""
    external_url: ExternalURL = ""
    """As clients see us; "" takes it from each request."""
    trusted_proxies: tuple[Network, ...] = ()
    """Whose X-Forwarded-* counts."""
    tls: ServerCertificate | None = None
    """What clients are shown wherever `listen` is no unix socket; None: plain HTTP."""
    workers: Annotated[int, AfterValidator(_one_worker)] = 1
    """Processes on this host."""

    @property
    def own_hosts(self) -> frozenset[str]:
        """Hosts that are ourselves, if that is known."""
        return frozenset({urlsplit(self.external_url).netloc} - {""})


class Log(Section):
    format: Literal["auto", "json", "console"] = "auto"
    """"auto": for a person when standard error is a terminal, else JSON."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    requests: bool = True
    """A line for each request, at level info."""


def _share(value: object) -> float:
    if isinstance(value, str):
        return parse_share(value)
    raise ValueError('must be a share in quotes, as "50%"')


class Traces(Section):
    endpoint: Collector = ""
    """A collector that speaks OTLP over HTTP; spans go to /v1/traces below it. "": nothing is traced."""
    sample: Annotated[float, BeforeValidator(_share)] = written("1%")
    """Of the requests."""
    trusted_callers: tuple[Network, ...] = ()
    """Whose `traceparent` counts; it also decides whether the request is traced."""


def _state(value: object, info: ValidationInfo) -> Path:
    around = surroundings(info)
    if isinstance(value, str) and value:
        return around.folder / value
    if value == "":
        # What the service manager made for us; several are separated by colons, systemd.exec(5).
        return Path(around.environment.get("STATE_DIRECTORY", "").partition(":")[0] or "var")
    raise ValueError("must be a folder in quotes")


def _below_state(value: object, info: ValidationInfo) -> Path:
    if not isinstance(value, str) or not value:
        raise ValueError("must be a path in quotes")
    scheme, mark, _ = value.partition("://")
    if mark:
        raise ValueError(f'{scheme}:// is no database here; write a path or "postgresql://..."')
    return Path(info.data.get("state", ""), value)


def _database(value: object, info: ValidationInfo) -> Path | str:
    return postgres_url(value) or _below_state(value, info)


def _blobs(value: object, info: ValidationInfo) -> Path | BucketURL:
    if isinstance(value, str) and "://" in value:
        return bucket_url(value)
    return _below_state(value, info)


class Storage(Section):
    state: Annotated[Path, BeforeValidator(_state)] = written("")
    """The folder of all that is kept. Default: $STATE_DIRECTORY, else ./var."""
    database: Annotated[Path | str, BeforeValidator(_database)] = written("cacheproxy.db")
    """A path: the SQLite file. A string: the URL of a PostgreSQL, without a password."""
    blobs: Annotated[Path | BucketURL, BeforeValidator(_blobs)] = written("blobs")
    """The folder of stored and of partial blobs; or a bucket, with the partial ones in `state`."""
    objects: Objects = Field(default_factory=lambda: Objects())
    """When `blobs` is a bucket."""
    key: Secret | None = None
    """What seals the secrets of accounts in the database: 64 hexadecimal digits; None: a file in `state`."""

    @model_validator(mode="after")
    def _known_to_the_scheme(self) -> Self:
        if isinstance(self.blobs, BucketURL) and self.blobs.scheme != "s3" and self.objects.region:
            raise ValueError("objects.region means something to s3:// only; take it out")
        return self

    @property
    def partial(self) -> Path:
        """The folder, on this node, of what is still arriving."""
        return self.blobs if isinstance(self.blobs, Path) else self.state / "blobs"


def _or_never(value: object) -> object:
    return None if value == "never" else value


def _finish_share(value: object) -> float:
    if value == "never":
        return math.inf
    if not isinstance(value, str):
        raise ValueError('must be a share in quotes, as "50%", or "never"')  # noqa: TRY004
    return parse_share(value)


class Parallel(Section):
    size: Size = written("64MiB", alias="from")
    """Blobs of so many bytes and more come in several ranged transfers."""
    ranges: int = Field(default=4, ge=2, le=16)


def _pace(rate: int) -> int:
    if rate < 1 << 10:
        raise ValueError('must be at least "1KiB", a second; scrub = "never" turns it off')
    return rate


class Scrub(Section):
    every: PassingDuration = written("30d")
    """Bytes that were not proven for so long are read and hashed again."""
    rate: Annotated[Size, AfterValidator(_pace)] = written("16MiB")
    """Bytes a second."""
    buckets: bool = False
    """Those of an object store too, which may have its price. Else only what somebody asks for."""


class Cache(Section):
    budget: AmountOf = written("50%")
    """What may be cached; what was not pulled for the longest time goes to make room."""
    min_free: AmountOf = written("5%")
    """What stays free of the file system."""
    finish_fill: Annotated[float, BeforeValidator(_finish_share)] = written("50%")
    """A fill that all clients left goes on once this share of it is here; 0: always, inf: never."""
    parallel: Annotated[Parallel | None, BeforeValidator(_or_never)] = Field(default=Parallel())
    """None: one transfer a blob."""
    scrub: Annotated[Scrub | None, BeforeValidator(_or_never)] = Field(default=Scrub())
    """None: only what somebody asks for."""


class Secret(Section):
    """Where a secret is. It is read when it is needed, and is never in the configuration itself."""

    file: File | None = None
    credential: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_.@:-]+$")
    """Its name in $CREDENTIALS_DIRECTORY (systemd's LoadCredential=)."""
    command: tuple[str, ...] | None = Field(default=None, min_length=1)
    """What prints it."""

    @model_validator(mode="before")
    @classmethod
    def _not_itself(cls, table: Any) -> Any:
        if not isinstance(table, dict | Secret):
            forms = '{ file = "..." }, { credential = "..." } or { command = ["...", "..."] }'
            raise ValueError(f"must be where the secret is: {forms}")  # noqa: TRY004
        return table

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if sum(place is not None for place in (self.file, self.credential, self.command)) != 1:
            raise ValueError("needs exactly one of file, credential and command")
        return self


class Credentials(Section):
    """Who we are upstream: a name and a password, a docker client's configuration, or a credential helper."""

    username: str | None = Field(default=None, min_length=1)
    password: Secret | None = None
    docker_config: File | None = None
    helper: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_./-]+$")

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password go together; add the other one")
        if sum(form is not None for form in (self.username, self.docker_config, self.helper)) != 1:
            raise ValueError("needs exactly one of username with password, docker_config, and helper")
        return self


class Objects(Section):
    """An object store, and how to get into it."""

    endpoint: Endpoint = ""
    """Default: the cloud's own. Only what begins with http:// is spoken to without TLS."""
    region: str = Field(default="", pattern=r"^[a-z0-9-]*$")
    credentials: Secret | None = None
    """An ini file of the cloud's own names; None: the environment's chain."""
    redirect: tuple[Network, ...] = ()
    """Clients that get a presigned address instead of the bytes."""


class ClientCertificate(Section):
    certificate: File
    """PEM, with its chain."""
    key: Secret | None = None
    """PEM; None: it is in the certificate's file."""


class ServerCertificate(Section):
    certificate: File
    """PEM, with its chain. Read again when it changes."""
    key: Secret | None = None
    """PEM, not encrypted; None: it is in the certificate's file."""
    client_ca: File | None = None
    """PEM, the authorities of clients' certificates, which are asked for and not demanded."""


class Fresh(Section):
    tags: PatternList
    seconds: Duration = Field(alias="for")


STALE_CAUSES = frozenset(
    {Cause.THROTTLED, Cause.SERVER, Cause.TIMEOUT, Cause.DNS, Cause.CONNECT, Cause.TLS, Cause.AUTH}
)
"""Failures that say nothing about whether the image is still there."""


def _causes(value: object) -> frozenset[Cause]:
    if isinstance(value, frozenset):
        return value
    if not isinstance(value, tuple) or any(cause not in tuple(STALE_CAUSES) for cause in value):
        known = ", ".join(f'"{cause}"' for cause in sorted(STALE_CAUSES))
        raise ValueError(f"must be a list of causes: {known}")
    return frozenset(map(Cause, value))


class StaleIfError(Section):
    seconds: Duration = written("30d", alias="for")
    """How long after it was last known to be fresh."""
    causes: Annotated[frozenset[Cause], BeforeValidator(_causes)] = STALE_CAUSES


class Upstream(Section):
    registry: Registry
    """What clients call it: ?ns=docker.io, /v2/docker.io/..."""
    url: Origin = written("")
    """The address. There is no default but a preset's."""
    prefix: Prefix = Field(default_factory=lambda known: known["registry"])
    """The canonical name of its repositories begins with this."""
    default: bool = False
    """Bare names that mean nothing else go here."""
    hosts: tuple[Host, ...] = ()
    """Requests with one of these as Host are for it."""
    mirrors: tuple[Origin, ...] = ()
    """Asked in this order when `url` does not answer."""
    token_hosts: tuple[Host, ...] = ()
    """Where its token realm may be, besides its own host."""
    connections: int = Field(default=16, ge=1, le=256)
    """Blob transfers at once."""
    credentials: Credentials | None = None
    authority: Literal["account", "caller"] = "account"
    """Whose right upstream counts: that of our account, and our own grants; or the caller's own."""
    ca: File | None = None
    """PEM certificates to trust instead of the system's."""
    client_certificate: ClientCertificate | None = None
    proxy: ProxyURL | None = None
    allow_addresses: tuple[Network, ...] = ()
    """Addresses that are not public, and may yet be connected to."""
    fresh: tuple[Fresh, ...] = ()
    """How long a tag is believed; the first match counts. At the end come "latest" for 5m, all for 1h."""
    stale_if_error: StaleIfError = StaleIfError()
    missing_for: PassingDuration = written("60s")
    """How long it is remembered that there is no such image."""
    keep: Duration = written("forever")
    """Seconds since the last pull of a blob after which its bytes go, whatever the budget."""

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, table: Any) -> Any:
        """A well-known registry's own address is in its preset, together with who is trusted there."""
        if not isinstance(table, dict) or "url" in table:
            return table
        registry = table.get("registry")
        preset = PRESETS.get(registry) if isinstance(registry, str) else None
        return table if preset is None else {"url": preset.url, "token_hosts": preset.token_hosts, **table}

    @property
    def by_caller(self) -> bool:
        return self.authority == "caller"

    @property
    def library(self) -> bool:
        """Repositories of one segment live under `library/`."""
        return self.registry in PRESETS and PRESETS[self.registry].library

    @property
    def hides(self) -> frozenset[int]:
        """Statuses with which it answers for what does not exist."""
        return frozenset(PRESETS[self.registry].hides if self.registry in PRESETS else ())


class AnonymousPull(Section):
    networks: tuple[Network, ...]
    repositories: PatternList = Patterns(("**",))


def _lived(seconds: float) -> float:
    if not 60 <= seconds <= 86400:
        raise ValueError('must be from "1m", less than which clients do not believe, to "24h"')
    return seconds


class TokenLife(Section):
    seconds: Annotated[PassingDuration, AfterValidator(_lived)] = written("10m", alias="for")
    refresh: PassingDuration = written("30d")
    """How long what `docker login` keeps instead of the password is good for."""


class Access(Section):
    anonymous_pull: tuple[AnonymousPull, ...] = written(
        ({"networks": ("127.0.0.0/8", "::1"), "repositories": "**"},)
    )
    """Who may pull without a name; the default is this host."""
    token: TokenLife = TokenLife()
    """How long a token of ours is good for; what is revoked meanwhile ends within a minute."""
    htpasswd: File | None = None
    """Names with bcrypt hashes of their passwords; read at the start and at SIGHUP."""
    oidc: tuple[OIDC, ...] = ()
    """Issuers of tokens, as of CI jobs, that are taken in place of a password, or as they are."""
    mtls: MTLS | None = None
    """Who a client certificate is for; left out, with server.tls.client_ca: the account that its CN names."""
