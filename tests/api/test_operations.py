from __future__ import annotations

import ipaddress

import pytest
import trio
from trio.testing import MockClock

from cacheproxy.api.operations import Check, OperatorDoor
from cacheproxy.edge.message import Peer, Request, Response


async def fine() -> None:
    pass


async def broken() -> None:
    raise OSError("the disk is gone")


async def hanging() -> None:
    await trio.sleep_forever()


async def ask(path: str, method: str = "GET", **checks: Check) -> Response:
    async def no_body(_: int) -> bytes:
        return b""

    peer = Peer(ipaddress.ip_address("127.0.0.1"), "http")
    request = Request(method, path, {"host": "localhost"}, peer, "00000000000000aa", no_body)
    return await OperatorDoor(checks or {"database": fine}).handle(request)


@pytest.mark.parametrize("path", ["/livez", "/startupz"])
async def test_alive_is_alive(path: str) -> None:
    assert (await ask(path)).status == 200


async def test_ready_when_all_checks_pass() -> None:
    response = await ask("/readyz", database=fine, store=fine)
    assert (response.status, response.body) == (200, b"database: ok\nstore: ok\n")


async def test_not_ready_says_what_is_wrong() -> None:
    response = await ask("/readyz", database=fine, store=broken)
    assert (response.status, response.body) == (503, b"database: ok\nstore: OSError: the disk is gone\n")


async def test_a_check_that_hangs_is_a_failure(autojump_clock: MockClock) -> None:
    response = await ask("/readyz", database=hanging)
    assert (response.status, response.body) == (503, b"database: no answer within 5 s\n")


async def test_metrics_are_in_the_exposition_format() -> None:
    response = await ask("/metrics")
    assert dict(response.headers)["Content-Type"].startswith("text/plain")
    assert isinstance(response.body, bytes)
    assert b"# TYPE cacheproxy_requests_total counter" in response.body


@pytest.mark.parametrize("path", ["/", "/v2/", "/metrics/x"])
async def test_there_is_nothing_else(path: str) -> None:
    assert (await ask(path)).status == 404


async def test_nothing_is_written_here() -> None:
    assert (await ask("/livez", "POST")).status == 405


def test_nothing_is_answered_at_once() -> None:
    door = OperatorDoor({})
    assert door.immediate("GET", "/livez", {}, Peer(None, "http")) is None


def test_what_the_edge_refuses_is_told_in_plain_text() -> None:
    assert OperatorDoor({}).refuse(431, "too long", "id").body == b"too long\n"
