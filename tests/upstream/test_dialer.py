"""What is resolved is judged, and what was judged is connected to."""

from __future__ import annotations

import errno
import math
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import httpx
import pytest
import trio
import trio.testing

from cacheproxy.core.failures import Cause
from cacheproxy.upstream.causes import AddressRefused, HandshakeFailed, NameUnresolved, cause_of
from cacheproxy.upstream.dialer import Dialer, Place
from cacheproxy.upstream.gate import AddressGate
from cacheproxy.upstream.proxy import Proxy
from tests.upstream.addresses import CLOSED
from tests.upstream.servers import Server, answering, descriptors, dialer, reply

CONTEXT = ssl.create_default_context()


def place(address: str, port: int = 80) -> Place:
    if ":" in address:
        return Place(socket.AF_INET6, (address, port, 0, 0))
    return Place(socket.AF_INET, (address, port))


def resolving(*answers: tuple[str, ...]) -> Callable[[str, int], Awaitable[list[Place]]]:
    """Each lookup gets the next answer; one more than there are answers is an error."""
    script = list(answers)

    async def resolve(_host: str, port: int) -> list[Place]:
        return [place(address, port) for address in script.pop(0)]

    return resolve


async def never(_host: str, _port: int) -> list[Place]:
    return await trio.sleep_forever()


def strict(*answers: tuple[str, ...]) -> Dialer:
    """A dialer to which nothing is listed, and what its lookups answer."""
    return Dialer(AddressGate(), CONTEXT, resolve=resolving(*answers))


async def listening(nursery: trio.Nursery, handler: Callable[[trio.SocketStream], Awaitable[None]]) -> int:
    """The port of a peer that is nothing but `handler`."""
    [listener] = await nursery.start(partial(trio.serve_tcp, handler, 0, host="127.0.0.1"))
    port: int = listener.socket.getsockname()[1]
    return port


class Sockets(trio.abc.SocketFactory):
    """Sockets that only remember where they were to connect, and do what the test says of the address."""

    def __init__(self) -> None:
        self.tried: list[tuple[str, float]] = []
        self.closed = 0
        self.script: dict[str, Callable[[], Awaitable[None]]] = {}

    def socket(self, family: int = 0, type: int = 0, proto: int = 0) -> trio.socket.SocketType:  # noqa: A002
        return FakeSocket(self)


class FakeSocket(trio.socket.SocketType):
    def __init__(self, sockets: Sockets) -> None:
        self.sockets = sockets

    def setsockopt(self, *_: object) -> None:
        pass

    async def connect(self, address: tuple[str, int]) -> None:
        self.sockets.tried.append((address[0], trio.current_time()))
        await self.sockets.script.get(address[0], trio.lowlevel.checkpoint)()

    def close(self) -> None:
        self.sockets.closed += 1


async def unreachable() -> None:
    await trio.lowlevel.checkpoint()
    raise OSError(errno.EHOSTUNREACH, "No route to host")


@pytest.fixture
async def sockets() -> AsyncIterator[Sockets]:
    fake = Sockets()
    trio.socket.set_custom_socket_factory(fake)
    yield fake
    trio.socket.set_custom_socket_factory(None)


async def test_no_spelling_of_a_closed_address_is_connected_to_or_looked_up(sockets: Sockets) -> None:
    unlisted = Dialer(AddressGate(), CONTEXT, resolve=never)
    for host in CLOSED:
        for spelled in (host, f"{host}."):
            with pytest.raises(AddressRefused) as refused:
                await unlisted.dial("https", spelled, 443, 1.0)
            assert cause_of(refused.value) is Cause.GATE
    assert sockets.tried == []


@pytest.mark.parametrize("bad", ["10.0.0.1", "::1", "169.254.169.254", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("first", [True, False])
async def test_one_closed_address_refuses_the_whole_name(sockets: Sockets, bad: str, first: bool) -> None:
    answer = (bad, "1.1.1.1") if first else ("1.1.1.1", bad)
    with pytest.raises(AddressRefused, match="refused"):
        await strict(answer).dial("http", "registry.example", 80, 1.0)
    assert sockets.tried == []


async def test_a_name_that_changes_its_address_is_judged_each_time(sockets: Sockets) -> None:
    rebinding = strict(("1.1.1.1",), ("127.0.0.1",))
    await rebinding.dial("http", "registry.example", 80, 1.0)
    with pytest.raises(AddressRefused):
        await rebinding.dial("http", "registry.example", 80, 1.0)
    assert [address for address, _ in sockets.tried] == ["1.1.1.1"]


async def test_a_name_is_looked_up_once_for_one_connection(sockets: Sockets) -> None:
    once = strict(("1.1.1.1", "1.1.1.2"))
    sockets.script["1.1.1.1"] = unreachable
    await once.dial("http", "registry.example", 80, 1.0)
    assert [address for address, _ in sockets.tried] == ["1.1.1.1", "1.1.1.2"]


async def test_the_families_take_turns(sockets: Sockets) -> None:
    addresses = ("2a00::1", "2a00::2", "2a00::3", "1.1.1.1")
    for address in addresses:
        sockets.script[address] = unreachable
    with pytest.raises(httpx.ConnectError, match="No route to host"):
        await strict(addresses).dial("http", "a.example", 80, 1.0)
    assert [address for address, _ in sockets.tried] == ["2a00::1", "1.1.1.1", "2a00::2", "2a00::3"]
    assert sockets.closed == 4


async def test_each_address_has_its_share_of_the_time(
    sockets: Sockets, autojump_clock: trio.testing.MockClock
) -> None:
    sockets.script["1.1.1.1"] = sockets.script["1.1.1.2"] = trio.sleep_forever
    begun = trio.current_time()
    await strict(("1.1.1.1", "1.1.1.2", "1.1.1.3")).dial("http", "a.example", 80, 9.0)
    waited = [(address, round(when - begun)) for address, when in sockets.tried]
    assert waited == [("1.1.1.1", 0), ("1.1.1.2", 3), ("1.1.1.3", 6)]
    assert sockets.closed == 2


async def test_addresses_that_never_answer_are_a_timeout(
    sockets: Sockets, autojump_clock: trio.testing.MockClock
) -> None:
    sockets.script["1.1.1.1"] = sockets.script["1.1.1.2"] = trio.sleep_forever
    begun = trio.current_time()
    with pytest.raises(httpx.ConnectTimeout) as late:
        await strict(("1.1.1.1", "1.1.1.2")).dial("http", "a.example", 80, 4.0)
    assert cause_of(late.value) is Cause.TIMEOUT
    assert trio.current_time() - begun == pytest.approx(4.0)
    assert sockets.closed == 2


async def test_a_resolver_that_hangs_is_a_timeout(autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(httpx.ConnectTimeout):
        await Dialer(AddressGate(), CONTEXT, resolve=never).dial("http", "a.example", 80, 4.0)


async def test_without_a_limit_it_waits_for_the_answer(sockets: Sockets) -> None:
    await strict(("1.1.1.1",)).dial("http", "a.example", 80, math.inf)
    assert len(sockets.tried) == 1


@pytest.mark.parametrize(
    "error", [socket.gaierror(socket.EAI_NONAME, "Name or service not known"), ValueError("label too long")]
)
async def test_a_name_without_an_address_is_a_failure_of_dns(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def getaddrinfo(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(NameUnresolved) as unknown:
        await Dialer(AddressGate(), CONTEXT).dial("http", "a.example", 80, 5.0)
    assert cause_of(unknown.value) is Cause.DNS


async def test_an_empty_answer_connects_nowhere() -> None:
    with pytest.raises(httpx.ConnectError, match="no address"):
        await strict(()).dial("http", "a.example", 80, 5.0)


async def test_the_systems_resolver_finds_this_host(nursery: trio.Nursery) -> None:
    server = Server(answering(reply()))
    await nursery.start(server.serve)
    stream = await dialer().dial("http", "localhost", server.port, 5.0)
    stream.close()


async def test_a_closed_port_is_a_failure_to_connect() -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    with pytest.raises(httpx.ConnectError, match="Connection refused") as refused:
        await dialer().dial("http", "127.0.0.1", port, 5.0)
    assert cause_of(refused.value) is Cause.CONNECT


async def test_cancelling_a_lookup_or_a_connect_leaves_no_descriptor(sockets: Sockets) -> None:
    sockets.script["1.1.1.1"] = trio.sleep_forever
    waiting = strict(("1.1.1.1",))
    with trio.move_on_after(0.01):
        await waiting.dial("http", "a.example", 80, 5.0)
    assert sockets.closed == 1


@pytest.mark.parametrize("host", [*CLOSED, "localhost", "LOCALHOST.", "a.localhost", "127.0.0.1."])
async def test_a_closed_address_is_refused_before_a_proxy_hears_of_it(sockets: Sockets, host: str) -> None:
    behind = Dialer(AddressGate(), CONTEXT, proxy=Proxy("127.0.0.1", 3128), resolve=never)
    for scheme in ("http", "https"):
        with pytest.raises(AddressRefused):
            await behind.dial(scheme, host, 443, 1.0)
    assert sockets.tried == []


async def test_the_proxy_itself_needs_no_listing(sockets: Sockets) -> None:
    proxy = Proxy("proxy.example", 3128)
    behind = Dialer(AddressGate(), CONTEXT, proxy=proxy, resolve=resolving(("10.0.0.1",)))
    await behind.dial("http", "registry.example", 80, 1.0)
    assert [address for address, _ in sockets.tried] == ["10.0.0.1"]


async def test_a_peer_that_closes_during_the_handshake_failed_to_connect(nursery: trio.Nursery) -> None:
    async def hang_up(stream: trio.SocketStream) -> None:
        await stream.receive_some(1)
        await stream.aclose()

    port = await listening(nursery, hang_up)
    before = descriptors()
    with pytest.raises(httpx.ConnectError) as closed:
        await dialer().dial("https", "127.0.0.1", port, 5.0)
    assert cause_of(closed.value) is Cause.CONNECT
    assert descriptors() <= before


async def test_a_peer_that_does_not_speak_tls_is_never_spoken_to_without(nursery: trio.Nursery) -> None:
    heard = []

    async def http_error(stream: trio.SocketStream) -> None:
        heard.append(await stream.receive_some(1))
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    port = await listening(nursery, http_error)
    with pytest.raises(HandshakeFailed) as failed:
        await dialer().dial("https", "127.0.0.1", port, 5.0)
    assert cause_of(failed.value) is Cause.TLS
    assert heard == [b"\x16"]  # one connection, begun with a handshake


async def test_a_handshake_that_stalls_is_a_timeout(nursery: trio.Nursery) -> None:
    async def silence(_stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    port = await listening(nursery, silence)
    with pytest.raises(httpx.ConnectTimeout) as late:
        await dialer().dial("https", "127.0.0.1", port, 0.1)
    assert cause_of(late.value) is Cause.TIMEOUT
