"""What goes with a delivery, and what its answer means: rules of Standard Webhooks 1.0, and our own pace."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from enum import Enum, auto
from typing import NamedTuple

PREFIX = "whsec_"
"""What a secret begins with (Standard Webhooks, "Signature scheme")."""

KEY_BYTES = range(24, 65)

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 600.0
"""Seconds before a try is made again: they double from the first to the longest."""


class BadSecret(ValueError):
    """Not what deliveries are signed with; the message does not repeat it."""


def parse_secrets(text: str) -> tuple[bytes, ...]:
    """One key, or several while receivers change from one to the next, with blanks between. Raises
    BadSecret."""
    keys = tuple(map(_key, text.split()))
    if not keys:
        raise BadSecret("it is empty")
    return keys


def _key(word: str) -> bytes:
    try:
        key = base64.b64decode(word.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not word.startswith(PREFIX) or len(key) not in KEY_BYTES:
        raise BadSecret(
            'it has to be "whsec_" and the base64 of 24 to 64 random bytes'
            " (printf whsec_; openssl rand -base64 32)"
        )
    return key


def headers(event: str, at: int, body: bytes, keys: tuple[bytes, ...]) -> list[tuple[str, str]]:
    """By which a receiver knows the event again, and whom it is from. `event`: its id; `at`: seconds."""
    told = [("webhook-id", event), ("webhook-timestamp", str(at))]
    signed = f"{event}.{at}.".encode() + body
    signatures = " ".join(_signature(key, signed) for key in keys)
    return [*told, ("webhook-signature", signatures)] if signatures else told


def _signature(key: bytes, signed: bytes) -> str:
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


class Verdict(Enum):
    """What an answer says."""

    TAKEN = auto()
    REFUSED = auto()
    """This event: another one may be taken."""
    AWAY = auto()
    """Nothing that is sent there now is taken."""
    GONE = auto()
    """Nothing is wanted any more (Standard Webhooks: 410)."""


_ABOUT_THE_EVENT = frozenset({400, 406, 409, 411, 413, 414, 415, 417, 422, 431})
"""Statuses with which a receiver that works says that it cannot do anything with what was sent. All other
failures say something about the receiver, its address, or who we are to it."""


def judge(status: int, shape: str) -> Verdict:
    if 200 <= status < 300 or (shape == "distribution" and 300 <= status < 400):
        # Receivers of distribution's may answer with a redirect that nobody follows.
        return Verdict.TAKEN
    if status == 410:
        return Verdict.GONE
    return Verdict.REFUSED if status in _ABOUT_THE_EVENT else Verdict.AWAY


class Pace(NamedTuple):
    first: float = FIRST_PAUSE
    longest: float = LONGEST_PAUSE

    def pause(self, failures: int, chance: float) -> float:
        """Seconds after so many failures in a row. `chance` is from 0 to 1: many senders are not to come back
        all at once."""
        whole = min(self.longest, self.first * 2.0 ** min(max(failures - 1, 0), 60))
        return whole * (0.5 + chance / 2)
