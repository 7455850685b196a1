"""What is measured of registries of their own: pushes, pulls with a token, lists, and the collection."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlencode

from bench import hosted, load
from bench.hosted import FULL, REPOSITORY
from bench.measures import MIB, Run, Sample, metered, sync
from bench.peers import CONFIG, PEERS
from bench.processes import BenchError
from bench.pusher import Plan, Report
from bench.reader import ACCEPT
from bench.servers import Server, started

AT_ONCE = 16
LAYER = 16 * MIB
PAGE = 100
PLACES = {"start": 0.0, "quarter": 0.25, "middle": 0.5, "end": 0.99}
"""Where in the list a page is asked for: parts of it."""
LISTENERS = 4
"""Connections that ask for lists at once."""
PUSHERS = 4
BESIDE = 64 << 10
"""Bytes of the layers that are pushed beside a collection."""
EXTRA_MS = 5.0
RATIO = 1.2
"""What a push may take longer beside a collection, whichever is more."""


def _push(run: Run, server: Server, kind: str, clients: int, size: int, seconds: float = 0.0) -> Report:
    token = hosted.authorization(server)
    return load.push(Plan(server.port, REPOSITORY, kind, clients, size, seconds, token))


def layers(run: Run, server: Server, _turn: int) -> Sample:
    """16 layers at once, then their manifest."""
    sync()
    with metered(run, server) as meter:
        done = _push(run, server, "layers", AT_ONCE, LAYER)
    size = AT_ONCE * LAYER
    return {
        "rate": size / MIB / done.elapsed,
        "seconds": done.elapsed,
        "cpu": meter.cpu / (size / (1 << 30)),
        "client": done.cpu / done.elapsed,
    }


def manifests(run: Run, server: Server, _turn: int) -> Sample:
    with metered(run, server) as meter:
        done = _push(run, server, "manifests", AT_ONCE, 4096, run.scale.seconds)
    return {
        "rate": len(done.times) / done.elapsed,
        "cpu": meter.cpu / len(done.times) * 10_000,
        "first": median(done.times) * 1000,
        "p99": _p99(done.times) * 1000,
        "client": done.cpu / done.elapsed,
    }


def by_digest(run: Run, server: Server, _turn: int) -> Sample:
    return _pulled(run, server, _image(server)[1])


def by_tag(run: Run, server: Server, _turn: int) -> Sample:
    return _pulled(run, server, _image(server)[0])


def _image(server: Server) -> tuple[str, str]:
    """The tag and the digest of a small image that the server has, which is pushed if there is none."""
    load.push(Plan(server.port, REPOSITORY, "layers", 8, 4096, authorization=hosted.authorization(server)))
    tag = json.loads(_asked(server, f"/v2/{REPOSITORY}/tags/list")[1])["tags"][0]
    headers, _ = _asked(server, f"/v2/{REPOSITORY}/manifests/{tag}")
    return tag, headers["Docker-Content-Digest"]


def _pulled(run: Run, server: Server, reference: str) -> Sample:
    path, token = f"/v2/{REPOSITORY}/manifests/{reference}", hosted.authorization(server)
    with metered(run, server) as meter:
        done = load.request(server.port, path, 64, run.scale.seconds, authorization=token)
    return {
        "rate": done.count / done.elapsed,
        "cpu": meter.cpu / done.count * 10_000,
        "first": done.median * 1000,
        "p99": done.p99 * 1000,
        "failures": done.failures,
        "client": done.cpu / done.elapsed,
    }


def lists(run: Run, _server: Server, _turn: int) -> Sample:
    """Pages at several places of a list of many tags, by a daemon of its own."""
    tags = run.scale.tags
    with started(PEERS["hosting"], _filled(run, "tags", tags), run.origin) as server:
        return _listed(run, server, tags)


def _listed(run: Run, server: Server, tags: int) -> Sample:
    token, found = hosted.authorization(server, FULL), {}
    for name, part in PLACES.items():
        query = urlencode({"n": PAGE, "last": hosted.tag(int(tags * part))})
        path = f"/v2/{FULL}/tags/list?{query}"
        listed = json.loads(_asked(server, path, FULL)[1])["tags"]
        if len(listed) != PAGE:
            raise BenchError(f"a page of {len(listed)} tags at {path}")
        done = load.request(server.port, path, LISTENERS, run.scale.seconds, authorization=token)
        if done.failures:
            raise BenchError(f"{done.failures} lists were not answered")
        found[name] = done
    times = {name: done.p99 * 1000 for name, done in found.items()}
    return {
        **times,
        "p99": max(times.values()),
        "spread": max(done.median for done in found.values()) / min(done.median for done in found.values()),
        "rate": median(done.count / done.elapsed for done in found.values()),
    }


def beside_collection(run: Run, _server: Server, _turn: int) -> Sample:
    """Pairs of loads, in turns the one with the collection first: the median of each number."""
    folder = _filled(run, "blobs", run.scale.blobs)
    pairs = [_pair(run, folder, number) for number in range(5 if run.scale.rounds > 1 else 1)]
    return {key: median(pair[key] for pair in pairs) for key in pairs[0]}


def _pair(run: Run, folder: Path, number: int) -> Sample:
    found = {
        with_it: _load(run, folder, with_it) for with_it in ((True, False) if number % 2 else (False, True))
    }
    (beside, collected), (without, _) = found[True], found[False]
    p99, alone = _p99(beside.times) * 1000, _p99(without.times) * 1000
    return {
        "with": p99,
        "without": alone,
        "over": p99 / max(RATIO * alone, alone + EXTRA_MS),
        "rate": len(beside.times) / beside.elapsed,
        "alone": len(without.times) / without.elapsed,
        "collected": collected / beside.elapsed,
    }


def _load(run: Run, filled: Path, with_it: bool) -> tuple[Report, int]:
    """Pushes to a daemon over a copy of the store; how much it collected meanwhile.

    By itself it does not begin to collect before it has run for a minute.
    """
    folder = run.folder / "collecting"
    shutil.copytree(filled, folder, ignore=shutil.ignore_patterns("*.sock"))
    sync()
    try:
        with started(PEERS["hosting"], folder, run.origin) as server:
            number = _command(folder, "POST", "/gc", anyway=True)["number"] if with_it else 0
            done = _push(run, server, "images", PUSHERS, BESIDE, 2 * run.scale.seconds)
            if not with_it:
                return done, 0
            told = _command(folder, "GET", f"/gc?number={number}")
            if not told["running"]:
                raise BenchError(
                    f"the collection ended before the load did: {told['stopped'] or 'all is gone'}"
                )
            return done, told["swept"]["blobs"]
    finally:
        shutil.rmtree(folder)


def _filled(run: Run, what: str, count: int) -> Path:
    """The folder of a daemon whose store is filled and which is not running."""
    folder = run.folder / f"filled-{what}"
    with started(PEERS["hosting"], folder, run.origin):  # it makes the configuration
        pass
    hosted.filled(folder / CONFIG, what, count)
    return folder


def _p99(times: list[float]) -> float:
    return sorted(times)[int(len(times) * 0.99)]


def _asked(server: Server, path: str, repository: str = REPOSITORY) -> tuple[http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    token = hosted.authorization(server, repository)
    connection.request("GET", path, headers={"Accept": ACCEPT, **({"Authorization": token} if token else {})})
    answer = connection.getresponse()
    told = answer.read()
    connection.close()
    if answer.status != 200:
        raise BenchError(f"{path}: {answer.status} {told[:200]!r}")
    return answer.headers, told


class _Local(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(str(path))


def _command(folder: Path, method: str, path: str, **values: object) -> Any:
    connection = _Local(folder / "state" / "admin.sock")
    connection.request(method, path, json.dumps(values) if values else None)
    told = json.loads(connection.getresponse().read())
    connection.close()
    return told
