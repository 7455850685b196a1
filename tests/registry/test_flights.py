from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio
from trio.testing import MockClock

from cacheproxy.registry.flights import FlightLost, Flights


async def test_callers_of_one_key_share_one_call(autojump_clock: MockClock) -> None:
    calls = 0
    got: list[tuple[int, bool]] = []

    async def call() -> int:
        nonlocal calls
        calls += 1
        await trio.sleep(1)
        return 7

    async with trio.open_nursery() as background:
        flights = Flights[int](background)

        async def ask() -> None:
            got.append(await flights.share("key", call))

        async with trio.open_nursery() as clients:
            for _ in range(20):
                clients.start_soon(ask)
    assert calls == 1
    assert sorted(got) == [(7, False)] * 19 + [(7, True)]


async def test_keys_do_not_share(autojump_clock: MockClock) -> None:
    async def call() -> str:
        return "x"

    async with trio.open_nursery() as background:
        flights = Flights[str](background)
        assert [await flights.share(key, call) for key in ("a", "b")] == [("x", True)] * 2


async def test_a_failure_is_everybodys(autojump_clock: MockClock) -> None:
    failures = 0

    async def call() -> int:
        await trio.sleep(1)
        raise ValueError("no")

    async with trio.open_nursery() as background:
        flights = Flights[int](background)

        async def ask() -> None:
            nonlocal failures
            with pytest.raises(ValueError, match="no"):
                await flights.share("key", call)
            failures += 1

        async with trio.open_nursery() as clients:
            for _ in range(3):
                clients.start_soon(ask)
    assert failures == 3


async def test_the_next_call_after_a_failure_is_a_new_one(autojump_clock: MockClock) -> None:
    outcomes: Iterator[ValueError | int] = iter([ValueError("no"), 5])

    async def call() -> int:
        outcome = next(outcomes)
        if isinstance(outcome, ValueError):
            raise outcome
        return outcome

    async with trio.open_nursery() as background:
        flights = Flights[int](background)
        with pytest.raises(ValueError, match="no"):
            await flights.share("key", call)
        assert await flights.share("key", call) == (5, True)


async def test_a_caller_who_leaves_takes_nothing_away(autojump_clock: MockClock) -> None:
    got: list[int] = []

    async def call() -> int:
        await trio.sleep(10)
        return 1

    async with trio.open_nursery() as background:
        flights = Flights[int](background)

        async def ask() -> None:
            got.append((await flights.share("key", call))[0])

        async with trio.open_nursery() as clients:
            with trio.move_on_after(1):
                await flights.share("key", call)
            clients.start_soon(ask)
        assert trio.current_time() < 11
    assert got == [1]


async def test_shutdown_is_told_to_who_waits(autojump_clock: MockClock) -> None:
    lost = trio.Event()
    async with trio.open_nursery() as clients:
        async with trio.open_nursery() as background:
            flights = Flights[None](background)

            async def ask() -> None:
                with pytest.raises(FlightLost):
                    await flights.share("key", trio.sleep_forever)
                lost.set()

            clients.start_soon(ask)
            await trio.sleep(1)
            background.cancel_scope.cancel()
        with trio.fail_after(1):
            await lost.wait()
