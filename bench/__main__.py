"""`python -m bench`: the whole benchmark, or a part of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from http.client import HTTPException
from pathlib import Path
from statistics import median

import click

from bench import measures, report, tools
from bench.lines import LINES, Line
from bench.measures import FULL, QUICK, Run, Sample, Scale
from bench.origin import Origin, origin
from bench.peers import PEERS
from bench.processes import BenchError
from bench.report import Results
from bench.servers import Server, direct, started

DOCUMENT = tools.REPOSITORY / "docs" / "benchmarks.md"
OURS = ("ours", "single", "ours-tls", "hosting")
_TOLD = frozenset(("direct", "single", "ours-tls", "distribution-tls", "hosting", "registry"))
"""Servers whose versions another one tells, or none."""
TROUBLE = (BenchError, OSError, subprocess.SubprocessError, HTTPException)
"""What a server, a load generator or the origin may do to us."""
IDLE = 0.5
"""Load average above which the numbers are not to be trusted."""
RUN_WITHIN = 1800
"""Seconds after which the run gives up, whatever hangs: five times what it takes, plus compiling a peer."""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Benchmark:
    """One run: the servers that are up, the samples so far, and what went wrong."""

    def __init__(self, lines: list[Line], peers: set[str], scale: Scale) -> None:
        self.lines = lines
        self.peers = peers
        self.scale = scale
        self.servers: dict[str, Server] = {}
        self.samples: defaultdict[tuple[str, str], list[Sample]] = defaultdict(list)
        self.failed: dict[tuple[str, str], str] = {}

    def run(self) -> None:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cacheproxy-bench-")))
            source = stack.enter_context(origin(folder))
            run = Run(source, self.scale, folder)
            self._start_all(stack, folder, source)
            self._warm_all(run)
            for line in self.lines:
                self._measure(run, line)

    def _wanted(self) -> list[str]:
        named = {peer for line in self.lines for peer in line.peers}
        return [name for name in PEERS if name in named & self.peers]

    def _start_all(self, stack: ExitStack, folder: Path, source: Origin) -> None:
        self.servers["direct"] = direct(source)
        for name in self._wanted():
            try:
                self.servers[name] = stack.enter_context(started(PEERS[name], folder / name, source))
            except TROUBLE as error:
                if name in OURS:
                    raise
                self._fail("start-up", name, error)

    def _warm_all(self, run: Run) -> None:
        needing = {peer for line in self.lines if line.warm for peer in line.peers}
        for name in [name for name in self.servers if name in needing]:
            try:
                measures.warm(run, self.servers[name])
            except TROUBLE as error:
                del self.servers[name]
                self._fail("warming", name, error)

    def _measure(self, run: Run, line: Line) -> None:
        taking = [self.servers[peer] for peer in line.peers if peer in self.servers]
        began = time.monotonic()
        for turn in range(self.scale.rounds if line.short else 1):
            first = turn % len(taking) if taking else 0
            for server in taking[first:] + taking[:first]:
                if (line.name, server.name) not in self.failed:
                    self._sample(run, line, server, turn)
        say(f"{line.title}: {time.monotonic() - began:.0f} s")

    def _sample(self, run: Run, line: Line, server: Server, turn: int) -> None:
        try:
            self.samples[line.name, server.name].append(line.measure(run, server, turn))
        except TROUBLE as error:
            self._fail(line.name, server.name, error)

    def _fail(self, line: str, server: str, error: Exception) -> None:
        self.failed[line, server] = str(error)
        say(f"{server} failed at {line}: {error}")

    def results(self) -> Results:
        medians = {
            key: {name: median(sample[name] for sample in samples) for name in samples[0]}
            for key, samples in self.samples.items()
            if samples and key not in self.failed
        }
        titles = {"direct": "direct", **{name: peer.title for name, peer in PEERS.items()}}
        versions = {name: PEERS[name].version() for name in self.servers if name not in _TOLD}
        return Results(medians, self.failed, titles, versions)


def _names(known: list[str]) -> Callable[[click.Context, click.Parameter, str | None], list[str]]:
    """A callback that takes names apart and refuses unknown ones; no value: all of them."""

    def split(_context: click.Context, _parameter: click.Parameter, value: str | None) -> list[str]:
        names = known if value is None else value.split(",")
        if unknown := set(names) - set(known):
            raise click.BadParameter(f"{', '.join(sorted(unknown))}: not one of {', '.join(known)}")
        return names

    return split


@click.command()
@click.option("--only", callback=_names(list(LINES)), metavar="LINE,...", help=", ".join(LINES))
@click.option("--peers", callback=_names(list(PEERS)), metavar="PEER,...", help=", ".join(PEERS))
@click.option("--quick", is_flag=True, help="Smaller blobs, one round: to see that it works.")
@click.option("--write", is_flag=True, help="Rewrite docs/benchmarks.md.")
def main(only: list[str], peers: list[str], quick: bool, write: bool) -> None:
    """Measure this daemon beside its peers, as pull-through caches of one origin."""
    if write and (quick or set(only) != set(LINES) or set(peers) != set(PEERS)):
        raise click.UsageError("--write is for a whole run: without --only, --peers and --quick")
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))
    signal.alarm(RUN_WITHIN)
    if os.getloadavg()[0] > IDLE:
        say(f"the machine is not idle (load {os.getloadavg()[0]:.1f}): do not trust these numbers")
    scale = QUICK if quick else FULL
    benchmark = Benchmark([LINES[name] for name in only], set(peers), scale)
    try:
        tools.path("wrk")
        benchmark.run()
    except TROUBLE as error:
        raise click.ClickException(str(error)) from error
    results = benchmark.results()
    print(f"\n{report.bars_table(results)}\n\n{report.tables(results)}")
    if write:
        DOCUMENT.write_text(report.document(results, scale.rounds))
    sys.exit(any(server in OURS for _, server in benchmark.failed))


if __name__ == "__main__":
    main()
