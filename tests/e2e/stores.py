"""What several daemons share: a PostgreSQL of their own, and a bucket's own part of SeaweedFS."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.postgres import server as postgres
from tests.seaweed import BUCKET, Seaweed

STORAGE = """\
database = "{database}"
blobs = "s3://{bucket}/{prefix}"
[storage.objects]
endpoint = "{endpoint}"
region = "us-east-1"
credentials = {{ file = "{credentials}" }}
redirect = ["{redirect}"]
"""
NOBODY = "192.0.2.0/24"


@dataclass(frozen=True)
class Shared:
    database: str
    bucket: Seaweed
    prefix: str
    credentials: Path

    def storage(self, redirect: str = NOBODY) -> str:
        """A daemon's [storage]; clients in the network `redirect` get their blobs from the bucket itself."""
        return STORAGE.format(
            database=self.database,
            bucket=BUCKET,
            prefix=self.prefix,
            endpoint=self.bucket.endpoint,
            credentials=self.credentials,
            redirect=redirect,
        )


@contextmanager
def shared(bucket: Seaweed, folder: Path) -> Iterator[Shared]:
    """Both are empty."""
    credentials = folder / "s3.ini"
    credentials.write_text(bucket.credentials)
    with postgres().database() as database:
        yield Shared(database, bucket, secrets.token_hex(6), credentials)
