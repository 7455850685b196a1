"""What a registry of its own takes beside pulls: a token, and a store that is full already.

`python -m bench.hosted CONFIG tags COUNT` leaves a repository of so many tags in the store that a
configuration names, `... blobs COUNT` a repository whose blobs nothing keeps any more.
"""

from __future__ import annotations

import base64
import http.client
import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.parse import urlencode

import trio

from bench import pusher
from bench.peers import LOGIN
from bench.processes import BenchError
from bench.servers import Server
from cacheproxy.config import load
from cacheproxy.core.digest import Digest
from cacheproxy.core.manifest import parse
from cacheproxy.core.media import OCI_MANIFEST
from cacheproxy.core.settings import Settings
from cacheproxy.store import queries
from cacheproxy.store.database import Tx
from cacheproxy.store.hosted import Hosted
from cacheproxy.store.pushing import LINK
from cacheproxy.store.review import BLOB, enqueue
from cacheproxy.store.taking import FIND, Pushed
from cacheproxy.wiring import open_database

REPOSITORY = "bench/hosted"
FULL = "bench/full"
"""What is filled."""
SIZE = 4096
DAY = 86400.0
AT_ONCE = 10_000
FILL_WITHIN = 180.0


def authorization(server: Server, repository: str = REPOSITORY) -> str:
    """A fresh Bearer token, where the server has accounts; else "". Raises BenchError."""
    if server.name != "hosting":
        return ""
    login = base64.b64encode(LOGIN.encode()).decode()
    query = urlencode({"service": f"127.0.0.1:{server.port}", "scope": f"repository:{repository}:pull,push"})
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", f"/token?{query}", headers={"Authorization": f"Basic {login}"})
    answer = connection.getresponse()
    told = answer.read()
    connection.close()
    if answer.status != 200:
        raise BenchError(f"no token but {answer.status}: {told[:200]!r}")
    return f"Bearer {json.loads(told)['token']}"


def filled(config: Path, what: str, count: int) -> None:
    argv = (sys.executable, "-m", "bench.hosted", str(config), what, str(count))
    done = subprocess.run(argv, capture_output=True, text=True, timeout=FILL_WITHIN, check=False)
    if done.returncode:
        raise BenchError(f"filling the store ended with {done.returncode}: {done.stderr[-2000:]}")


def tag(number: int) -> str:
    """In the order of their numbers."""
    return f"build-{number:07}"


async def fill(config: Path, what: str, count: int) -> None:
    storage = load(config).storage
    storage.state.mkdir(exist_ok=True)
    async with open_database(storage) as database:
        hosted = Hosted(database)
        await hosted.create(FULL, Settings(sparse="images"), time.time())
        body = pusher.manifest([], "all tags mean it")
        image = Pushed(Digest.of(body), body, parse(body, OCI_MANIFEST), ("latest",))
        await hosted.put(FULL, image, time.time())
        add: Callable[[range, Tx], None] = partial(_add_tags, image.digest) if what == "tags" else _add_blobs
        for first in range(0, count, AT_ONCE):
            await database.write(partial(add, range(first, min(first + AT_ONCE, count))))


def _add_tags(digest: Digest, numbers: range, tx: Tx) -> None:
    repository = _repository(tx)
    for number in numbers:
        tx.run(queries.MOVE_TAG, repository=repository, name=tag(number), digest=digest, now=time.time())


def _add_blobs(numbers: range, tx: Tx) -> None:
    """Rows only: their places go into the trash, where files would stay for an hour."""
    repository, yesterday = _repository(tx), time.time() - DAY
    digests = [Digest.of(f"blob {number}".encode()) for number in numbers]
    for digest in digests:
        location = f"blobs/{digest.algorithm}/{digest.hex[:2]}/{digest.hex}.1"
        stored = {"digest": digest, "size": SIZE, "generation": 1, "location": location, "now": yesterday}
        tx.run(queries.STORE_BLOB, **stored)
        tx.run(LINK, repository=repository, digest=digest, size=SIZE, keep_until=yesterday)
    enqueue(tx, BLOB, digests, yesterday)


def _repository(tx: Tx) -> int:
    row = tx.one(FIND, name=FULL)
    assert row is not None
    return int(row[0])


if __name__ == "__main__":
    trio.run(partial(fill, Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
