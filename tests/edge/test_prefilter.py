from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.edge import prefilter


def head(*lines: bytes) -> bytes:
    return b"\r\n".join((*lines, b"", b""))


def status(data: bytes) -> int | None:
    refusal = prefilter.check(data)
    return None if refusal is None else refusal.status


def test_an_ordinary_head_passes() -> None:
    assert status(head(b"PUT /v2/a/blobs/uploads/1 HTTP/1.1", b"Host: a:5000", b"Content-Length: 10")) is None


def test_http_1_0_needs_no_host() -> None:
    assert status(head(b"GET / HTTP/1.0")) is None


def test_values_may_hold_what_is_not_ascii() -> None:
    assert status(head(b"GET / HTTP/1.1", b"Host: a", "User-Agent: Grüße".encode())) is None


def test_lists_may_be_repeated() -> None:
    assert status(head(b"GET / HTTP/1.1", b"Host: a", b"Accept: x", b"Accept: y")) is None


@pytest.mark.parametrize("name", [b"Range", b"Authorization", b"Content-Type", b"If-Range"])
def test_fields_that_are_no_lists_may_not_be_repeated(name: bytes) -> None:
    assert status(head(b"GET / HTTP/1.1", b"Host: a", name + b": x", name.lower() + b": x")) == 400


def test_a_hundred_fields_pass_and_one_more_does_not() -> None:
    fields = [b"X-%d: y" % number for number in range(99)]
    assert status(head(b"GET / HTTP/1.1", b"Host: a", *fields)) is None
    assert status(head(b"GET / HTTP/1.1", b"Host: a", *fields, b"Y: z")) == 431


def test_a_target_may_have_8_kib() -> None:
    longest = b"/" + b"a" * (prefilter.MAX_TARGET - 1)
    assert status(head(b"GET " + longest + b" HTTP/1.1", b"Host: a")) is None
    assert status(head(b"GET " + longest + b"a HTTP/1.1", b"Host: a")) == 414


def test_a_value_may_have_8_kib() -> None:
    longest = b"X: " + b"a" * prefilter.MAX_VALUE
    assert status(head(b"GET / HTTP/1.1", b"Host: a", longest)) is None
    assert status(head(b"GET / HTTP/1.1", b"Host: a", longest + b"a")) == 431


def test_a_head_may_have_16_kib() -> None:
    lines = (b"GET / HTTP/1.1", b"Host: a", b"A: " + b"a" * 8000, b"C: " + b"c" * 8000)
    room = prefilter.MAX_HEAD - len(head(*lines, b"B: "))
    assert status(head(*lines, b"B: " + b"b" * room)) is None
    assert status(head(*lines, b"B: " + b"b" * (room + 1))) == 431


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (b"\x16\x03\x01\x02\x00\x01", 400),  # a TLS handshake
        (b"\r\nGET /", 400),
        (b"get /", 400),
        (b"GET / HTTP/1.1\nHost: a\n", 400),
        (b"GET / HTTP/1.1\rHost", 400),
        (b"GET /" + b"a" * 9000, 414),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 17_000, 431),
    ],
)
def test_a_head_that_can_only_get_worse_is_not_waited_for(start: bytes, expected: int) -> None:
    refusal = prefilter.early(start)
    assert refusal is not None
    assert refusal.status == expected


@given(st.integers(1, 1000))
def test_no_beginning_of_a_good_head_is_refused(cut: int) -> None:
    whole = head(b"GET /v2/ HTTP/1.1", b"Host: a", b"User-Agent: docker/27", b"Accept: */*")
    assert prefilter.early(whole[: 1 + cut % len(whole)]) is None


@given(st.binary(max_size=200))
def test_any_bytes_are_judged_without_an_error(noise: bytes) -> None:
    prefilter.early(noise)
    prefilter.check(head(b"GET / HTTP/1.1", b"Host: a", noise))


def test_the_log_hears_method_and_target_of_a_refused_request() -> None:
    assert prefilter.request_line(b"TRACE /x HTTP/1.1\r\nHo") == ("TRACE", "/x")
    assert prefilter.request_line(b"\x16\x03\x01") == ("", "")
