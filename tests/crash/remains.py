"""What a crash left on the disk, looked at from outside: no daemon runs, and nothing is changed."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

from cacheproxy.core.digest import Digest
from cacheproxy.store import journal


@dataclass
class Found:
    wrong: list[str] = field(default_factory=list)
    """What must not be, whatever happened (reliability: I2, I4, I8, I9)."""
    images: set[tuple[str, str]] = field(default_factory=set)
    """Repository and digest."""
    tags: dict[tuple[str, str], str] = field(default_factory=dict)
    stored: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Blobs whose bytes are here: location and size."""
    linked: set[tuple[str, str]] = field(default_factory=set)
    """Repository and blob."""
    orphans: set[str] = field(default_factory=set)
    """Stored files that neither a row nor the trash names: swept when they are old."""
    trash: set[str] = field(default_factory=set)
    damaged: set[str] = field(default_factory=set)
    """Places that the quarantine names, whether their files were moved there yet or not."""


PREFIX = "docker-hub/"

_IMAGES = """
SELECT repository.name, image.digest, manifest.body
FROM image JOIN repository ON repository.id = image.repository JOIN manifest ON manifest.digest = image.digest
"""
_TAGS = (
    "SELECT repository.name, tag.name, tag.digest FROM tag JOIN repository ON repository.id = tag.repository"
)
_LINKS = "SELECT repository.name, link.digest FROM link JOIN repository ON repository.id = link.repository"


def look(state: Path, blobs: Mapping[str, bytes]) -> Found:
    """`blobs` are the right bytes, by digest."""
    root = state / "blobs"
    files = {str(path.relative_to(root)): path.read_bytes() for path in (root / "blobs").rglob("*.*")}
    with tempfile.TemporaryDirectory() as folder:
        # A copy: to open a database is to recover it, and that is the daemon's to do.
        for name in ("cacheproxy.db", "cacheproxy.db-wal"):
            if (state / name).exists():
                shutil.copyfile(state / name, Path(folder, name))
        if Path(folder, "cacheproxy.db").exists():
            with closing(apsw.Connection(str(Path(folder, "cacheproxy.db")))) as database:
                found = look_at(_sound(database), files, root / "partial", blobs)
                found.wrong += _unsound(database)
                return found
    return look_at(None, files, root / "partial", blobs)


Ask = Callable[[str], Iterable[tuple[Any, ...]]]
"""Rows of a query."""


def look_at(ask: Ask | None, files: Mapping[str, bytes], partials: Path, blobs: Mapping[str, bytes]) -> Found:
    """`ask` None: there are no rows yet. `files` are what is stored, by place."""
    found = Found()
    if ask is not None:
        _rows(ask, found)
    _files(files, found)
    _partials(partials, blobs, found)
    return found


def _sound(database: apsw.Connection) -> Ask | None:
    made = database.execute("SELECT 1 FROM sqlite_schema WHERE name = 'blob'").fetchall()
    return database.execute if made else None


def _unsound(database: apsw.Connection) -> list[str]:
    """What SQLite itself finds."""
    checks = {"integrity_check": [("ok",)], "foreign_key_check": []}
    said = {check: database.execute(f"PRAGMA {check}").fetchall() for check in checks}
    return [f"{check}: {said[check]}" for check, right in checks.items() if said[check] != right]


def _rows(ask: Ask, found: Found) -> None:
    for repository, digest, body in ask(_IMAGES):
        found.images.add((repository.removeprefix(PREFIX), digest))
        if _digest(body) != digest:
            found.wrong.append(f"manifest {digest} has other bytes")
    for repository, tag, digest in ask(_TAGS):
        found.tags[repository.removeprefix(PREFIX), tag] = digest
    for repository, digest in ask(_LINKS):
        found.linked.add((repository.removeprefix(PREFIX), digest))
    stored = "SELECT digest, location, size FROM blob WHERE generation > 0"
    found.stored = {digest: (location, size) for digest, location, size in ask(stored)}
    found.damaged = {path for (path,) in ask("SELECT location FROM quarantine")}
    found.trash = {path for (path,) in ask("SELECT path FROM trash")}


def _files(files: Mapping[str, bytes], found: Found) -> None:
    for location, data in files.items():
        digest = "sha256:" + Path(location).name.partition(".")[0]
        if _digest(data) != digest and location not in found.trash | found.damaged:
            found.wrong.append(f"file {location}: {len(data)} bytes that are not its name's")
    for digest, (location, size) in found.stored.items():
        if location not in files:
            found.wrong.append(f"blob {digest} is recorded at {location}, where nothing is")
        elif len(files[location]) != size or digest[7:] not in location:
            found.wrong.append(f"blob {digest} is recorded with {size} bytes at {location}, which is another")
    named = {location for location, _ in found.stored.values()} | found.trash | found.damaged
    found.orphans = files.keys() - named


def _partials(folder: Path, blobs: Mapping[str, bytes], found: Found) -> None:
    """What a journal promises is in its file (C1)."""
    for path in folder.glob("*.journal"):
        digest, data = Digest.parse(path.stem.replace("-", ":", 1)), path.with_suffix(".part")
        right = blobs[digest]
        promised = journal.replay(path.read_bytes(), digest, len(right))
        if promised is None or not data.exists() or data.stat().st_size != len(right):
            continue  # as good as none
        held = data.read_bytes()
        for start, stop in promised.intervals:
            if held[start:stop] != right[start:stop]:
                found.wrong.append(f"journal of {digest} promises {start}-{stop}, which is not in the file")


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()
