"""How each thing is measured: one function from a running server to named numbers."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench import load, servers
from bench.origin import Image, Origin
from bench.processes import BenchError, cpu_seconds, memory
from bench.reader import Plan
from bench.servers import Server

MIB = 1 << 20
GIB = 1 << 30
RATE = 50 * MIB
"""Bytes a second that a slow upstream sends on one connection."""
WITHIN = 90.0
"""Seconds for one load: several times what the slowest peer takes."""

Sample = Mapping[str, float]
"""Rates per second, times in milliseconds (`first`, `p99`) or seconds, shares of one core (`client`)."""


@dataclass(frozen=True)
class Scale:
    rounds: int
    seconds: float
    """Of one load on a warm server."""
    big: int
    """Bytes of the large warm blob."""
    layer: int
    """Bytes of the layers that are pulled cold."""
    images: int
    """Cached images in the store that is started."""
    tags: int
    """Of the repository that is listed."""
    blobs: int
    """That are collected."""


FULL = Scale(3, 2.0, 512 * MIB, 256 * MIB, images=10_000, tags=100_000, blobs=100_000)
QUICK = Scale(1, 1.0, 128 * MIB, 128 * MIB, images=1_000, tags=10_000, blobs=10_000)


@dataclass(frozen=True)
class Run:
    origin: Origin
    scale: Scale
    folder: Path

    @property
    def manifest(self) -> Image:
        """Eight layers: a manifest of about 2 KiB, as real images have them."""
        return self.origin.image("warm", *[4096] * 8)

    @property
    def big(self) -> Image:
        return self.origin.image("big", self.scale.big)

    @property
    def small(self) -> Image:
        return self.origin.image("small", *[MIB] * 64)

    def cold(self, name: str) -> Image:
        return self.origin.image(f"cold-{name}", self.scale.layer)


@dataclass
class Meter:
    """What one load cost: processor seconds of the server, requests and blob bytes at the origin."""

    cpu: float = 0.0
    requests: int = 0
    blob_bytes: int = 0


@contextmanager
def metered(run: Run, server: Server, settle: bool = False) -> Iterator[Meter]:
    meter = Meter()
    run.origin.reset()
    before = cpu_seconds(server.pid)
    yield meter
    counts = run.origin.settled_counts() if settle else run.origin.counts()
    meter.cpu = cpu_seconds(server.pid) - before
    meter.requests, meter.blob_bytes = counts.requests, counts.blob_bytes


def sync() -> None:
    """The write-back of one measurement must not fall into the next one."""
    subprocess.run(["sync"], timeout=WITHIN, check=True)


def _recycle_memory(run: Run, size: int) -> None:
    """Leave so many bytes of memory behind that were in use a moment ago.

    A virtual machine gives memory that has been free for seconds back to its host, and to get it again costs
    ten times what writing into it does: 2.2 CPU seconds a GiB were seen, more than all the rest of a pull.
    A cache that has run for a while lives in memory it has had before.
    """
    block = bytes(MIB)
    scratch = run.folder / "scratch"
    with scratch.open("wb") as file:
        for _ in range(size // MIB):
            file.write(block)
    scratch.unlink()


def warm(run: Run, server: Server) -> None:
    """Everything the warm lines ask for is pulled twice, and proven by its digest."""
    for image in (run.manifest, run.small, run.big) * 2:
        paths = [image.by_tag, image.by_digest, *(blob.path for blob in image.layers)]
        found = load.read(Plan(server.port, [server.paths(paths)], WITHIN, verify=True, secure=server.secure))
        server.prove(found, [image.digest, image.digest, *(blob.digest for blob in image.layers)])
    sync()


def requests(run: Run, server: Server, path: str) -> Sample:
    with metered(run, server) as meter:
        done = load.request(server.port, server.path(path), 64, run.scale.seconds, server.secure)
    return {
        "rate": done.count / done.elapsed,
        "cpu": meter.cpu / done.count * 10_000,
        "first": done.median * 1000,
        "p99": done.p99 * 1000,
        "upstream": meter.requests,
        "failures": done.failures,
        "client": done.cpu / done.elapsed,
    }


def manifest_by_digest(run: Run, server: Server, _turn: int) -> Sample:
    return requests(run, server, run.manifest.by_digest)


def manifest_by_tag(run: Run, server: Server, _turn: int) -> Sample:
    return requests(run, server, run.manifest.by_tag)


def blobs(run: Run, server: Server, clients: list[list[str]], seconds: float) -> Sample:
    everyones = [server.paths(paths) for paths in clients]
    plan = Plan(server.port, everyones, WITHIN, seconds=seconds, secure=server.secure)
    with metered(run, server) as meter:
        done = load.read(plan)
    return {
        "rate": done.size / GIB / done.elapsed,
        "requests": len(done.answers) / done.elapsed,
        "cpu": meter.cpu / (done.size / GIB),
        "first": median(answer.first - answer.began for answer in done.answers) * 1000,
        "upstream": meter.requests,
        "failures": done.failures(),
        "client": done.cpu / done.elapsed,
    }


def blob_one_stream(run: Run, server: Server, _turn: int) -> Sample:
    return blobs(run, server, [[run.big.layers[0].path]], run.scale.seconds)


def blob_eight_streams(run: Run, server: Server, _turn: int) -> Sample:
    return blobs(run, server, [[run.big.layers[0].path]] * 8, run.scale.seconds / 2)


def small_blobs(run: Run, server: Server, _turn: int) -> Sample:
    """64 connections, each going round 64 blobs from another one on."""
    paths = [blob.path for blob in run.small.layers]
    clients = [paths[first:] + paths[:first] for first in range(64)]
    return blobs(run, server, clients, run.scale.seconds)


def _cold(run: Run, server: Server, name: str, rate: int | None, clients: int = 1) -> Sample:
    """Each client asks for the manifest by tag, then for the layer; its clock runs from its first request."""
    image = run.cold(name)
    layer = image.layers[0]
    plan = Plan(server.port, [server.paths([image.by_tag, layer.path])] * clients, WITHIN)
    sync()
    _recycle_memory(run, 3 * layer.size)
    run.origin.set_rate(rate)
    with metered(run, server, settle=True) as meter:
        done = load.read(plan)
    run.origin.set_rate(None)
    pulls = [pull for pull in done.clients if len(pull) == 2 and pull[1].size == layer.size]
    if not pulls:
        raise BenchError(f"nobody got the whole layer: {done.errors[:1]}")
    sample = {
        "first": median(layer.first - manifest.began for manifest, layer in pulls) * 1000,
        "seconds": max(layer.ended for _, layer in pulls),
        "failures": clients - len(pulls),
        "client": done.cpu / done.elapsed,
    }
    if server.peer is None:
        return sample
    return {**sample, "cpu": meter.cpu / (done.size / GIB), "upstream": meter.blob_bytes / layer.size}


def cold_slow(run: Run, server: Server, _turn: int) -> Sample:
    return _cold(run, server, "slow", RATE)


def cold_unlimited(run: Run, server: Server, turn: int) -> Sample:
    return _cold(run, server, f"unlimited-{turn}", None)


def fan_out(run: Run, server: Server, _turn: int) -> Sample:
    return _cold(run, server, "fan-out", RATE, clients=32)


def memory_used(_run: Run, server: Server, _turn: int) -> Sample:
    peak = max(memory(server.pid).peak, server.resident_at_start)
    return {"start": server.resident_at_start / MIB, "peak": peak / MIB}


def start(run: Run, server: Server, _turn: int) -> Sample:
    """Another process of the same peer, over a store of its own that stays from turn to turn."""
    assert server.peer is not None
    folder = run.folder / f"start-{server.name}"
    return {"seconds": servers.seconds_to_start(server.peer, folder, run.origin, run.scale.images)}
