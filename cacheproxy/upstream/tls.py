"""TLS as a client: what we trust and show, and a stream that reads in bulk."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import httpx
import trio

from cacheproxy.upstream.wire import GULP, Stream

_RECORD = 16 * 1024
"""Plaintext of one TLS record, at most (RFC 8446 section 5.1): one call of OpenSSL gives no more."""


def client_context(
    ca: Path | None = None, certificate: Path | None = None, key: bytes | Path | None = None
) -> ssl.SSLContext:
    """The context for one upstream's connections: TLS 1.2 and up, certificates and host names checked.

    `ca` (PEM) is trusted beside the system's authorities, because a private registry may redirect to a public
    store. `certificate` (PEM, with its chain) is shown to servers that ask; `key` is its key as a file or as
    PEM bytes, None when the certificate's file holds it too. The key must not be encrypted. Raises OSError
    (no such file) and ssl.SSLError (not PEM, or the key is not the certificate's).
    """
    context = _trusting_the_system()
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # not every Python's, or system's, default
    context.set_alpn_protocols(["http/1.1"])
    if ca is not None:
        context.load_verify_locations(cafile=ca)
    if certificate is not None:
        _show(context, certificate, key)
    return context


def _trusting_the_system() -> ssl.SSLContext:
    context = ssl.create_default_context()
    folder = ssl.get_default_verify_paths().capath
    if context.cert_store_stats()["x509_ca"] or (folder and any(Path(folder).iterdir())):
        return context
    return httpx.create_ssl_context(
        trust_env=False
    )  # a system without authorities: the ones that came with httpx


def _show(context: ssl.SSLContext, certificate: Path, key: bytes | Path | None) -> None:
    if not isinstance(key, bytes):
        context.load_cert_chain(certificate, key, password=_no_password)
        return
    # OpenSSL reads keys from files only; this one is never on a disk.
    descriptor = os.memfd_create("key", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(key)
        context.load_cert_chain(certificate, f"/proc/self/fd/{descriptor}", password=_no_password)
    finally:
        os.close(descriptor)


def _no_password() -> str:
    raise ssl.SSLError(
        "the key of the client certificate is encrypted; store it unencrypted"
    )  # else OpenSSL asks the terminal


class BulkTLS:
    """A client's TLS over another stream.

    `trio.SSLStream` gives one record an await, 65 000 awaits a GiB; this one takes what the socket has in one
    gulp and decrypts all of it at once: twice the speed, half the CPU.
    """

    def __init__(self, under: Stream, context: ssl.SSLContext, server_hostname: str) -> None:
        self._under = under
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_hostname)
        self._ended = False

    async def handshake(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            else:
                await self._flush()
                return

    async def send(self, data: bytes) -> None:
        self._tls.write(data)
        await self._flush()

    async def receive(self) -> bytes:
        """As `Stream.receive`. A peer that ends without close_notify has ended all the same: who framed the
        message knows whether it is whole."""
        waited = False
        while True:
            data = self._decrypted()
            if self._outgoing.pending and not self._ended:  # what reading made us say: a key update
                await self._flush()
            if data or self._ended:
                if not waited:
                    await trio.lowlevel.checkpoint()
                return data
            await self._fill()
            waited = True

    def close(self) -> None:
        self._under.close()

    def quiet(self) -> bool:
        return not (self._ended or self._incoming.pending or self._tls.pending()) and self._under.quiet()

    def _decrypted(self) -> bytes:
        """All records that are here whole, up to a gulp."""
        parts: list[bytes] = []
        size = 0
        try:
            while size <= GULP - _RECORD:
                part = self._tls.read(_RECORD)
                if not part:
                    self._ended = True
                    break
                parts.append(part)
                size += len(part)
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            self._ended = True
        return b"".join(parts)

    async def _fill(self) -> None:
        data = await self._under.receive()
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await self._under.send(self._outgoing.read())
