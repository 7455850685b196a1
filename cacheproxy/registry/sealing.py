"""Secrets that rows keep and that have to be read again: sealed with a key that is nowhere in the database.

AES-256-GCM. What is sealed names the key by a part of its hash, so that another key is told from damage, and
is bound to its place: what was moved to another row does not open.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY = re.compile(r"[0-9a-fA-F]{64}")
"""32 bytes, as text in a file."""

_MARK = b"\x01"
"""Of what is sealed. A key in clear, as former versions left it, is DER, and begins with 0x30."""

_ID, _NONCE = 8, 12
"""Bytes."""


class SealedElsewhere(Exception):
    """It was sealed with another key, or is not what was sealed; the message says which row."""


class Seal:
    """Of no use before it has a key: without accounts there is none."""

    def __init__(self) -> None:
        self._key = b""
        self._id = b""

    @property
    def ready(self) -> bool:
        return bool(self._key)

    def use(self, text: str) -> None:
        """Raises ValueError, which repeats nothing of the text."""
        if KEY.fullmatch(text) is None:
            raise ValueError("is not 64 hexadecimal digits; make a key with: openssl rand -hex 32")
        self._key = bytes.fromhex(text)
        self._id = hashlib.sha256(b"cacheproxy key\0" + self._key).digest()[:_ID]

    def close(self, place: str, secret: bytes) -> bytes:
        """Sealed for its place, as "signing_key 1f3a"."""
        nonce = secrets.token_bytes(_NONCE)
        return _MARK + self._id + nonce + _cipher(self._key).encrypt(nonce, secret, place.encode())

    def open(self, place: str, sealed: bytes) -> bytes:
        """Raises SealedElsewhere."""
        from cryptography.exceptions import InvalidTag

        body = sealed[len(_MARK) + _ID :]
        if sealed[: len(_MARK)] != _MARK or sealed[len(_MARK) : len(_MARK) + _ID] != self._id:
            raise SealedElsewhere(f"{place} is sealed with another key")
        try:
            return _cipher(self._key).decrypt(body[:_NONCE], body[_NONCE:], place.encode())
        except (InvalidTag, ValueError):
            raise SealedElsewhere(f"{place} is damaged: it is not what was sealed") from None


def is_clear(secret: bytes) -> bool:
    """Whether a former version left it."""
    return secret[: len(_MARK)] != _MARK


def _cipher(key: bytes) -> AESGCM:
    # A cache without accounts does without it.
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)
