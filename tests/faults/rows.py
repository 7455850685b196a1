"""The fault matrix: what goes wrong upstream, and what a client hears of it by what the fault befell.

A fault lasts until it is healed, so what is told is what is left after all that is tried again.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import trustme

from tests.faults.host import NAME, Host
from tests.faults.house import House
from tests.origin import Framing, Plan, faults
from tests.origin.content import OCI_INDEX
from tests.origin.faults import Fault
from tests.origin.plan import End
from tests.upstream.authority import server_context


@dataclass(frozen=True)
class Told:
    """An OCI error: `cause` is its detail's. `by_ns` is the status where `?ns=` hears another one."""

    status: int
    code: str
    cause: str
    may_be_stale: bool = True
    """What is here may be served instead."""
    by_ns: int | None = None


class Well:
    """Nothing: it is whole and right."""


class Cut:
    """A connection that is cut: never an answer that is short and looks whole."""


Outcome = Told | Well | Cut

WELL, CUT = Well(), Cut()
LATE = Told(504, "UNAVAILABLE", "timeout")
BROKEN = Told(503, "UNAVAILABLE", "connect")
UNKNOWN = Told(503, "UNAVAILABLE", "dns")
DISTRUSTED = Told(502, "UNAVAILABLE", "tls")
DOWN = Told(502, "UNAVAILABLE", "5xx")
LIED = Told(502, "UNAVAILABLE", "protocol", may_be_stale=False)
ASTRAY = Told(502, "UNAVAILABLE", "gate", may_be_stale=False)
DENIED = Told(403, "DENIED", "auth")
LIMITED = Told(429, "TOOMANYREQUESTS", "429", by_ns=503)
NO_MANIFEST = Told(404, "MANIFEST_UNKNOWN", "404", may_be_stale=False)
NO_BLOB = Told(404, "BLOB_UNKNOWN", "404", may_be_stale=False)

Inflict = Callable[[House, Host, Mapping[str, str]], Awaitable[None]]
"""On requests of a house's host that match."""


@dataclass(frozen=True)
class Row:
    name: str
    inflict: Inflict
    manifest: Outcome
    blob: Outcome
    """Of a large one, most of which is sent before it is proven."""
    token: Outcome
    small: Outcome | None = None
    """Of a small one, which is sent once it is proven; None: as for a large one."""
    bodies_only: bool = False
    """An answer to HEAD has nothing that could be wrong."""
    hasty: bool = False
    tls: bool = False


def answers(do: Fault) -> Inflict:
    """Each answer goes wrong."""

    async def inflict(_: House, host: Host, match: Mapping[str, str]) -> None:
        host.origin.fault(match, do)

    return inflict


async def away(_: House, host: Host, __: Mapping[str, str]) -> None:
    await host.stop()


async def nameless(house: House, host: Host, _: Mapping[str, str]) -> None:
    house.names.known.clear()
    await host.stop()
    await host.start()


async def impostor(_: House, host: Host, __: Mapping[str, str]) -> None:
    await host.pretend(server_context(NAME, of=trustme.CA()))


async def in_a_circle(house: House, host: Host, match: Mapping[str, str]) -> None:
    def change(plan: Plan) -> None:
        faults.redirect(f"{house.url(host)}/v2/round/and/round?{random.random()}")(plan)

    host.origin.fault(match, change)
    host.origin.fault({"path": "/v2/round"}, change)


async def realm_elsewhere(house: House, _: Host, __: Mapping[str, str]) -> None:
    house.registry.origin.realm = f"http://{NAME}:{house.storage.port}/token"


async def never_authorized(house: House, host: Host, match: Mapping[str, str]) -> None:
    challenge = f'Bearer realm="{house.url(house.auth)}/token",service="origin"'
    host.origin.fault(match, faults.status(401, {"WWW-Authenticate": challenge}))


def last_byte(plan: Plan) -> None:
    """All but one byte arrive, then RST."""
    plan.end, plan.end_after = End.RESET, plan.length - 1


def drip(plan: Plan) -> None:
    """Well below the least rate, and never a stall."""
    plan.rate = 20.0


TOO_LARGE = bytes((4 << 20) + 1)
ENCODED = faults.header("Content-Encoding", "x-gzip")
RETYPED = faults.header("Content-Type", OCI_INDEX)
JUNK = faults.header("X-Junk", "x" * 1_000_000)

ROWS = (
    Row("no answer", answers(faults.stall(-1)), LATE, LATE, LATE, hasty=True),
    Row("stall mid-body", answers(faults.stall(10)), LATE, CUT, LATE, LATE, bodies_only=True, hasty=True),
    Row("slow drip", answers(drip), LATE, CUT, LATE, bodies_only=True, hasty=True),
    Row("reset before the head", answers(faults.reset(-1)), BROKEN, BROKEN, BROKEN),
    Row("reset in the head", answers(faults.reset_in_head()), BROKEN, BROKEN, BROKEN),
    Row("reset before the body", answers(faults.reset(0)), BROKEN, BROKEN, BROKEN, bodies_only=True),
    Row("reset mid-body", answers(faults.reset(10)), BROKEN, CUT, BROKEN, BROKEN, bodies_only=True),
    Row("reset at the last byte", answers(last_byte), BROKEN, CUT, BROKEN, BROKEN, bodies_only=True),
    Row("truncated", answers(faults.truncate(10)), BROKEN, CUT, BROKEN, BROKEN, bodies_only=True),
    Row("wrong bytes", answers(faults.wrong_bytes()), LIED, CUT, LIED, LIED, bodies_only=True),
    Row("too long", answers(faults.longer(10)), LIED, LIED, LIED, bodies_only=True),
    Row("length says more", answers(faults.claims(+10)), BROKEN, LIED, BROKEN, bodies_only=True),
    Row("length says less", answers(faults.claims(-10)), LIED, LIED, LIED, bodies_only=True),
    Row("no length, chunked", answers(faults.no_length()), WELL, WELL, WELL),
    Row("no length, closed", answers(faults.no_length(Framing.CLOSE)), WELL, WELL, WELL),
    Row(
        "too long without a length",
        answers(faults.both(faults.longer(10), faults.no_length())),
        *(LIED, WELL, LIED),
        bodies_only=True,
    ),
    Row("gzip", answers(faults.gzip()), LIED, LIED, LIED, bodies_only=True),
    Row("gzip by its head only", answers(ENCODED), LIED, LIED, LIED, bodies_only=True),
    Row("4 MiB and a byte", answers(faults.status(200, body=TOO_LARGE)), LIED, LIED, LIED),
    Row(
        "4 MiB and a byte without a length",
        answers(faults.both(faults.status(200, body=TOO_LARGE), faults.no_length())),
        *(LIED, CUT, LIED, LIED),
    ),
    Row("a page for people", answers(faults.status(200, body=b"<html>")), LIED, LIED, LIED),
    Row("another type", answers(RETYPED), LIED, WELL, WELL, bodies_only=True),
    Row("a head without end", answers(JUNK), LIED, LIED, LIED),
    Row("429", answers(faults.status(429, {"Retry-After": "3600"})), LIMITED, LIMITED, LIMITED),
    Row("5xx storm", answers(faults.status(503)), DOWN, DOWN, DOWN),
    Row("refused", away, BROKEN, BROKEN, BROKEN),
    Row("no such name", nameless, UNKNOWN, UNKNOWN, UNKNOWN),
    Row("TLS not trusted", impostor, DISTRUSTED, DISTRUSTED, DISTRUSTED, tls=True),
    Row("401 for ever", never_authorized, DENIED, DENIED, DENIED),
    Row("401 without a challenge", answers(faults.status(401)), DENIED, DENIED, DENIED),
    Row("403", answers(faults.status(403)), DENIED, DENIED, DENIED),
    Row("404", answers(faults.status(404)), NO_MANIFEST, NO_BLOB, DENIED),
    Row("redirect loop", in_a_circle, LIED, LIED, ASTRAY),
    Row("https to http", answers(faults.redirect(f"http://{NAME}:1/")), *(ASTRAY,) * 3, tls=True),
    Row("redirect inside", answers(faults.redirect("http://10.1.2.3/")), ASTRAY, ASTRAY, ASTRAY),
    Row("redirect to metadata", answers(faults.redirect("http://169.254.169.254/")), *(ASTRAY,) * 3),
)
