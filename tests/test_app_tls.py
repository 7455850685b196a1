"""The daemon that shows a certificate, from its configuration to a client's request."""

from __future__ import annotations

import signal
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import structlog
import trio
import trustme

from cacheproxy import app, systemd
from cacheproxy.config import load
from cacheproxy.edge import certificate
from cacheproxy.wiring import CannotStart

AUTHORITY = trustme.CA()
REQUEST = b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def issue(folder: Path) -> None:
    issued = AUTHORITY.issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(folder / "tls.crt")
    issued.private_key_pem.write_to_path(folder / "tls.key")


def configuration(folder: Path, key: str = '{ file = "tls.key" }') -> Path:
    path = folder / "c.toml"
    path.write_text(
        f"""
        [server]
        listen = ["127.0.0.1:0", "unix:{folder}/s"]
        metrics = "127.0.0.1:0"
        tls = {{ certificate = "tls.crt", key = {key} }}
        [storage]
        state = "state"
        """
    )
    return path


@asynccontextmanager
async def daemon(file: Path) -> AsyncIterator[Mapping[str, list[str]]]:
    drain = trio.Event()
    async with trio.open_nursery() as nursery:
        yield await nursery.start(app.main, load(file, {}), drain)
        drain.set()


async def status(stream: trio.abc.Stream) -> bytes:
    async with stream:
        await stream.send_all(REQUEST)
        answer = b""
        while data := await stream.receive_some():
            answer += data
    return answer.split(b" ")[1]


async def test_tcp_speaks_tls_and_a_unix_socket_and_metrics_do_not(tmp_path: Path) -> None:
    issue(tmp_path)
    trusting = ssl.create_default_context()
    AUTHORITY.configure_trust(trusting)
    async with daemon(configuration(tmp_path)) as bound:
        port = int(bound["listen"][0].rpartition(":")[2])
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        secure = trio.SSLStream(stream, trusting, server_hostname="localhost", https_compatible=True)
        assert await status(secure) == b"200"
        assert await status(await trio.open_tcp_stream("127.0.0.1", port)) == b"400"
        assert await status(await trio.open_unix_socket(str(tmp_path / "s"))) == b"200"
        metrics = int(bound["metrics"][0].rpartition(":")[2])
        assert await status(await trio.open_tcp_stream("127.0.0.1", metrics)) == b"404"


@asynccontextmanager
async def reloading(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Reloading]:
    """A daemon with the configuration in `folder`; the file may be written again."""
    house, drain = Reloading(), trio.Event()
    monkeypatch.setattr(systemd, "ready", lambda _: house.told.set())
    async with trio.open_nursery() as nursery:
        start = partial(app.main, hangups=house.hangups)
        bound = await nursery.start(start, load(folder / "c.toml", {}), drain)
        house.port = int(bound["listen"][0].rpartition(":")[2])
        yield house
        drain.set()


class Reloading:
    def __init__(self) -> None:
        self.hangup, self.hangups = trio.open_memory_channel[int](1)
        self.told = trio.Event()
        self.port = 0

    async def reload(self) -> None:
        self.told = trio.Event()
        await self.hangup.send(signal.SIGHUP)
        with trio.fail_after(certificate.LOOK_EVERY / 2):
            await self.told.wait()

    async def shown(self) -> str:
        """The certificate that a new connection sees, as PEM."""
        return await trio.to_thread.run_sync(ssl.get_server_certificate, ("127.0.0.1", self.port))


async def test_a_reload_takes_up_a_renewed_certificate_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    issue(tmp_path)
    configuration(tmp_path)
    async with reloading(tmp_path, monkeypatch) as house:
        former = await house.shown()
        issue(tmp_path)
        await house.reload()
        assert await house.shown() == (tmp_path / "tls.crt").read_text() != former


async def test_a_reload_reads_a_key_again_that_a_command_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    issue(tmp_path)
    configuration(tmp_path, f'{{ command = ["cat", "{tmp_path}/tls.key"] }}')
    async with reloading(tmp_path, monkeypatch) as house:
        issue(tmp_path)
        await house.reload()
        assert await house.shown() == (tmp_path / "tls.crt").read_text()


async def test_a_reload_with_a_key_of_another_certificate_is_one_line_and_the_old_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    issue(tmp_path)
    configuration(tmp_path)
    async with reloading(tmp_path, monkeypatch) as house:
        former = await house.shown()
        AUTHORITY.issue_cert("localhost").private_key_pem.write_to_path(tmp_path / "tls.key")
        with structlog.testing.capture_logs() as told:
            await house.reload()
        problems = [line["problem"] for line in told if line["event"] == "configuration refused"]
        assert problems == [f"server.tls: {tmp_path}/tls.crt: the key is not this certificate's"]
        assert await house.shown() == former


async def test_a_reload_takes_a_certificate_from_elsewhere_and_tls_away_and_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    issue(tmp_path)
    file = configuration(tmp_path)
    text = file.read_text()
    async with reloading(tmp_path, monkeypatch) as house:
        (tmp_path / "other").mkdir()
        issue(tmp_path / "other")
        file.write_text(text.replace('"tls.', '"other/tls.'))
        await house.reload()
        assert await house.shown() == (tmp_path / "other" / "tls.crt").read_text()
        file.write_text("\n".join(line for line in text.splitlines() if "tls" not in line))
        await house.reload()
        assert await status(await trio.open_tcp_stream("127.0.0.1", house.port)) == b"200"
        file.write_text(text)
        await house.reload()
        assert await house.shown() == (tmp_path / "tls.crt").read_text()


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ('{ file = "other.key" }', r"^server\.tls: .*tls\.crt: the key is not this certificate's$"),
        ('{ command = ["false"] }', r"^server\.tls: its key: false"),
        ('{ credential = "tls.key" }', r"^server\.tls: its key: credential tls\.key: \$CREDENTIALS_DIR"),
    ],
)
def test_what_cannot_be_shown_is_one_line_and_nothing_is_started(
    key: str, words: str, tmp_path: Path
) -> None:
    issue(tmp_path)
    AUTHORITY.issue_cert("localhost").private_key_pem.write_to_path(tmp_path / "other.key")
    with pytest.raises(CannotStart, match=words):
        trio.run(app.main, load(configuration(tmp_path, key), {}), trio.Event())
    assert not (tmp_path / "state").exists()
