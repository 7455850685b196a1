"""Through an HTTP proxy, because the operator said so."""

from __future__ import annotations

import base64
from contextlib import suppress

import httpx
import pytest
import trio
import trio.testing

from cacheproxy.core.failures import Cause
from cacheproxy.upstream.causes import AddressRefused, HandshakeFailed, cause_of
from cacheproxy.upstream.proxy import Proxy
from cacheproxy.upstream.transport import OwnedTransport
from tests.upstream.authority import ca_file, server_context
from tests.upstream.servers import Answer, Asked, Server, answering, client, descriptors, dialer, reply

LOGIN = f"Basic {base64.b64encode(b'anna:s3cret@').decode()}"


def tunnelling(port: int) -> Answer:
    """A proxy that connects every CONNECT to `port` of this host, and answers all else itself."""

    async def answer(asked: Asked) -> bytes | None:
        if asked.method != "CONNECT":
            return reply(b"forwarded")
        async with await trio.open_tcp_stream("127.0.0.1", port) as target:
            await asked.stream.send_all(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 proxy\r\n\r\n")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pump, asked.stream, target, nursery.cancel_scope)
                nursery.start_soon(pump, target, asked.stream, nursery.cancel_scope)
        return None

    return answer


async def pump(source: trio.abc.ReceiveStream, sink: trio.abc.SendStream, scope: trio.CancelScope) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        async for data in source:
            await sink.send_all(data)
    scope.cancel()


@pytest.fixture
async def target(nursery: trio.Nursery) -> Server:
    server = Server(answering(reply(b"tunnelled")), tls=server_context("registry.example"))
    await nursery.start(server.serve)
    return server


@pytest.fixture
async def proxy(target: Server, nursery: trio.Nursery) -> Server:
    server = Server(tunnelling(target.port))
    await nursery.start(server.serve)
    return server


def through(proxy: Server, login: str = "") -> httpx.AsyncClient:
    url = f"http://{login}127.0.0.1:{proxy.port}"
    return client(OwnedTransport(dialer(ca=ca_file(), proxy=url)))


async def test_https_goes_through_a_tunnel(proxy: Server, target: Server) -> None:
    async with through(proxy) as session:
        response = await session.get("https://registry.example/v2/")
    assert response.content == b"tunnelled"
    assert [(asked.method, asked.target) for asked in proxy.asked] == [("CONNECT", "registry.example:443")]
    assert [(asked.method, asked.target) for asked in target.asked] == [("GET", "/v2/")]
    assert proxy.asked[0].headers["host"] == "registry.example:443"


async def test_a_tunnel_is_used_again(proxy: Server, target: Server) -> None:
    async with through(proxy) as session:
        for _ in range(3):
            await session.get("https://registry.example/v2/")
    assert (len(proxy.asked), len(target.asked)) == (1, 3)


async def test_the_targets_certificate_is_checked_in_the_tunnel(proxy: Server) -> None:
    async with through(proxy) as session:
        with pytest.raises(HandshakeFailed):
            await session.get("https://other.example/v2/")


@pytest.mark.parametrize("host", [".registry.example", f"{'a' * 64}.example"])
async def test_a_name_that_no_certificate_can_be_for_is_a_failure_of_tls(proxy: Server, host: str) -> None:
    with pytest.raises(HandshakeFailed):
        await dialer(proxy=proxy.url).dial("https", host, 443, 5.0)


async def test_http_goes_in_absolute_form(proxy: Server) -> None:
    async with through(proxy) as session:
        response = await session.get("http://registry.example:5000/v2/a?n=1")
    assert response.content == b"forwarded"
    [asked] = proxy.asked
    assert (asked.method, asked.target) == ("GET", "http://registry.example:5000/v2/a?n=1")
    assert asked.headers["host"] == "registry.example:5000"


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_the_login_is_for_the_proxy_only(proxy: Server, target: Server, scheme: str) -> None:
    async with through(proxy, "anna:s3cret%40@") as session:
        await session.get(f"{scheme}://registry.example/v2/", headers={"Authorization": "Bearer x"})
    assert proxy.asked[0].headers["proxy-authorization"] == LOGIN.lower()
    assert ("authorization" in proxy.asked[0].headers) == (scheme == "http")
    assert all("proxy-authorization" not in asked.headers for asked in target.asked)


@pytest.mark.parametrize(
    "answer",
    [
        reply(status="407 Proxy Authentication Required"),
        reply(b"no route", status="502 Bad Gateway"),
        reply(status="302 Found", headers=("Location: http://127.0.0.1/",)),
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n\x16\x03\x03",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000,
        None,
    ],
    ids=["407", "502", "redirect", "not http", "bytes of its own", "endless head", "closes"],
)
async def test_a_proxy_that_will_not_is_a_failed_connection(
    answer: bytes | None, nursery: trio.Nursery
) -> None:
    server = Server(answering(answer))
    await nursery.start(server.serve)
    before = descriptors()
    async with through(server) as session:
        with pytest.raises(httpx.ProxyError) as failed:
            await session.get("https://registry.example/v2/")
    assert cause_of(failed.value) is Cause.CONNECT
    await trio.testing.wait_all_tasks_blocked()
    assert descriptors() <= before


async def test_a_proxy_that_says_nothing_is_a_timeout(nursery: trio.Nursery) -> None:
    async def silence(_asked: Asked) -> None:
        await trio.sleep_forever()

    server = Server(silence)
    await nursery.start(server.serve)
    async with through(server) as session:
        with pytest.raises(httpx.ConnectTimeout):
            await session.get("https://registry.example/v2/", timeout=0.1)


@pytest.mark.parametrize(
    "url", ["https://10.0.0.1/", "http://169.254.169.254/latest", "http://[::ffff:10.0.0.1]/"]
)
async def test_a_private_address_is_not_asked_of_a_proxy(proxy: Server, url: str) -> None:
    async with through(proxy) as session:
        with pytest.raises(AddressRefused):
            await session.get(url)
    assert proxy.accepted == 0


async def test_an_address_of_ipv6_is_asked_for_in_brackets(proxy: Server) -> None:
    async with through(proxy) as session:
        with pytest.raises(HandshakeFailed):
            await session.get("https://[2606:4700::1]:8443/")
    assert proxy.asked[0].target == "[2606:4700::1]:8443"


async def test_the_environments_proxies_are_not_used(
    target: Server, proxy: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    plain = Server(answering(reply(b"direct")))
    async with trio.open_nursery() as nursery:
        await nursery.start(plain.serve)
        async with client(OwnedTransport(dialer())) as session:
            assert (await session.get(plain.url)).content == b"direct"
        nursery.cancel_scope.cancel()
    assert proxy.accepted == 0


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("http://proxy.example:3128", "proxy.example", 3128),
        ("http://proxy.example:3128/", "proxy.example", 3128),
        ("http://proxy.example", "proxy.example", 80),
        ("http://[::1]:3128", "::1", 3128),
        ("http://10.0.0.1:8080", "10.0.0.1", 8080),
    ],
)
def test_a_proxy_is_a_host_and_a_port(url: str, host: str, port: int) -> None:
    assert Proxy.parse(url) == Proxy(host, port)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "proxy.example:3128",
        "https://proxy.example:3128",
        "socks5://proxy.example:1080",
        "http://",
        "http://proxy.example/path",
        "http://proxy.example/?q",
        "http://proxy.example/#f",
        "http://proxy.example:notaport",
        "http://proxy.example:0",
        "http://proxy.example:65536",
        "http://anna:s3cret@",
    ],
)
def test_what_is_not_a_proxy_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError) as refused:
        Proxy.parse(url)
    assert "s3cret" not in str(refused.value)


def test_the_login_is_not_shown() -> None:
    proxy = Proxy.parse("http://anna:s3cret%40@proxy.example:3128")
    assert proxy.headers == [(b"Proxy-Authorization", LOGIN.encode())]
    assert "Basic" not in repr(proxy)
