"""A whole daemon and clients with certificates: who they are by them, with and without, over reloads."""

from __future__ import annotations

import base64
import json
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
import trio
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from cacheproxy import app, systemd
from cacheproxy.config import load
from cacheproxy.wiring import CannotStart
from tests.edge.clients import Issued, authority
from tests.origin.content import sha256

SERVERS = trustme.CA()
CLIENTS, OTHERS = authority("clients"), authority("others")
BUILDER = CLIENTS.issue(("CN", "builder"))
STRANGER = CLIENTS.issue(("CN", "stranger"))
HOST = CLIENTS.issue(("CN", "x"), ("OU", "ci"), names=(x509.DNSName("build-7.example"),))

SETTINGS = """
[server]
listen = ["127.0.0.1:0"]
metrics = "127.0.0.1:0"
tls = {{ certificate = "tls.crt", key = {{ file = "tls.key" }}, client_ca = "clients.pem" }}
[storage]
state = "state"
[access]
anonymous_pull = []
{access}
[[upstream]]
registry = "reg.test"
url = "http://127.0.0.1:9"
[[account]]
name = "builder"
secret = {{ file = "builder.secret" }}
[[grant]]
to = {to}
allow = ["pull", "push", "list", "create"]
repositories = "team/**"
[[template]]
prefix = "ROOT"
applied_for = ["create-on-push"]
"""
UPLOADS = f"/v2/team/app/blobs/uploads/?digest={sha256(b'layer')}"
SECRET = "0123456789abcdef0123"
BASIC = "Basic " + base64.b64encode(f"builder:{SECRET}".encode()).decode()


class Heard(NamedTuple):
    status: int
    text: str


class Daemon:
    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, 0
        self.send, self.hangups = trio.open_memory_channel[int](1)
        self.told = trio.Event()
        self.authorities(CLIENTS)
        (folder / "builder.secret").write_text(SECRET)
        issued = SERVERS.issue_cert("localhost")
        issued.cert_chain_pems[0].write_to_path(folder / "tls.crt")
        issued.private_key_pem.write_to_path(folder / "tls.key")

    def authorities(self, *known: Issued) -> None:
        (self.folder / "clients.pem").write_bytes(b"".join(each.pem for each in known))

    def configure(self, access: str = "", to: str = '["user:builder"]') -> Path:
        file = self.folder / "c.toml"
        file.write_text(SETTINGS.format(access=access, to=to))
        return file

    async def reload(self) -> None:
        self.told = trio.Event()
        await self.send.send(signal.SIGHUP)
        with trio.fail_after(30):
            await self.told.wait()

    async def connect(self, shown: Issued | None) -> trio.SSLStream[trio.SocketStream]:
        context = ssl.create_default_context()
        SERVERS.configure_trust(context)
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        return trio.SSLStream(
            stream,
            context if shown is None else shown.show(context),
            server_hostname="localhost",
            https_compatible=True,
        )

    async def ask(self, shown: Issued | None, path: str = UPLOADS, **headers: str) -> Heard:
        """A push, unless it is another path."""
        stream = await self.connect(shown)
        try:
            return await said(stream, path, {"Connection": "close", **headers})
        finally:
            stream.transport_stream.socket.close()


async def said(stream: trio.SSLStream[trio.SocketStream], path: str, headers: dict[str, str]) -> Heard:
    method, body = ("POST", b"layer") if path == UPLOADS else ("GET", b"")
    fields = {"Host": "localhost", "Content-Length": str(len(body)), **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    answer = b""
    with trio.fail_after(30):
        await stream.send_all(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body)
        while data := await stream.receive_some():
            answer += data
            head, _, content = answer.partition(b"\r\n\r\n")
            if f"content-length: {len(content)}".encode() in head.lower().split(b"\r\n"):
                break
    return Heard(int(answer.split(b" ")[1]), answer.decode())


@asynccontextmanager
async def running(
    folder: Path, monkeypatch: pytest.MonkeyPatch, access: str = "", to: str = '["user:builder"]'
) -> AsyncIterator[Daemon]:
    daemon, drain = Daemon(folder), trio.Event()
    monkeypatch.setattr(systemd, "ready", lambda _: daemon.told.set())
    async with trio.open_nursery() as nursery:
        start = partial(app.main, hangups=daemon.hangups)
        bound = await nursery.start(start, load(daemon.configure(access, to), {}), drain)
        daemon.port = int(bound["listen"][0].rpartition(":")[2])
        yield daemon
        drain.set()


async def test_a_certificate_means_its_account_and_nothing_else_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch) as daemon:
        assert (await daemon.ask(BUILDER, "/v2/")).status == 200
        assert (await daemon.ask(BUILDER)).status == 201
        refused = await daemon.ask(BUILDER, "/v2/other/app/tags/list")
        assert refused.status == 403
        assert "user:builder may not pull in other/app" in refused.text


async def test_without_one_other_credentials_go_on_working(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch) as daemon:
        assert (await daemon.ask(None, "/v2/")).status == 401
        assert (await daemon.ask(None)).status == 401
        assert (await daemon.ask(None, Authorization=BASIC)).status == 201


async def test_what_a_request_says_counts_before_the_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch) as daemon:
        assert (await daemon.ask(STRANGER, Authorization=BASIC)).status == 201
        assert (await daemon.ask(BUILDER, Authorization=BASIC[:-4] + "AAA=")).status == 401
        fingerprint = BUILDER.certificate.fingerprint(hashes.SHA256()).hex()
        await daemon.ask(BUILDER)
        for guess in (fingerprint, f"certificate {fingerprint}"):
            assert (await daemon.ask(None, Authorization=guess)).status == 401


async def test_a_certificate_of_nobody_is_refused_and_hears_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch) as daemon:
        for path in ("/v2/", UPLOADS, "/token"):
            refused = await daemon.ask(STRANGER, path)
            assert refused.status == 401
            assert "the client certificate CN=stranger is of user:stranger" in refused.text
            assert "there is no such account" in refused.text


async def test_a_token_may_be_asked_for_with_a_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = 'mtls = { principal = "host:{DNS}" }'
    async with running(tmp_path, monkeypatch, access, '["host:build-7.example"]') as daemon:
        given = await daemon.ask(HOST, "/token?scope=repository:team/app:pull,push&offline_token=true")
        told = json.loads(given.text.partition("\r\n\r\n")[2])
        assert told["scope"] == "repository:team/app:pull,push"
        assert "refresh_token" not in told
        assert (await daemon.ask(None, Authorization=f"Bearer {told['token']}")).status == 201


async def test_names_of_a_certificate_may_be_a_principal_and_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = 'mtls = { principal = "host:{DNS}", groups = ["{OU}"] }'
    async with running(tmp_path, monkeypatch, access, '["group:ci"]') as daemon:
        assert (await daemon.ask(HOST)).status == 201
        refused = await daemon.ask(BUILDER)
        assert (refused.status, 'has no \\"DNS\\"' in refused.text) == (401, True)


async def test_a_reload_takes_up_other_authorities_and_other_accounts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch) as daemon:
        lasting = await daemon.connect(BUILDER)
        assert (await said(lasting, UPLOADS, {})).status == 201
        daemon.authorities(OTHERS)
        await daemon.reload()
        with pytest.raises(trio.BrokenResourceError) as failed:
            await daemon.ask(BUILDER)
        assert "unknown ca" in str(failed.value.__cause__).lower().replace("_", " ")
        assert (await daemon.ask(OTHERS.issue(("CN", "builder")))).status == 201
        assert (await said(lasting, UPLOADS, {})).status == 201
        file = daemon.configure()
        text = file.read_text()
        file.write_text(text.replace('name = "builder"', 'name = "another"'))
        await daemon.reload()
        refused = await said(lasting, UPLOADS, {})
        assert (refused.status, "there is no such account" in refused.text) == (401, True)
        lasting.transport_stream.socket.close()


async def test_a_reload_with_authorities_that_are_none_keeps_those_from_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch) as daemon:
        (tmp_path / "clients.pem").write_text("nonsense")
        await daemon.reload()
        assert (await daemon.ask(BUILDER)).status == 201


@pytest.mark.parametrize(
    ("pem", "words"),
    [
        (b"nonsense", "holds no certificate in PEM"),
        (BUILDER.pem, "none of its certificates is an authority's"),
    ],
)
def test_authorities_that_are_none_are_one_line_and_nothing_is_started(
    tmp_path: Path, pem: bytes, words: str
) -> None:
    daemon = Daemon(tmp_path)
    (tmp_path / "clients.pem").write_bytes(pem)
    with pytest.raises(CannotStart, match=rf"^server\.tls: .*clients\.pem: {words}$"):
        trio.run(app.main, load(daemon.configure(), {}), trio.Event())
