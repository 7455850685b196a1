"""What must hold of a cache's rows and bytes, and what is said where it does not. Pure comparisons.

By the names that the checks of other stores have, too: I2 bytes are what their name says; I3 what an image
names is in its repository; I4 tags and manifests; I6 links; I7 nothing is left past its time; I8 rows and
files are of one another; I9 the database; I10 sizes; I11 referrers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from cacheproxy.core.digest import Digest, InvalidDigest
from cacheproxy.core.manifest import ManifestInvalid, ParsedManifest, parse

Remedy = Literal["forget", "remove", "empty"]
"""What mends it and can do no harm: the row has no bytes any more, and the next pull brings them; a file that
no row names goes; a file in the trash goes."""

NEXT_PULL = (
    "--repair forgets the bytes: the next pull brings them again, or, of what was pushed, the next push"
)
SWEPT = "--repair removes it; so does a running daemon, in time"
RECORD_AGAIN = "purge this image (cacheproxy purge): the next pull records it anew"
SCRUB = "cacheproxy scrub IMAGE, with the daemon running: it puts the bytes aside and fetches them again"
PUSH_AGAIN = "push it again: whoever has the image has its bytes"
RESTORE = "stop the daemon, and restore the database from a backup, or start with an empty one"


@dataclass(frozen=True, slots=True)
class Finding:
    invariant: str
    what: str
    where: str
    """A digest, a place in the store, a repository's image or tag; for the remedy, of what it is."""
    advice: str
    remedy: Remedy | None = None
    """None: somebody has to decide."""
    generation: int = 0
    """Of the bytes to be forgotten."""


class StoredRow(NamedTuple):
    """A blob whose bytes are here, by the rows."""

    digest: str
    size: int
    generation: int
    location: str


class Stored(NamedTuple):
    """A file or object whose name is one of ours."""

    digest: Digest
    location: str
    size: int
    written: float
    """Seconds since the epoch."""


class ImageRow(NamedTuple):
    """A manifest in one repository, by the rows."""

    repository: str
    digest: str
    media_type: str
    artifact_type: str | None
    size: int
    subject: str | None


def lacking(rows: Iterable[StoredRow], there: Mapping[str, Stored]) -> Iterator[Finding]:
    """Rows whose bytes are not there, or are too many or too few."""
    for row in rows:
        found = there.get(row.location)
        if not _is_digest(row.digest):
            yield Finding(
                "I6", "what its row calls a digest is none", row.digest, RESTORE, None, row.generation
            )
        elif found is None or found.digest != row.digest:
            said = f"the row's bytes are not there: {row.location}"
            yield Finding("I8", said, row.digest, NEXT_PULL, "forget", row.generation)
        elif found.size != row.size:
            said = f"{row.location} has {found.size} bytes, and its row says {row.size}"
            yield Finding("I10", said, row.digest, NEXT_PULL, "forget", row.generation)


def orphans(there: Iterable[Stored], named: Collection[str], before: float) -> Iterator[Finding]:
    """Files that neither a row nor the trash names, written `before` that: later ones may yet get a row."""
    for found in there:
        if found.location not in named and found.written < before:
            said = f"{found.size} bytes that no row names"
            yield Finding("I8", said, found.location, SWEPT, "remove")


def stray(place: str, size: int) -> Finding:
    """What is left of an upload, or of what was set aside, and no row names."""
    return Finding("I7", f"{size} bytes that no row names", place, "--repair removes it", "remove")


def overdue(arriving: Iterable[tuple[str, float]], before: float) -> Iterator[Finding]:
    """Unfinished downloads, by name and the time of their last byte."""
    for name, touched in arriving:
        if touched < before:
            said = "an unfinished download that nobody came back for"
            yield Finding("I7", said, name, "a running daemon removes it, hourly")


def altered(row: StoredRow, hexdigest: str) -> Iterator[Finding]:
    """`hexdigest` is of the bytes that are there."""
    if hexdigest != Digest.parse(row.digest).hex:
        said = f"the bytes at {row.location} have another digest, {hexdigest}"
        yield Finding("I2", said, row.digest, SCRUB)


def unreadable(row: StoredRow, error: str) -> Finding:
    said = f"the bytes at {row.location} cannot be read: {error}"
    return Finding("I2", said, row.digest, f"look at the disk (dmesg, smartctl); then {SCRUB}")


def misread(
    body: bytes, images: Iterable[ImageRow], blobs: Mapping[str, set[str]], children: Mapping[str, set[str]]
) -> Iterator[Finding]:
    """What the rows say of one manifest, against the manifest; `blobs` and `children` by repository."""
    for image in images:
        where = f"{image.repository}@{image.digest}"
        for invariant, said in _differences(body, image, blobs, children):
            yield Finding(invariant, said, where, RECORD_AGAIN)


def _differences(
    body: bytes, image: ImageRow, blobs: Mapping[str, set[str]], children: Mapping[str, set[str]]
) -> Iterator[tuple[str, str]]:
    if not _is_digest(image.digest) or Digest.of(body, image.digest.partition(":")[0]) != image.digest:
        yield "I4", "the manifest's bytes have another digest"
        return
    if len(body) != image.size:
        yield "I10", f"the manifest has {len(body)} bytes, and its row says {image.size}"
    try:
        parsed = parse(body, image.media_type)
    except ManifestInvalid as error:
        yield "I3", f"the manifest cannot be read: {error}"
        return
    for invariant, name, told, true in (
        ("I3", "blobs", *_blobs(parsed, blobs.get(image.repository, set()))),
        ("I3", "children", children.get(image.repository, set()), {str(m.digest) for m in parsed.manifests}),
        ("I11", "a subject", {image.subject} - {None}, _subject(parsed)),
        ("I11", "an artifact type", {image.artifact_type} - {None}, {parsed.artifact_type} - {None}),
    ):
        if told != true:
            odd = ", ".join(sorted(str(one) for one in told ^ true))
            yield invariant, f"its rows and the manifest disagree on {name}: {odd}"


def _is_digest(text: str) -> bool:
    try:
        Digest.parse(text)
    except InvalidDigest:
        return False
    return True


def _blobs(parsed: ParsedManifest, told: set[str]) -> tuple[set[str], set[str]]:
    """Those of the rows, and of the manifest; without layers that are elsewhere and that no row names."""
    elsewhere = {str(blob.digest) for blob in parsed.blobs if blob.urls}
    return told, {str(blob.digest) for blob in parsed.blobs} - (elsewhere - told)


def _subject(parsed: ParsedManifest) -> set[str | None]:
    return set() if parsed.subject is None else {str(parsed.subject.digest)}
