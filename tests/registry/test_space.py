from __future__ import annotations

from cacheproxy.core.digest import Digest
from cacheproxy.registry.space import Space

A, B = Digest.of(b"a"), Digest.of(b"b")


def space(budget: int | None = 100, free: int = 1000, stored: int = 0, **partials: int) -> Space:
    unfinished = [(digest, partials[name]) for name, digest in (("a", A), ("b", B)) if name in partials]
    return Space(budget, lambda total: total // 10, lambda: (free, 1000), stored=stored, partials=unfinished)


def test_what_fits_is_promised() -> None:
    assert space().reserve(A, 100)


def test_over_the_budget_is_refused() -> None:
    assert not space().reserve(A, 101)


def test_promises_count() -> None:
    room = space()
    assert room.reserve(A, 60)
    assert not room.reserve(B, 60)


def test_stored_bytes_count() -> None:
    assert not space(stored=50).reserve(A, 60)


def test_unfinished_files_count() -> None:
    assert not space(b=50).reserve(A, 60)


def test_what_a_blob_has_already_is_not_counted_twice() -> None:
    assert space(a=50).reserve(A, 100)


def test_without_a_budget_only_the_disk_limits() -> None:
    assert space(budget=None, free=900).reserve(A, 800)
    assert not space(budget=None, free=900).reserve(A, 801)


def test_bytes_on_the_disk_need_no_more_of_it() -> None:
    assert space(budget=None, free=150, a=500).reserve(A, 550)


def test_an_abandoned_fill_gives_back_what_it_did_not_write() -> None:
    room = space()
    room.reserve(A, 80)
    room.keep_part(A, 10)
    assert room.used == 10


def test_a_discarded_fill_gives_back_everything() -> None:
    room = space()
    room.reserve(A, 80)
    room.keep_part(A, 0)
    assert room.used == 0


def test_a_stored_blob_stays_counted() -> None:
    room = space()
    room.reserve(A, 80)
    room.store(A, 80)
    assert room.used == 80


def test_lost_bytes_are_no_longer_counted() -> None:
    room = space(stored=80)
    room.forget(80)
    assert room.used == 0
