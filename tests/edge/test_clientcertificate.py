"""Certificates of clients: what comes of one that is proven, and what becomes of one that is not."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID
from structlog.testing import capture_logs

from cacheproxy.edge.certificate import Certificate, CertificateError
from cacheproxy.edge.message import ClientCertificate, Network
from tests.edge.clients import END, PAST, Issued, authority
from tests.edge.harness import Running, Scripted, serving

SERVERS = trustme.CA()
CLIENTS, OTHERS = authority("clients"), authority("others")


def read(key: bytes) -> Callable[[], Awaitable[bytes]]:
    async def read_key() -> bytes:
        return key

    return read_key


async def load(folder: Path, authorities: bytes) -> Certificate:
    issued = SERVERS.issue_cert("localhost")
    (folder / "tls.crt").write_bytes(issued.cert_chain_pems[0].bytes())
    (folder / "clients.pem").write_bytes(authorities)
    key = read(issued.private_key_pem.bytes())
    return await Certificate.load(folder / "tls.crt", key, client_ca=folder / "clients.pem")


@asynccontextmanager
async def asking(folder: Path, app: Scripted, trusted: tuple[Network, ...] = ()) -> AsyncIterator[Running]:
    """A server that asks clients for certificates of CLIENTS."""
    certificate = await load(folder, CLIENTS.pem)
    async with serving(app, trusted_proxies=trusted, tls=certificate.context) as running:
        yield running


def trusting(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.maximum_version = version
    SERVERS.configure_trust(context)
    return context


async def seen(server: Running, app: Scripted, shown: Issued | None) -> ClientCertificate | None:
    client = await server.secure(trusting() if shown is None else shown.show(trusting()))
    assert (await client.get("/")).status == 200
    return app.requests[-1].peer.certificate


async def test_what_it_says_comes_with_each_request(app: Scripted, tmp_path: Path) -> None:
    issued = CLIENTS.issue(
        *(("O", "Example"), ("OU", "ci"), ("OU", "night"), ("CN", "build-7")),
        names=(
            x509.DNSName("build-7.example"),
            x509.UniformResourceIdentifier("spiffe://example/ci/build-7"),
            x509.RFC822Name("ci@example"),
        ),
    )
    async with asking(tmp_path, app) as server:
        client = await server.secure(issued.show(trusting()))
        for path in ("/one", "/two"):
            await client.get(path)
    certificates = [request.peer.certificate for request in app.requests]
    assert (
        certificates[0]
        == certificates[1]
        == ClientCertificate(
            issued.certificate.fingerprint(hashes.SHA256()).hex(),
            "O=Example, OU=ci, OU=night, CN=build-7",
            (
                *(("O", "Example"), ("OU", "ci"), ("OU", "night"), ("CN", "build-7")),
                *(
                    ("DNS", "build-7.example"),
                    ("URI", "spiffe://example/ci/build-7"),
                    ("email", "ci@example"),
                ),
            ),
            END.timestamp(),
        )
    )


async def test_who_has_none_goes_on_without(app: Scripted, tmp_path: Path) -> None:
    async with asking(tmp_path, app) as server:
        assert await seen(server, app, None) is None


async def test_where_no_authority_is_named_none_is_asked_for(app: Scripted, tmp_path: Path) -> None:
    issued = SERVERS.issue_cert("localhost")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "tls.pem")
    certificate = await Certificate.load(tmp_path / "tls.pem", read(b""))
    async with serving(app, tls=certificate.context) as server:
        assert await seen(server, app, CLIENTS.issue(("CN", "build-7"))) is None


async def test_a_resumed_session_has_its_certificate(app: Scripted, tmp_path: Path) -> None:
    context = CLIENTS.issue(("CN", "build-7")).show(trusting(ssl.TLSVersion.TLSv1_2))

    def twice(port: int) -> bool:
        session, reused = None, False
        for _ in range(2):
            plain = socket.create_connection(("127.0.0.1", port))
            with plain, context.wrap_socket(plain, server_hostname="localhost", session=session) as secure:
                secure.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                while secure.recv(4096):
                    pass
                session, reused = secure.session, bool(secure.session_reused)
        return reused

    async with asking(tmp_path, app) as server:
        assert await trio.to_thread.run_sync(twice, server.port)
    certificates = [request.peer.certificate for request in app.requests]
    assert certificates[0] == certificates[1] is not None


async def ask(server: Running, context: ssl.SSLContext) -> None:
    """In TLS 1.3 a client hears of a refusal only when it listens for its answer."""
    client = await server.secure(context)
    await client.get("/")


REFUSED = {
    "another authority's": (OTHERS.issue(("CN", "build-7")), "unable to get local issuer", "unknown ca"),
    "expired": (CLIENTS.issue(("CN", "build-7"), end=PAST), "certificate has expired", "certificate expired"),
    "a server's": (
        CLIENTS.issue(("CN", "build-7"), usage=ExtendedKeyUsageOID.SERVER_AUTH),
        "unsuitable certificate purpose",
        "unsupported certificate",
    ),
}


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("case", REFUSED)
async def test_one_that_is_not_good_is_refused_with_a_word(
    case: str, version: ssl.TLSVersion, app: Scripted, tmp_path: Path
) -> None:
    issued, reason, alert = REFUSED[case]
    async with asking(tmp_path, app) as server:
        with capture_logs() as told, pytest.raises((trio.BrokenResourceError, ssl.SSLError)) as failed:
            await ask(server, issued.show(trusting(version)))
        refusals = [line["reason"] for line in told if line["event"] == "client certificate refused"]
        assert len(refusals) == 1
        assert reason in refusals[0]
        assert alert in str(failed.value.__cause__ or failed.value).replace("_", " ").lower()
        assert await seen(server, app, CLIENTS.issue(("CN", "build-8"))) is not None
    assert len(app.requests) == 1


async def test_a_proxys_own_is_not_that_of_whom_it_forwards_for(app: Scripted, tmp_path: Path) -> None:
    proxy = CLIENTS.issue(("CN", "proxy")).show(trusting())
    async with asking(tmp_path, app, (ipaddress.ip_network("127.0.0.1"),)) as server:
        client = await server.secure(proxy)
        await client.get("/", "X-Forwarded-For: 192.0.2.1")
        await client.get("/")
    forwarded, own = (request.peer.certificate for request in app.requests)
    assert forwarded is None
    assert own is not None


@pytest.mark.parametrize(
    ("authorities", "words"),
    [
        (b"nonsense", r"clients\.pem: holds no certificate in PEM"),
        (
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            r"clients\.pem: its certificates are damaged",
        ),
        (
            CLIENTS.issue(("CN", "build-7")).pem,
            r"clients\.pem: none of its certificates is an authority's",
        ),
    ],
)
async def test_authorities_that_are_none_are_named(authorities: bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match=words):
        await load(tmp_path, authorities)


async def test_authorities_are_read_again_when_they_change(app: Scripted, tmp_path: Path) -> None:
    certificate = await load(tmp_path, CLIENTS.pem)
    async with serving(app, tls=certificate.context) as server:
        (tmp_path / "clients.pem").write_bytes(OTHERS.pem)
        assert certificate._look() != certificate._seen
        assert await certificate.reload()
        assert await seen(server, app, OTHERS.issue(("CN", "build-7"))) is not None
