from __future__ import annotations

import pytest

from cacheproxy.edge import head


def test_a_head_has_its_length_last() -> None:
    assert (
        head.render(200, [("A", "b"), ("C", "d")], 5)
        == b"HTTP/1.1 200 OK\r\nA: b\r\nC: d\r\nContent-Length: 5\r\n"
    )


@pytest.mark.parametrize("status", [204, 304])
def test_answers_without_body_have_no_length(status: int) -> None:
    assert head.bodiless(status)
    assert b"Content-Length" not in head.render(status, [], 5)


def test_a_status_without_phrase_keeps_the_space() -> None:
    assert head.render(299, [], 0).startswith(b"HTTP/1.1 299 \r\n")


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\nX: y", "a\rb", "a\0b", "\N{SNOWMAN}"])
def test_a_value_cannot_become_a_header_of_its_own(value: str) -> None:
    with pytest.raises(ValueError, match=r"a header|latin-1"):
        head.render(200, [("X", value)], 0)


@pytest.mark.parametrize("name", ["Content-Length", "connection", "Transfer-Encoding", "Date"])
def test_framing_belongs_to_the_edge(name: str) -> None:
    with pytest.raises(ValueError, match="belongs to the edge"):
        head.render(200, [(name, "1")], 0)


def test_the_date_is_made_once_a_second() -> None:
    ending = head.Ending()
    first = ending.lines(1_000_000_000.2, close=False)
    assert first == b"Date: Sun, 09 Sep 2001 01:46:40 GMT\r\n\r\n"
    assert ending.lines(1_000_000_000.9, close=False) is first
    assert b"01:46:41" in ending.lines(1_000_000_001.0, close=False)


def test_a_last_answer_says_so() -> None:
    assert head.Ending().lines(0.0, close=True).endswith(b"GMT\r\nConnection: close\r\n\r\n")
