"""TLS as a server: the same wire, with OpenSSL between it and the socket.

What the socket has is taken in one gulp and decrypted in memory, and a body is encrypted in steps that are
each one read of the file, one call of OpenSSL and one write: `trio.SSLStream` would wait once for every
record of 16 KiB. Nothing here ever waits for close_notify; who frames the message knows whether it is whole.
"""

from __future__ import annotations

import os
import socket
import ssl
from contextlib import suppress
from typing import ClassVar

import structlog
import trio

from cacheproxy.edge import clientcertificate, metrics
from cacheproxy.edge.limits import Limits
from cacheproxy.edge.wire import GULP, READ, ClientGone, Phase, Wire

log = structlog.get_logger(__name__)

STEP = 256 * 1024
"""Plaintext of one write to the socket: half the processor time of a record of 16 KiB each, and as much as a
second-level cache holds."""
PIECE = 32 * 1024
"""Plaintext of one call of OpenSSL: its buffer stays as large as the largest piece was, for as long as the
connection lives."""
TURNED_AWAY = b"\x15\x03\x03\x00\x02\x02\x50"
"""A record with the fatal alert internal_error (RFC 8446 section 6), for a client that nobody listens to: the
only word it understands before a handshake."""
PLAIN = "this port speaks TLS: use https://"

_UNSENT = 64 * 1024
"""Bytes that reading made us say and the client does not take: an endless stream of key updates."""
_buffer = memoryview(bytearray(STEP))
"""One for all connections: nobody waits between filling it and encrypting what it holds."""


def _read(source: int, buffer: memoryview, offset: int) -> int:
    """As many bytes as are there without waiting for the disk."""
    try:
        got = os.preadv(source, (buffer,), offset, os.RWF_NOWAIT)
    except OSError:
        got = 0  # gone again, or the file system cannot tell
    return got or os.preadv(source, (buffer,), offset)


def _after(pieces: list[bytes | memoryview], count: int) -> list[bytes | memoryview]:
    """What is left of the pieces when so many bytes of them have gone."""
    for number, piece in enumerate(pieces):
        if count < len(piece):
            return [memoryview(piece)[count:], *pieces[number + 1 :]]
        count -= len(piece)
    return []


def _note(error: ssl.SSLError) -> None:
    """A client certificate that is not taken is told to the operator: the client hears one word, an alert."""
    if isinstance(error, ssl.SSLCertVerificationError):
        log.info("client certificate refused", reason=error.verify_message)
    else:
        log.debug("TLS handshake failed", error=str(error))


class TLSWire(Wire):
    """A wire whose bytes are encrypted. Its accounts are of plaintext, but for what `through` measures."""

    __slots__ = ("_arrived", "_ended", "_incoming", "_outgoing", "_plain", "_tls", "_unsent", "_written")

    scheme: ClassVar = "https"
    step: ClassVar = STEP

    def __init__(self, sock: socket.socket, deadline: float, context: ssl.SSLContext) -> None:
        super().__init__(sock, deadline)
        self.phase = Phase.HANDSHAKE
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._unsent: list[bytes | memoryview] = []
        """Encrypted, and not yet handed to the kernel."""
        self._written = 0
        """Encrypted bytes handed to the kernel."""
        self._arrived = 0
        """Encrypted bytes taken from it."""
        self._ended = False
        """The client has ended its side, with close_notify or without."""
        self._plain = False
        """The client does not speak TLS, so neither do we."""

    async def open(self, limits: Limits) -> str | None:
        """The handshake. What a client hears that does not speak TLS."""
        first = await self._take(READ)
        if not first:
            raise ClientGone("it went without a word")
        if b"A" <= first[:1] <= b"Z":
            self._plain = True
            return PLAIN
        self._incoming.write(first)
        try:
            await self._shake_hands()
        except ssl.SSLError as error:
            metrics.HANDSHAKES_FAILED.inc()
            _note(error)
            self._try_to_flush()  # the alert that says why
            # In TLS 1.3 the client has asked already: closing on that would reset the alert away.
            await Wire.linger(self, limits.linger)
            raise ClientGone from error
        self.certificate = clientcertificate.shown(self._tls)
        self.expect(Phase.HEADER, trio.current_time() + limits.header)
        return None

    async def _shake_hands(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
                more = False
            except ssl.SSLWantReadError:
                more = True
            while not self._try_to_flush():
                await trio.lowlevel.wait_writable(self.fd)
            if not more:
                return
            await self._fill(READ)

    def through(self) -> int:
        return (
            self._arrived if self.phase is Phase.RECEIVING else super().through() - self.sent + self._written
        )

    async def recv(self) -> bytes:
        """As of any wire; while a body is received, as much as one gulp holds."""
        size = GULP if self.phase is Phase.RECEIVING else READ
        waited = False
        while True:
            data = self._decrypted(size)
            self._try_to_flush()
            if self._unsent and sum(map(len, self._unsent)) > _UNSENT:
                raise ClientGone("it makes us speak and does not listen")
            if data or self._ended:
                if not waited:
                    await trio.lowlevel.checkpoint()
                self.received += len(data)
                return data
            await self._fill(size)
            waited = True

    def _decrypted(self, size: int) -> bytes:
        """All records that are here whole, up to `size` bytes."""
        parts: list[bytes] = []
        try:
            while size:
                part = self._tls.read(min(size, READ))
                if not part:
                    self._ended = True
                    break
                parts.append(part)
                size -= len(part)
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            self._ended = True
        except ssl.SSLError as error:
            self.reset = True
            raise ClientGone from error
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def send(self, data: bytes | memoryview, more: bool = False) -> None:
        """All of it. `more`: it leaves with what follows."""
        self._encrypt(data)
        if self.first_sent is None and self._answering:
            self.first_sent = trio.current_time()
        if not more:
            while not self._try_to_flush():
                await self._writable()
        self.sent += len(data)

    def _encrypt(self, data: bytes | memoryview) -> None:
        with memoryview(data) as rest:
            done = 0
            while done < len(rest):
                try:
                    done += self._tls.write(rest[done : done + PIECE])
                except ssl.SSLError as error:
                    raise ClientGone from error
                self._unsent.append(self._outgoing.read())

    async def sendfile(self, source: int, offset: int, count: int) -> int:
        """As of any wire: who asks has seen to it that the first of these bytes are in memory."""
        got = _read(source, _buffer[:count], offset)
        await self.send(_buffer[:got])
        return got

    async def _fill(self, count: int) -> None:
        """Bytes for OpenSSL to decrypt, or their end."""
        data = await self._take(count)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def _take(self, count: int) -> bytes:
        """What the socket has; empty at its end."""
        while True:
            await trio.lowlevel.wait_readable(self.fd)
            try:
                data = self.sock.recv(count)
            except BlockingIOError:
                continue
            except OSError as error:
                raise ClientGone from error
            self._arrived += len(data)
            return data

    def _try_to_flush(self) -> bool:
        """Hand over what the kernel takes now. False: it has not taken all."""
        if self._outgoing.pending:
            self._unsent.append(self._outgoing.read())
        while self._unsent:
            try:
                count = self.sock.sendmsg(self._unsent)
            except BlockingIOError:
                return False
            except OSError as error:
                raise ClientGone from error
            self._written += count
            self._unsent = _after(self._unsent, count)
        return True

    async def linger(self, seconds: float) -> None:
        self._say_goodbye()
        await super().linger(seconds)

    def send_now(self, data: bytes) -> bool:
        if self._plain:
            return super().send_now(data)
        try:
            self._encrypt(data)
            return self._try_to_flush()
        except ClientGone:
            return False

    def close(self) -> None:
        if not self.reset:
            self._say_goodbye()
        super().close()

    def _say_goodbye(self) -> None:
        """close_notify (RFC 8446 section 6.1), as far as the kernel takes it now."""
        if self._plain or self.phase is Phase.HANDSHAKE:
            return
        with suppress(ssl.SSLError, ClientGone):
            with suppress(ssl.SSLWantReadError):  # for the client's own, which is not waited for
                self._tls.unwrap()
            self._try_to_flush()
