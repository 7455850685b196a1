"""The record of decisions: one JSON line each, in a file of its own or on standard error.

As for the log of requests, a decision costs an append, and a task writes batches from a thread. A warm
manifest whose pull is recorded costs 0.2 to 0.3 ms of processor where one that is not costs 0.03 to 0.08,
most of it for the long way that it takes (api/audit.py); without `pulls` it costs what it did.

A file that cannot be written loses lines, which is counted and said; it stops nobody, since a full disk would
then end all pulls. Nothing is synced: a power cut may take the last seconds.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import structlog
import trio
from prometheus_client import Counter

from cacheproxy import log as logging
from cacheproxy import wiring
from cacheproxy.api.admission import Admission
from cacheproxy.api.audit import Audited, AuditedCommands, AuditedTokens, Decision, Record, Tokens
from cacheproxy.config import Audit
from cacheproxy.edge.message import Application
from cacheproxy.log import quoted
from cacheproxy.request_log import logged_target

log = structlog.get_logger()

LAG = 0.2
"""Seconds a line waits for others at most."""

BATCH = 256
BACKLOG = 32_768
"""Decisions that wait (about 1 KiB each) before further ones are lost."""

SHUTDOWN = 2.0
"""Seconds to write what is left when the daemon stops."""

MODE = 0o640

LINES = Counter(
    "cacheproxy_audit_lines", "Lines of the audit log, by what became of them: written, lost", ["result"]
)
_WRITTEN, _LOST = LINES.labels("written"), LINES.labels("lost")


class AuditLog:
    """Call it with each decision; `run` writes the lines."""

    def __init__(self) -> None:
        self._descriptor: int | None = None
        self._waiting: list[tuple[float, Decision]] = []
        self._begun = trio.Event()
        self._thread = trio.CapacityLimiter(1)
        self._works = True
        self._torn = False
        """The last line in the file is not whole."""

    async def prepare(self, section: Audit) -> int | None:
        """The file that the section names, open. Raises CannotStart."""
        if not isinstance(section.file, Path):
            return None
        try:
            return await trio.to_thread.run_sync(_open, section.file)
        except OSError as error:
            raise wiring.CannotStart(f"audit.file: {section.file}: {error.strerror}") from error

    def enter(self, descriptor: int | None) -> None:
        """From now on: also after a rotation, when the file has another name."""
        before, self._descriptor = self._descriptor, descriptor
        self._torn = False
        if before is not None:
            os.close(before)

    def __call__(self, decision: Decision) -> None:
        if len(self._waiting) >= BACKLOG:
            _LOST.inc()
            return
        self._waiting.append((time.time(), decision))
        self._begun.set()

    async def run(self) -> None:
        """Write until cancelled, and then what is left: cancel it after the last request has ended."""
        try:
            while True:
                await self._begun.wait()
                await trio.sleep(LAG)
                await self._flush()
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + SHUTDOWN):
                await self._flush()
            self.enter(None)

    async def _flush(self) -> None:
        self._begun = trio.Event()
        while self._waiting:
            await trio.lowlevel.checkpoint()
            batch = self._waiting[:BATCH]
            del self._waiting[:BATCH]
            # A descriptor of its own, since a reload may close the other one meanwhile.
            target = os.dup(logging.STANDARD_ERROR if self._descriptor is None else self._descriptor)
            text = "".join(map(_line, batch)).encode("ascii", "backslashreplace")
            failure = await trio.to_thread.run_sync(self._write, target, text, limiter=self._thread)
            (_LOST if failure else _WRITTEN).inc(len(batch))
            self._say(failure)

    def _write(self, descriptor: int, text: bytes) -> str:
        """Why it could not be written; "": it was."""
        left = b"\n" + text if self._torn else text
        try:
            while left:
                left = left[os.write(descriptor, left) :]
        except OSError as error:
            self._torn = self._torn or len(left) < len(text)
            return error.strerror or str(error)
        finally:
            os.close(descriptor)
        self._torn = False
        return ""

    def _say(self, failure: str) -> None:
        if bool(failure) is not self._works:
            return
        self._works = not failure
        if failure:
            log.error("the audit log is not written; nothing is stopped for that", reason=failure)
        else:
            log.info("the audit log is written again")


def recorded(
    admission: Admission, tokens: Tokens | None, section: Audit, record: Record
) -> tuple[Admission, Tokens | None]:
    """Who comes in and where they get their tokens, with what is decided about them on record."""
    if section.file == "":
        return admission, tokens
    audited = Audited(admission, record, pulls=section.pulls)
    return audited, None if tokens is None else AuditedTokens(tokens, record)


def commanded(commands: Application, section: Audit, record: Record) -> Application:
    """Likewise the admin socket."""
    return commands if section.file == "" else AuditedCommands(commands, record)


def _open(file: Path) -> int:
    return os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, MODE)


def _line(item: tuple[float, Decision]) -> str:
    """No secret is in it: neither headers, nor bodies, nor values of parameters that are not the API's."""
    at, decision = item
    request = decision.request
    peer = request.peer.address
    return (
        f'{{"ts":"{_time(at)}","event":"decision","request":{quoted(request.id)},'
        f'"actor":{quoted(decision.actor)},"peer":{quoted("unix" if peer is None else str(peer))},'
        f'"what":{quoted(decision.what)},"repository":{quoted(decision.repository)},'
        f'"allowed":{"true" if decision.allowed else "false"},"rule":{quoted(decision.rule)},'
        f'"method":{quoted(request.method)},"target":{quoted(logged_target(request.target))}}}\n'
    )


def _time(at: float) -> str:
    """RFC 3339 in UTC, to the millisecond."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f".{int(at % 1 * 1000):03d}Z"
