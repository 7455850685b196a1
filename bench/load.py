"""The two load generators: wrk for small answers, bench.reader for blobs. Both in processes of their own."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import pusher, tools
from bench.processes import BenchError
from bench.reader import ACCEPT, Answer, Plan

GRACE = 20.0
"""Seconds that a generator has beyond its own deadline before it is killed."""
PUSHED_WITHIN = 120.0
REPORT = Path(__file__).with_name("wrk.lua")


@dataclass(frozen=True)
class Requests:
    """What wrk saw. Times in seconds."""

    count: int
    elapsed: float
    median: float
    p99: float
    failures: int
    cpu: float


@dataclass(frozen=True)
class Reading:
    """What bench.reader saw: for each client its answers in order."""

    clients: Sequence[Sequence[Answer]]
    errors: Sequence[str]
    cpu: float

    @property
    def answers(self) -> list[Answer]:
        return [answer for client in self.clients for answer in client]

    @property
    def elapsed(self) -> float:
        return max(answer.ended for answer in self.answers)

    @property
    def size(self) -> int:
        return sum(answer.size for answer in self.answers)

    def failures(self) -> int:
        return len(self.errors) + sum(answer.status != 200 for answer in self.answers)


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def request(
    port: int,
    path: str,
    connections: int,
    seconds: float,
    secure: bool = False,
    authorization: str = "",
) -> Requests:
    """One path, again and again, by wrk with one thread."""
    scheme = "https" if secure else "http"
    argv = (
        *(tools.path("wrk"), "-t1", f"-c{connections}", f"-d{max(round(seconds), 1)}s", "-s", str(REPORT)),
        *("-H", f"Accept: {ACCEPT}"),
        *(("-H", f"Authorization: {authorization}") if authorization else ()),
        f"{scheme}://127.0.0.1:{port}{path}",
    )
    before = _children()
    done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds + GRACE, check=False)
    told = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not told:
        raise BenchError(f"wrk ended with {done.returncode}: {done.stdout}{done.stderr}")
    return Requests(**json.loads(told[-1]), cpu=_children() - before)


def push(plan: pusher.Plan) -> pusher.Report:
    """Raises BenchError when anything was refused: what is acknowledged is what is measured."""
    done = subprocess.run(
        (sys.executable, "-m", "bench.pusher"),
        input=json.dumps(asdict(plan)),
        capture_output=True,
        text=True,
        timeout=PUSHED_WITHIN,
        check=False,
        cwd=tools.REPOSITORY,
    )
    if done.returncode:
        raise BenchError(f"the pusher ended with {done.returncode}: {done.stderr[-1000:]}")
    report = pusher.Report(**json.loads(done.stdout))
    if report.failures:
        raise BenchError(f"{report.failures} clients failed: {report.error}")
    return report


def read(plan: Plan) -> Reading:
    """Raises BenchError when nothing at all was answered: then there is nothing to measure."""
    done = subprocess.run(
        (sys.executable, "-m", "bench.reader"),
        input=json.dumps(asdict(plan)),
        capture_output=True,
        text=True,
        timeout=plan.within + GRACE,
        check=False,
        cwd=tools.REPOSITORY,
    )
    if done.returncode:
        raise BenchError(f"the reader ended with {done.returncode}: {done.stderr[-1000:]}")
    told = json.loads(done.stdout)
    clients = [[Answer(**answer) for answer in client["answers"]] for client in told["clients"]]
    errors = [client["error"] for client in told["clients"] if client["error"]]
    if all(answer.status != 200 for client in clients for answer in client):
        statuses = {answer.status for client in clients for answer in client}
        raise BenchError(f"no answer was 200 but {statuses}: {errors[:1]}")
    return Reading(clients, errors, told["cpu"])
