"""Telling what a request leads to, and not telling it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

import pytest

from cacheproxy.core import trace
from cacheproxy.core.failures import Cause, UpstreamError


@dataclass(eq=False)
class Told:
    name: str
    client: bool = False
    parts: list[Self] = field(default_factory=list)
    linked: list[Self] = field(default_factory=list)
    failed: str = ""
    ended: bool = False

    def child(self, name: str, *, client: bool = False) -> Self:
        self.parts.append(type(self)(name, client))
        return self.parts[-1]

    def apart(self, name: str) -> Self:
        self.linked.append(type(self)(name))
        return self.linked[-1]

    def link(self, other: Self) -> None:
        self.linked.append(other)

    def note(self, attributes: trace.Attributes) -> None: ...

    def fail(self, kind: str) -> None:
        self.failed = kind

    def end(self) -> None:
        self.ended = True


@pytest.fixture
def root() -> Iterator[Told]:
    told = Told("request")
    before = trace.current.set(told)
    yield told
    trace.current.reset(before)


def test_nothing_is_told_where_nothing_is_traced() -> None:
    with trace.step("part") as span:
        assert span is None
        assert trace.current.get() is None
    assert trace.apart("fill") is None
    trace.share(Told("fill"))


def test_a_step_is_a_part_of_what_is_under_way_and_so_are_its_own_steps(root: Told) -> None:
    with trace.step("outer"), trace.step("inner", client=True) as inner:
        assert trace.current.get() is inner
    assert trace.current.get() is root
    [outer] = root.parts
    assert [(part.name, part.client, part.ended) for part in outer.parts] == [("inner", True, True)]
    assert outer.ended
    assert not root.ended


@pytest.mark.parametrize(
    ("error", "kind"),
    [(UpstreamError(Cause.DNS, "cannot be resolved", "hub"), "dns"), (KeyError("secret"), "KeyError")],
)
def test_a_step_that_fails_says_of_what_kind(error: Exception, kind: str, root: Told) -> None:
    with pytest.raises(type(error)), trace.step("part"):
        raise error
    assert [(part.failed, part.ended) for part in root.parts] == [(kind, True)]


def test_who_waits_for_what_another_began_is_linked_to_it(root: Told) -> None:
    fill = Told("fill")
    trace.share(fill)
    trace.share(None)
    trace.share(root)
    assert root.linked == [fill]


def test_what_happens_apart_ends_with_its_block(root: Told) -> None:
    span = trace.apart("fill")
    with trace.within(span):
        assert trace.current.get() is span
    assert trace.current.get() is root
    assert [(one.name, one.ended) for one in root.linked] == [("fill", True)]
