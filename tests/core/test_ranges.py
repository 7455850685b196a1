"""Range and Content-Range by RFC 9110, section 14."""

from __future__ import annotations

import email
import email.policy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.core.blob import Span
from cacheproxy.core.ranges import (
    MAX_RANGES,
    Unsatisfiable,
    content_range,
    multipart,
    parse_content_range,
    parse_range,
)


@pytest.mark.parametrize(
    ("header", "spans"),
    [
        ("bytes=0-", [Span(0, 100, False)]),
        ("bytes=40-", [Span(40, 100, False)]),
        ("bytes=99-", [Span(99, 100, False)]),
        ("bytes=0-0", [Span(0, 1, True)]),
        ("bytes=10-19", [Span(10, 20, True)]),
        ("bytes=90-999", [Span(90, 100, True)]),
        ("bytes=0-18446744073709551616", [Span(0, 100, True)]),
        ("bytes=-1", [Span(99, 100, False)]),
        ("bytes=-100", [Span(0, 100, False)]),
        ("bytes=-1000", [Span(0, 100, False)]),
        ("Bytes=1-2", [Span(1, 3, True)]),
        ("bytes= 1-2 , 4-5", [Span(1, 3, True), Span(4, 6, True)]),
        ("bytes=,1-2,,4-5,", [Span(1, 3, True), Span(4, 6, True)]),
        ("bytes=50-59,0-9", [Span(50, 60, True), Span(0, 10, True)]),
        ("bytes=0-9,200-", [Span(0, 10, True)]),
        ("bytes=0-1,-10", [Span(0, 2, True), Span(90, 100, False)]),
        ("bytes=0-49,25-74", [Span(0, 50, True), Span(25, 75, True)]),
        ("bytes=00000000000000000000000000000007-8", [Span(7, 9, True)]),
    ],
)
def test_ranges_are_read(header: str, spans: list[Span]) -> None:
    assert parse_range(header, 100) == tuple(spans)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=,",
        "bytes=-",
        "bytes=a-b",
        "bytes=1",
        "bytes=1-2-3",
        "bytes=1-2;3-4",
        "bytes=+1-2",
        "bytes=0x1-2",
        "bytes=1_0-20",
        "bytes=\u0661-\u0662",
        "bytes=1-2,x",
        "items=0-9",
        "bytes:0-9",
        "0-9",
    ],
)
def test_what_is_no_byte_range_is_ignored(header: str) -> None:
    assert parse_range(header, 100) is None


@pytest.mark.parametrize(
    "header",
    [
        "bytes=100-",
        "bytes=100-200",
        "bytes=-0",
        "bytes=5-2",
        "bytes=0-1,5-2",
        "bytes=1180591620717411303424-",  # 2^70
        "bytes=" + "9" * 5000 + "-",
        "bytes=" + ",".join(["0-0"] * 1000),
        "bytes=" + ",".join(["0-0"] * (MAX_RANGES + 1)),
        "bytes=-0,200-",
    ],
)
def test_what_cannot_be_satisfied_is_416_with_the_size(header: str) -> None:
    with pytest.raises(Unsatisfiable) as caught:
        parse_range(header, 100)
    assert (caught.value.status, caught.value.code) == (416, "RANGE_INVALID")
    assert caught.value.headers == (("Content-Range", "bytes */100"),)


def test_as_many_ranges_as_allowed_are_served() -> None:
    header = "bytes=" + ",".join(f"{i}-{i}" for i in range(MAX_RANGES))
    spans = parse_range(header, 100)
    assert spans is not None
    assert len(spans) == MAX_RANGES


def test_overlaps_that_multiply_the_blob_are_answered_whole() -> None:
    assert parse_range("bytes=0-,0-,0-", 100) is None
    assert parse_range("bytes=0-99,0-0", 100) is None


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=-5", "bytes=7-9", "bytes=-0"])
def test_an_empty_blob_has_no_ranges_and_is_answered_whole(header: str) -> None:
    assert parse_range(header, 0) is None


offsets = st.integers(0, 1200)


@given(st.integers(1, 1000), st.lists(st.tuples(offsets, offsets), min_size=1, max_size=5))
def test_spans_are_those_bytes_that_exist(size: int, pairs: list[tuple[int, int]]) -> None:
    pairs = [(min(pair), max(pair)) for pair in pairs]
    data = range(size)
    expected = [data[first : last + 1] for first, last in pairs if data[first : last + 1]]
    header = "bytes=" + ",".join(f"{first}-{last}" for first, last in pairs)
    if not expected:
        with pytest.raises(Unsatisfiable):
            parse_range(header, size)
        return
    spans = parse_range(header, size)
    if spans is None:
        assert sum(map(len, expected)) > size
    else:
        assert [data[span.start : span.stop] for span in spans] == expected
        assert all(span.bounded and span.length > 0 for span in spans)


@given(st.integers(1, 1000), st.integers(1, 1200))
def test_a_suffix_is_the_end_of_the_blob(size: int, length: int) -> None:
    spans = parse_range(f"bytes=-{length}", size)
    assert spans == (Span(max(0, size - length), size, bounded=False),)


@given(st.text("bytes=0123456789-, \t", max_size=30), st.integers(0, 100))
def test_any_header_gives_spans_within_the_blob_or_416(header: str, size: int) -> None:
    try:
        spans = parse_range(header, size)
    except Unsatisfiable:
        return
    assert spans is None or all(0 <= span.start < span.stop <= size for span in spans)


@given(st.integers(0, 1 << 40), st.integers(1, 1 << 40), st.integers(0, 1 << 40))
def test_content_range_round_trip(start: int, length: int, after: int) -> None:
    span, size = Span(start, start + length, bounded=True), start + length + after
    assert parse_content_range(content_range(span, size)) == (start, start + length, size)


def test_a_content_range_may_leave_the_total_open() -> None:
    assert parse_content_range("bytes 5-9/*") == (5, 10, None)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "bytes */100",
        "bytes 9-5/100",
        "bytes 9-8/100",
        "bytes 0-100/100",
        "bytes 0-9/0",
        "bytes 0-9",
        "bytes=0-9/100",
        "bytes -5/100",
        "items 0-9/100",
        "bytes 0-9/100\n",
        "bytes 0-9/1 00",
        "bytes \u0661-9/100",
        "bytes 0-" + "9" * 5000 + "/*",
    ],
)
def test_a_content_range_without_sense_is_none(header: str) -> None:
    assert parse_content_range(header) is None


def test_a_multipart_body_is_what_a_mail_parser_reads() -> None:
    data = b"abcdefghijklmnopqrstuvwxyz"
    spans = (Span(0, 3, True), Span(10, 11, True), Span(20, 26, False))
    parts, length = multipart(spans, len(data), "application/octet-stream", "limit")
    body = b"".join(data[part.start : part.stop] if isinstance(part, Span) else part for part in parts)
    assert length == len(body)
    head = b"Content-Type: multipart/byteranges; boundary=limit\r\n\r\n"
    message = email.message_from_bytes(head + body, policy=email.policy.HTTP)
    read = [(part["Content-Range"], part.get_payload(decode=True)) for part in message.iter_parts()]
    assert read == [
        ("bytes 0-2/26", b"abc"),
        ("bytes 10-10/26", b"k"),
        ("bytes 20-25/26", b"uvwxyz"),
    ]
