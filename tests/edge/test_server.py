"""Accepting, counting, turning away, and the orderly end."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import pytest
import trio
import trio.testing
from prometheus_client import REGISTRY

from cacheproxy.edge.limits import Limits
from cacheproxy.edge.listeners import open_listeners
from cacheproxy.edge.message import Exchange, Request, Response
from cacheproxy.edge.server import serve
from tests.edge.harness import Client, FileView, Growing, Running, Scripted, open_descriptors, serving


async def settle() -> None:
    """Let closed clients be noticed."""
    await trio.testing.wait_all_tasks_blocked(0.01)


async def test_many_clients_at_once(server: Running) -> None:
    async def one(number: int) -> None:
        client = await server.connect()
        for _ in range(3):
            assert (await client.get(f"/{number}")).body == b"/%d" % number
        await client.aclose()

    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(one, number)
    assert len(server.exchanges) == 300
    assert len({exchange.id for exchange in server.exchanges}) == 300


async def test_several_listeners(app: Scripted, tmp_path: Path) -> None:
    listeners = open_listeners(["127.0.0.1:0", "[::1]:0", f"unix:{tmp_path / 's'}"])
    names = [listener.getsockname() for listener in listeners]
    exchanges: list[Exchange] = []
    async with trio.open_nursery() as nursery:

        async def run(task_status: trio.TaskStatus[None]) -> None:
            await serve(
                listeners,
                app,
                limits=Limits(),
                log=exchanges.append,
                drain=trio.Event(),
                task_status=task_status,
            )

        await nursery.start(run)
        streams = [
            await trio.open_tcp_stream("127.0.0.1", names[0][1]),
            await trio.open_tcp_stream("::1", names[1][1]),
            await trio.open_unix_socket(names[2]),
        ]
        for stream in streams:
            assert (await Client(stream).get("/")).status == 200
            await stream.aclose()
        nursery.cancel_scope.cancel()
    assert [str(exchange.peer.address) for exchange in exchanges] == ["127.0.0.1", "::1", "None"]


async def test_over_the_total_there_is_503_at_once(app: Scripted) -> None:
    async with serving(app, Limits(connections=2)) as server:
        first, second = await server.connect(), await server.connect()
        await first.get("/")
        await second.get("/")
        third = await server.connect()
        answer = await third.answer()
        assert (answer.status, answer.headers["connection"]) == (503, "close")
        assert await third.ended()
        await first.aclose()
        await settle()
        assert (await (await server.connect()).get("/")).status == 200


async def test_one_address_has_its_share(app: Scripted) -> None:
    async with serving(app, Limits(per_address=1)) as server:
        await (await server.connect()).get("/")
        assert (await (await server.connect()).answer()).status == 503


async def test_a_listed_proxy_may_have_any_number(app: Scripted) -> None:
    proxies = [ipaddress.ip_network("127.0.0.1")]
    async with serving(app, Limits(per_address=1), trusted_proxies=proxies) as server:
        for _ in range(3):
            assert (await (await server.connect()).get("/")).status == 200


class Overloaded(socket.socket):
    """A listener that finds no free descriptor for a while."""

    failures: ClassVar = [errno.ECONNABORTED, errno.EMFILE, errno.ENFILE, errno.EHOSTUNREACH, errno.ETIMEDOUT]

    def accept(self) -> tuple[socket.socket, object]:
        if self.failures:
            number = self.failures.pop(0)
            raise OSError(number, os.strerror(number))
        return super().accept()


async def test_without_free_descriptors_it_waits_and_goes_on(
    app: Scripted, clock: trio.testing.MockClock
) -> None:
    (plain,) = open_listeners(["127.0.0.1:0"])
    listener = Overloaded(fileno=plain.detach())
    async with trio.open_nursery() as nursery:

        async def run(task_status: trio.TaskStatus[None]) -> None:
            await serve(
                [listener],
                app,
                limits=Limits(),
                log=lambda _: None,
                drain=trio.Event(),
                task_status=task_status,
            )

        await nursery.start(run)
        async with await trio.open_tcp_stream("127.0.0.1", listener.getsockname()[1]) as stream:
            assert (await Client(stream).get("/")).status == 200
        assert Overloaded.failures == []
        nursery.cancel_scope.cancel()


async def test_a_drain_ends_idle_connections_and_serve(
    server: Running, clock: trio.testing.MockClock
) -> None:
    client, odd, fresh = await server.connect(), await server.connect(), await server.connect()
    await client.get("/")
    await odd.get("/", "Via: x", "Via: y")
    await settle()
    server.drain.set()
    for idle in (client, odd, fresh):
        assert await idle.ended()
    await server.ended.wait()
    assert trio.current_time() < 5
    with pytest.raises(OSError, match="all attempts to connect"):
        await server.connect()


async def test_a_drain_lets_running_answers_finish(server: Running, app: Scripted) -> None:
    view = Growing(b"0123456789", here=5)
    go = trio.Event()

    async def later(_: Request) -> Response:
        await go.wait()
        return Response(200, body=b"late")

    app.blob("/blob", view)
    app.routes["/later"] = later
    blob, late = await server.connect(), await server.connect()
    await blob.send(b"GET /blob HTTP/1.1\r\nHost: a\r\n\r\n")
    await late.send(b"GET /later HTTP/1.1\r\nHost: a\r\n\r\n")
    await view.waited.wait()
    await settle()
    server.drain.set()
    await settle()
    view.arrive(10)
    go.set()
    assert (await blob.answer()).body == b"0123456789"
    assert await blob.ended()
    answer = await late.answer()
    assert (answer.body, answer.headers["connection"]) == (b"late", "close")
    assert await late.ended()
    for client in (blob, late):
        await client.aclose()
    await server.ended.wait()


async def test_a_drain_does_not_wait_for_another_request_after_a_body_that_nobody_read(
    server: Running, clock: trio.testing.MockClock
) -> None:
    client = await server.connect()
    await client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
    await client.answer()
    server.drain.set()
    await settle()
    await client.send(b"hello")
    assert await client.ended()
    await server.ended.wait()
    assert trio.current_time() < 5


async def test_a_drain_answers_the_request_that_is_on_its_way_in(server: Running) -> None:
    client, half = await server.connect(), await server.connect()
    await client.get("/")
    await half.send(b"GET /half HTTP/1.1\r\n")
    await settle()
    await client.send(b"GET /in HTTP/1.1\r\nHost: a\r\n\r\n")
    server.drain.set()
    assert (await client.answer()).body == b"/in"
    assert await client.ended()
    await half.send(b"Host: a\r\n\r\n")
    answer = await half.answer()
    assert (answer.body, answer.headers["connection"]) == (b"/half", "close")


async def test_a_drain_cuts_what_does_not_finish(
    server: Running, app: Scripted, file: int, clock: trio.testing.MockClock
) -> None:
    view = Growing(b"0123456789", here=5)
    app.blob("/blob", view)
    client = await server.connect()
    await client.send(b"GET /blob HTTP/1.1\r\nHost: a\r\n\r\n")
    await view.waited.wait()
    began = trio.current_time()
    server.drain.set()
    await server.ended.wait()
    assert trio.current_time() - began == pytest.approx(30, abs=1)
    assert (await server.exchange()).aborted == "drain"
    assert view.closed == 1
    with pytest.raises(trio.BrokenResourceError):
        await client.read_to_the_end()


async def test_a_handler_that_fails_while_it_is_cut_ends_its_connection_only(
    server: Running, app: Scripted, clock: trio.testing.MockClock
) -> None:
    async def fails_at_the_end() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise RuntimeError("a defect")

    async def handler(_: Request) -> Response:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails_at_the_end)
            await trio.sleep_forever()
        raise AssertionError

    app.routes["/"] = handler
    client = await server.connect()
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await settle()
    server.drain.set()
    await server.ended.wait()
    assert (await server.exchange()).aborted == "drain"


async def test_a_log_that_fails_ends_connections_and_not_the_server(
    server: Running, clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(list[Exchange]):
        def append(self, _: Exchange) -> None:
            raise RuntimeError("a defect")

    with monkeypatch.context() as patch:
        patch.setattr(server, "exchanges", Failing())
        for data in (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"GET / HT", b"\0"):
            client = await server.connect()
            await client.send(data)
            with suppress(trio.BrokenResourceError):
                await client.read_to_the_end()
    assert (await (await server.connect()).get("/")).status == 200


async def test_cancelled_in_the_middle_it_closes_everything(app: Scripted, file: int) -> None:
    before = open_descriptors()
    view, stalled = Growing(b"0123456789", here=5), FileView(bytes(10_000_000), file)
    app.blob("/blob", view)
    app.blob("/stalled", stalled)
    async with serving(app) as server:
        for path in (b"/blob", b"/stalled"):
            client = await server.connect()
            await client.send(b"GET " + path + b" HTTP/1.1\r\nHost: a\r\n\r\n")
        await view.waited.wait()
        await settle()
    assert (view.closed, stalled.closed) == (1, 1)
    assert [exchange.aborted for exchange in server.exchanges].count("drain") == 2
    assert open_descriptors() == before


async def test_connections_of_every_end_leave_nothing_behind(
    server: Running, app: Scripted, file: int
) -> None:
    app.blob("/blob", FileView(bytes(3_000_000), file))
    before = open_descriptors()
    tasks = trio.lowlevel.current_statistics().tasks_living
    for data in (
        b"",
        b"GET",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"GET /blob HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
        b"\0",
    ):
        for _ in range(20):
            client = await server.connect()
            await client.send(data)
            await trio.lowlevel.checkpoint()
            await client.aclose()
    await settle()
    assert open_descriptors() == before
    assert trio.lowlevel.current_statistics().tasks_living == tasks


async def test_connections_are_counted(app: Scripted, clock: trio.testing.MockClock) -> None:
    def value(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(name, labels) or 0.0

    open_before = value("cacheproxy_connections")
    refused = value("cacheproxy_connections_refused_total", limit="total")
    cut = value("cacheproxy_connections_cut_total", why="idle")
    async with serving(app, Limits(connections=1)) as server:
        client = await server.connect()
        await client.get("/")
        assert value("cacheproxy_connections") == open_before + 1
        await (await server.connect()).answer()
        assert value("cacheproxy_connections_refused_total", limit="total") == refused + 1
        assert await client.ended()
        assert value("cacheproxy_connections_cut_total", why="idle") == cut + 1
        assert value("cacheproxy_connections") == open_before
