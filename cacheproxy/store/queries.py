"""Every SQL text of `records.py`: one text for SQLite and PostgreSQL (the rules are in `database.py`)."""

from __future__ import annotations

REPOSITORY = "SELECT id, name, kind, upstream, created FROM repository WHERE name = :name"

REPOSITORY_ID = "SELECT id FROM repository WHERE name = :name"

REPOSITORIES = "SELECT name FROM repository WHERE name > :last ORDER BY name LIMIT :n"

TAG = """
SELECT tag.digest, tag.checked, tag.moved, tag.pending
FROM repository JOIN tag ON tag.repository = repository.id
WHERE repository.name = :repository AND tag.name = :name
"""

TAGS = """
SELECT tag.name
FROM repository JOIN tag ON tag.repository = repository.id
WHERE repository.name = :repository
"""

IMAGE = """
SELECT image.media_type, image.artifact_type, image.size, image.subject, manifest.body
FROM repository
JOIN image ON image.repository = repository.id
JOIN manifest ON manifest.digest = image.digest
WHERE repository.name = :repository AND image.digest = :digest
"""

IMAGES = "SELECT count(*) FROM image"

REFERRERS = """
SELECT image.digest, image.media_type, image.artifact_type, image.size
FROM repository JOIN image ON image.repository = repository.id
WHERE repository.name = :repository AND image.subject = :subject
ORDER BY image.pushed, image.digest
"""

# A size that is proven beats what this repository claims; what another one claims is not asked.
BLOB = """
SELECT CASE WHEN blob.generation > 0 THEN blob.size ELSE link.size END, blob.generation, blob.location
FROM repository
JOIN link ON link.repository = repository.id
JOIN blob ON blob.digest = link.digest
WHERE repository.name = :repository AND link.digest = :digest
"""

ANY_BLOB = "SELECT size, generation, location FROM blob WHERE digest = :digest"

# Not what a hosted repository has, too: that is nobody's to evict.
CACHED_BYTES = """
SELECT CAST(coalesce(sum(blob.size), 0) AS BIGINT) FROM blob
WHERE blob.generation > 0
    AND NOT EXISTS (
        SELECT 1 FROM link JOIN repository ON repository.id = link.repository
        WHERE link.digest = blob.digest AND repository.kind = 'hosted'
    )
"""

SETTINGS = "SELECT settings FROM repository WHERE name = :name"

ADD_REPOSITORY = """
INSERT INTO repository (name, kind, upstream, created, settings)
VALUES (:name, 'cached', :upstream, :now, :settings)
ON CONFLICT (name) DO NOTHING
"""

ADD_MANIFEST = "INSERT INTO manifest (digest, body) VALUES (:digest, :body) ON CONFLICT (digest) DO NOTHING"

ADD_IMAGE = """
INSERT INTO image (repository, digest, media_type, artifact_type, size, subject, pushed, pulled)
VALUES (:repository, :digest, :media_type, :artifact_type, :size, :subject, :now, :now)
ON CONFLICT (repository, digest) DO NOTHING
"""

NAME_BLOB = """
INSERT INTO blob (digest, size, generation, location, used) VALUES (:digest, :size, 0, '', :now)
ON CONFLICT (digest) DO NOTHING
"""

ADD_LINK = """
INSERT INTO link (repository, digest, size) VALUES (:repository, :digest, :size)
ON CONFLICT (repository, digest) DO UPDATE SET size = excluded.size
"""

ADD_REFERENCE = """
INSERT INTO reference (repository, image, digest) VALUES (:repository, :image, :digest)
ON CONFLICT (repository, image, digest) DO NOTHING
"""

ADD_CHILD = """
INSERT INTO child (repository, image, digest) VALUES (:repository, :image, :digest)
ON CONFLICT (repository, image, digest) DO NOTHING
"""

MOVE_TAG = """
INSERT INTO tag (repository, name, digest, checked, moved, pending)
VALUES (:repository, :name, :digest, :now, :now, NULL)
ON CONFLICT (repository, name) DO UPDATE SET
    digest = excluded.digest,
    checked = excluded.checked,
    moved = CASE WHEN tag.digest = excluded.digest THEN tag.moved ELSE excluded.moved END,
    pending = NULL
"""

CHECK_TAG = """
UPDATE tag SET checked = :checked, pending = :pending
WHERE name = :name AND repository = (SELECT id FROM repository WHERE name = :repository)
"""

# A generation that is there stays: files are immutable, and somebody may be reading it.
STORE_BLOB = """
INSERT INTO blob (digest, size, generation, location, used, verified)
VALUES (:digest, :size, :generation, :location, :now, :now)
ON CONFLICT (digest) DO UPDATE SET
    size = excluded.size,
    generation = excluded.generation,
    location = excluded.location,
    used = excluded.used,
    verified = excluded.verified,
    claimed = 0
WHERE blob.generation = 0
"""

FORGET_BYTES = """
UPDATE blob SET generation = 0, location = ''
WHERE digest = :digest AND generation = :generation AND generation > 0
RETURNING digest
"""

# What is used, what is pinned, and what goes.

RECORD_USED = "UPDATE blob SET used = :used WHERE digest = :digest AND used < :used"

OLDEST_USED = "SELECT min(used) FROM blob WHERE generation > 0"

ADD_PIN = """
INSERT INTO pin (repository, name) SELECT id, :name FROM repository WHERE name = :repository
ON CONFLICT (repository, name) DO NOTHING
"""

DROP_PIN = """
DELETE FROM pin WHERE name = :name AND repository = (SELECT id FROM repository WHERE name = :repository)
RETURNING name
"""

PINS = """
SELECT repository.name, pin.name FROM pin JOIN repository ON repository.id = pin.repository
ORDER BY repository.name, pin.name
"""

# A pin holds its image and, for an index, all that is below it; UNION ends where images name one another in
# a circle.
_HELD = """
WITH RECURSIVE held (repository, image) AS (
    SELECT pin.repository, coalesce(tag.digest, pin.name)
    FROM pin LEFT JOIN tag ON tag.repository = pin.repository AND tag.name = pin.name
    UNION
    SELECT child.repository, child.digest
    FROM held JOIN child ON child.repository = held.repository AND child.image = held.image
)
"""
# CROSS: there are few pins and many references, and SQLite believes the opposite.
_HELD_BLOBS = """
SELECT reference.digest
FROM held CROSS JOIN reference
WHERE reference.repository = held.repository AND reference.image = held.image
"""

PINNED = f"{_HELD}{_HELD_BLOBS}"

# A page of stored blobs that nothing in the rows holds, the least recently used first; a row for each
# upstream that it came from.
EVICTABLE = f"""{_HELD}
SELECT DISTINCT page.digest, page.size, page.generation, page.location, page.used, repository.upstream
FROM (
    SELECT blob.digest, blob.size, blob.generation, blob.location, blob.used
    FROM blob
    WHERE blob.generation > 0
        AND blob.used < :before
        AND (blob.used, blob.digest) > (:after_used, :after_digest)
        AND blob.digest NOT IN ({_HELD_BLOBS})
        AND NOT EXISTS (
            SELECT 1 FROM link JOIN repository ON repository.id = link.repository
            WHERE link.digest = blob.digest AND repository.kind = 'hosted'
        )
    ORDER BY blob.used, blob.digest
    LIMIT :n
) AS page
LEFT JOIN link ON link.digest = page.digest
LEFT JOIN repository ON repository.id = link.repository
ORDER BY page.used, page.digest
"""  # noqa: S608 - put together from the texts above

# Not one that was used since it was chosen, or that a hosted repository got since then.
EVICT = """
UPDATE blob SET generation = 0, location = ''
WHERE digest = :digest AND generation = :generation AND generation > 0 AND used <= :used
    AND NOT EXISTS (
        SELECT 1 FROM link JOIN repository ON repository.id = link.repository
        WHERE link.digest = blob.digest AND repository.kind = 'hosted'
    )
RETURNING digest
"""

ADD_TRASH = """
INSERT INTO trash (path, not_before) VALUES (:path, :not_before) ON CONFLICT (path) DO NOTHING
"""

DUE_TRASH = "SELECT path FROM trash WHERE not_before <= :now ORDER BY not_before, path LIMIT :n"

PLACES = 128
"""Files that one look-up of places is about."""

_EACH = range(PLACES)
ACCOUNTED = f"""
SELECT location FROM blob WHERE digest IN ({", ".join(f":digest{n}" for n in _EACH)})
UNION
SELECT path FROM trash WHERE path IN ({", ".join(f":path{n}" for n in _EACH)})
UNION
SELECT location FROM quarantine WHERE digest IN ({", ".join(f":digest{n}" for n in _EACH)})
"""  # noqa: S608 - put together from numbers

FORGET_TRASH = "DELETE FROM trash WHERE path = :path"
