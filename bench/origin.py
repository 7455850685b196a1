"""The scripted origin as the harness drives it: what it holds, how fast it is, what it was asked."""

from __future__ import annotations

import http.client
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.processes import Command, answers, free_port, running, wait_until

REPOSITORY = "bench/image"
QUIET = 0.25
"""Seconds without another byte after which a transfer that nobody reads any more counts as over."""
QUIET_WITHIN = 30.0
LATE = 0.02
"""Seconds without another request after which those of a load that has ended count as come in."""


@dataclass(frozen=True)
class Blob:
    digest: str
    size: int

    @property
    def path(self) -> str:
        return f"{REPOSITORY}/blobs/{self.digest}"


@dataclass(frozen=True)
class Image:
    tag: str
    digest: str
    layers: tuple[Blob, ...]

    @property
    def by_tag(self) -> str:
        return f"{REPOSITORY}/manifests/{self.tag}"

    @property
    def by_digest(self) -> str:
        return f"{REPOSITORY}/manifests/{self.digest}"


@dataclass(frozen=True)
class Counts:
    """Since the last reset: requests of any kind, bytes of blobs that were written to sockets."""

    requests: int
    blob_bytes: int


@dataclass
class Origin:
    port: int
    pid: int
    images: dict[str, Image] = field(default_factory=dict)

    def image(self, tag: str, *sizes: int) -> Image:
        """The image of this tag, made of layers of these sizes when it is first named."""
        if tag not in self.images:
            made = self._call("POST", "/_image", {"repository": REPOSITORY, "tag": tag, "sizes": sizes})
            layers = tuple(Blob(blob["digest"], blob["size"]) for blob in made["blobs"])
            self.images[tag] = Image(tag, made["digest"], layers)
        return self.images[tag]

    def set_rate(self, rate: int | None) -> None:
        """Bytes a second of a blob's body, on each connection; None: no limit."""
        self._call("POST", "/_set", {"rate": rate})

    def reset(self) -> None:
        """Count from nothing, once the requests of the load before have come in."""
        deadline = time.monotonic() + QUIET_WITHIN
        while True:
            self._call("POST", "/_reset")
            time.sleep(LATE)
            if not self.counts().requests or time.monotonic() > deadline:
                return

    def counts(self) -> Counts:
        seen = self._call("GET", "/_seen")
        return Counts(len(seen["seen"]), sum(blob["bytes"] for blob in seen["blobs"].values()))

    def settled_counts(self) -> Counts:
        """The counts once no more bytes flow: what a cache fetches after its clients are done counts, too."""
        deadline = time.monotonic() + QUIET_WITHIN
        before = self.counts()
        while True:
            time.sleep(QUIET)
            now = self.counts()
            if now == before or time.monotonic() > deadline:
                return now
            before = now

    def _call(self, method: str, path: str, body: object = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            return json.loads(answer.read())
        finally:
            connection.close()


@contextmanager
def origin(folder: Path) -> Iterator[Origin]:
    port = free_port()
    command = Command((sys.executable, "-m", "tests.origin", "--port", str(port)), {"TMPDIR": str(folder)})
    log = folder / "origin.log"
    with running(command, log) as process:
        wait_until(lambda: answers(port, "/v2/"), process, log)
        yield Origin(port, process.pid)
