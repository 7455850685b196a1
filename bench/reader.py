"""A load generator for blobs: many keep-alive connections in one epoll loop, bytes counted, not kept.

`python -m bench.reader` takes a plan as JSON on standard input and prints a report as JSON. It is a process
of its own so that its processor time is known and the harness around it does not disturb its clock.

plan:   {"port", "clients": [[path, ...], ...], "within": seconds, "seconds": null or float, "verify": bool,
         "secure": bool}
report: {"cpu", "clients": [{"answers": [...], "error": null or text}]}
answer: {"began", "first", "ended": seconds since the start, "status", "size", "sha256": hex or null}

With `seconds`, each client goes round its paths until then and ends with the answer it is reading; `secure`
means over TLS, with certificates unchecked.
"""

from __future__ import annotations

import hashlib
import json
import select
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import cycle
from typing import Any

from bench.processes import unverified

STEP = 256 * 1024
"""Bytes a read asks for: they fit the L2 cache, so taking them costs the least that a real client pays."""
HEAD_LIMIT = 64 * 1024
ACCEPT = ", ".join(
    f"application/vnd.{kind}+json"
    for kind in (
        "oci.image.manifest.v1",
        "oci.image.index.v1",
        "docker.distribution.manifest.v2",
        "docker.distribution.manifest.list.v2",
    )
)
"""What docker and containerd send, near enough."""


@dataclass(slots=True)
class Plan:
    port: int
    clients: list[list[str]]
    within: float
    seconds: float | None = None
    verify: bool = False
    secure: bool = False


@dataclass(slots=True)
class Answer:
    began: float
    first: float = 0.0
    ended: float = 0.0
    status: int = 0
    size: int = 0
    sha256: str | None = None


class AnswerError(Exception):
    """The server did not answer as HTTP, or not to the end."""


def length_of(head: bytes) -> int:
    """The Content-Length; every peer sends it, for manifests and blobs alike."""
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise AnswerError(f"no Content-Length: {head[:200]!r}")


class Tunnel:
    """TLS over a socket, in bulk: a load generator that reads record by record would measure itself."""

    def __init__(self, connection: socket.socket) -> None:
        """Shakes hands; `connection` still waits."""
        self.connection = connection
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = unverified().wrap_bio(self.incoming, self.outgoing)
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                connection.sendall(self.outgoing.read())
                self.incoming.write(connection.recv(HEAD_LIMIT))
            else:
                connection.sendall(self.outgoing.read())
                return

    def send(self, data: bytes) -> None:
        self.tls.write(data)
        self.connection.send(self.outgoing.read())

    def records(self) -> Iterator[memoryview]:
        """What each record says that is here."""
        while True:
            try:
                data = self.tls.read(STEP)
            except ssl.SSLWantReadError:
                return
            if not data:
                raise AnswerError("closed")
            yield memoryview(data)


@dataclass(slots=True)
class Client:
    """One connection and the requests it sends, one after the other. Steps return False when it is done."""

    plan: Plan
    paths: Iterator[str]
    start: float
    answers: list[Answer] = field(default_factory=list)
    error: str | None = None
    connection: socket.socket = field(default_factory=socket.socket)
    head: bytearray = field(default_factory=bytearray)
    left: int | None = None
    """Body bytes to come; None: still in the head."""
    digest: Any = None
    tunnel: Tunnel | None = None

    def now(self) -> float:
        return time.perf_counter() - self.start

    def connect(self) -> bool:
        """The first answer's time begins before the connection is there."""
        self.answers.append(Answer(self.now()))
        self.connection.connect(("127.0.0.1", self.plan.port))
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.plan.secure:
            self.tunnel = Tunnel(self.connection)
        self.connection.setblocking(False)
        self.send(next(self.paths))
        return True

    def proceed(self) -> bool:
        if self.plan.seconds is not None and self.now() >= self.plan.seconds:
            return False
        path = next(self.paths, None)
        if path is None:
            return False
        self.answers.append(Answer(self.now()))
        self.send(path)
        return True

    def send(self, path: str) -> None:
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.plan.port}\r\nAccept: {ACCEPT}\r\n\r\n"
        (self.tunnel or self.connection).send(request.encode())
        self.head.clear()
        self.left = None
        self.digest = hashlib.sha256() if self.plan.verify else None

    def read(self, buffer: memoryview) -> bool:
        count = self.connection.recv_into(buffer)
        if count == 0:
            raise AnswerError(f"closed with {self.left} bytes to come after {bytes(self.head[:100])!r}")
        if self.tunnel is None:
            return self.hear(buffer[:count])
        self.tunnel.incoming.write(buffer[:count])
        return all(self.hear(data) for data in self.tunnel.records())

    def hear(self, data: memoryview) -> bool:
        if self.left is not None:
            return self.take(data)
        body = self.take_head(data)
        return True if body is None else self.take(body)

    def take_head(self, data: memoryview) -> memoryview | None:
        """Collect the head. What follows it is the body's beginning; None: the head goes on."""
        before = len(self.head)
        self.head += data[:HEAD_LIMIT]
        end = self.head.find(b"\r\n\r\n") + 4
        if end < 4:
            if len(self.head) >= HEAD_LIMIT:
                raise AnswerError("endless head")
            return None
        head = bytes(self.head[:end])
        self.answers[-1].status = int(head.split(b" ", 2)[1])
        self.left = length_of(head)
        return data[end - before :]

    def take(self, body: memoryview) -> bool:
        answer = self.answers[-1]
        assert self.left is not None
        if answer.size == 0 and len(body):
            answer.first = self.now()
        answer.size += len(body)
        self.left -= len(body)
        if self.digest is not None:
            self.digest.update(body)
        if self.left > 0:
            return True
        answer.ended = self.now()
        answer.sha256 = None if self.digest is None else self.digest.hexdigest()
        return self.proceed()

    def attempt(self, step: Callable[[], bool]) -> bool:
        try:
            if step():
                return True
        except BlockingIOError:
            return True
        except (OSError, AnswerError, ValueError) as error:
            self.error = f"{type(error).__name__}: {error}"
        self.connection.close()
        return False


def run(plan: Plan) -> list[Client]:
    start = time.perf_counter()
    rounds = iter if plan.seconds is None else cycle
    clients = [Client(plan, rounds(paths), start) for paths in plan.clients]
    buffer = memoryview(bytearray(STEP))
    with select.epoll() as poll:
        reading: dict[int, tuple[Client, Callable[[], bool]]] = {}
        for client in clients:
            if client.attempt(client.connect):
                reading[client.connection.fileno()] = client, partial(client.read, buffer)
                poll.register(client.connection, select.EPOLLIN)
        while reading and time.perf_counter() - start < plan.within:
            for number, _ in poll.poll(1.0):
                client, step = reading[number]
                if not client.attempt(step):
                    del reading[number]
        for client, _ in reading.values():
            client.error = f"not done after {plan.within} s"
            client.connection.close()
    return clients


def main() -> None:
    plan = Plan(**json.load(sys.stdin))
    before = time.process_time()
    clients = run(plan)
    used = time.process_time() - before
    told = [{"answers": [asdict(answer) for answer in one.answers], "error": one.error} for one in clients]
    json.dump({"cpu": used, "clients": told}, sys.stdout)


if __name__ == "__main__":
    main()
