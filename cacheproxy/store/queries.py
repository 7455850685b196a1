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

CACHED_BYTES = "SELECT CAST(coalesce(sum(size), 0) AS BIGINT) FROM blob WHERE generation > 0"

ADD_REPOSITORY = """
INSERT INTO repository (name, kind, upstream, created) VALUES (:name, 'cached', :upstream, :now)
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
INSERT INTO blob (digest, size, generation, location, used)
VALUES (:digest, :size, :generation, :location, :now)
ON CONFLICT (digest) DO UPDATE SET
    size = excluded.size,
    generation = excluded.generation,
    location = excluded.location,
    used = excluded.used
WHERE blob.generation = 0
"""

FORGET_BYTES = """
UPDATE blob SET generation = 0, location = ''
WHERE digest = :digest AND generation = :generation AND generation > 0
RETURNING digest
"""
