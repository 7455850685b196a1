"""One call at a time for a key; whoever asks meanwhile shares its outcome."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

import trio

from cacheproxy.core import trace
from cacheproxy.registry import sharing

T = TypeVar("T")


class FlightLost(Exception):
    """The shared call was ended before it had an outcome: the daemon is shutting down."""


class _Flight(Generic[T]):
    def __init__(self) -> None:
        self.landed = trio.Event()
        self.begun = sharing.begun(trace.current.get())
        self.result: T | None = None
        self.error: Exception | None = FlightLost("the daemon is shutting down")


class Flights(Generic[T]):
    """Calls run in a nursery of their own: a client that hangs up takes nothing away from those who share."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._flying: dict[Hashable, _Flight[T]] = {}

    async def share(self, key: Hashable, call: Callable[[], Awaitable[T]]) -> tuple[T, bool]:
        """The outcome of `call`, or of the call for `key` that is under way; and whether it was ours.

        Raises what the call raised; FlightLost when it was cancelled.
        """
        flight = self._flying.get(key)
        ours = flight is None
        if flight is None:
            flight = self._flying[key] = _Flight[T]()
            self._nursery.start_soon(self._fly, key, flight, call)
        else:
            flight.begun.join()
        await flight.landed.wait()
        if flight.error is not None:
            raise flight.error
        return flight.result, ours  # type: ignore[return-value]  # set when there is no error

    async def _fly(self, key: Hashable, flight: _Flight[T], call: Callable[[], Awaitable[T]]) -> None:
        try:
            flight.result = await call()
            flight.error = None
        except Exception as error:  # noqa: BLE001 - handed to everyone who shares the call
            flight.error = error
        finally:
            del self._flying[key]
            flight.landed.set()
