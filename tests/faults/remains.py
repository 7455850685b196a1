"""What must not be there when all is over: tasks, descriptors, and anything wrong in the store."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import apsw
import trio

SETTLED_WITHIN = 20.0
"""Seconds for what is ending to end."""


class Remains:
    """Counted once everything runs, to be compared when nothing should be going on any more."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tasks = _tasks()
        self._descriptors = _descriptors(folder)

    async def settled(self) -> None:
        """Wait until no task and no descriptor is left but those that were there before."""
        await _none(lambda: _tasks() - self._tasks)
        await _none(lambda: _more(_descriptors(self._folder), self._descriptors))


async def _none(left: Callable[[], Counter[str]]) -> None:
    with trio.move_on_after(SETTLED_WITHIN):
        while left():
            await trio.sleep(0.005)
    assert left() == Counter()


def _tasks() -> Counter[str]:
    """All tasks of this run, by name."""
    root = trio.lowlevel.current_root_task()
    assert root is not None
    found, looking = Counter[str](), [root]
    while looking:
        task = looking.pop()
        found[task.name] += 1
        looking += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return found


def _more(now: Counter[str], before: Counter[str]) -> Counter[str]:
    """What was opened and not closed.

    As long as a connection is open, SQLite keeps the descriptor of the file of each that was closed, for the
    next: closing it would give up the locks of all. Its descriptor of the log it closes, so that one tells.
    """
    left = now - before
    logs = {name: f"{name}-wal" for name in left}
    return Counter({name: left[name] for name, log in logs.items() if log not in now or log in left})


def _descriptors(folder: Path) -> Counter[str]:
    """What this process has open, by what it is: files of others' folders are not the daemon's.

    Nor do those of the scratch store count, of which SQLite keeps one back for the next time.
    """
    found = Counter[str]()
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # that of the listing itself
            what = descriptor.readlink()
            if not what.is_absolute() or (what.is_relative_to(folder) and "scratch" not in what.parts):
                found[str(what).partition("[")[0]] += 1
    return found


@contextmanager
def rows_of(state: Path) -> Iterator[apsw.Connection]:
    """The daemon's database, to be read, while it runs or after.

    With the daemon's own SQLite: a second one in this process would take its locks away when it closes the
    file, and cut the shared memory short under it (sqlite.org/howtocorrupt.html, 2.2).
    """
    with closing(apsw.Connection(str(state / "cacheproxy.db"), flags=apsw.SQLITE_OPEN_READONLY)) as database:
        yield database


def nothing_wrong(state: Path) -> None:
    """Every stored byte is what its name says, and what the rows mean is there, and nothing else."""
    stored = {path: path.read_bytes() for path in (state / "blobs" / "blobs").rglob("*.*")}
    for path, data in stored.items():
        algorithm, digest = path.parts[-3], path.name.partition(".")[0]
        assert hashlib.new(algorithm, data).hexdigest() == digest
    with rows_of(state) as database:
        for digest, body in database.execute("SELECT digest, body FROM manifest"):
            assert "sha256:" + hashlib.sha256(body).hexdigest() == digest
        rows = database.execute("SELECT location, size FROM blob WHERE generation > 0")
        there = {str(path.relative_to(state / "blobs")): len(data) for path, data in stored.items()}
        waiting = database.execute("SELECT path FROM trash WHERE not_before > ?", (time.time(),))
        for (place,) in waiting:  # for whoever reads it still
            there.pop(place)
        assert there == dict(rows)
