"""The schema, as numbered steps that are applied once, in order, each in one transaction with its record.

A step that was released is never changed: its checksum is kept, and a database that has another is refused.
The texts are for two dialects; `$words` stand for what differs (see a database module's `DIALECT`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from string import Template

from cacheproxy.store.database import Tx
from cacheproxy.store.errors import DatabaseRefused, SchemaBehind


@dataclass(frozen=True, slots=True)
class Migration:
    number: int
    statements: tuple[str, ...]

    @property
    def checksum(self) -> str:
        return hashlib.sha256("\n;\n".join(self.statements).encode()).hexdigest()


_RECORD = """
CREATE TABLE IF NOT EXISTS migration (
    number $integer PRIMARY KEY,
    checksum TEXT NOT NULL
) $table
"""

_CACHE = (
    """
    CREATE TABLE repository (
        id $identity,
        name TEXT NOT NULL UNIQUE,
        kind TEXT NOT NULL CHECK (kind IN ('cached', 'hosted')),
        upstream TEXT,
        created $real NOT NULL
    ) $table
    """,
    # Bodies apart from the facts about them: point reads stay small, and a body is kept once.
    """
    CREATE TABLE manifest (
        digest TEXT NOT NULL PRIMARY KEY,
        body $bytes NOT NULL
    ) $table
    """,
    # generation 0: a manifest names the blob, its bytes are not here.
    """
    CREATE TABLE blob (
        digest TEXT NOT NULL PRIMARY KEY,
        size $integer NOT NULL CHECK (size >= 0),
        generation $integer NOT NULL DEFAULT 0,
        location TEXT NOT NULL DEFAULT '',
        used $real NOT NULL,
        CHECK ((generation = 0) = (location = ''))
    ) $table
    """,
    """
    CREATE TABLE image (
        repository $integer NOT NULL REFERENCES repository (id) ON DELETE RESTRICT,
        digest TEXT NOT NULL REFERENCES manifest (digest) ON DELETE RESTRICT,
        media_type TEXT NOT NULL,
        artifact_type TEXT,
        size $integer NOT NULL,
        subject TEXT,
        pushed $real NOT NULL,
        pulled $real NOT NULL,
        PRIMARY KEY (repository, digest)
    ) $keyed
    """,
    # All that the list of referrers tells, in its order: a shorter index loses to the primary key's.
    """
    CREATE INDEX image_by_subject
    ON image (repository, subject, pushed, digest, media_type, artifact_type, size)
    WHERE subject IS NOT NULL
    """,
    """
    CREATE TABLE tag (
        repository $integer NOT NULL,
        name TEXT NOT NULL,
        digest TEXT NOT NULL,
        checked $real NOT NULL,
        moved $real NOT NULL,
        pending TEXT,
        PRIMARY KEY (repository, name),
        FOREIGN KEY (repository, digest) REFERENCES image (repository, digest) ON DELETE RESTRICT
    ) $keyed
    """,
    # size: as this repository's manifest, or its upstream, says. Only the bytes themselves prove it, and what
    # one repository claims of a digest must not spoil it for the others.
    """
    CREATE TABLE link (
        repository $integer NOT NULL REFERENCES repository (id) ON DELETE RESTRICT,
        digest TEXT NOT NULL REFERENCES blob (digest) ON DELETE RESTRICT,
        size $integer NOT NULL CHECK (size >= 0),
        keep_until $real NOT NULL DEFAULT 0,
        PRIMARY KEY (repository, digest)
    ) $keyed
    """,
    """
    CREATE TABLE reference (
        repository $integer NOT NULL,
        image TEXT NOT NULL,
        digest TEXT NOT NULL REFERENCES blob (digest) ON DELETE RESTRICT,
        PRIMARY KEY (repository, image, digest),
        FOREIGN KEY (repository, image) REFERENCES image (repository, digest) ON DELETE CASCADE
    ) $keyed
    """,
    # No foreign key for the child: an index whose children are not all here is normal.
    """
    CREATE TABLE child (
        repository $integer NOT NULL,
        image TEXT NOT NULL,
        digest TEXT NOT NULL,
        PRIMARY KEY (repository, image, digest),
        FOREIGN KEY (repository, image) REFERENCES image (repository, digest) ON DELETE CASCADE
    ) $keyed
    """,
    """
    CREATE TABLE trash (
        path TEXT NOT NULL PRIMARY KEY,
        not_before $real NOT NULL
    ) $table
    """,
)

_EVICTION = (
    # Who shares a blob, asked of each one that may go; the other also serves the foreign keys' own checks.
    "CREATE INDEX link_by_digest ON link (digest, repository)",
    "CREATE INDEX reference_by_digest ON reference (digest)",
    "CREATE INDEX blob_by_use ON blob (used, digest) WHERE generation > 0",
    "CREATE INDEX trash_by_time ON trash (not_before, path)",
    # name: a tag, whatever it means at the time, or the digest of an image.
    """
    CREATE TABLE pin (
        repository $integer NOT NULL REFERENCES repository (id) ON DELETE RESTRICT,
        name TEXT NOT NULL,
        PRIMARY KEY (repository, name)
    ) $keyed
    """,
)

_REMOVAL = (
    # Whether another repository has an image, asked of each one that is removed, and by the foreign key.
    "CREATE INDEX image_by_digest ON image (digest)",
)

_SCRUB = (
    # When the bytes were last seen to be the digest's; below 0: somebody wants them looked at now.
    "ALTER TABLE blob ADD COLUMN verified $real NOT NULL DEFAULT 0",
    # Until then a node is looking at them.
    "ALTER TABLE blob ADD COLUMN claimed $real NOT NULL DEFAULT 0",
    "CREATE INDEX blob_by_proof ON blob (verified, digest) WHERE generation > 0",
    # Bytes that were not the blob's any more. location '': none were there, or they are gone by now.
    """
    CREATE TABLE quarantine (
        digest TEXT NOT NULL,
        generation $integer NOT NULL,
        size $integer NOT NULL,
        location TEXT NOT NULL,
        found TEXT NOT NULL,
        reason TEXT NOT NULL,
        noticed $real NOT NULL,
        PRIMARY KEY (digest, generation)
    ) $keyed
    """,
)

_HOSTING = (
    # JSON: what is set for this one repository (`core/settings.py`).
    "ALTER TABLE repository ADD COLUMN settings TEXT NOT NULL DEFAULT '{}'",
    # What was received of it is a file's business: it says how far the upload is, whatever happened.
    """
    CREATE TABLE upload (
        id TEXT NOT NULL PRIMARY KEY,
        repository $integer NOT NULL REFERENCES repository (id) ON DELETE RESTRICT,
        principal TEXT NOT NULL,
        algorithm TEXT NOT NULL,
        started $real NOT NULL,
        touched $real NOT NULL
    ) $table
    """,
    "CREATE INDEX upload_by_principal ON upload (principal)",
    "CREATE INDEX upload_by_time ON upload (touched)",
    "CREATE INDEX upload_by_repository ON upload (repository)",
    # Whoever reads a blob by other ways than its links holds it meanwhile.
    """
    CREATE TABLE lease (
        digest TEXT NOT NULL,
        holder TEXT NOT NULL,
        until $real NOT NULL,
        PRIMARY KEY (digest, holder)
    ) $keyed
    """,
    # What may have lost its last reason to be here: looked at when it is due. repository 0: a blob.
    """
    CREATE TABLE review (
        repository $integer NOT NULL,
        digest TEXT NOT NULL,
        due $real NOT NULL,
        tries $integer NOT NULL DEFAULT 0,
        PRIMARY KEY (repository, digest)
    ) $keyed
    """,
    "CREATE INDEX review_by_time ON review (due)",
    # By tag and by child: what an image has to be asked before it goes.
    "CREATE INDEX tag_by_image ON tag (repository, digest)",
    "CREATE INDEX child_by_digest ON child (repository, digest)",
)

_TOKENS = (
    # PKCS #8, DER. All nodes sign with the same ones.
    """
    CREATE TABLE signing_key (
        kid TEXT NOT NULL PRIMARY KEY,
        secret $bytes NOT NULL,
        created $real NOT NULL
    ) $table
    """,
    # SHA-256 of the token, in hex.
    """
    CREATE TABLE refresh_token (
        hash TEXT NOT NULL PRIMARY KEY,
        principal TEXT NOT NULL,
        expires $real NOT NULL
    ) $table
    """,
    # Made by command. SHA-256 of the secret; groups: a JSON list; expires NULL: never.
    """
    CREATE TABLE account (
        name TEXT NOT NULL PRIMARY KEY,
        hash $bytes NOT NULL,
        groups TEXT NOT NULL,
        created $real NOT NULL,
        expires $real
    ) $table
    """,
    "CREATE INDEX refresh_token_by_principal ON refresh_token (principal, expires)",
    "CREATE INDEX refresh_token_by_end ON refresh_token (expires)",
)

_INSTALLATION = (
    # What the mark beside the bytes says (store/mark.py). marked: it has been written.
    """
    CREATE TABLE installation (
        one $integer NOT NULL PRIMARY KEY CHECK (one = 1),
        name TEXT NOT NULL,
        marked $integer NOT NULL CHECK (marked IN (0, 1))
    ) $table
    """,
)

_OUTBOX = (
    # Events on their way, one row for each sink. dead NULL: waiting; else when it was given up.
    """
    CREATE TABLE outbox (
        number $identity,
        sink TEXT NOT NULL,
        id TEXT NOT NULL,
        kind TEXT NOT NULL,
        repository TEXT NOT NULL,
        event TEXT NOT NULL,
        noted $real NOT NULL,
        due $real NOT NULL,
        tries $integer NOT NULL,
        dead $real,
        error TEXT NOT NULL
    ) $table
    """,
    "CREATE INDEX outbox_waiting ON outbox (sink, number) WHERE dead IS NULL",
    "CREATE INDEX outbox_held ON outbox (sink, due) WHERE dead IS NULL AND due > 0",
)

_GRANTS = (
    # Made by command. principals, rights, repositories (patterns, in their order), networks: JSON lists.
    """
    CREATE TABLE access_grant (
        id $identity,
        principals TEXT NOT NULL,
        rights TEXT NOT NULL,
        deny $integer NOT NULL CHECK (deny IN (0, 1)),
        repositories TEXT NOT NULL,
        networks TEXT NOT NULL,
        created $real NOT NULL
    ) $table
    """,
)

_CHUNKS = (
    # Where blobs are in a bucket, what was sent of them is, too, and rows say how far a session is.
    "ALTER TABLE upload ADD COLUMN received $integer NOT NULL DEFAULT 0",
    "ALTER TABLE upload ADD COLUMN last TEXT NOT NULL DEFAULT ''",
    """
    CREATE TABLE chunk (
        place TEXT NOT NULL PRIMARY KEY,
        session TEXT NOT NULL REFERENCES upload (id) ON DELETE CASCADE,
        start $integer NOT NULL,
        size $integer NOT NULL
    ) $table
    """,
    "CREATE UNIQUE INDEX chunk_by_session ON chunk (session, start)",
    # Blobs that an image names and its repository has not got (yet): a reference as soon as it has.
    """
    CREATE TABLE absent (
        repository $integer NOT NULL,
        digest TEXT NOT NULL,
        image TEXT NOT NULL,
        PRIMARY KEY (repository, digest, image),
        FOREIGN KEY (repository, image) REFERENCES image (repository, digest) ON DELETE CASCADE
    ) $keyed
    """,
    "CREATE INDEX absent_by_image ON absent (repository, image)",
)

_ACCESS_KEYS = (
    # Made by command, for who signs requests. The secret is sealed: to check a signature it has to be known.
    """
    CREATE TABLE access_key (
        id TEXT NOT NULL PRIMARY KEY,
        principal TEXT NOT NULL,
        secret $bytes NOT NULL,
        created $real NOT NULL
    ) $table
    """,
    "CREATE INDEX access_key_by_principal ON access_key (principal)",
)

MIGRATIONS = (
    Migration(1, _CACHE),
    Migration(2, _EVICTION),
    Migration(3, _REMOVAL),
    Migration(4, _SCRUB),
    Migration(5, _HOSTING),
    Migration(6, _TOKENS),
    Migration(7, _OUTBOX),
    Migration(8, _GRANTS),
    Migration(9, _CHUNKS),
    Migration(10, _ACCESS_KEYS),
    Migration(11, _INSTALLATION),
)


def migrate(tx: Tx, dialect: Mapping[str, str], steps: tuple[Migration, ...] = MIGRATIONS) -> None:
    """Bring the schema up to date. Raises DatabaseRefused when it is not an earlier state of this
    version's."""
    tx.run(Template(_RECORD).substitute(dialect))
    done = {
        int(number): str(checksum) for number, checksum in tx.all("SELECT number, checksum FROM migration")
    }
    _judge(done, {step.number: step.checksum for step in steps})
    for step in steps:
        if step.number not in done:
            _apply(tx, dialect, step)


def demand_current(tx: Tx, steps: tuple[Migration, ...] = MIGRATIONS) -> None:
    """Raises DatabaseRefused for a schema that is not this version's own. Changes nothing."""
    done = {
        int(number): str(checksum) for number, checksum in tx.all("SELECT number, checksum FROM migration")
    }
    known = {step.number: step.checksum for step in steps}
    _judge(done, known)
    if done != known:
        raise SchemaBehind(
            f"the database is of schema {max(done, default=0)}, and this version's is {max(known)}: start its"
            " daemon once, which brings the schema up to date"
        )


def _judge(done: dict[int, str], known: dict[int, str]) -> None:
    newest = max(done, default=0)
    if newest > max(known):
        raise DatabaseRefused(
            f"the database is of schema {newest}, and this version knows {max(known)} at most: it was written"
            " by a newer cacheproxy; run that one, or restore the backup from before the upgrade"
        )
    for number, checksum in done.items():
        if known.get(number) != checksum:
            raise DatabaseRefused(
                f"step {number} of the database's schema is not the one this version knows: it was written by"
                " another build; run that one, or start with an empty database"
            )


def _apply(tx: Tx, dialect: Mapping[str, str], step: Migration) -> None:
    for statement in step.statements:
        tx.run(Template(statement).substitute(dialect))
    tx.run(
        "INSERT INTO migration (number, checksum) VALUES (:number, :checksum)",
        number=step.number,
        checksum=step.checksum,
    )
