"""What the client of one upstream has to know. Plain values: the configuration file's are checked before."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path


@dataclass(frozen=True, slots=True)
class FileSecret:
    """A file that holds the secret and nothing else; line ends after it do not count."""

    path: Path


@dataclass(frozen=True, slots=True)
class CredentialSecret:
    """A credential that systemd hands to the service: a file in $CREDENTIALS_DIRECTORY (systemd.exec(5))."""

    name: str


@dataclass(frozen=True, slots=True)
class CommandSecret:
    """What a command prints; run without a shell."""

    argv: tuple[str, ...]


Secret = FileSecret | CredentialSecret | CommandSecret


@dataclass(frozen=True, slots=True)
class FixedLogin:
    """One account, for the host of the upstream's `url` only: a mirror never hears of it."""

    username: str
    password: Secret


@dataclass(frozen=True, slots=True)
class DockerConfig:
    """docker's config.json: what it says of a host (auths, credHelpers, credsStore) is for that host."""

    path: Path


@dataclass(frozen=True, slots=True)
class LoginHelper:
    """A program that speaks docker's credential helper protocol, asked for each host by name."""

    program: str


CredentialSource = FixedLogin | DockerConfig | LoginHelper


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    certificate: Path
    """PEM, with its chain."""
    key: Secret | None = None
    """PEM, not encrypted; None: it is in the certificate's file."""


@dataclass(frozen=True, slots=True)
class UpstreamSettings:
    """One upstream. `ca`, `client_certificate`, `proxy` and `allow_addresses` are its transport's."""

    name: str
    """Its prefix: the canonical name, in repositories, logs, metrics and errors."""
    registry: str
    """What clients call it ("docker.io"), and credentials are kept under."""
    url: str
    """"https://host[:port][/path]": /v2/ is appended to the path."""
    mirrors: tuple[str, ...] = ()
    """URLs like `url`, asked in this order when what comes before them fails."""
    token_hosts: tuple[str, ...] = ()
    """"host[:port]" where a token realm may be, beside the host of the URL that names it."""
    credentials: CredentialSource | None = None
    by_caller: bool = False
    """It is asked with what its own callers were given there, and with nothing of ours."""
    ca: Path | None = None
    client_certificate: ClientCertificate | None = None
    proxy: str | None = None
    allow_addresses: tuple[IPv4Network | IPv6Network, ...] = ()
    connections: int = 8
    """Blob transfers at once, over all endpoints."""
    stall: float = 30.0
    """Seconds without one byte, in a head or in a body, that end a request."""
    minimum_rate: float = 1024.0
    """Bytes a second that a body must bring, over any minute of waiting for it."""
    control: float = 60.0
    """Seconds for a request that is not for a blob, with all its mirrors, redirects, tokens and retries."""
    user_agent: str = "cacheproxy"
    via: str | None = None
    """Our pseudonym in Via (RFC 9110 section 7.6.3): a daemon that is its own upstream then knows itself."""
