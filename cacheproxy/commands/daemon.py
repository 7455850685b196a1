"""The running daemon, by its admin socket."""

from __future__ import annotations

import http.client
import json
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import click

if TYPE_CHECKING:
    from cacheproxy.config import Config

RUNTIME = Path("/run/cacheproxy")
"""Where the service's $RUNTIME_DIRECTORY is (systemd/cacheproxy.service)."""

ANSWER_WITHIN = 120.0
"""Seconds for one answer; what takes longer is a job that is asked about."""

_CREDENTIALS = struct.Struct("3i")
"""unix(7), struct ucred: process, user, group."""


class NoDaemon(click.ClickException):
    """Nobody answers on the admin socket."""


class Refused(click.ClickException):
    """The daemon understood, and says no."""


class Daemon:
    def __init__(self, sockets: Sequence[Path]) -> None:
        """The first of the sockets that somebody listens on is used."""
        self._sockets = sockets

    @classmethod
    def of(cls, config: Config) -> Daemon:
        own = config.admin_socket
        return cls(list(dict.fromkeys([own, RUNTIME / own.name])))

    def get(self, path: str, **query: str | Sequence[str]) -> Any:
        return self._ask("GET", f"{path}?{urlencode(query, doseq=True)}" if query else path, None)

    def post(self, path: str, **values: object) -> Any:
        return self._ask("POST", path, json.dumps(values).encode())

    def user(self) -> int:
        """Whose process listens on the socket. Raises NoDaemon."""
        with self._connected() as connected:
            told = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return int(_CREDENTIALS.unpack(told)[1])

    @contextmanager
    def connection(self, within: float = ANSWER_WITHIN) -> Iterator[http.client.HTTPConnection]:
        """For what is more than a question and its answer in JSON; `within`: seconds for each wait."""
        connection = _Connection(self._connected())
        connection.sock.settimeout(within)
        try:
            yield connection
        finally:
            connection.close()

    def _ask(self, method: str, target: str, body: bytes | None) -> Any:
        with self.connection() as connection:
            try:
                connection.request(method, target, body)
                answer = connection.getresponse()
                value = json.loads(answer.read())
            except (OSError, http.client.HTTPException) as error:
                raise NoDaemon(f"the daemon broke off: {error!r}") from error
        if answer.status >= 400:
            raise Refused(value["error"])
        return value

    def _connected(self) -> socket.socket:
        tried = []
        for path in self._sockets:
            client = socket.socket(socket.AF_UNIX)
            client.settimeout(ANSWER_WITHIN)
            try:
                client.connect(str(path))
            except OSError as error:
                client.close()
                tried.append(f"{path} ({error.strerror or error})")
            else:
                return client
        raise NoDaemon(
            f"no daemon answers at {' or '.join(tried)}: is it running, with this configuration (--config),"
            " and may you open its socket?"
        )


class _Connection(http.client.HTTPConnection):
    def __init__(self, connected: socket.socket) -> None:
        super().__init__("localhost")
        self.sock = connected
