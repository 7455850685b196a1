from __future__ import annotations

import zlib

from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.core.digest import Digest
from cacheproxy.core.intervals import Intervals
from cacheproxy.store import journal

SIZE = 10_000
DIGEST = Digest.of(b"a blob")

run = st.tuples(st.integers(0, SIZE - 1), st.integers(1, SIZE)).filter(lambda pair: pair[0] < pair[1])
runs = st.lists(run, max_size=12)


def written(pairs: list[tuple[int, int]], size: int = SIZE, digest: Digest = DIGEST) -> bytes:
    """A journal, one checkpoint a run."""
    text, checksum = journal.opening(digest, size)
    for pair in pairs:
        more, checksum = journal.lines([pair], checksum)
        text += more
    return text


def union(pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    intervals = Intervals()
    for start, stop in pairs:
        intervals.add(start, stop)
    return list(intervals)


@given(runs)
def test_whole_journal_gives_back_every_run(pairs: list[tuple[int, int]]) -> None:
    text = written(pairs)
    replay = journal.replay(text, DIGEST, SIZE)
    assert replay is not None
    assert list(replay.intervals) == union(pairs)
    assert replay.length == len(text)


@given(runs, st.data())
def test_any_prefix_gives_the_runs_whose_lines_are_whole(
    pairs: list[tuple[int, int]], data: st.DataObject
) -> None:
    text = written(pairs)
    cut = data.draw(st.integers(0, len(text)))
    replay = journal.replay(text[:cut], DIGEST, SIZE)
    whole = text[:cut].count(b"\n")
    if whole == 0:
        assert replay is None
    else:
        assert replay is not None
        assert list(replay.intervals) == union(pairs[: whole - 1])
        assert replay.length == text[:cut].rfind(b"\n") + 1


@given(runs, st.data())
def test_one_damaged_byte_never_adds_a_run(pairs: list[tuple[int, int]], data: st.DataObject) -> None:
    text = bytearray(written(pairs))
    at = data.draw(st.integers(0, len(text) - 1))
    text[at] ^= data.draw(st.integers(1, 255))
    replay = journal.replay(bytes(text), DIGEST, SIZE)
    if replay is not None:
        whole = union(pairs[: max(0, text[:at].count(b"\n") - 1)])
        assert list(replay.intervals) == whole


@given(st.binary(max_size=200))
def test_any_bytes_are_read_without_an_error(text: bytes) -> None:
    first, _ = journal.opening(DIGEST, SIZE)
    assert journal.replay(text, DIGEST, SIZE) is None or text.startswith(first)
    replay = journal.replay(first + text, DIGEST, SIZE)
    assert replay is not None
    assert replay.intervals.total <= SIZE


@given(runs, runs)
def test_journal_goes_on_behind_a_torn_line(
    before: list[tuple[int, int]], after: list[tuple[int, int]]
) -> None:
    replay = journal.replay(written(before) + b"0123 torn", DIGEST, SIZE)
    assert replay is not None
    more, _ = journal.lines(after, replay.checksum)
    again = journal.replay(written(before)[: replay.length] + more, DIGEST, SIZE)
    assert again is not None
    assert list(again.intervals) == union(before + after)


def test_lines_of_another_journal_do_not_fit_behind_this_one() -> None:
    foreign, _ = journal.opening(DIGEST, SIZE + 1)
    lines = written([(0, 5), (7, 9)], SIZE + 1)[len(foreign) :]
    first, _ = journal.opening(DIGEST, SIZE)
    replay = journal.replay(first + lines, DIGEST, SIZE)
    assert replay is not None
    assert list(replay.intervals) == []


def test_line_left_out_ends_the_journal_there() -> None:
    lines = written([(0, 1), (2, 3), (4, 5)]).splitlines(keepends=True)
    replay = journal.replay(b"".join([*lines[:2], lines[3]]), DIGEST, SIZE)
    assert replay is not None
    assert list(replay.intervals) == [(0, 1)]


def test_journal_of_another_size_or_digest_is_none() -> None:
    assert journal.replay(written([(0, 5)], SIZE + 1), DIGEST, SIZE) is None
    assert journal.replay(written([(0, 5)], digest=Digest.of(b"b")), DIGEST, SIZE) is None


def test_run_past_the_end_ends_the_journal() -> None:
    replay = journal.replay(written([(0, 5), (6, SIZE + 1), (8, 9)]), DIGEST, SIZE)
    assert replay is not None
    assert list(replay.intervals) == [(0, 5)]


ORIGIN, OTHER = "https://hub.example/ a/b", "https://mirror.example/hub/ a/b"


def test_etags_are_given_back_and_the_last_of_an_origin_counts() -> None:
    text, checksum = journal.opening(DIGEST, SIZE)
    for etags in ({ORIGIN: '"1"', OTHER: '"other"'}, {ORIGIN: '"2"'}):
        etag, checksum = journal.etag_lines(etags, checksum)
        run, checksum = journal.lines([(0, 5)], checksum)
        text += etag + run
    replay = journal.replay(text, DIGEST, SIZE)
    assert replay is not None
    assert replay.etags == {ORIGIN: '"2"', OTHER: '"other"'}
    assert (list(replay.intervals), replay.length) == ([(0, 5)], len(text))


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=20), max_size=4), st.data())
def test_what_is_no_etag_is_left_out_and_breaks_no_journal(
    strange: dict[str, str], data: st.DataObject
) -> None:
    first, checksum = journal.opening(DIGEST, SIZE)
    strange[ORIGIN] = data.draw(st.sampled_from(['"1"', "bare"]))
    etags, checksum = journal.etag_lines(strange, checksum)
    run, _ = journal.lines([(0, 5)], checksum)
    replay = journal.replay(first + etags + run, DIGEST, SIZE)
    assert replay is not None
    assert list(replay.intervals) == [(0, 5)]


def test_journal_of_a_version_without_etags_is_read() -> None:
    """Byte for byte as that one wrote it."""
    text = (
        b"61be25c7 cacheproxy-partial 1 "
        b"sha256:5570a3cf02207f1d352d2cfea385be4bc0b2b9414f606baa6f55db60b232f221 10000\n"
        b"48d712cb 0 5\n"
        b"e95dc8e0 7 9\n"
    )
    replay = journal.replay(text, DIGEST, SIZE)
    assert replay is not None
    assert (list(replay.intervals), replay.length, replay.etags) == ([(0, 5), (7, 9)], len(text), {})


def test_line_of_a_kind_that_is_not_known_ends_the_journal() -> None:
    text = written([(0, 5)])
    known = journal.replay(text, DIGEST, SIZE)
    assert known is not None
    strange = b"owner somebody"
    checksum = zlib.crc32(strange, known.checksum)
    more, _ = journal.lines([(5, 9)], checksum)
    replay = journal.replay(text + b"%08x %s\n" % (checksum, strange) + more, DIGEST, SIZE)
    assert replay is not None
    assert (list(replay.intervals), replay.length) == ([(0, 5)], known.length)
