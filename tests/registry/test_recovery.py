from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cacheproxy.core.digest import Digest
from cacheproxy.registry import metrics, recovery
from cacheproxy.registry.quarantine import Quarantine
from cacheproxy.registry.recovery import FEW, LATELY, recover
from cacheproxy.registry.space import Space
from cacheproxy.store.disk import DiskContent
from cacheproxy.store.errors import DatabaseRefused
from cacheproxy.store.proofs import ASKED, Proofs
from cacheproxy.store.records import Records
from cacheproxy.store.sqlite import SQLite

NOW = 1_000_000.0


@dataclass
class Cellar:
    database: SQLite
    content: DiskContent
    space: Space
    file: Path
    places: dict[str, Path] = field(default_factory=dict)

    async def store(self, name: str, ago: float = 0.0) -> Digest:
        data = name.encode()
        partial = self.content.partial(Digest.of(data), len(data))
        partial.write(0, [data])
        path, generation = self.content.commit(partial)
        partial.close()
        await Records(self.database).record_blob(Digest.of(data), len(data), path, generation, NOW - ago)
        self.space.store(Digest.of(data), len(data))
        self.places[name] = self.content.root / path
        return Digest.of(data)

    async def recover(self) -> None:
        quarantine = Quarantine(Proofs(self.database), self.content, self.space, lambda: NOW)
        await recover(self.file, self.database, self.content, quarantine)

    async def here(self, digest: Digest) -> bool:
        row = await Records(self.database).any_blob(digest)
        return row is not None and row.generation > 0


@pytest.fixture
async def cellar(tmp_path: Path) -> AsyncIterator[Cellar]:
    async with opened(tmp_path) as built:
        yield built


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Cellar]:
    content = DiskContent(folder / "content")
    async with SQLite.open(folder / "rows.db") as database:
        space = Space(None, lambda _: 0, content.capacity, stored=0, partials=())
        yield Cellar(database, content, space, folder / "rows.db")


def failures(found: str) -> float:
    return float(metrics.INTEGRITY_FAILURES.labels(found)._value.get())


async def test_what_is_there_stays_and_is_wanted_by_the_scrub(cellar: Cellar) -> None:
    digest = await cellar.store("a layer")
    await cellar.recover()
    assert await cellar.here(digest)
    assert (await Proofs(cellar.database).left(ASKED)).blobs == 1


async def test_what_is_gone_has_no_bytes_from_then_on(cellar: Cellar) -> None:
    digest, kept = await cellar.store("a layer"), await cellar.store("another", ago=1)
    cellar.places["a layer"].unlink()
    before = failures("missing")
    await cellar.recover()
    assert not await cellar.here(digest)
    assert await cellar.here(kept)
    assert failures("missing") == before + 1
    assert cellar.space.used == len("another")


async def test_what_is_too_short_goes_into_the_quarantine(cellar: Cellar) -> None:
    digest = await cellar.store("a layer")
    cellar.places["a layer"].write_bytes(b"a la")
    await cellar.recover()
    assert not await cellar.here(digest)
    (damage,) = await Proofs(cellar.database).quarantined()
    assert (damage.digest, damage.found) == (digest, "truncated")


async def test_only_what_was_stored_before_the_end_is_looked_at(cellar: Cellar) -> None:
    old = await cellar.store("old", ago=LATELY + 1)
    await cellar.store("young")
    cellar.places["old"].unlink()
    await cellar.recover()
    assert await cellar.here(old)


async def test_a_disk_that_fails_says_nothing_about_blobs(
    cellar: Cellar, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    digest = await cellar.store("a layer")
    monkeypatch.setattr(cellar.content, "confirm", fail)
    await cellar.recover()
    assert await cellar.here(digest)


async def test_clients_do_not_wait_for_all_of_it(cellar: Cellar, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = await cellar.store("a layer")
    cellar.places["a layer"].unlink()
    monkeypatch.setattr(recovery, "BYTES_SECONDS", -1.0)
    await cellar.recover()
    assert await cellar.here(digest)
    assert (await Proofs(cellar.database).left(ASKED)).blobs == 1


async def test_a_disk_that_is_not_mounted_condemns_nobody(
    cellar: Cellar, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digests = [await cellar.store(f"layer {number}") for number in range(FEW + 1)]
    (cellar.content.root / "blobs").rename(tmp_path / "elsewhere")
    await cellar.recover()
    assert [await cellar.here(digest) for digest in digests] == [True] * (FEW + 1)
    assert "is the disk of the store mounted?" in capsys.readouterr().out


async def test_an_empty_cache_has_nothing_to_recover(cellar: Cellar) -> None:
    await cellar.recover()


async def test_a_damaged_database_is_refused_with_its_name(tmp_path: Path) -> None:
    async with opened(tmp_path) as cellar:
        for number in range(300):
            await cellar.store(f"layer {number}")
    damage(tmp_path / "rows.db")
    with pytest.raises(DatabaseRefused, match=r"rows\.db is damaged \(.*move it away"):
        async with opened(tmp_path) as cellar:
            await cellar.recover()


def damage(file: Path) -> None:
    """Of each page behind the schema's the head."""
    with file.open("r+b") as opened:
        for page in range(30, file.stat().st_size // 4096):
            opened.seek(page * 4096)
            opened.write(b"\xff" * 16)
