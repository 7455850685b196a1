"""The certificate that clients are shown: taken whole or not at all, and anew when its files change."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import structlog
import trio

from cacheproxy.edge import metrics

log = structlog.get_logger(__name__)

LOOK_EVERY = 10.0
"""Seconds between two looks at the files. A pair that is caught half renewed does not match, and is looked at
again once its other half has come."""

_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2: those with forward secrecy and authenticated encryption, as all of TLS 1.3 are."""
_NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME (OpenSSL, X509_VERIFY_PARAM_set_flags): expiry is judged apart."""
_WORDS = {
    "KEY_VALUES_MISMATCH": "the key is not this certificate's",
    "KEY_TYPE_MISMATCH": "the key is not this certificate's",
    "EE_KEY_TOO_SMALL": "its key is too short for this system's OpenSSL",
    "CA_MD_TOO_WEAK": "its signature is too weak for this system's OpenSSL",
    "PEM_LIB": "it or its key is damaged",
}

ReadKey = Callable[[], Awaitable[bytes]]
"""The private key as PEM; empty when it stands beside the certificate. Raises CertificateError."""


class CertificateError(Exception):
    """A certificate or its key cannot be used: which, and why, in one line."""


class Certificate:
    """What is shown now. `context` is for a connection that begins; running ones keep theirs."""

    def __init__(
        self,
        chain: Path,
        read_key: ReadKey,
        key_file: Path | None,
        clock: Callable[[], float],
        client_ca: Path | None,
    ) -> None:
        self._chain = chain
        self._read_key = read_key
        self._client_ca = client_ca
        self._files = [path for path in (chain, key_file, client_ca) if path is not None]
        self._clock = clock
        self._seen: Sequence[object] = ()
        self._shown: _Shown

    @classmethod
    async def load(
        cls,
        chain: Path,
        read_key: ReadKey,
        key_file: Path | None = None,
        clock: Callable[[], float] = time.time,
        client_ca: Path | None = None,
    ) -> Certificate:
        """`chain`: PEM, ours first. `key_file` is only watched. `client_ca`: PEM, the authorities of clients'
        certificates; None: none is asked for. Raises CertificateError.
        """
        certificate = cls(chain, read_key, key_file, clock, client_ca)
        await certificate._renew()
        return certificate

    def context(self) -> ssl.SSLContext:
        return self._shown.context

    @property
    def doubt(self) -> str:
        """Why clients will not take it today, although it is whole; "" if they do."""
        now = self._clock()
        if self._shown.expires <= now:
            return f"has expired, on {_day(self._shown.expires)}"
        return f"is not valid before {_day(self._shown.begins)}" if now < self._shown.begins else ""

    async def reload(self) -> bool:
        """Read the files again. One that cannot be used is told in the log, and the old one stays."""
        try:
            await self._renew()
        except CertificateError as error:
            log.warning("certificate not renewed: the old one stays", error=str(error))
            return False
        self.announce()
        return True

    async def watch(self) -> None:
        """Runs until cancelled: reloads whenever a file has changed. Where the key comes from a command or a
        credential there is no file of it: it is read again with the certificate."""
        while True:
            await trio.sleep(LOOK_EVERY)
            if await trio.to_thread.run_sync(self._look) != self._seen:
                await self.reload()

    async def _renew(self) -> None:
        self._seen = await trio.to_thread.run_sync(self._look)  # before reading: a later change is seen
        key = await self._read_key()
        self._shown = await trio.to_thread.run_sync(_load, self._chain, key, self._client_ca)

    def announce(self) -> None:
        """In the log and in the metrics: this is what clients are shown from now on."""
        metrics.CERTIFICATE_EXPIRES.set(self._shown.expires)
        log.info("certificate loaded", certificate=str(self._chain), expires=_day(self._shown.expires))
        if self.doubt:
            log.warning(f"certificate {self.doubt}", certificate=str(self._chain))

    def _look(self) -> Sequence[object]:
        return [_state(path) for path in self._files]


class _Shown(NamedTuple):
    context: ssl.SSLContext
    begins: float
    expires: float
    """As time.time()."""


def _day(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(moment))


def _state(path: Path) -> object:
    """What changes whenever somebody writes or replaces the file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size


def _load(chain: Path, key: bytes, client_ca: Path | None) -> _Shown:
    """Raises CertificateError."""
    pem = _read(chain)
    if b"PRIVATE KEY-----" not in key + pem:
        raise CertificateError(f"{chain}: its key is not in PEM")
    context = server_context()
    if client_ca is not None:
        _ask_clients(context, client_ca)
    try:
        _show(context, chain, pem + b"\n" + key)
        return _Shown(context, *_validity(context, pem))
    except ssl.SSLCertVerificationError as error:
        raise CertificateError(f"{chain}: no client takes it: {error.verify_message}") from error
    except ssl.SSLError as error:
        why = _WORDS.get(_reason(error), str(error))
        raise CertificateError(f"{chain}: {why}") from error


def _read(file: Path) -> bytes:
    """PEM with a certificate in it, whole or not. Raises CertificateError."""
    try:
        pem = file.read_bytes()
    except OSError as error:
        raise CertificateError(f"{file}: {error.strerror}") from error
    if b"-----BEGIN CERTIFICATE-----" not in pem:
        raise CertificateError(f"{file}: holds no certificate in PEM")
    return pem


def _ask_clients(context: ssl.SSLContext, client_ca: Path) -> None:
    """Who has no certificate goes on without; one that none of these authorities made ends the handshake."""
    pem = _read(client_ca)
    try:
        context.load_verify_locations(cadata=pem.decode("ascii", "replace"))
    except ssl.SSLError as error:
        raise CertificateError(f"{client_ca}: its certificates are damaged") from error
    if not context.cert_store_stats()["x509_ca"]:
        raise CertificateError(f"{client_ca}: none of its certificates is an authority's")
    context.verify_mode = ssl.CERT_OPTIONAL
    # Who is listed is trusted, whoever signed it: an intermediate authority stands for itself.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN


def _reason(error: ssl.SSLError) -> str:
    """OpenSSL's name for it; the module has none for what the parser of PEM says."""
    return error.reason or ("PEM_LIB" if "PEM lib" in str(error) else "")


def server_context() -> ssl.SSLContext:
    """TLS 1.2 and up, HTTP/1.1, no client certificates yet, nor one of our own.

    The client's order of ciphers counts: all of them are good, and it knows which its processor does fast.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION
    # An end without close_notify is an end: HTTP's framing judges what is missing, and our answer to it is a
    # 400, not the alert that OpenSSL would send before it. Some builds of Python have this by default.
    context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
    context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    return context


def _show(context: ssl.SSLContext, chain: Path, pem: bytes) -> None:
    def no_password() -> str:  # else OpenSSL asks the terminal
        raise CertificateError(f"{chain}: its key is encrypted; store it unencrypted")

    # OpenSSL reads keys from files only; this one may never have been on a disk.
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password=no_password)
    finally:
        os.close(descriptor)


def _validity(context: ssl.SSLContext, pem: bytes) -> tuple[float, float]:
    """Its begin and its end, by a handshake with ourselves: OpenSSL alone can read a certificate, and
    the key is tried.

    The client trusts just this certificate, so what it still objects to every client will.
    """
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.verify_flags = ssl.VerifyFlags(ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME)
    trusting.load_verify_locations(cadata=pem.decode("ascii", "replace"))
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(back, there)
    server = context.wrap_bio(there, back, server_side=True)
    for side in (client, server, client):
        with suppress(ssl.SSLWantReadError):
            side.do_handshake()
    shown = client.getpeercert() or {}
    begins, expires = (ssl.cert_time_to_seconds(str(shown[end])) for end in ("notBefore", "notAfter"))
    return begins, expires
