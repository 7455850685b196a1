"""Pushing to two daemons over one PostgreSQL and one bucket: either goes on where the other one was."""

from __future__ import annotations

import hashlib
import random
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple

from tests.e2e.clients import NAME as OFFICIAL_NAME
from tests.e2e.forwarder import round_robin
from tests.e2e.images import Library
from tests.e2e.programs import installed, packaged, run
from tests.e2e.servers import Daemon, distribution
from tests.e2e.stores import Shared
from tests.e2e.test_pushes import NAME, SECRET, hosting

MIB = 1 << 20
LOGIN = {"Authorization": "Basic " + b64encode(f"{NAME}:{SECRET}".encode()).decode()}
UPLOADS = "/v2/team/app/blobs/uploads/"


class Heard(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


def ask(node: Daemon, method: str, path: str, body: bytes = b"", **headers: str) -> Heard:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection = HTTPConnection("127.0.0.1", node.port, timeout=60)
    try:
        connection.request(method, path, body, {**LOGIN, **named, "Content-Length": str(len(body))})
        answer = connection.getresponse()
        return Heard(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    finally:
        connection.close()


def patch(node: Daemon, place: str, data: bytes, start: int) -> Heard:
    return ask(node, "PATCH", place, data, Content_Range=f"{start}-{start + len(data) - 1}")


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@contextmanager
def nodes(folder: Path, shared: Shared) -> Iterator[tuple[Daemon, Daemon]]:
    key = f'key = {{ file = "{folder}/a/state/secret.key" }}\n'
    with hosting(folder / "a", shared.storage()) as a, hosting(folder / "b", key + shared.storage()) as b:
        yield a, b


def test_an_upload_outlives_the_node_that_took_its_first_half(folder: Path, shared: Shared) -> None:
    data = random.Random(5).randbytes(24 * MIB)
    pieces = [(at, data[at : at + 6 * MIB]) for at in range(0, len(data), 6 * MIB)]
    digest = digest_of(data)
    with nodes(folder, shared) as (a, b):
        place = ask(a, "POST", UPLOADS).headers["location"]
        for node, (start, piece) in zip((a, b, a), pieces, strict=False):
            heard = patch(node, place, piece, start)
            assert (heard.status, heard.headers["range"]) == (202, f"0-{start + len(piece) - 1}")
        a.kill()
        heard = ask(b, "GET", place)
        assert (heard.status, heard.headers["range"]) == (204, f"0-{18 * MIB - 1}")
        heard = patch(b, place, pieces[2][1][:1000], pieces[2][0])
        assert (heard.status, heard.headers["range"]) == (416, f"0-{18 * MIB - 1}")
        assert patch(b, place, pieces[3][1], pieces[3][0]).status == 202
        heard = ask(b, "PUT", f"{place}?digest={digest}")
        assert heard.status == 201, heard
        with hosting(folder / "a", shared.storage()) as again:
            assert ask(again, "PUT", f"{place}?digest={digest}").status == 201, "whoever did not hear of it"
            for node in (again, b):
                assert digest_of(ask(node, "GET", f"/v2/team/app/blobs/{digest}").body) == digest


def test_a_node_that_dies_in_the_middle_of_a_piece_has_promised_nothing_of_it(
    folder: Path, shared: Shared
) -> None:
    data = random.Random(6).randbytes(8 * MIB)
    with nodes(folder, shared) as (a, b):
        place = ask(a, "POST", UPLOADS).headers["location"]
        assert patch(a, place, data[:MIB], 0).status == 202
        connection = HTTPConnection("127.0.0.1", a.port, timeout=60)
        connection.putrequest("PATCH", place)
        for name, value in {**LOGIN, "Content-Length": str(7 * MIB)}.items():
            connection.putheader(name, value)
        connection.endheaders(data[MIB : 4 * MIB])
        a.kill()
        connection.close()
        assert ask(b, "GET", place).headers["range"] == f"0-{MIB - 1}"
        assert patch(b, place, data[MIB:], MIB).status == 202
        assert ask(b, "PUT", f"{place}?digest={digest_of(data)}").status == 201


def test_crane_and_skopeo_push_through_both(library: Library, folder: Path, shared: Shared) -> None:
    with (
        distribution(library.store, folder / "source") as source,
        nodes(folder, shared) as (a, b),
        round_robin([a.port, b.port]) as address,
    ):
        crane, skopeo = installed("crane"), packaged("skopeo")
        there = f"{source.host}/{OFFICIAL_NAME}"
        run([crane, "auth", "login", "-u", NAME, "-p", SECRET, address], folder)
        run([crane, "copy", "--insecure", f"{there}:multi", f"{address}/team/crane:1"], folder)
        run(
            [
                skopeo,
                "copy",
                "--insecure-policy",
                "--src-tls-verify=false",
                "--dest-tls-verify=false",
                "--all",
                "--preserve-digests",
                "--dest-creds",
                f"{NAME}:{SECRET}",
                f"docker://{there}:oci",
                f"docker://{address}/team/skopeo:1",
            ],
            folder,
        )
        for name, image in (("team/crane", library.images["multi"]), ("team/skopeo", library.images["oci"])):
            for node in (a, b):
                heard = ask(node, "HEAD", f"/v2/{name}/manifests/1", Accept="*/*")
                assert (heard.status, heard.headers["docker-content-digest"]) == (200, image.digest)
            run([crane, "validate", "--insecure", "--remote", f"{address}/{name}:1"], folder)
        for node in (a, b):
            assert node.metric("cacheproxy_requests_total", code="202") > 0, "both were pushed to"
