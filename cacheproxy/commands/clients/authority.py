"""Who signed the cache's certificate: only certificates leave these files, whatever else is in them."""

from __future__ import annotations

import re
import ssl
from pathlib import Path

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----\n.+?\n-----END CERTIFICATE-----", re.DOTALL)


class NoAuthority(Exception):
    """The message says of which file, and why."""


def certificates(file: Path) -> str:
    """All certificates of a PEM file, and not the key that may be beside them. Raises NoAuthority."""
    return "".join(_read(file))


def self_signed(file: Path) -> str | None:
    """Those authorities of a certificate's own chain that nobody else signed. Raises NoAuthority."""
    return "".join(pem for pem in _read(file) if _is_self_signed(pem)) or None


def _read(file: Path) -> list[str]:
    try:
        text = file.read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise NoAuthority(f"{file}: {error.strerror}") from error
    found = [f"{pem}\n" for pem in _CERTIFICATE.findall(text)]
    if not found:
        raise NoAuthority(f"{file}: holds no certificate in PEM")
    try:
        for pem in found:
            _trusting(pem)
    except ssl.SSLError as error:
        raise NoAuthority(f"{file}: a certificate in it is damaged") from error
    return found


def _is_self_signed(pem: str) -> bool:
    """By its names; OpenSSL tells those of authorities only."""
    return any(one.get("subject") == one.get("issuer") for one in _trusting(pem).get_ca_certs())


def _trusting(pem: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=pem)
    return context
