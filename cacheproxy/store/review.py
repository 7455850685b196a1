"""What may have lost its last reason to be here, noted by whoever took the reason away.

Transactions that meet take their rows in one order: uploads; images of the review; then, blob by blob, the
blob, its links, its row of the review.
"""

from __future__ import annotations

from collections.abc import Iterable

from cacheproxy.store.database import Tx

BLOB = 0
"""In place of a repository's number: a blob, which belongs to none."""

# The later time counts: whoever noted it last gave it that long.
ENQUEUE = """
INSERT INTO review (repository, digest, due, tries) VALUES (:repository, :digest, :due, 0)
ON CONFLICT (repository, digest) DO UPDATE SET
    due = CASE WHEN review.due < excluded.due THEN excluded.due ELSE review.due END,
    tries = 0
"""
# So that nobody settles it before this transaction is committed.
HOLD_ITEM = "UPDATE review SET due = due WHERE repository = :repository AND digest = :digest"
SETTLE = "DELETE FROM review WHERE repository = :repository AND digest = :digest"

DUE_OF = """
SELECT review.due FROM repository JOIN review ON review.repository = repository.id
WHERE repository.name = :name AND review.digest = :digest
"""
EXTEND = """
UPDATE review SET due = CASE WHEN due < :least THEN :keep_until ELSE due END
WHERE repository = (SELECT id FROM repository WHERE name = :name) AND digest = :digest
RETURNING due
"""


def enqueue(tx: Tx, repository: int, digests: Iterable[str], due: float) -> None:
    """Images of the repository, or blobs (`BLOB`), to be looked at from `due` on."""
    for digest in sorted(set(digests)):
        tx.run(ENQUEUE, repository=repository, digest=digest, due=due)
