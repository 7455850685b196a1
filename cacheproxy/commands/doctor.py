"""What is wrong around the daemon, and what to do about it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cacheproxy.commands.daemon import Daemon, NoDaemon, Refused
from cacheproxy.commands.events import state
from cacheproxy.commands.options import Load, as_json, config_file, report
from cacheproxy.commands.words import table

if TYPE_CHECKING:
    from cacheproxy.commands.checks import Finding


SERVICE_STATE = Path("/var/lib/cacheproxy")
"""StateDirectory= of systemd/cacheproxy.service."""


@click.command()
@config_file
@as_json
@click.pass_obj
def doctor(load: Load, file: Path | None, machine: bool) -> None:
    """Look at folders, disk, database, bucket, traces, clock and each upstream. Ends with 1 if any fails."""
    from cacheproxy.commands import checks
    from cacheproxy.commands.outside import ask

    _as_the_service(file)
    config = load(file)
    daemon, finding = _daemon(Daemon.of(config))
    findings: list[Finding] = [finding, *checks.folders(config, daemon), *checks.disk(config)]
    findings += _sweep(Daemon.of(config))
    findings += _webhooks(Daemon.of(config))
    findings += ask(config)
    report([asdict(finding) for finding in findings], machine, lines)
    if any(finding.level == "fail" for finding in findings):
        sys.exit(1)


def _as_the_service(file: Path | None) -> None:
    """A system-wide configuration is the service's, whose manager says where its state is."""
    if (file is None or file.is_relative_to("/etc")) and SERVICE_STATE.is_dir():
        os.environ.setdefault("STATE_DIRECTORY", str(SERVICE_STATE))


def _daemon(daemon: Daemon) -> tuple[int | None, Finding]:
    """The user that it runs as; None: it does not run."""
    from cacheproxy.commands.checks import Finding

    try:
        user = daemon.user()
    except NoDaemon as error:
        return None, Finding("warn", "daemon", "is not running, or may not be asked", error.message)
    return user, Finding("ok", "daemon", f"is running as user {user}")


def _sweep(daemon: Daemon) -> Iterator[Finding]:
    """Whether the running one has stopped removing what no row names: nobody else can know."""
    from cacheproxy.commands.checks import Finding

    try:
        stopped = daemon.get("/status")["condition"]["sweep_stopped"]
    except (NoDaemon, Refused):
        return
    if stopped:
        yield Finding("fail", "sweep", stopped, "until then they take room, that is all")


def _webhooks(daemon: Daemon) -> Iterator[Finding]:
    """Which of them hear nothing: nobody else can know."""
    from cacheproxy.commands.checks import Finding

    try:
        sinks = daemon.get("/webhooks")
    except (NoDaemon, Refused):
        return
    for sink in sinks:
        said = f"{state(sink)}; {sink['waiting']} events wait, {sink['dead']} were given up"
        advice = "see `cacheproxy events list`, or `events list --dead`; look at its address and its secret"
        what = f"webhook {sink['sink']}"
        bad = sink["stuck"] or sink["dead"]
        yield Finding("warn", what, said, advice) if bad else Finding("ok", what, said)


def lines(findings: Any) -> Iterator[str]:
    rows = table((finding["level"], finding["what"], finding["said"]) for finding in findings)
    for row, finding in zip(rows, findings, strict=True):
        yield row
        if finding["advice"]:
            yield f"      -> {finding['advice']}"
