"""The load generator for pushes, against a registry that takes everything, or nothing."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bench.pusher import Load, Plan
from cacheproxy.core.digest import Digest
from cacheproxy.core.manifest import parse

SIZE = 100_000


class Taken:
    """What came."""

    def __init__(self) -> None:
        self.blobs: dict[str, int] = {}
        self.manifests: dict[str, bytes] = {}
        self.authorizations: set[str | None] = set()
        self.refusing = False


@contextmanager
def registry() -> Iterator[tuple[int, Taken]]:
    taken = Taken()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            taken.authorizations.add(self.headers["Authorization"])
            path, _, query = self.path.partition("?")
            status = 202
            if "/manifests/" in path:
                taken.manifests[path.rpartition("/")[2]] = body
                status = 201
            elif self.command == "PATCH":
                digest = hashlib.sha256(body).hexdigest()
                taken.blobs[f"sha256:{digest}"] = len(body)
            elif self.command == "PUT":
                status = 201 if query.partition("digest=")[2] in taken.blobs else 400
            refused = taken.refusing and self.command == "PATCH" and len(body) == SIZE
            self.send_response(500 if refused else status)
            self.send_header("Location", f"http://{self.headers['Host']}/v2/a/blobs/uploads/1?x=y")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_PATCH = do_PUT = answer  # noqa: N815 - as the library calls them

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port, taken
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_layers_and_then_their_manifest_are_pushed() -> None:
    with registry() as (port, taken):
        report = Load(Plan(port, "a", "layers", 3, SIZE, authorization="Bearer x")).run()
        assert (report.failures, report.error) == (0, "")
        assert sorted(taken.blobs.values()) == [2, SIZE, SIZE, SIZE]
        (body,) = taken.manifests.values()
        assert {blob.digest for blob in parse(body).blobs} == set(map(Digest.parse, taken.blobs))
        assert taken.authorizations == {"Bearer x"}


@pytest.mark.parametrize(("kind", "layers"), [("manifests", 1), ("images", None)])
def test_for_a_while_each_is_another_one(kind: str, layers: int | None) -> None:
    with registry() as (port, taken):
        report = Load(Plan(port, "a", kind, 2, SIZE, seconds=2.0)).run()
        assert report.failures == 0
        assert len(report.times) == len(taken.manifests) == len(set(taken.manifests.values())) > 1
        assert len(taken.blobs) == 1 + (layers or len(report.times))


def test_a_refusal_is_told_with_its_reason() -> None:
    with registry() as (port, taken):
        taken.refusing = True
        report = Load(Plan(port, "a", "layers", 2, SIZE)).run()
    assert report.failures == 2
    assert "PATCH" in report.error
    assert "500" in report.error
    assert not taken.manifests
