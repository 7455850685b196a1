"""What is trusted, what is shown, and records read in bulk."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio
import trio.testing
import trustme
from cryptography.hazmat.primitives import serialization

from cacheproxy.core.failures import Cause
from cacheproxy.upstream.causes import HandshakeFailed, RecordBroken, cause_of
from cacheproxy.upstream.dialer import Dialer, Place
from cacheproxy.upstream.gate import AddressGate
from cacheproxy.upstream.tls import BulkTLS, client_context
from cacheproxy.upstream.transport import OwnedTransport
from cacheproxy.upstream.wire import GULP
from tests.upstream.authority import authority, ca_file, server_context
from tests.upstream.servers import LOOPBACK, Asked, Server, answering, client, dialer, reply

RECORD = 16 * 1024


class Memory:
    """One end of a memory stream, as a `Stream`; `spoil` may change what is received."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.gulp = GULP
        self.spoil: Callable[[bytes], bytes] = lambda data: data

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def receive(self) -> bytes:
        return self.spoil(bytes(await self.stream.receive_some(self.gulp)))

    def close(self) -> None:
        pass

    def quiet(self) -> bool:
        return True


async def agreed() -> tuple[BulkTLS, Memory, trio.SSLStream[trio.abc.Stream]]:
    """A client, what is below it, and its server, after the handshake."""
    near, far = trio.testing.memory_stream_pair()
    memory = Memory(near)
    tls = BulkTLS(memory, client_context(ca_file()), "127.0.0.1")
    server: trio.SSLStream[trio.abc.Stream] = trio.SSLStream(far, server_context(), server_side=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.do_handshake)
        nursery.start_soon(tls.handshake)
    return tls, memory, server


async def test_what_is_sent_arrives_both_ways() -> None:
    tls, _, server = await agreed()
    data = bytes(range(256)) * 4096
    await tls.send(data)
    received = b""
    while len(received) < len(data):
        received += await server.receive_some(65536)
    await server.send_all(data)
    back = b""
    while len(back) < len(data):
        back += await tls.receive()
    assert received == back == data


async def test_one_receive_gives_all_records_that_are_here() -> None:
    tls, _, server = await agreed()
    await server.send_all(bytes(10 * RECORD))
    assert len(await tls.receive()) == 10 * RECORD


async def test_no_receive_gives_more_than_a_gulp() -> None:
    tls, _, server = await agreed()
    await server.send_all(bytes(40 * RECORD))
    sizes: list[int] = []
    while sum(sizes) < 40 * RECORD:
        sizes.append(len(await tls.receive()))
    assert max(sizes) == GULP


async def test_a_farewell_that_came_with_the_data_is_noticed() -> None:
    tls, _, server = await agreed()
    await server.send_all(b"abc")
    with trio.move_on_after(0.01):
        await server.unwrap()
    assert await tls.receive() == b"abc"
    assert not tls.quiet()
    assert await tls.receive() == b""


async def test_an_end_without_a_farewell_is_an_end() -> None:
    tls, _, server = await agreed()
    await server.send_all(b"abc")
    await trio.aclose_forcefully(server)
    assert await tls.receive() == b"abc"
    assert await tls.receive() == b""
    assert not tls.quiet()


async def test_it_is_quiet_when_all_was_read_and_not_before() -> None:
    tls, memory, server = await agreed()
    memory.gulp = 2 * GULP
    await server.send_all(bytes(17 * RECORD))
    await tls.receive()
    assert not tls.quiet()
    await tls.receive()
    assert tls.quiet()


async def test_a_damaged_record_is_an_error_and_no_data() -> None:
    tls, memory, server = await agreed()
    memory.spoil = lambda data: data[:-1] + bytes([data[-1] ^ 1])
    await server.send_all(b"abc")
    with pytest.raises(ssl.SSLError):
        await tls.receive()


async def test_receiving_what_is_here_is_a_checkpoint() -> None:
    tls, memory, server = await agreed()
    memory.gulp = 2 * GULP
    await server.send_all(bytes(20 * RECORD))
    await tls.receive()
    with trio.move_on_after(0) as scope:
        await tls.receive()
    assert scope.cancelled_caught


Fetch = Callable[..., Awaitable[bytes]]


@pytest.fixture
def fetch(nursery: trio.Nursery) -> Fetch:
    """What one GET brings, from a server with the first context, by a client with the second."""

    async def fetch(server_tls: ssl.SSLContext, context: ssl.SSLContext, host: str = "127.0.0.1") -> bytes:
        server = Server(answering(reply(b"well")), tls=server_tls)
        await nursery.start(server.serve)
        async with client(OwnedTransport(Dialer(AddressGate(LOOPBACK), context))) as session:
            return (await session.get(f"https://{host}:{server.port}/")).content

    return fetch


async def test_a_private_authority_is_trusted_when_named(fetch: Fetch) -> None:
    assert await fetch(server_context(), client_context(ca_file())) == b"well"


def expired() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    yesterday = datetime.now(UTC) - timedelta(days=1)
    authority().issue_cert("127.0.0.1", not_after=yesterday).configure_cert(context)
    return context


@pytest.mark.parametrize(
    ("server_tls", "host"),
    [
        (lambda: server_context(of=trustme.CA()), "127.0.0.1"),
        (lambda: server_context("registry.example"), "127.0.0.1"),
        (lambda: server_context("127.0.0.1"), "localhost"),
        (expired, "127.0.0.1"),
    ],
    ids=["unknown authority", "another name", "an address for a name", "expired"],
)
async def test_a_certificate_that_does_not_fit_is_refused(
    fetch: Fetch, server_tls: Callable[[], ssl.SSLContext], host: str
) -> None:
    with pytest.raises(HandshakeFailed, match="certificate") as refused:
        await fetch(server_tls(), client_context(ca_file()), host)
    assert cause_of(refused.value) is Cause.TLS


async def test_without_being_named_a_private_authority_is_not_trusted(fetch: Fetch) -> None:
    with pytest.raises(HandshakeFailed):
        await fetch(server_context(), client_context())


async def test_no_older_tls_than_1_2_is_spoken() -> None:
    assert client_context().minimum_version >= ssl.TLSVersion.TLSv1_2


def test_a_named_authority_is_trusted_beside_the_systems() -> None:
    before = client_context().cert_store_stats()["x509_ca"]
    assert client_context(ca_file()).cert_store_stats()["x509_ca"] == before + 1


def test_a_system_without_authorities_gets_those_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    default = ssl.create_default_context
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: SimpleNamespace(capath=None))
    monkeypatch.setattr(
        ssl,
        "create_default_context",
        lambda cafile=None: default(cafile=cafile) if cafile else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
    )
    assert client_context().cert_store_stats()["x509_ca"] > 100


class Identity:
    """A client's certificate in each form that it may be stored in."""

    def __init__(self, folder: Path) -> None:
        issued = authority().issue_cert("client@example.org")
        self.key = issued.private_key_pem.bytes()
        self.certificate = folder / "certificate.pem"
        self.key_file = folder / "key.pem"
        self.both = folder / "both.pem"
        chain = b"".join(pem.bytes() for pem in issued.cert_chain_pems)
        self.certificate.write_bytes(chain)
        self.key_file.write_bytes(self.key)
        self.both.write_bytes(self.key + chain)

    def encrypted(self) -> bytes:
        loaded = serialization.load_pem_private_key(self.key, None)
        return loaded.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"password"),
        )


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    return Identity(tmp_path)


@pytest.mark.parametrize("form", ["bytes", "file", "with the certificate"])
async def test_a_client_certificate_is_shown(fetch: Fetch, identity: Identity, form: str) -> None:
    forms: dict[str, tuple[Path, Path | bytes | None]] = {
        "bytes": (identity.certificate, identity.key),
        "file": (identity.certificate, identity.key_file),
        "with the certificate": (identity.both, None),
    }
    context = client_context(ca_file(), *forms[form])
    assert await fetch(server_context(asks=True), context) == b"well"


async def test_a_client_certificate_is_shown_where_it_belongs_and_nowhere_else(
    nursery: trio.Nursery, identity: Identity
) -> None:
    asking = server_context("127.0.0.1", "localhost")
    asking.verify_mode = ssl.CERT_OPTIONAL
    authority().configure_trust(asking)
    shown: list[bool] = []

    async def look(asked: Asked) -> bytes:
        assert isinstance(asked.stream, trio.SSLStream)
        shown.append(bool(asked.stream.getpeercert()))
        return reply()

    own, foreign = Server(look, tls=asking), Server(look, tls=asking)
    await nursery.start(own.serve)
    await nursery.start(foreign.serve)
    ours = client_context(ca_file(), identity.both)
    contexts = {("127.0.0.1", own.port): ours}
    ringing = Dialer(AddressGate(LOOPBACK), client_context(ca_file()), identified=contexts)
    async with client(OwnedTransport(ringing)) as session:
        for url in (own.url, foreign.url, f"https://localhost:{own.port}"):
            await session.get(url)
    assert shown == [True, False, False]


async def test_a_server_that_wants_a_certificate_and_gets_none_is_a_failure_of_tls() -> None:
    """In TLS 1.3 the client learns of it after its handshake, from an alert. trio's stream sends none."""
    listener = socket.create_server(("127.0.0.1", 0))

    def refuse() -> None:
        plain, _ = listener.accept()
        with plain, pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN"):
            server_context(asks=True).wrap_socket(plain, server_side=True)

    async with trio.open_nursery() as nursery, client(OwnedTransport(dialer(ca=ca_file()))) as session:
        with listener:
            nursery.start_soon(trio.to_thread.run_sync, refuse)
            with pytest.raises(RecordBroken, match="CERTIFICATE_REQUIRED") as refused:
                await session.get(f"https://127.0.0.1:{listener.getsockname()[1]}/")
    assert cause_of(refused.value) is Cause.TLS


def test_an_encrypted_key_is_refused_without_asking_for_its_password(identity: Identity) -> None:
    with pytest.raises(ssl.SSLError, match="encrypted"):
        client_context(None, identity.certificate, identity.encrypted())


def test_a_key_of_another_certificate_is_refused(identity: Identity) -> None:
    other = authority().issue_cert("other@example.org").private_key_pem.bytes()
    with pytest.raises(ssl.SSLError, match="mismatch"):
        client_context(None, identity.certificate, other)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        client_context(tmp_path / "ca.pem")


async def _here(_host: str, port: int) -> list[Place]:
    return [Place(socket.AF_INET, ("127.0.0.1", port))]


async def test_the_name_in_the_hello_is_the_urls(nursery: trio.Nursery) -> None:
    asked: list[str | None] = []
    context = server_context("registry.localhost")
    context.sni_callback = lambda _tls, name, _context: asked.append(name)
    server = Server(answering(reply()), tls=context)
    await nursery.start(server.serve)
    here = dialer(ca=ca_file(), resolve=_here)
    async with client(OwnedTransport(here)) as session:
        await session.get(f"https://registry.localhost:{server.port}/")
    assert asked == ["registry.localhost"]
    assert server.asked[0].headers["host"] == f"registry.localhost:{server.port}"
