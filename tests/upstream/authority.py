"""Certificates for the tests, made once."""

from __future__ import annotations

import ssl
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import trustme


@cache
def authority() -> trustme.CA:
    return trustme.CA()


@cache
def _folder() -> TemporaryDirectory[str]:
    return TemporaryDirectory()


def ca_file() -> Path:
    """What a client has to trust."""
    path = Path(_folder().name, "ca.pem")
    authority().cert_pem.write_to_path(path)
    return path


def server_context(*names: str, of: trustme.CA | None = None, asks: bool = False) -> ssl.SSLContext:
    """A server's, for `names` (127.0.0.1 if there are none); one that `asks` wants a client's certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    (of or authority()).issue_cert(*(names or ("127.0.0.1", "localhost"))).configure_cert(context)
    if asks:
        context.verify_mode = ssl.CERT_REQUIRED
        authority().configure_trust(context)
    return context
