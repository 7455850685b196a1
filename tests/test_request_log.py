from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address

import pytest
import trio

from cacheproxy.config.sections import Log
from cacheproxy.edge.message import Exchange, Peer
from cacheproxy.request_log import (
    BACKLOG,
    BATCH,
    PIPE_BUF,
    SHUTDOWN,
    JsonLines,
    RequestLog,
    console_line,
    logged_target,
    request_log,
)

HOSTILE = 'x\r\n{"level":"y"}\x1b[2J\x00"\\'

PULL = Exchange(
    peer=Peer(ip_address("192.0.2.7"), "http"),
    method="GET",
    target="/v2/library/alpine/manifests/latest?ns=docker.io",
    status=200,
    sent=1638,
    started=1_700_000_000.25,
    seconds=0.125,
    first_byte=0.1,
    outcome="hit",
    upstream="docker.io",
    id="r1",
    user_agent="containerd/2.1",
)


class Lines:
    """What was written, and in which pieces."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self._arrived = threading.Semaphore(0)

    def __call__(self, piece: bytes) -> None:
        self.pieces.append(piece)
        self._arrived.release()

    async def until(self, count: int) -> None:
        """Wait for so many lines."""
        while len(self.lines) < count:
            assert await trio.to_thread.run_sync(self._arrived.acquire, True, 5.0), "no line came"

    @property
    def lines(self) -> list[str]:
        return b"".join(self.pieces).decode().splitlines()


def test_a_request_is_one_json_object() -> None:
    assert json.loads(JsonLines()(PULL)) == {
        "ts": "2023-11-14T22:13:20.375Z",
        "level": "info",
        "event": "request",
        "request": "r1",
        "peer": "192.0.2.7",
        "method": "GET",
        "target": "/v2/library/alpine/manifests/latest?ns=docker.io",
        "status": 200,
        "outcome": "hit",
        "upstream": "docker.io",
        "bytes": 1638,
        "seconds": 0.125,
        "first_byte": 0.1,
        "user_agent": "containerd/2.1",
        "aborted": "",
    }


def test_a_traced_request_has_the_id_of_its_trace() -> None:
    traced = replace(PULL, trace="0af7651916cd43dd8448eb211c80319c")
    assert json.loads(JsonLines()(traced)) == {**json.loads(JsonLines()(PULL)), "trace": traced.trace}
    assert console_line(traced) == f"{console_line(PULL)} trace:{traced.trace}"


def test_a_request_that_waited_for_anothers_work_names_it() -> None:
    waited = replace(PULL, shared="r0")
    assert json.loads(JsonLines()(waited)) == {**json.loads(JsonLines()(PULL)), "shared": "r0"}
    assert console_line(waited) == f"{console_line(PULL)} shared:r0"


def test_each_line_has_its_own_time() -> None:
    render = JsonLines()
    moments = [1_700_000_000.0, 1_700_000_000.999, 1_700_000_001.0, 1_700_000_000.5]
    stamps = [json.loads(render(replace(PULL, started=moment, seconds=0.0)))["ts"] for moment in moments]
    assert [stamp.removeprefix("2023-11-14T22:13:") for stamp in stamps] == [
        "20.000Z",
        "20.999Z",
        "21.000Z",
        "20.500Z",
    ]


def test_a_request_that_got_no_answer_has_no_first_byte() -> None:
    line = json.loads(JsonLines()(replace(PULL, first_byte=None, aborted="client")))
    assert line["first_byte"] is None
    assert line["aborted"] == "client"


def test_a_peer_of_a_unix_socket_has_no_address() -> None:
    assert json.loads(JsonLines()(replace(PULL, peer=Peer(None, "http"))))["peer"] == "unix"


@pytest.mark.parametrize("field", ["method", "target", "upstream", "id", "user_agent"])
def test_a_field_cannot_break_out_of_its_line(field: str) -> None:
    exchange = replace(PULL)
    setattr(exchange, field, HOSTILE)
    line = JsonLines()(exchange)
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)[{"id": "request"}.get(field, field)] == HOSTILE
    assert console_line(exchange).isprintable()


def test_an_address_cannot_break_out_of_its_line() -> None:
    # An address with a zone, from a forwarding header, may hold nearly anything.
    peer = Peer(ip_address('fe80::1%"},{"\n'), "http")
    line = JsonLines()(replace(PULL, peer=peer))
    assert json.loads(line)["peer"] == 'fe80::1%"},{"\n'
    assert console_line(replace(PULL, peer=peer)).isprintable()


def test_long_fields_are_cut() -> None:
    line = JsonLines()(replace(PULL, target="/" + "x" * 8000, user_agent="\x00" * 8000, id="y" * 8000))
    assert len(line) < PIPE_BUF
    json.loads(line)


def test_a_line_for_a_person() -> None:
    line = console_line(replace(PULL, aborted="slow"))
    when = time.strftime("%H:%M:%S", time.localtime(1_700_000_000))
    assert line == (
        f"{when} 200 GET /v2/library/alpine/manifests/latest?ns=docker.io hit docker.io 1638 B 125.0 ms "
        "192.0.2.7 containerd/2.1 cut:slow r1"
    )


@pytest.mark.parametrize(
    ("target", "logged"),
    [
        ("/v2/", "/v2/"),
        ("/v2/a/tags/list?n=5&last=b&ns=docker.io", "/v2/a/tags/list?n=5&last=b&ns=docker.io"),
        ("/v2/a/blobs/x?X-Amz-Signature=abc&n=1", "/v2/a/blobs/x?X-Amz-Signature=...&n=1"),
        ("/token?password=hunter2", "/token?password=..."),
        ("/v2/?hunter2", "/v2/?..."),
        ("/v2/?", "/v2/?"),
    ],
)
def test_a_secret_in_a_query_is_not_logged(target: str, logged: str) -> None:
    assert logged_target(target) == logged


async def test_lines_come_in_order_and_soon() -> None:
    written = Lines()
    log = RequestLog(lambda exchange: exchange.id, written)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.run)
        for number in range(3):
            log(replace(PULL, id=str(number)))
        await written.until(3)
        nursery.cancel_scope.cancel()
    assert written.lines == ["0", "1", "2"]


async def test_a_full_batch_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cacheproxy.request_log.LAG", 3600)
    written = Lines()
    log = RequestLog(lambda exchange: exchange.id, written)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.run)
        for _ in range(BATCH + 1):
            log(PULL)
        await written.until(BATCH + 1)
        nursery.cancel_scope.cancel()


async def test_what_waits_is_written_at_the_end() -> None:
    written = Lines()
    log = RequestLog(lambda exchange: exchange.id, written)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.run)
        await trio.testing.wait_all_tasks_blocked()
        for number in range(3 * BATCH):
            log(replace(PULL, id=str(number)))
        nursery.cancel_scope.cancel()
    assert written.lines == [str(number) for number in range(3 * BATCH)]


async def test_nothing_is_lost_or_doubled_wherever_the_end_falls() -> None:
    for steps in range(12):
        written = Lines()
        log = RequestLog(lambda exchange: exchange.id, written)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(log.run)
            for number in range(2 * BATCH):
                log(replace(PULL, id=str(number)))
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        assert written.lines == [str(number) for number in range(2 * BATCH)]


async def test_what_is_being_written_at_the_end_is_waited_for() -> None:
    written, begun = Lines(), threading.Event()

    def slowly(lines: bytes) -> None:
        begun.set()
        time.sleep(0.2)
        written(lines)

    log = RequestLog(lambda exchange: exchange.id, slowly)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.run)
        log(PULL)
        await trio.to_thread.run_sync(begun.wait, 30)
        nursery.cancel_scope.cancel()
    assert written.lines == [PULL.id]


async def test_pieces_are_lines_that_a_pipe_takes_whole() -> None:
    written = Lines()
    log = RequestLog(JsonLines(), written)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.run)
        for _ in range(BATCH):
            log(PULL)
        nursery.cancel_scope.cancel()
    assert len(written.lines) == BATCH
    assert all(len(piece) <= PIPE_BUF and piece.endswith(b"\n") for piece in written.pieces)


async def test_a_log_that_nobody_reads_neither_grows_nor_stops_the_end() -> None:
    reader, writer = os.pipe()
    log = request_log(Log(format="json"), writer)
    assert log is not None
    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.run)
        for _ in range(BACKLOG + 100):
            log(PULL)
        await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
    assert trio.current_time() - started < SHUTDOWN + 2
    # Unblock the thread that was left behind.
    os.close(reader)


async def test_lost_lines_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cacheproxy.request_log.BACKLOG", 2)
    written = Lines()
    log = RequestLog(lambda exchange: exchange.id, written)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.run)
        for _ in range(5):
            log(PULL)
        nursery.cancel_scope.cancel()
    assert written.lines == ["r1", "r1", '{"level":"warning","event":"request lines lost","lines":3}']


@pytest.mark.parametrize("settings", [Log(requests=False), Log(level="warning"), Log(level="error")])
def test_no_log_of_requests_is_wanted(settings: Log) -> None:
    assert request_log(settings) is None


def seconds_each(call: Callable[[Exchange], object]) -> float:
    """CPU time of this thread for one call, in the best of several runs: others use the machine too."""

    def run() -> float:
        started = time.thread_time()
        for _ in range(1000):
            call(PULL)
        return (time.thread_time() - started) / 1000

    return min(run() for _ in range(10))


def test_a_request_waits_no_time_for_the_log() -> None:
    append = seconds_each(RequestLog(JsonLines(), Lines()))
    assert append < seconds_each(lambda _: json.dumps(["a", "few", "fields"]))


def test_a_line_is_made_in_little_time() -> None:
    """3 microseconds where encoding its fields alone takes the standard library as long; measured side by
    side, since the machine's speed is others' business too.
    """
    render = JsonLines()
    fields = json.loads(render(PULL))
    assert seconds_each(render) < 2 * seconds_each(lambda _: json.dumps(fields))
