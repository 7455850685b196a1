"""Who we are to an upstream: credentials from files, systemd, commands, docker's configuration and helpers.

CredentialsFailed
  the source exists but gave nothing usable; its message names the source, never what came from it
"""

from __future__ import annotations

import base64
import math
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog
import trio

from cacheproxy.upstream.settings import (
    CommandSecret,
    CredentialSecret,
    CredentialSource,
    DockerConfig,
    FileSecret,
    FixedLogin,
    LoginHelper,
    Secret,
)

log = structlog.get_logger()

COMMAND_SECONDS = 30.0
"""A command that has not answered by then is killed. Cloud helpers make a network call or two."""

KEPT_SECONDS = 600.0
"""How long credentials are believed before their source is read again: no source says how long they live, the
shortest-lived ones in use (cloud tokens) live an hour."""

BELIEVED_SECONDS = 10.0
"""What was read so recently is not read again because a registry refused it, or because reading failed: pulls
of what we may not have must not start a helper each, nor wait in line for one that hangs."""

LARGEST_FILE = 1 << 20
"""Bytes of a secret or a docker configuration."""

DOCKER_HUB = "https://index.docker.io/v1/"
"""Under which docker keeps what it knows of docker.io."""
_DOCKER_HUB_NAMES = frozenset({DOCKER_HUB, "index.docker.io", "docker.io", "registry-1.docker.io"})

_IDENTITY = "<token>"
"""A helper's user name for a secret that is an identity token (docker-credential-helpers, "Development")."""


_Value = TypeVar("_Value")


class CredentialsFailed(Exception):
    """Credentials are configured and could not be had."""


@dataclass(frozen=True, slots=True)
class Credentials:
    username: str
    password: str = field(repr=False)

    @property
    def identity_token(self) -> str | None:
        """To be exchanged at the token server for what a registry takes; None: an ordinary password."""
        return self.password if self.username == _IDENTITY else None

    @property
    def basic(self) -> str:
        """The Authorization header of RFC 7617."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode("ascii")


class Account:
    """What one source says of one server, kept for a while and read again when it is refused."""

    def __init__(self, source: CredentialSource | None, server: str) -> None:
        self._source = source
        self._server = server
        self._credentials: Credentials | None = None
        self._failure: CredentialsFailed | None = None
        self._read_at = -math.inf
        self._read_again = -math.inf
        self._reading = trio.Lock()

    async def current(self) -> Credentials | None:
        """None: there are none for this server. Raises CredentialsFailed."""
        if self._source is None:
            return None
        async with self._reading:
            if trio.current_time() >= self._read_again:
                await self._read(self._source)
            if self._failure is not None:
                raise self._failure
            return self._credentials

    async def _read(self, source: CredentialSource) -> None:
        self._failure = None
        try:
            self._credentials = await look_up(source, self._server)
        except CredentialsFailed as error:
            self._failure = error
        self._read_at = trio.current_time()
        self._read_again = self._read_at + (KEPT_SECONDS if self._failure is None else BELIEVED_SECONDS)

    def doubt(self, credentials: Credentials) -> None:
        """The server refused them: they are read again, but not before they are BELIEVED_SECONDS old."""
        if credentials == self._credentials:
            self._read_again = min(self._read_again, self._read_at + BELIEVED_SECONDS)


def server_name(registry: str, host: str) -> str:
    """What docker and its helpers call the server: `host` ("host[:port]"), but for docker.io."""
    return DOCKER_HUB if registry == "docker.io" and host in _DOCKER_HUB_NAMES else host


async def look_up(source: CredentialSource, server: str) -> Credentials | None:
    """Ask the source now. None: it knows none for this server. Raises CredentialsFailed."""
    match source:
        case FixedLogin():
            return Credentials(source.username, await read_secret(source.password))
        case DockerConfig():
            return await _from_docker_config(source.path, server)
        case LoginHelper():
            return await _from_helper(source.program, server)


async def read_secret(secret: Secret) -> str:
    """The secret's text without the line ends after it. Raises CredentialsFailed."""
    match secret:
        case FileSecret():
            return _text(await _read(secret.path), str(secret.path))
        case CredentialSecret():
            return _text(await _read(_credential_path(secret.name)), f"credential {secret.name}")
        case CommandSecret():
            return _text((await _run(secret.argv, b"", check=True)).stdout, secret.argv[0])


def _text(raw: bytes, source: str) -> str:
    try:
        text = raw.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise CredentialsFailed(f"{source}: not UTF-8 text") from None
    if not text:
        raise CredentialsFailed(f"{source}: empty")
    return text


def _credential_path(name: str) -> Path:
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        raise CredentialsFailed(f"credential {name}: $CREDENTIALS_DIRECTORY is not set (systemd sets it)")
    if name in {"", ".", ".."} or "/" in name:
        raise CredentialsFailed(f"credential {name!r}: not the name of a file")
    return Path(directory, name)


async def _read(path: Path) -> bytes:
    def read() -> bytes:
        with path.open("rb") as file:
            return file.read(LARGEST_FILE + 1)

    try:
        data = await trio.to_thread.run_sync(read, abandon_on_cancel=True)
    except OSError as error:
        raise CredentialsFailed(f"{path}: {error.strerror}") from error
    if len(data) > LARGEST_FILE:
        raise CredentialsFailed(f"{path}: larger than {LARGEST_FILE} bytes")
    return data


async def _run(argv: Sequence[str], stdin: bytes, *, check: bool) -> subprocess.CompletedProcess[bytes]:
    """Run a command of the operator's to its end. Raises CredentialsFailed."""
    with trio.move_on_after(COMMAND_SECONDS):
        try:
            ended = await trio.run_process(
                argv, stdin=stdin, capture_stdout=True, capture_stderr=True, check=False, deliver_cancel=_kill
            )
        except OSError as error:
            raise CredentialsFailed(f"{argv[0]}: {error.strerror}") from error
        if check and ended.returncode != 0:
            raise _ended_badly(argv[0], ended)
        return ended
    raise CredentialsFailed(f"{argv[0]}: no answer in {COMMAND_SECONDS:.0f} s")


async def _kill(process: trio.Process) -> None:
    process.kill()


def _ended_badly(program: str, ended: subprocess.CompletedProcess[bytes]) -> CredentialsFailed:
    """With what it complained of: standard error is for people, secrets go to standard output."""
    complaint = ended.stderr.decode(errors="replace").strip()[-200:] or "no word on standard error"
    return CredentialsFailed(f"{program}: exit status {ended.returncode}: {complaint}")


# docker's credential helper protocol: `get`, the server on standard input; JSON or a complaint on its output


class _Answer(msgspec.Struct, rename="pascal"):
    username: str
    secret: str


async def _from_helper(program: str, server: str) -> Credentials | None:
    ended = await _run((program, "get"), server.encode(), check=False)
    if ended.returncode != 0:
        if b"credentials not found" in ended.stdout:
            log.info("helper has no credentials", helper=program, server=server)
            return None
        raise _ended_badly(program, ended)
    try:
        answer = msgspec.json.decode(ended.stdout, type=_Answer)
    except msgspec.DecodeError as error:
        raise CredentialsFailed(f"{program}: not the answer of a credential helper ({error})") from None
    return Credentials(answer.username, answer.secret)


# docker's config.json


class _Login(msgspec.Struct):
    auth: str = ""
    username: str = ""
    password: str = ""
    identitytoken: str = ""


class _Config(msgspec.Struct, rename="camel"):
    auths: dict[str, _Login] = {}
    creds_store: str = ""
    cred_helpers: dict[str, str] = {}


async def _from_docker_config(path: Path, server: str) -> Credentials | None:
    """As docker reads it: the server's own helper, else the store for all, else what the file holds."""
    try:
        config = msgspec.json.decode(await _read(path), type=_Config)
    except msgspec.DecodeError as error:
        raise CredentialsFailed(f"{path}: not a docker configuration ({error})") from None
    helper = _entry(config.cred_helpers, server) or config.creds_store
    found = await _from_helper(_program(helper, path), server) if helper else None
    if found is None and (login := _entry(config.auths, server)) is not None:
        found = _from_login(login, path, server)
    return found


def _entry(entries: dict[str, _Value], server: str) -> _Value | None:
    names = _DOCKER_HUB_NAMES if server == DOCKER_HUB else {server}
    for key, value in entries.items():
        if key in names or _host(key) in names:
            return value
    return None


def _host(key: str) -> str:
    """docker writes hosts, and URLs of hosts."""
    return key.removeprefix("https://").removeprefix("http://").partition("/")[0]


def _program(suffix: str, path: Path) -> str:
    if "/" in suffix:
        raise CredentialsFailed(f"{path}: {suffix!r} is not the name of a credential helper")
    return f"docker-credential-{suffix}"


def _from_login(login: _Login, path: Path, server: str) -> Credentials | None:
    if login.identitytoken:
        return Credentials(_IDENTITY, login.identitytoken)
    if login.username:
        return Credentials(login.username, login.password)
    if not login.auth:  # `docker login` with a store leaves an empty entry behind
        return None
    try:
        username, password = base64.b64decode(login.auth, validate=True).decode().split(":", 1)
    except ValueError:
        raise CredentialsFailed(f"{path}: the auth of {server} is not base64 of user:password") from None
    return Credentials(username, password.rstrip("\0"))
