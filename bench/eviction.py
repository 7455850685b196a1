"""Eviction beside pulling clients: how much longer they wait while thousands of blobs go.

`python -m bench.eviction CONFIG BLOBS` leaves a store that is full: so many small blobs that nobody has used
for a day are what eviction takes once anything more has to fit, and one that is in use has all the rest.
"""

from __future__ import annotations

import http.client
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

import trio

from bench import load
from bench.measures import Run, Sample
from bench.origin import Image
from bench.peers import CONFIG, FILL_WITHIN, PEERS, Peer, Place
from bench.processes import BenchError, Command
from bench.reader import Plan
from bench.servers import Server, started
from cacheproxy.config import load as load_configuration
from cacheproxy.core.digest import Digest
from cacheproxy.registry.space import LOW
from cacheproxy.store.disk import place
from cacheproxy.store.records import Records
from cacheproxy.wiring import open_database

SIZE = 16 << 10
"""Bytes of a blob that goes: what unlinking costs hardly depends on it."""
BESIDE = 64 << 10
"""Bytes of each blob that the clients pull."""
CLIENTS = 64
DAY = 86400.0
LONGER = 5
"""Times as long as other lines: eviction goes on for half a minute, and its begin is not all of it."""
EVICTED_WITHIN = 120.0
EXTRA_MS = 5.0
RATIO = 1.2
"""What the clients may wait longer, whichever is more."""


def budget(blobs: int) -> int:
    """What falls below the low mark when so many blobs go."""
    return round(blobs * SIZE / (1 - LOW))


def peer(blobs: int) -> Peer:
    def command(place: Place) -> Command:
        plain = PEERS["ours"].command(place)
        with (place.folder / CONFIG).open("a") as file:
            file.write(f'[cache]\nbudget = "{budget(blobs)}B"\nmin_free = "0%"\n')
        return plain

    return replace(PEERS["ours"], command=command)


def beside_pulls(run: Run, _server: Server, _turn: int) -> Sample:
    """Pairs of loads, in turns the one with eviction first: the median of each number; all failures count."""
    pairs = [_pair(run, number) for number in range(5 if run.scale.rounds > 1 else 1)]
    medians = {key: median(pair[key] for pair in pairs) for key in pairs[0]}
    return {**medians, "failures": max(pair["failures"] for pair in pairs)}


def _pair(run: Run, number: int) -> Sample:
    blobs = run.scale.images
    folder = run.folder / f"eviction-{number}"
    subject = peer(blobs)
    with started(subject, folder, run.origin):  # it makes the configuration
        pass
    _fill_store(folder / CONFIG, blobs)
    image = run.origin.image("beside", *[BESIDE] * CLIENTS)
    with started(subject, folder, run.origin) as server:
        for _ in range(2):
            load.read(Plan(server.port, [server.paths([image.by_tag, *_paths(image)])], FILL_WITHIN))
        files = folder / "state" / "blobs" / "blobs"
        before = _count(files)
        if number % 2:
            with_it, gone, seconds = _while_evicting(run, server, image, files, before, number)
            without = _load(run, server, image)
        else:
            without = _load(run, server, image)
            with_it, gone, seconds = _while_evicting(run, server, image, files, before, number)
    if gone < blobs:
        raise BenchError(f"only {gone} of {blobs} blobs were evicted")
    return {
        "with": with_it["p99"],
        "without": without["p99"],
        "over": with_it["p99"] / max(RATIO * without["p99"], without["p99"] + EXTRA_MS),
        "rate": with_it["rate"],
        "evicted": gone,
        "seconds": seconds,
        "failures": with_it["failures"] + without["failures"],
    }


def _while_evicting(
    run: Run, server: Server, image: Image, files: Path, before: int, number: int
) -> tuple[Sample, int, float]:
    """One more blob is asked for, which does not fit; the sample, how many went, and in how many seconds."""
    cold = run.origin.image(f"more-{number}", 2 << 20)
    began = time.monotonic()
    asking = threading.Thread(target=_ask, args=(server.port, server.paths([cold.by_tag, *_paths(cold)])))
    asking.start()
    sample = _load(run, server, image)
    asking.join()
    wanted = before - run.scale.images
    while _count(files) > wanted + 1 and time.monotonic() < began + EVICTED_WITHIN:
        time.sleep(0.05)
    return sample, before - _count(files) + 1, time.monotonic() - began


def _ask(port: int, paths: list[str]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=FILL_WITHIN)
    for path in paths:
        connection.request("GET", path)
        connection.getresponse().read()
    connection.close()


def _load(run: Run, server: Server, image: Image) -> Sample:
    paths = server.paths(_paths(image))
    clients = [paths[first:] + paths[:first] for first in range(CLIENTS)]
    done = load.read(Plan(server.port, clients, FILL_WITHIN, seconds=LONGER * run.scale.seconds))
    times = sorted(answer.ended - answer.began for answer in done.answers)
    return {
        "p99": times[int(len(times) * 0.99)] * 1000,
        "rate": len(times) / done.elapsed,
        "failures": done.failures(),
    }


def _paths(image: Image) -> list[str]:
    return [blob.path for blob in image.layers]


def _count(files: Path) -> int:
    return sum(1 for path in files.rglob("*.*"))


def _fill_store(config: Path, blobs: int) -> None:
    argv = (sys.executable, "-m", "bench.eviction", str(config), str(blobs))
    done = subprocess.run(argv, capture_output=True, text=True, timeout=FILL_WITHIN, check=False)
    if done.returncode:
        raise BenchError(f"filling the store ended with {done.returncode}: {done.stderr[-2000:]}")


async def fill(config: Path, blobs: int) -> None:
    storage = load_configuration(config).storage
    folder = storage.state / "blobs"
    many = blobs + blobs // 10
    yesterday = time.time() - DAY
    rest = budget(blobs) - many * SIZE - CLIENTS * BESIDE - (1 << 20)
    async with open_database(storage) as database:
        records = Records(database)
        await records.record_blob(Digest.of(b"in use"), rest, "blobs/in-use", 1, time.time() + DAY)
        for start in range(0, many, 256):
            async with trio.open_nursery() as nursery:
                for number in range(start, min(start + 256, many)):
                    nursery.start_soon(_store, records, folder, number, yesterday + number)


async def _store(records: Records, folder: Path, number: int, used: float) -> None:
    data = number.to_bytes(8, "big") * (SIZE // 8)
    digest = Digest.of(data)
    location = place(digest, 1)
    file = folder / location.path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    await records.record_blob(digest, SIZE, location.path, 1, used)


if __name__ == "__main__":
    trio.run(partial(fill, Path(sys.argv[1]), int(sys.argv[2])))
