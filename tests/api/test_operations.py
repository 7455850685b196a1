from __future__ import annotations

import ipaddress

import pytest
import trio
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from trio.testing import MockClock

from cacheproxy.api.meter import Meter
from cacheproxy.api.operations import BELIEVED, CHECK_LIMIT, Check, OperatorDoor
from cacheproxy.edge.message import Exchange, Peer, Request, Response


async def fine() -> None:
    pass


async def broken() -> None:
    raise OSError("the disk is gone")


async def hanging() -> None:
    await trio.sleep_forever()


def request(path: str, method: str = "GET") -> Request:
    async def no_body(_: int) -> bytes:
        return b""

    peer = Peer(ipaddress.ip_address("127.0.0.1"), "http")
    return Request(method, path, {"host": "localhost"}, peer, "00000000000000aa", no_body)


async def ask(path: str, method: str = "GET", **checks: Check) -> Response:
    return await OperatorDoor(checks or {"database": fine}).handle(request(path, method))


@pytest.mark.parametrize("path", ["/livez", "/startupz"])
async def test_alive_is_alive(path: str) -> None:
    assert (await ask(path)).status == 200


async def test_ready_when_all_checks_pass() -> None:
    response = await ask("/readyz", database=fine, store=fine)
    assert (response.status, response.body) == (200, b"ok\n")


@pytest.mark.parametrize("query", ["?verbose", "?verbose=1"])
async def test_each_check_is_told_on_demand(query: str) -> None:
    response = await ask(f"/readyz{query}", database=fine, store=fine)
    assert (response.status, response.body) == (200, b"database: ok\nstore: ok\n")


async def test_an_answer_is_believed_for_a_moment(autojump_clock: MockClock) -> None:
    asked = list[float]()

    async def counted() -> None:
        asked.append(trio.current_time())
        await trio.sleep(1)

    door = OperatorDoor({"store": counted})
    async with trio.open_nursery() as nursery:
        for _ in range(9):
            nursery.start_soon(door.handle, request("/readyz"))
    assert len(asked) == 1
    await trio.sleep(BELIEVED)
    assert (await door.handle(request("/readyz"))).status == 200
    assert len(asked) == 2


async def test_what_is_wrong_is_asked_again_at_once() -> None:
    failures = [OSError("away")]

    async def recovers() -> None:
        if failures:
            raise failures.pop()

    door = OperatorDoor({"store": recovers})
    assert [(await door.handle(request("/readyz"))).status for _ in range(2)] == [503, 200]


async def test_checks_that_hang_do_so_together(autojump_clock: MockClock) -> None:
    began = trio.current_time()
    response = await ask("/readyz", database=hanging, store=hanging)
    assert response.status == 503
    assert trio.current_time() - began == CHECK_LIMIT


async def test_not_ready_says_what_is_wrong() -> None:
    response = await ask("/readyz", database=fine, store=broken)
    assert (response.status, response.body) == (503, b"database: ok\nstore: OSError: the disk is gone\n")


async def test_a_check_that_hangs_is_a_failure(autojump_clock: MockClock) -> None:
    response = await ask("/readyz", database=hanging)
    assert (response.status, response.body) == (503, b"database: no answer within 5 s\n")


async def test_who_reads_openmetrics_gets_the_ids_of_traces_too() -> None:
    exchange = Exchange(Peer(None, "http"), "GET", "/v2/", 200, 0, 0.0, 0.1, 0.1, outcome="exemplary")
    exchange.trace = "0af7651916cd43dd8448eb211c80319c"
    Meter().count(exchange)
    scrape = request("/metrics")
    scrape.headers["accept"] = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    response = await OperatorDoor({}).handle(scrape)
    assert dict(response.headers)["Content-Type"].startswith("application/openmetrics-text")
    assert isinstance(response.body, bytes)
    parsed = text_string_to_metric_families(response.body.decode())  # type: ignore[no-untyped-call]
    families = {family.name: family for family in parsed}
    exemplars = {
        sample.exemplar.labels["trace_id"]
        for sample in families["cacheproxy_request_seconds"].samples
        if sample.exemplar is not None and sample.labels["outcome"] == "exemplary"
    }
    assert exemplars == {exchange.trace}


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
