"""A started server: where it listens, how it is asked, what it must have answered."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.load import Reading
from bench.origin import Origin
from bench.peers import CONFIG, Peer, Place
from bench.processes import BenchError, Command, answers, free_port, memory, running, wait_until

CALM = 0.5
"""Seconds after the first 200 before memory is read: what a start leaves behind has ended then."""


@dataclass(frozen=True)
class Server:
    name: str
    title: str
    port: int
    pid: int
    prefix: str = "/v2/"
    peer: Peer | None = None
    """None: the origin itself, asked directly."""
    resident_at_start: int = 0

    @property
    def secure(self) -> bool:
        return self.peer is not None and self.peer.secure

    def path(self, rest: str) -> str:
        return self.prefix + rest

    def paths(self, rests: Sequence[str]) -> list[str]:
        return [self.path(rest) for rest in rests]

    def prove(self, reading: Reading, digests: Sequence[str]) -> None:
        """Raises BenchError unless exactly these bytes came: a fast wrong answer must not be measured."""
        got = [f"sha256:{answer.sha256}" for answer in reading.answers]
        if reading.errors or got != list(digests):
            wrong = sum(one != other for one, other in zip(got, digests, strict=False))
            raise BenchError(f"{self.title}: {wrong} wrong of {len(got)} answers; {reading.errors[:1]}")


def direct(origin: Origin) -> Server:
    return Server("direct", "direct", origin.port, origin.pid)


@contextmanager
def started(peer: Peer, folder: Path, origin: Origin) -> Iterator[Server]:
    """The peer over `folder`, which may hold the state of an earlier start."""
    folder.mkdir(exist_ok=True)
    place = Place(folder, free_port(), free_port(), origin.port)
    log = folder / "log"
    with running(peer.command(place), log) as process:
        wait_until(lambda: answers(place.port, "/v2/", peer.secure), process, log)
        time.sleep(CALM)
        resident = memory(process.pid).resident
        yield Server(peer.name, peer.title, place.port, process.pid, peer.prefix, peer, resident)


def seconds_to_start(peer: Peer, folder: Path, origin: Origin, images: int) -> float:
    """From fork to the first 200, over a store of so many images that stays for the next start."""
    new = not folder.exists()
    folder.mkdir(exist_ok=True)
    place = Place(folder, free_port(), free_port(), origin.port)
    command, log = peer.command(place), folder / "log"
    if new and peer.fill_store is not None:
        _seconds_until_ready(command, place, log)  # it makes its store, and marks it as its own
        peer.fill_store(folder / CONFIG, images)
    return _seconds_until_ready(command, place, log)


def _seconds_until_ready(command: Command, place: Place, log: Path) -> float:
    began = time.perf_counter()
    with running(command, log) as process:
        wait_until(lambda: answers(place.port, "/v2/"), process, log)
        return time.perf_counter() - began
