"""What happened in the tree of repositories, as whoever was asked to be told hears of it.

An event is noted in the transaction of the change that it tells (store/outbox.py), so that none is lost and
none tells of what did not happen. A change that changed nothing is none: who pushes the same image under the
same tag again makes no event. Pulls are none either, since a pull writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from enum import StrEnum
from typing import NamedTuple

import msgspec


class Kind(StrEnum):
    IMAGE_PUSHED = "image.pushed"
    """A tag has come to mean an image, one event a tag; or an image came by its digest alone."""
    IMAGE_DELETED = "image.deleted"
    """By a client, a person, or the collection; the tags that meant it have an event each, before it."""
    TAG_DELETED = "tag.deleted"
    IMAGE_CACHED = "image.cached"
    """An upstream's image is here now; or a tag means another one now."""
    REPOSITORY_CREATED = "repository.created"
    REPOSITORY_RENAMED = "repository.renamed"
    REPOSITORY_DELETED = "repository.deleted"
    """With all that was in it, which has no events of its own."""
    BLOB_PUSHED = "blob.pushed"
    BLOB_MOUNTED = "blob.mounted"
    BLOB_DELETED = "blob.deleted"


WORDS: Mapping[str, frozenset[Kind]] = {
    "push": frozenset({Kind.IMAGE_PUSHED}),
    "delete": frozenset({Kind.IMAGE_DELETED, Kind.TAG_DELETED}),
    "cache": frozenset({Kind.IMAGE_CACHED}),
    "repository": frozenset({Kind.REPOSITORY_CREATED, Kind.REPOSITORY_RENAMED, Kind.REPOSITORY_DELETED}),
    "blob": frozenset({Kind.BLOB_PUSHED, Kind.BLOB_MOUNTED, Kind.BLOB_DELETED}),
}
"""What the configuration calls them."""


class By(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who asked for the change, and how."""

    actor: str = ""
    """The principal's name."""
    request: str = ""
    """The request's id, as in the log."""
    address: str = ""
    base: str = ""
    """Scheme and host, as the client called us."""
    method: str = ""
    user_agent: str = ""


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    kind: Kind
    repository: str
    """By canonical name."""
    at: float
    """Seconds since the epoch."""
    digest: str = ""
    media_type: str = ""
    artifact_type: str = ""
    size: int = 0
    """Bytes of the manifest, or of the blob."""
    tag: str = ""
    before: str = ""
    """What the tag meant until then; the repository's former name."""
    source: str = ""
    """The repository that a blob was mounted from."""
    upstream: str = ""
    """The prefix of the upstream that an image came from."""
    by: By | None = None
    """None: nobody asked, as for what a collection finds."""


class Noted(NamedTuple):
    """An event as it is on its way."""

    id: str
    """A UUID; the same at each try, for each who is told, and after a replay."""
    event: Event


by: ContextVar[By | None] = ContextVar("by", default=None)
"""Who asks for what is done in this task."""

_encoder = msgspec.json.Encoder(enc_hook=str)
"""Digests are strings of their own kind."""
_decoder = msgspec.json.Decoder(Event)


def encode(event: Event) -> str:
    return _encoder.encode(event).decode()


def decode(text: str) -> Event:
    """Raises msgspec.MsgspecError."""
    return _decoder.decode(text)
