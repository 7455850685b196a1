"""An object store of one's own: SeaweedFS on loopback ports that were free, in a folder, ended by its id."""

from __future__ import annotations

import json
import random
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from itertools import islice
from pathlib import Path

from cacheproxy.store.bucket import Bucket, connect

BUCKET = "test-blobs"
ACCESS_KEY, SECRET_KEY = "testing", "tested-and-found-well"
READY_LIMIT = 30.0
"""Seconds; it takes 2 or 3."""

STORAGE = """\
blobs = "s3://{bucket}/{prefix}"
[storage.objects]
endpoint = "{endpoint}"
region = "us-east-1"
credentials = {{ file = "{credentials}" }}
"""

PORTS = tuple(f"{name}.port{grpc}" for name in ("master", "volume", "filer", "s3") for grpc in ("", ".grpc"))
WEED = Path(sys.executable).with_name("weed")


@dataclass(frozen=True, slots=True)
class Seaweed:
    port: int

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def credentials(self) -> str:
        return f"[default]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n"

    def storage(self, prefix: str, credentials: Path) -> str:
        """Lines of a configuration; the credentials are written to that file."""
        credentials.write_text(self.credentials)
        return STORAGE.format(bucket=BUCKET, prefix=prefix, endpoint=self.endpoint, credentials=credentials)

    def connect(self, prefix: str = "") -> Bucket:
        """A place of its own in the one bucket, which is made by the first write: it takes a second."""
        settings = {
            "endpoint": self.endpoint,
            "region": "us-east-1",
            "access_key_id": ACCESS_KEY,
            "secret_access_key": SECRET_KEY,
        }
        return connect("s3", BUCKET, prefix or secrets.token_hex(6), settings, plain=True)


@contextmanager
def seaweed(folder: Path, *, identities: bool = True, ports: Sequence[int] = ()) -> Iterator[Seaweed]:
    """Without identities whoever asks may do everything; in the folder and with the PORTS of one that ended,
    it is that one again. Raises RuntimeError when it does not come up."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = dict(zip(PORTS, ports or free_ports(len(PORTS)), strict=True))
    command = [
        str(WEED),
        "server",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-filer",
        "-s3",
        "-s3.iam=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        *([f"-s3.config={_identities(folder)}"] if identities else []),
        f"-dir={folder}",
        "-volume.max=30",
        "-master.volumeSizeLimitMB=256",
        "-master.telemetry=false",
        *(f"-{name}={port}" for name, port in numbers.items()),
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        server = Seaweed(numbers["s3.port"])
        _wait(server, process, folder / "log")
        yield server
    finally:
        process.kill()
        process.wait()


def _identities(folder: Path) -> Path:
    file = folder / "identities.json"
    keys = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
    file.write_text(
        json.dumps({"identities": [{"name": "tests", "credentials": keys, "actions": ["Admin"]}]})
    )
    return file


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on: held all at once, so that no two are the same."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def own_ports(count: int) -> list[int]:
    """Free ones below those that the kernel gives away: they stay free while nobody listens there."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    below = range(max(1024, first - 8000), first)
    found = list(islice(filter(_free, random.sample(below, len(below))), count))
    return found if len(found) == count else free_ports(count)


def _free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _wait(server: Seaweed, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_LIMIT
    while not _answers(server.port):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"SeaweedFS did not come up: {log.read_text()[-2000:]}")
        time.sleep(0.1)


def _answers(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
