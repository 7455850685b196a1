"""Content digests: the canonical text, and nothing that is not one."""

from __future__ import annotations

import hashlib
import re
from typing import Protocol

ALGORITHMS = ("sha256", "sha512")

_CANONICAL = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


class InvalidDigest(ValueError):
    """The text is not a digest in canonical form."""


class Hasher(Protocol):
    """What hashlib returns, as far as anybody here uses it."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None: ...

    def hexdigest(self) -> str: ...

    def copy(self) -> Hasher: ...


class Digest(str):
    """ "sha256:<64 hex>" or "sha512:<128 hex>", lower case (image-spec, "Digests").

    A value of this type has been checked, wherever it came from (a path, a row, an upstream): its hex is safe
    as part of a file name.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Digest:
        """Raises InvalidDigest."""
        if _CANONICAL.fullmatch(text) is None:
            raise InvalidDigest(f"not a sha256 or sha512 digest in canonical form: {text[:150]!a}")
        return super().__new__(cls, text)

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Raises InvalidDigest."""
        return cls(text)

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview, algorithm: str = "sha256") -> Digest:
        return cls(f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}")

    @property
    def algorithm(self) -> str:
        return self[:6]

    @property
    def hex(self) -> str:
        return self[7:]

    def hasher(self) -> Hasher:
        """A fresh hash of this digest's algorithm."""
        return hashlib.new(self.algorithm)
