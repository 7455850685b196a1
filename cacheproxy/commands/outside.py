"""What doctor finds outside: upstreams are asked as the daemon asks them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog
import trio

from cacheproxy import wiring
from cacheproxy.commands.checks import Finding
from cacheproxy.commands.stores import bucket, database, mark
from cacheproxy.commands.traces import collector
from cacheproxy.core.failures import Cause, UpstreamError

if TYPE_CHECKING:
    from structlog.typing import EventDict

    from cacheproxy.config import Config, Upstream
    from cacheproxy.upstream.registry import Registry

WITHIN = 10.0
"""Seconds for one upstream."""

SKEWED, WRONG = 10.0, 120.0
"""Seconds that the clock may be off before it is said, and before certificates and tokens suffer."""

ADVICE = {
    Cause.DNS: "look at its url and at /etc/resolv.conf",
    Cause.CONNECT: "a firewall, or the host is down; behind a proxy, set proxy for this upstream",
    Cause.TLS: "its certificate is not believed: set ca for this upstream, or look at the clock",
    Cause.TIMEOUT: "a firewall that drops packets, or it is overloaded",
    Cause.AUTH: "look at the credentials of this upstream",
    Cause.GATE: "if it is to be reached there, add the address to allow_addresses of this upstream",
    Cause.THROTTLED: "it counts our requests: with credentials it allows more",
    Cause.SERVER: "its own trouble: what is here is served meanwhile",
    Cause.PROTOCOL: "what answers is no registry: look at its url",
    Cause.MISSING: "there is no /v2/ there: look at its url",
}

PASSING = frozenset({Cause.TIMEOUT, Cause.THROTTLED, Cause.SERVER})
"""What tomorrow may be well without anybody's doing."""


@dataclass(frozen=True, slots=True)
class _Answer:
    finding: Finding
    skew: float | None
    """Seconds that its clock is ahead of ours."""


def ask(config: Config) -> list[Finding]:
    """All of them; and the clock, by what upstreams say of theirs."""
    said = _Said()
    structlog.configure(processors=[said])
    answers = trio.run(_ask_all, config.upstreams, said)
    looks = (database, bucket, mark, collector)
    places = [finding for look in looks for finding in trio.run(look, config)]
    return [*places, *(answer.finding for answer in answers), *_clock(answers)]


class _Said:
    """Instead of the log, where alone it is told why credentials could not be had: not for clients."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}

    def __call__(self, logger: object, method: str, event: EventDict) -> EventDict:
        if event["event"] == "no credentials":
            self._reasons[event["upstream"]] = event["reason"]
        raise structlog.DropEvent

    def about(self, error: UpstreamError) -> str:
        return self._reasons.get(error.upstream, error.message)


async def _ask_all(upstreams: Iterable[Upstream], said: _Said) -> list[_Answer]:
    found: dict[int, list[_Answer]] = {}
    async with trio.open_nursery() as nursery:
        for number, upstream in enumerate(upstreams):
            found[number] = []
            nursery.start_soon(_ask, upstream, found[number], said)
    return [answer for answers in found.values() for answer in answers]


async def _ask(upstream: Upstream, found: list[_Answer], said: _Said) -> None:
    async with AsyncExitStack() as opened, trio.open_nursery() as renewals:
        try:
            settings = wiring.upstream_settings(upstream, "cacheproxy-doctor")
            registry = await opened.enter_async_context(wiring.open_registry(settings, renewals))
        except wiring.CannotStart as error:
            found.append(_Answer(Finding("fail", upstream.prefix, str(error), "look at that file"), None))
        else:
            found += [
                await _ping(upstream, registry, number, said) for number in range(len(registry.endpoints))
            ]
        renewals.cancel_scope.cancel()


async def _ping(upstream: Upstream, registry: Registry, endpoint: int, log: _Said) -> _Answer:
    host = registry.endpoints[endpoint].url.host
    name = upstream.prefix if endpoint == 0 else f"{upstream.prefix} ({host})"
    began = trio.current_time()
    try:
        with trio.fail_after(2 * WITHIN):  # with all that a login takes
            clock = await registry.ping(endpoint, WITHIN)
    except UpstreamError as error:
        finding = Finding("fail", name, log.about(error), ADVICE[error.root])
        return _Answer(replace(finding, level="warn") if error.root in PASSING else finding, None)
    except trio.TooSlowError:
        said = f"no answer within {2 * WITHIN:.0f} s"
        return _Answer(Finding("warn", name, said, ADVICE[Cause.TIMEOUT]), None)
    login = "as nobody" if upstream.credentials is None else "with its credentials"
    said = f"{host} answers {login}, in {trio.current_time() - began:.2f} s"
    return _Answer(Finding("ok", name, said), None if clock is None else clock - time.time())


def _clock(answers: Iterable[_Answer]) -> list[Finding]:
    """By most of them: one upstream's clock may be wrong."""
    skews = [answer.skew for answer in answers if answer.skew is not None]
    if not skews:
        return [Finding("warn", "clock", "no upstream said what time it is", "compare it by hand")]
    off = statistics.median(skews)
    said = f"{abs(off):.0f} s {'behind' if off > 0 else 'ahead of'} the upstreams'"
    advice = "set the clock: tokens and certificates go by it (timedatectl set-ntp true)"
    if abs(off) >= WRONG:
        return [Finding("fail", "clock", said, advice)]
    if abs(off) >= SKEWED:
        return [Finding("warn", "clock", said, advice)]
    return [Finding("ok", "clock", f"within {max(abs(off), 1):.0f} s of the upstreams'")]
