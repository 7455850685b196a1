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


def test_what_is_promised_and_not_written_yet_is_not_free() -> None:
    room = space(budget=None, free=900)
    room.coming = lambda: 300
    assert not room.reserve(A, 501)
    assert room.reserve(A, 500)


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


def test_what_is_lacking_for_a_blob() -> None:
    assert space(stored=80).lacks(A, 30) == 10
    assert space(stored=80).lacks(A, 20) == 0
    assert space(budget=None, free=150).lacks(A, 80) == 30


def test_under_the_limits_nothing_has_to_go() -> None:
    assert space(stored=100, free=100).need({}) == (0, 0)


def test_over_a_limit_it_goes_down_to_the_low_mark() -> None:
    assert space(stored=101).need({}) == (6, 0)
    assert space(stored=50).need({A: 30, B: 30}) == (15, 0)
    assert space(free=99).need({}) == (0, 6)


def test_the_limit_that_asks_for_more_is_the_reason() -> None:
    need = space(stored=101, free=90).need({})
    assert (need, need.bytes, need.reason) == ((6, 15), 15, "min_free")
    assert space(stored=101).need({}).reason == "budget"


def test_what_is_arriving_cannot_go() -> None:
    room = space(stored=20, a=30, b=10)
    room.reserve(A, 40)
    assert (room.used, room.evictable) == (70, 30)
    assert (room.unfinished(A), room.unfinished(B)) == (False, True)


def test_unfinished_files_that_went_are_no_longer_counted() -> None:
    room = space(a=30, b=10)
    room.reserve(B, 40)
    assert room.drop_parts([A, B]) == 30
    assert room.used == 40, "what arrives anew stays promised"
