from __future__ import annotations

import json
import os
import pty
from collections.abc import Iterator
from typing import Any, Literal

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy import log
from cacheproxy.config.sections import Log
from cacheproxy.log import LIMIT, printable, quoted

HOSTILE = 'x\r\n{"level":"y"}\x1b[2J\x00\x7f\x85\u2028\u202e"\\'


class Pipe:
    """Where the log goes to in these tests."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()

    def lines(self) -> list[str]:
        os.set_blocking(self.reader, False)
        return os.read(self.reader, 1 << 20).decode().splitlines()

    def close(self) -> None:
        os.close(self.reader)
        os.close(self.writer)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    opened = Pipe()
    yield opened
    opened.close()
    structlog.reset_defaults()


def logger(pipe: Pipe, format: Literal["json", "console", "auto"], **settings: Any) -> Any:  # noqa: A002
    log.configure(Log(format=format, **settings), pipe.writer)
    return structlog.get_logger()


def test_an_event_is_one_json_object_on_one_line(pipe: Pipe) -> None:
    logger(pipe, "json").warning("upstream failed", upstream="docker.io", status=503, again=None)
    (line,) = pipe.lines()
    event = json.loads(line)
    assert event.pop("ts").endswith("Z")
    assert event == {
        "level": "warning",
        "event": "upstream failed",
        "upstream": "docker.io",
        "status": 503,
        "again": None,
    }


def test_a_logger_may_have_a_name(pipe: Pipe) -> None:
    log.configure(Log(format="json"), pipe.writer)
    structlog.get_logger("cacheproxy.edge.server").warning("heard")
    assert json.loads(pipe.lines()[0])["event"] == "heard"


def test_every_json_line_begins_alike(pipe: Pipe) -> None:
    logger(pipe, "json").info("seen", a=1)
    (line,) = pipe.lines()
    assert list(json.loads(line)) == ["ts", "level", "event", "a"]


def test_json_cannot_be_broken_out_of(pipe: Pipe) -> None:
    logger(pipe, "json").info("seen", agent=HOSTILE)
    (line,) = pipe.lines()
    assert json.loads(line)["agent"] == HOSTILE
    assert line.isprintable()
    assert line.isascii()


def test_a_terminal_cannot_be_written_to(pipe: Pipe) -> None:
    logger(pipe, "console").info(f"seen {HOSTILE}", agent=HOSTILE, many=[HOSTILE])
    (line,) = pipe.lines()
    assert line.isprintable()


@pytest.mark.parametrize("format", ["json", "console"])
def test_a_field_has_a_limit(pipe: Pipe, format: Literal["json", "console"]) -> None:  # noqa: A002
    logger(pipe, format).info("seen", agent="\x1b" * 10_000, many=["x" * 10_000])
    (line,) = pipe.lines()
    assert len(line) < 2 * LIMIT + 200
    assert "..." in line


def test_a_traceback_is_part_of_its_event(pipe: Pipe) -> None:
    events = logger(pipe, "json")
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        events.exception("a bug")
    (line,) = pipe.lines()
    event = json.loads(line)
    assert event["level"] == "error"
    assert "Traceback" in event["exception"]
    assert HOSTILE in event["exception"]


def test_a_traceback_on_a_terminal_keeps_its_lines_and_nothing_else(pipe: Pipe) -> None:
    events = logger(pipe, "console")
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        events.exception("a bug")
    lines = pipe.lines()
    assert len(lines) > 3
    assert all(line.isprintable() for line in lines)


def test_a_traceback_has_a_limit(pipe: Pipe) -> None:
    logger(pipe, "json").info("a bug", exception="x" * 100_000)
    (line,) = pipe.lines()
    assert len(json.loads(line)["exception"]) == log.TRACEBACK_LIMIT


def test_what_is_below_the_level_is_not_written(pipe: Pipe) -> None:
    events = logger(pipe, "json", level="warning")
    events.info("one")
    events.warning("two")
    assert [json.loads(line)["event"] for line in pipe.lines()] == ["two"]


def test_a_lone_surrogate_is_written_escaped(pipe: Pipe) -> None:
    logger(pipe, "console").info("seen", path="\udc80")
    (line,) = pipe.lines()
    assert "\\udc80" in line


def test_a_log_that_nobody_reads_stops_nothing() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    log.write(writer, b"lost\n")
    os.close(writer)


def test_auto_is_json_unless_a_person_looks() -> None:
    outer, inner = pty.openpty()
    assert log.is_console(Log(), inner)
    os.close(outer)
    os.close(inner)
    reader, writer = os.pipe()
    assert not log.is_console(Log(), writer)
    assert log.is_console(Log(format="console"), writer)
    os.close(reader)
    os.close(writer)


def test_only_what_cannot_be_printed_is_escaped() -> None:
    assert printable("/v2/caf\u00e9") == "/v2/caf\u00e9"
    assert printable("a\nb") == "a\\nb"


@given(st.text(st.characters()))
def test_quoted_text_is_ascii_that_round_trips(text: str) -> None:
    line = quoted(text)
    assert line.isascii()
    assert line.isprintable()
    assert len(line) <= LIMIT + 2
    assert json.loads(line) == text or json.loads(line).endswith("...")


@given(st.text(st.sampled_from('a\x00\u20ac\U0001f600\ud800"'), min_size=80, max_size=600))
def test_a_cut_is_never_inside_an_escape(text: str) -> None:
    decoded = json.loads(quoted(text))
    assert decoded == text or text.startswith(decoded.removesuffix("..."))
    assert len(quoted(text)) <= LIMIT + 2
