"""What can go wrong in the store. Nothing foreign (apsw, sqlite3) leaves this package.

StoreError
├── BlobMissing       a row's bytes are not there: forget them, fetch them again
│   └── BlobDamaged   they are there, and are not the blob's, or cannot be read: set them aside as well
├── StoreSuspect      (also OSError) a sync, a rename or the database failed: promises may be broken
├── StoreUnreachable  (also OSError) the object store does not answer, or refuses: there may be another way
├── StoreFull         (also OSError) no room for rows: nothing was written, try again later
├── StoreBusy         (also OSError) the database is held by others, or away: nothing was written, try again
├── CommitUnknown     (also OSError) the database went away in a commit: it was written, or it was not
├── Conflict          a constraint of the schema refused the write: nothing was written
├── StoreNotOurs      the bytes belong to other rows, or are not where the rows say; raised at the start only
├── InUse             another process runs with the state folder; raised at the start only
└── DatabaseRefused   not a database this version can work with; raised by opening only
    └── SchemaBehind  it is empty, or of an earlier version: a daemon would open it
"""

from __future__ import annotations

from typing import Literal

from cacheproxy.core.errors import Unavailable


class StoreError(Exception):
    """The base of all below."""


class BlobMissing(StoreError):
    """No file of this digest, generation and size. Never raised for want of descriptors or rights."""

    found = "missing"
    """In one word, for counters and rows: missing, unreadable, truncated, mismatch."""


class BlobDamaged(BlobMissing):
    """Something is there, which no reader may get. Another generation, fetched anew, is what heals it."""

    def __init__(self, text: str, found: Literal["unreadable", "truncated", "mismatch"]) -> None:
        super().__init__(text)
        self.found = found


class StoreSuspect(StoreError, Unavailable, OSError):
    """A failed sync is never tried again: the kernel has marked the lost pages clean, and a second try
    "succeeds".

    Reads go on. Writing through the same object is refused from here on; a restart verifies what is there.
    Built as OSError is: (errno, text).
    """

    told = "what cacheproxy keeps its records in is damaged, or its disk fails: its operator has to look"


class StoreUnreachable(StoreError, OSError):
    """Says nothing about what is in the store. The message says who did not do what, and what was heard."""


class StoreFull(StoreError, OSError):
    """Built as OSError is: (errno, text)."""


class StoreBusy(StoreError, Unavailable, OSError):
    """Another process held the database's lock, or its server does not answer.

    Built as OSError is: (errno, text).
    """


class CommitUnknown(StoreError, Unavailable, OSError):
    """Whoever's write may be done twice does it again; others look what is there.

    Built as OSError is: (errno, text).
    """


class Conflict(StoreError):
    """A foreign key, a uniqueness rule or a check of the schema."""


class StoreNotOurs(StoreError):
    """The message says of which place, and what to do."""


class InUse(StoreError):
    """The message says of which folder."""


class DatabaseRefused(StoreError):
    """The message says what was found and what to do."""

    @classmethod
    def damaged(cls, database: object, found: str) -> DatabaseRefused:
        return cls(
            f"the database {database} is damaged ({found}): restore it from a backup, or move it away with"
            " its -wal and -shm files; a new one is filled by pulls"
        )


class SchemaBehind(DatabaseRefused):
    """Raised to whoever only looks: a daemon brings the schema up to date when it opens the database."""
