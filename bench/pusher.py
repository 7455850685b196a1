"""A load generator for pushes: clients, a thread and a connection each, that push as docker and crane do.

`python -m bench.pusher` takes a plan as JSON on standard input and prints a report as JSON: a process of its
own, like bench.reader.

plan:   {"port", "repository", "kind": "layers" | "manifests" | "images", "clients", "size", "seconds",
         "authorization"}
report: {"cpu", "elapsed": seconds, "times": [seconds, ...], "failures", "error": text}

- layers: each client pushes one layer of `size` bytes (POST, PATCH, PUT), all at once, then one the manifest.
- manifests: for `seconds`, manifests of one small image, each with a tag of its own; a time is one PUT's.
- images: for `seconds`, images of one new layer of `size` bytes; a time is that of both pushes.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial

from bench.reader import HEAD_LIMIT, AnswerError, length_of

OCI = "application/vnd.oci.image"
MANIFEST = f"{OCI}.manifest.v1+json"
BYTES = "application/octet-stream"
WITHIN = 60.0
"""Seconds for one answer."""


@dataclass(slots=True)
class Plan:
    port: int
    repository: str
    kind: str
    clients: int
    size: int = 4096
    seconds: float = 0.0
    authorization: str = ""


@dataclass(slots=True)
class Report:
    cpu: float = 0.0
    elapsed: float = 0.0
    times: list[float] = field(default_factory=list)
    failures: int = 0
    error: str = ""


class Refused(Exception):
    """An answer other than the one that a push goes on with."""


class Connection:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._socket = socket.create_connection(("127.0.0.1", plan.port), timeout=WITHIN)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, wanted: int, method: str, path: str, body: bytes = b"", kind: str = BYTES) -> str:
        """The answer's Location. Raises Refused unless its status is the wanted one, AnswerError, OSError."""
        fields = {
            "Host": f"127.0.0.1:{self._plan.port}",
            "Content-Length": str(len(body)),
            "Content-Type": kind,
            "Authorization": self._plan.authorization,
        }
        lines = [f"{name}: {value}" for name, value in fields.items() if value]
        head = "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode()
        self._socket.sendall(head + body if len(body) < HEAD_LIMIT else head)
        if len(body) >= HEAD_LIMIT:
            self._socket.sendall(body)
        status, headers, told = self._answer()
        if status != wanted:
            raise Refused(f"{method} {path}: {status} {told[:300]!r}")
        return headers.get("location", "").removeprefix(f"http://127.0.0.1:{self._plan.port}")

    def push(self, data: bytes, digest: str = "") -> None:
        """A blob, in three requests."""
        digest = digest or _sha256(data)
        place = self.ask(202, "POST", f"/v2/{self._plan.repository}/blobs/uploads/")
        place = self.ask(202, "PATCH", place, data)
        self.ask(201, "PUT", f"{place}{'&' if '?' in place else '?'}digest={digest}")

    def put(self, tag: str, body: bytes) -> None:
        self.ask(201, "PUT", f"/v2/{self._plan.repository}/manifests/{tag}", body, MANIFEST)

    def close(self) -> None:
        self._socket.close()

    def _answer(self) -> tuple[int, Mapping[str, str], bytes]:
        data = b""
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += self._some()
        head, body = data[:end], data[end + 4 :]
        pairs = (line.partition(": ") for line in head.decode().split("\r\n")[1:])
        headers = {name.lower(): value for name, _, value in pairs}
        length = length_of(head) if "content-length" in headers else 0
        while len(body) < length:
            body += self._some()
        return int(head.split(b" ", 2)[1]), headers, body

    def _some(self) -> bytes:
        data = self._socket.recv(HEAD_LIMIT)
        if not data:
            raise AnswerError("closed")
        return data


def _sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _described(kind: str, data: bytes) -> dict[str, object]:
    return {"mediaType": f"{OCI}.{kind}", "digest": _sha256(data), "size": len(data)}


def manifest(layers: list[bytes], note: str) -> bytes:
    """Of an image whose config is an empty object."""
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": _described("config.v1+json", b"{}"),
        "layers": [_described("layer.v1.tar", layer) for layer in layers],
        "annotations": {"note": note},
    }
    return json.dumps(document).encode()


class Load:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.report = Report()
        self._name = os.urandom(6).hex()
        self._base = os.urandom(plan.size)
        self._lock = threading.Lock()

    def run(self) -> Report:
        before = time.process_time()
        connections = [Connection(self.plan) for _ in range(self.plan.clients)]
        connections[0].push(b"{}")
        kinds = {"layers": self.layers, "manifests": self.manifests, "images": self.images}
        kinds[self.plan.kind](connections)
        for connection in connections:
            connection.close()
        self.report.cpu = time.process_time() - before
        return self.report

    def layers(self, connections: list[Connection]) -> None:
        layers = [self._layer(number) for number in range(len(connections))]
        body = manifest(layers, self._name)
        # Who builds images has hashed their layers before they are pushed.
        named = [(layer, _sha256(layer)) for layer in layers]
        began = time.perf_counter()
        self._all([partial(c.push, *layer) for c, layer in zip(connections, named, strict=True)])
        if not self.report.failures:
            connections[0].put(self._name, body)
        self.report.elapsed = time.perf_counter() - began

    def manifests(self, connections: list[Connection]) -> None:
        layer = self._layer(0)
        connections[0].push(layer)

        def put(connection: Connection, name: str) -> None:
            connection.put(name, manifest([layer], name))

        self._for_a_while(connections, put)

    def images(self, connections: list[Connection]) -> None:
        def push(connection: Connection, name: str) -> None:
            layer = name.encode() + self._base[len(name) :]
            connection.push(layer)
            connection.put(name, manifest([layer], name))

        self._for_a_while(connections, push)

    def _for_a_while(self, connections: list[Connection], once: Callable[[Connection, str], None]) -> None:
        began = time.perf_counter()

        def client(number: int) -> None:
            count, now = 0, time.perf_counter()
            while now < began + self.plan.seconds:
                once(connections[number], f"{self._name}-{number}-{count}")
                count, before, now = count + 1, now, time.perf_counter()
                self.report.times.append(now - before)

        self._all([partial(client, number) for number in range(len(connections))])
        self.report.elapsed = time.perf_counter() - began

    def _all(self, works: list[Callable[[], None]]) -> None:
        threads = [threading.Thread(target=self._safely, args=(work,)) for work in works]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _safely(self, work: Callable[[], None]) -> None:
        try:
            work()
        except (Refused, AnswerError, OSError) as error:
            with self._lock:
                self.report.failures += 1
                self.report.error = f"{type(error).__name__}: {error}"

    def _layer(self, number: int) -> bytes:
        return f"{self._name} {number:4}".encode() + self._base[17:]


if __name__ == "__main__":
    json.dump(asdict(Load(Plan(**json.load(sys.stdin))).run()), sys.stdout)
