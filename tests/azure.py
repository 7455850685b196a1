"""Blobs of Azure on loopback: Azurite, Microsoft's own emulator, in a folder, ended by its id.

tests/azurite has the lock that it is installed from, into .tools, by `make test`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from http.client import HTTPConnection
from pathlib import Path

from cacheproxy.store.bucket import Bucket, connect
from tests.seaweed import free_ports

CONTAINER = "test-blobs"
ACCOUNT = "testing"
KEY = base64.b64encode(hashlib.sha256(b"tested and found well").digest()).decode()
VERSION = "2023-11-03"
"""Of the protocol."""

READY_LIMIT = 60.0
"""Seconds; it takes 1 or 2."""

STORAGE = """\
blobs = "az://{container}/{prefix}"
[storage.objects]
endpoint = "{endpoint}"
credentials = {{ file = "{credentials}" }}
"""

INSTALLED = Path(__file__).parents[1] / ".tools" / "azurite"
PROGRAM = INSTALLED / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"


@dataclass(frozen=True, slots=True)
class Azurite:
    port: int

    @property
    def endpoint(self) -> str:
        """With the account in the path, as a host's name could not have it here."""
        return f"http://127.0.0.1:{self.port}/{ACCOUNT}"

    @property
    def credentials(self) -> str:
        return f"[default]\nazure_storage_account_name = {ACCOUNT}\nazure_storage_account_key = {KEY}\n"

    def storage(self, prefix: str, credentials: Path) -> str:
        """Lines of a configuration; the credentials are written to that file."""
        credentials.write_text(self.credentials)
        return STORAGE.format(
            container=CONTAINER, prefix=prefix, endpoint=self.endpoint, credentials=credentials
        )

    def connect(self, prefix: str = "") -> Bucket:
        """A place of its own in the one container."""
        settings = {"endpoint": self.endpoint, "account_name": ACCOUNT, "account_key": KEY}
        return connect("az", CONTAINER, prefix or secrets.token_hex(6), settings, plain=True)


@contextmanager
def azurite(folder: Path) -> Iterator[Azurite]:
    """With an empty container. Raises RuntimeError when it does not come up."""
    if not PROGRAM.exists():
        raise RuntimeError("Azurite is not installed: make .tools/azurite/installed (needs npm)")
    (port,) = free_ports(1)
    command = ["node", str(PROGRAM), "--blobHost", "127.0.0.1", "--blobPort", str(port)]
    options = ["--location", str(folder), "--silent", "--disableProductStyleUrl"]
    environment = os.environ | {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY}"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command + options, env=environment, cwd=folder, stdout=log, stderr=log)
    try:
        _make_container(port, process, folder / "log")
        yield Azurite(port)
    finally:
        process.kill()
        process.wait()


def _make_container(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """As soon as it answers: obstore makes none."""
    deadline = time.monotonic() + READY_LIMIT
    while (status := _asked_for_container(port)) != 201:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"Azurite did not come up ({status}): {log.read_text()[-2000:]}")
        time.sleep(0.1)


def _asked_for_container(port: int) -> int | None:
    """The status; None: it does not listen yet."""
    path = f"/{ACCOUNT}/{CONTAINER}"
    headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": VERSION}
    signed = "".join(f"{name}:{value}\n" for name, value in headers.items())
    # Shared Key: the verb, eleven headers that are not sent, ours, and the account before the path.
    text = "PUT\n" + "\n" * 11 + signed + f"/{ACCOUNT}{path}\nrestype:container"
    signature = hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()
    headers["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(signature).decode()}"
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("PUT", f"{path}?restype=container", b"", headers)
        return connection.getresponse().status
    except OSError:
        return None
    finally:
        connection.close()
