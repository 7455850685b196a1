"""Blobs in an object store, SeaweedFS: streamed through beside what it gives by itself, and redirects to it.

Each number stands beside one that was taken right before or after it, in another order each time.
"""

from __future__ import annotations

import http.client
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median

from bench import load, measures
from bench.measures import GIB, WITHIN, Run, Sample
from bench.origin import Blob, Image
from bench.peers import PEERS, Peer, ours
from bench.processes import BenchError
from bench.reader import Plan
from bench.servers import Server, started
from cacheproxy.store.bucket import Bucket
from tests.seaweed import BUCKET, Seaweed, seaweed

STORED_WITHIN = 120.0
"""Seconds from the first pull until the object is there; 512 MiB take some 10."""
PULLS = 3
"""Of one measurement of a stream."""
GOOD_FOR = 3600.0
"""Seconds of a presigned address: longer than the line takes."""
REDIRECT = 'redirect = ["127.0.0.0/8"]'
IN_BUCKET = """\
blobs = "s3://{bucket}/{name}"

[storage.objects]
endpoint = "{endpoint}"
region = "us-east-1"
credentials = {{ file = "{keys}" }}
{redirect}
"""


def stream(run: Run, _server: Server, _turn: int) -> Sample:
    """One stream of the large blob to curl, through us and by the store's own address."""
    with _storing(run, "stream") as (server, bucket):
        key = _stored(run, server, bucket, run.big)
        address = bucket.address(key, GOOD_FOR)
        path = f"http://127.0.0.1:{server.port}{server.path(_blob(run.big).path)}"
        size = _blob(run.big).size

        def through_us() -> Sample:
            with measures.metered(run, server) as meter:
                rate, first = _curled(path, size)
            return {"rate": rate, "cpu": meter.cpu / (PULLS * size / GIB), "first": first}

        return _paired(run, through_us, lambda: _curled(address, size)[0])


def _curled(address: str, size: int) -> tuple[float, float]:
    """GiB a second of some pulls, one after the other, all of them whole; ms to the first bytes."""
    pulls = ["-o", "/dev/null", address] * PULLS
    argv = ["curl", "-sS", "-f", "-w", "%{size_download} %{time_total} %{time_starttransfer}\\n", *pulls]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=WITHIN, check=False)
    except FileNotFoundError:
        raise BenchError("curl is not installed: apt-get install curl") from None
    heard = [[float(word) for word in line.split()] for line in done.stdout.splitlines()]
    if done.returncode or [length for length, _, _ in heard] != [size] * PULLS:
        raise BenchError(f"curl ended with {done.returncode}: {done.stderr.strip()} {heard}")
    took, first = sum(seconds for _, seconds, _ in heard), median(first for _, _, first in heard)
    return PULLS * size / GIB / took, first * 1000


def redirect(run: Run, _server: Server, _turn: int) -> Sample:
    """GET of a blob that is answered with an address of the store, and GET of a manifest."""
    with _storing(run, "redirect", REDIRECT) as (server, bucket):
        image = run.manifest
        _stored(run, server, bucket, image)
        path = server.path(_blob(image).path)
        status, place = _asked(server.port, path)
        if status != 307 or BUCKET not in place:
            raise BenchError(f"no redirect to the store but {status}")
        return _paired(
            run,
            lambda: measures.requests(run, server, _blob(image).path),
            lambda: measures.requests(run, server, image.by_digest)["rate"],
        )


def _paired(run: Run, ours: Callable[[], Sample], itself: Callable[[], float]) -> Sample:
    """The median of each number, `ratio` the median of each pair's."""
    pairs = [_pair(ours, itself, number) for number in range(5 if run.scale.rounds > 1 else 1)]
    medians = {key: median(pair[key] for pair in pairs) for key in pairs[0]}
    return {**medians, **{key: max(pair[key] for pair in pairs) for key in pairs[0] if key == "failures"}}


def _pair(ours: Callable[[], Sample], itself: Callable[[], float], number: int) -> Sample:
    before = itself() if number % 2 else None
    sample = ours()
    beside = itself() if before is None else before
    return {**sample, "beside": beside, "ratio": sample["rate"] / beside}


@contextmanager
def _storing(run: Run, name: str, redirect: str = "") -> Iterator[tuple[Server, Bucket]]:
    folder = run.folder / f"objects-{name}"
    with _store(folder / "store") as store:
        keys = folder / "keys"
        keys.write_text(store.credentials)
        with started(_peer(store, name, keys, redirect), folder, run.origin) as server:
            yield server, store.connect(name)


@contextmanager
def _store(folder: Path) -> Iterator[Seaweed]:
    try:
        with seaweed(folder) as store:
            yield store
    except RuntimeError as error:
        raise BenchError(str(error)) from error


def _peer(store: Seaweed, name: str, keys: Path, redirect: str) -> Peer:
    words: Mapping[str, object] = {"bucket": BUCKET, "name": name, "endpoint": store.endpoint}
    return replace(PEERS["ours"], command=ours(IN_BUCKET.format(**words, keys=keys, redirect=redirect)))


def _stored(run: Run, server: Server, bucket: Bucket, image: Image) -> str:
    """Pull the image, and wait until the store has the blob that is asked for: its key."""
    paths = [image.by_tag, *(blob.path for blob in image.layers)]
    found = load.read(Plan(server.port, [server.paths(paths)], WITHIN, verify=True))
    server.prove(found, [image.digest, *(blob.digest for blob in image.layers)])
    wanted = _blob(image).digest.partition(":")[2]
    deadline = time.monotonic() + STORED_WITHIN
    while time.monotonic() < deadline:
        for key, _, _ in bucket.list("blobs/sha256"):
            if wanted in key:
                time.sleep(1.0)  # its row comes after it
                return key
        time.sleep(0.2)
    raise BenchError(f"the store does not have {wanted} after {STORED_WITHIN:.0f} s")


def _blob(image: Image) -> Blob:
    return image.layers[0]


def _asked(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WITHIN)
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status, answer.headers.get("Location", "")
