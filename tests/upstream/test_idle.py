"""Connections that wait: the warmest first, none for ever."""

from __future__ import annotations

import trio
import trio.testing

from cacheproxy.upstream.connection import Connection
from cacheproxy.upstream.idle import Idle, Origin
from tests.upstream.test_connection import Script

HERE = Origin("https", "a.example", 443)
THERE = Origin("https", "b.example", 443)


def waiting() -> tuple[Script, Connection]:
    stream = Script()
    return stream, Connection(stream)


async def test_the_last_one_given_is_the_first_one_taken() -> None:
    idle = Idle(8, 15.0)
    (_, first), (_, second) = waiting(), waiting()
    idle.give(HERE, first)
    idle.give(HERE, second)
    assert [idle.take(HERE), idle.take(HERE), idle.take(HERE)] == [second, first, None]


async def test_an_origin_gets_its_own_only() -> None:
    idle = Idle(8, 15.0)
    _, connection = waiting()
    idle.give(HERE, connection)
    others = (THERE, HERE._replace(scheme="http"), HERE._replace(port=444))
    assert [idle.take(other) for other in others] == [None, None, None]
    assert idle.take(HERE) is connection


async def test_one_that_something_came_in_on_is_closed() -> None:
    idle = Idle(8, 15.0)
    (stream, ended), (_, well) = waiting(), waiting()
    idle.give(HERE, well)
    idle.give(HERE, ended)
    stream.still = False
    assert idle.take(HERE) is well
    assert stream.closed


async def test_one_that_waited_too_long_is_closed(autojump_clock: trio.testing.MockClock) -> None:
    idle = Idle(8, 15.0)
    (old_stream, old), (_, young) = waiting(), waiting()
    idle.give(HERE, old)
    await trio.sleep(10)
    idle.give(HERE, young)
    await trio.sleep(5)
    assert idle.take(THERE) is None
    assert old_stream.closed
    assert [idle.take(HERE), idle.take(HERE)] == [young, None]


async def test_the_oldest_makes_room() -> None:
    idle = Idle(2, 15.0)
    given = [waiting() for _ in range(3)]
    for _, connection in given:
        idle.give(HERE, connection)
    assert [stream.closed for stream, _ in given] == [True, False, False]
    assert len(idle) == 2


async def test_after_closing_all_are_closed_and_none_is_kept() -> None:
    idle = Idle(2, 15.0)
    (before_stream, before), (after_stream, after) = waiting(), waiting()
    idle.give(HERE, before)
    idle.close()
    idle.give(HERE, after)
    assert before_stream.closed
    assert after_stream.closed
    assert len(idle) == 0
