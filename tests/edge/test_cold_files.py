"""Bytes that are not in memory: threads wait for the disk, never the loop that serves everybody."""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import os
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
import trio

from cacheproxy.core.blob import Span
from cacheproxy.edge import body
from cacheproxy.edge.limits import Limits
from cacheproxy.edge.message import BlobBody
from cacheproxy.edge.tls import TLSWire
from cacheproxy.edge.wire import STEP, Wire
from tests.edge.harness import View
from tests.edge.test_tls import CLIENT, SERVER

BLOCK = 64 * 1024
DISK = 0.2
"""Seconds that one read of the slow disk takes, however much it brings."""
SIZE = STEP
BLOBS = 4


class SlowDisk:
    """A file behind a page cache that begins empty: what is not in it makes the thread that asks wait."""

    def __init__(self, file: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self._file = file
        self._here: set[int] = set()
        self.waited: list[threading.Thread] = []
        self._pread, self._preadv, self._sendfile = os.pread, os.preadv, os.sendfile
        monkeypatch.setattr(os, "pread", self.pread)
        monkeypatch.setattr(os, "preadv", self.preadv)
        monkeypatch.setattr(os, "sendfile", self.sendfile)

    def bring(self, offset: int, count: int) -> None:
        self._here.update(range(offset // BLOCK, (offset + count - 1) // BLOCK + 1))

    def _fetch(self, offset: int, count: int) -> None:
        if any(
            block not in self._here for block in range(offset // BLOCK, (offset + count - 1) // BLOCK + 1)
        ):
            self.waited.append(threading.current_thread())
            time.sleep(DISK)
            self.bring(offset, count)

    def _run(self, offset: int) -> int:
        """Bytes that are here from `offset` on."""
        block = offset // BLOCK
        while block in self._here:
            block += 1
        return max(0, block * BLOCK - offset)

    def pread(self, file: int, count: int, offset: int) -> bytes:
        self._fetch(offset, count)
        return self._pread(file, count, offset)

    def preadv(self, file: int, buffers: Sequence[memoryview], offset: int, flags: int = 0) -> int:
        wanted = memoryview(buffers[0])
        if not flags & os.RWF_NOWAIT:
            self._fetch(offset, len(wanted))
        elif not self._run(offset):
            raise BlockingIOError
        else:
            wanted = wanted[: self._run(offset)]
        return self._preadv(file, (wanted,), offset)

    def sendfile(self, out: int, file: int, offset: int, count: int) -> int:
        self._fetch(offset, count)
        return self._sendfile(out, file, offset, count)


class Stored(View):
    """`size` bytes of a file from its beginning."""

    def __init__(self, file: int, size: int) -> None:
        super().__init__(b"")
        self.file, self.size = file, size

    def fileno(self) -> int | None:
        return self.file


async def speak(wire: Wire, theirs: socket.socket) -> bytes:
    """What the other end of the wire hears, until it ends."""
    stream: trio.abc.Stream = trio.SocketStream(trio.socket.from_stdlib_socket(theirs))
    if isinstance(wire, TLSWire):
        stream = trio.SSLStream(stream, CLIENT, server_hostname="localhost", https_compatible=True)
    heard = bytearray()
    async with stream:
        while data := await stream.receive_some():
            heard += data
    return bytes(heard)


async def send(file: int, span: Span, size: int, secure: bool, heard: list[bytes]) -> None:
    """Send a span of the file over a wire of its own."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setblocking(False)
    with closing(TLSWire(ours, 0.0, SERVER) if secure else Wire(ours, 0.0)) as wire:
        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                heard.append(await speak(wire, theirs))

            nursery.start_soon(listen)
            assert await wire.open(Limits()) is None
            await body.send(wire, b"", BlobBody(Stored(file, size), (span,), span.length))
            wire.close()


async def lag(task: list[float]) -> None:
    """Seconds beyond a millisecond that the loop takes to come back, again and again."""
    while True:
        began = time.perf_counter()
        await trio.sleep(0.001)
        task.append(time.perf_counter() - began - 0.001)


async def percentile_of_lag(file: int, secure: bool) -> float:
    """The 99th percentile, in seconds, while cold blobs are sent side by side."""
    lags: list[float] = []
    size = BLOBS * SIZE
    async with trio.open_nursery() as watching:
        watching.start_soon(lag, lags)
        async with trio.open_nursery() as sending:
            for number in range(BLOBS):
                span = Span(number * SIZE, (number + 1) * SIZE, True)
                sending.start_soon(send, file, span, size, secure, [])
        watching.cancel_scope.cancel()
    return sorted(lags)[int(len(lags) * 0.99)]


@pytest.fixture
def cold(file: int, monkeypatch: pytest.MonkeyPatch) -> SlowDisk:
    os.pwrite(file, os.urandom(SIZE) * BLOBS, 0)
    return SlowDisk(file, monkeypatch)


wires = pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])


@wires
async def test_the_loop_goes_on_while_the_disk_is_waited_for(secure: bool, file: int, cold: SlowDisk) -> None:
    assert await percentile_of_lag(file, secure) < DISK / 2
    assert cold.waited
    assert threading.main_thread() not in cold.waited


@wires
async def test_without_the_probe_the_loop_would_stand_still(
    secure: bool, file: int, cold: SlowDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body, "_cached", lambda *_: True)
    assert await percentile_of_lag(file, secure) >= DISK
    assert threading.main_thread() in cold.waited


async def test_over_tls_a_hole_between_bytes_that_are_there_is_no_trap(file: int, cold: SlowDisk) -> None:
    cold.bring(0, TLSWire.step // 4)
    cold.bring(TLSWire.step - 1, 1)
    heard: list[bytes] = []
    await send(file, Span(0, SIZE, True), SIZE, True, heard)
    assert hashlib.sha256(heard[0]).digest() == hashlib.sha256(os.pread(file, SIZE, 0)).digest()
    assert threading.main_thread() not in cold.waited


def resident(file: int, size: int) -> bool:
    """Whether all of the file is in memory, as mincore(2) sees it."""
    libc = ctypes.CDLL(None, use_errno=True)
    pages = -(-size // mmap.PAGESIZE)
    seen = (ctypes.c_ubyte * pages)()
    with mmap.mmap(file, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE) as mapped:
        start = ctypes.c_char.from_buffer(mapped)
        failed = libc.mincore(ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(size), seen)
        del start
    assert not failed, os.strerror(ctypes.get_errno())
    return all(page & 1 for page in seen)


@wires
async def test_a_real_file_that_was_dropped_from_memory_is_sent_whole(
    secure: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the file system is in memory itself nothing can be dropped, and nothing is read ahead."""
    size = 32 * STEP
    data = os.urandom(STEP) * 32
    file = os.open(tmp_path / "real", os.O_RDWR | os.O_CREAT)
    threads: list[object] = []
    real = trio.to_thread.run_sync

    async def run_sync(sync_fn: object, *args: object, **options: object) -> object:
        threads.append(args)
        return await real(sync_fn, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)
    try:
        os.pwrite(file, data, 0)
        os.fsync(file)
        assert body._cached(file, 0, STEP)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        dropped = not resident(file, size)
        assert body._cached(file, 0, STEP) is not dropped
        heard: list[bytes] = []
        await send(file, Span(0, size, True), size, secure, heard)
        assert hashlib.sha256(heard[0]).digest() == hashlib.sha256(data).digest()
        assert bool(threads) is dropped
    finally:
        os.close(file)
