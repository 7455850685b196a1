"""What clients have sent of blobs that are not whole, in a bucket: an object a request, found by every node.

    <prefix>/uploads/<session>/<where it begins>.<16 hex>

A request's bytes are a file on its node until it ends; then they go up, to a key that nobody else has, and
its session's row counts them (pushing.py). So what was acknowledged outlives the node, and of two requests
with the same bytes one is counted. At the end the chunks become the blob: one by a copy within the bucket,
several by being read and sent once more.

The hash so far is remembered, by the last chunk's key; another node reads the chunks again at the end.
"""

from __future__ import annotations

import re
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cacheproxy.core.digest import Digest, Hasher
from cacheproxy.store.bucket import Bucket
from cacheproxy.store.durable import remove
from cacheproxy.store.errors import StoreSuspect
from cacheproxy.store.proven import Proven
from cacheproxy.store.sessions import NOTHING, Chunk, Sent, UploadGone
from cacheproxy.store.uploads import FOLDER, STATES_KEPT, Hashed, Received, UploadFile, UploadFiles, fresh

READ_BACK = 1 << 20
"""Bytes read at a time from the file that goes up."""
RANGE = 8 << 20
"""Bytes asked of the bucket at a time: each request has a deadline, and costs a round trip."""

_KEY = re.compile(rf"{FOLDER}/([0-9a-f]{{32}})/[0-9]{{20}}\.[0-9a-f]{{16}}")


def session_of(key: str) -> str | None:
    """The session that a chunk of this key belongs to; None: it is no chunk's."""
    found = _KEY.fullmatch(key)
    return None if found is None else found[1]


def _key(session: str, start: int) -> str:
    return f"{FOLDER}/{session}/{start:020}.{secrets.token_hex(8)}"


class Chunks:
    """The bytes of chunks that lie behind one another, read from front to back.

    In a thread of its own, for whoever reads may be obstore, while it sends: from there it cannot be asked
    for anything else.
    """

    def __init__(self, bucket: Bucket, chunks: Sequence[Chunk]) -> None:
        self._bucket = bucket
        self._chunks = chunks
        self._held = memoryview(b"")
        self._from = 0
        self._thread = ThreadPoolExecutor(1)

    def read(self, offset: int, count: int) -> memoryview:
        """Between 1 and `count` bytes. Raises UploadGone where they are not there any more."""
        if not self._from <= offset < self._from + len(self._held):
            self._held, self._from = self._fetch(offset), offset
        return self._held[offset - self._from :][:count]

    def _fetch(self, offset: int) -> memoryview:
        chunk = next((one for one in self._chunks if one.start <= offset < one.start + one.size), None)
        if chunk is None:
            raise UploadGone(f"the chunk at {offset}")
        start = offset - chunk.start
        stop = min(chunk.size, start + RANGE)
        piece = self._thread.submit(self._bucket.get, chunk.key, start, stop).result()
        if piece is None or piece.total != chunk.size or len(piece.data) != stop - start:
            raise UploadGone(chunk.key)
        return piece.data

    def close(self) -> None:
        self._thread.shutdown()


@dataclass(frozen=True, slots=True)
class Joined:
    """Proven: all chunks of a session, and what the last request brought."""

    digest: Digest
    size: int
    take: Callable[[int, int], bytes | memoryview]

    def read(self, offset: int, count: int) -> bytes:
        return bytes(self.take(offset, count))

    def rename(self, target: Path) -> None:
        raise NotImplementedError("what is in a bucket becomes no file")

    def forget(self) -> None:
        """There is nothing else of it on this node."""

    def discard(self) -> None:
        """Chunks go with their session's row."""


@dataclass(frozen=True, slots=True)
class Sole(Joined):
    """Proven: one chunk is all of the blob."""

    key: str


class ObjectUpload:
    """sessions.Upload."""

    def __init__(
        self,
        session: str,
        sent: Sent,
        algorithm: str,
        hashed: Hasher | None,
        bucket: Bucket,
        spool: UploadFile,
        left: Callable[[str, Hashed], None],
    ) -> None:
        """`hashed`: over what was sent, None: nobody here knows. `spool`: what this request brings; its hash
        has begun with `hashed`."""
        self._session = session
        self._sent = sent
        self._algorithm = algorithm
        self._hashed = hashed
        self._bucket = bucket
        self._spool = spool
        self._left = left
        self._chunks = Chunks(bucket, sent.chunks)

    @property
    def size(self) -> int:
        return self._sent.received + self._spool.size

    def append(self, chunks: Sequence[bytes]) -> None:
        self._spool.append(chunks)

    def cut(self, size: int) -> None:
        self._spool.cut(size - self._sent.received)
        self._hashed = None  # the spool's begins anew

    def digest(self, algorithm: str) -> Digest:
        if not self._sent.received or (self._hashed is not None and algorithm == self._algorithm):
            return self._spool.digest(algorithm)
        hasher = Digest.of(b"", algorithm).hasher()
        offset = 0
        while offset < self.size:
            piece = self._read(offset, RANGE)
            hasher.update(piece)
            offset += len(piece)
        return Digest.parse(f"{algorithm}:{hasher.hexdigest()}")

    def send(self) -> Chunk | None:
        """Raises StoreUnreachable; StoreSuspect when the file is not what came."""
        size = self._spool.size
        if not size:
            return None
        chunk = Chunk(_key(self._session, self._sent.received), self._sent.received, size)
        known = self._spool.hashed.size == size
        again = fresh(self._algorithm).state if self._hashed is None else self._hashed.copy()
        self._bucket.put(chunk.key, size, self._again(again))
        if known and again.hexdigest() != self._spool.hashed.state.hexdigest():
            self._bucket.delete(chunk.key)
            raise StoreSuspect(0, f"the file of upload {self._session} is not what was received")
        if known and (self._hashed is not None or not self._sent.received):
            self._left(chunk.key, self._spool.hashed)
        return chunk

    def proven(self, digest: Digest) -> Proven:
        chunks = self._sent.chunks
        if not self._sent.received:
            return Received(digest, self._spool)
        if len(chunks) == 1 and not self._spool.size and self._bucket.copies(self.size):
            return Sole(digest, self.size, self._read, chunks[0].key)
        return Joined(digest, self.size, self._read)

    def close(self) -> None:
        self._chunks.close()
        self._spool.close()
        remove(self._spool.path)

    def _read(self, offset: int, count: int) -> bytes | memoryview:
        before = self._sent.received
        if offset < before:
            return self._chunks.read(offset, count)
        return self._spool.read(offset - before, count)

    def _again(self, hasher: Hasher) -> Iterator[bytes]:
        offset = 0
        while offset < self._spool.size:
            piece = self._spool.read(offset, READ_BACK)
            hasher.update(piece)
            yield piece
            offset += len(piece)


class ObjectUploads:
    """sessions.Uploads: a bucket, with files of this node for what is just coming."""

    def __init__(self, bucket: Bucket, spools: UploadFiles) -> None:
        self._bucket = bucket
        self._spools = spools
        self._states: OrderedDict[str, Hashed] = OrderedDict()
        """By the last chunk's key: the hash over all chunks up to it."""
        self._lock = threading.Lock()

    def begin(self, session: str) -> None:
        """Its row is all there is of it."""

    def open(self, session: str, algorithm: str, sent: Sent = NOTHING) -> ObjectUpload:
        before = self._take(sent.last) if sent.received else None
        if before is not None and before.algorithm != algorithm:
            before = None
        hashed = None if before is None else before.state
        begun = fresh(algorithm) if hashed is None else Hashed(algorithm, 0, hashed.copy())
        spool = self._spools.spool(secrets.token_hex(16), begun)
        return ObjectUpload(session, sent, algorithm, hashed, self._bucket, spool, self._keep)

    def size(self, session: str, sent: Sent = NOTHING) -> int:
        return sent.received

    def idle(self, session: str) -> bool:
        """Of another node's requests nothing is known here: its row says when it was last worked on."""
        return self._spools.idle(session)

    def drop(self, session: str) -> bool:
        """A file that a kill has left; chunks go with their session's row."""
        return self._spools.drop(session)

    def stale(self, older_than: float, now: float) -> Iterator[str]:
        return self._spools.stale(older_than, now)

    def remove(self, key: str) -> bool:
        if session_of(key) is None or self._bucket.size(key) is None:
            return False
        self._bucket.delete(key)
        return True

    def files(self, older_than: float, now: float) -> Iterator[tuple[str, str]]:
        """(session, key) of chunks that were sent more than `older_than` seconds ago, by pages."""
        for key, _, written in self._bucket.list(FOLDER):
            session = session_of(key)
            if session is not None and now - written > older_than:
                yield session, key

    def _take(self, last: str) -> Hashed | None:
        with self._lock:
            return self._states.get(last)

    def _keep(self, last: str, hashed: Hashed) -> None:
        with self._lock:
            self._states[last] = hashed
            while len(self._states) > STATES_KEPT:
                self._states.popitem(last=False)
