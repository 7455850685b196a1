"""What can be configured of virtual prefixes, and what must hold between them and other names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import Field

from cacheproxy.config.checks import Conflict, Declared, first_segment, within
from cacheproxy.config.sections import Section, Upstream
from cacheproxy.config.toml_lines import Key
from cacheproxy.config.values import Prefix


class Virtual(Section):
    """One name for several places, looked at in order."""

    prefix: Prefix
    members: tuple[Prefix, ...] = Field(min_length=1)
    """Beginnings of names of hosted repositories, then prefixes of upstreams."""
    push: Prefix | None = None
    """The member that pushes go to; None: they are refused."""


def virtual_conflicts(
    virtuals: Sequence[tuple[int, Virtual]], upstreams: Sequence[Declared]
) -> Iterator[Conflict]:
    for number, virtual in virtuals:
        yield from _name(number, virtual, upstreams)
        yield from _siblings(number, virtual, virtuals)
        yield from _members(number, virtual, upstreams)
        if virtual.push is not None and virtual.push not in hosted(virtual, upstreams):
            text = f'"{virtual.push}" is no member at {{other}} that hosts repositories, as pushes need'
            yield Conflict(("virtual", number, "push"), text, ("virtual", number, "members"))


def hosted(virtual: Virtual, upstreams: Sequence[Declared]) -> list[str]:
    """The members that are no upstreams'."""
    prefixes = {upstream.prefix for _, upstream in upstreams}
    return [member for member in virtual.members if member not in prefixes]


def _name(number: int, virtual: Virtual, upstreams: Sequence[Declared]) -> Iterator[Conflict]:
    key: Key = ("virtual", number, "prefix")
    for place, upstream in upstreams:
        if overlap(virtual.prefix, upstream.prefix):
            text = f'"{virtual.prefix}" and "{upstream.prefix}" at {{other}} are one name; choose another'
            yield Conflict(key, text, ("upstream", place, "prefix"))
        elif first_segment(virtual.prefix) == upstream.registry:
            text = f'"{virtual.prefix}" begins with the registry declared at {{other}}; choose another'
            yield Conflict(key, text, ("upstream", place, "registry"))


def _siblings(number: int, virtual: Virtual, virtuals: Sequence[tuple[int, Virtual]]) -> Iterator[Conflict]:
    for place, other in virtuals:
        if place < number and overlap(other.prefix, virtual.prefix):
            text = f'"{virtual.prefix}" and "{other.prefix}" at {{other}} are one name; choose another'
            yield Conflict(("virtual", number, "prefix"), text, ("virtual", place, "prefix"))
        for position, member in enumerate(virtual.members):
            if overlap(other.prefix, member):
                text = f'"{member}" is virtual, by {{other}}: name what it looks through'
                yield Conflict(("virtual", number, "members", position), text, ("virtual", place, "prefix"))


def _members(number: int, virtual: Virtual, upstreams: Sequence[Declared]) -> Iterator[Conflict]:
    by_prefix = {upstream.prefix: (place, upstream) for place, upstream in upstreams}
    cached: Key | None = None
    for position, member in enumerate(virtual.members):
        key: Key = ("virtual", number, "members", position)
        if member in virtual.members[:position]:
            first = virtual.members.index(member)
            yield Conflict(
                key, f'"{member}" is a member already, at {{other}}', ("virtual", number, "members", first)
            )
        elif member in by_prefix:
            cached = key
            yield from _of_upstream(key, *by_prefix[member])
        else:
            yield from _of_ours(key, member, upstreams)
            if cached is not None:
                text = f'"{member}" hosts repositories, and stands behind an upstream at {{other}}:'
                yield Conflict(key, f"{text} who takes a name there takes its place; put it first", cached)


def _of_upstream(key: Key, place: int, upstream: Upstream) -> Iterator[Conflict]:
    if upstream.by_caller:
        text = f'"{upstream.prefix}" decides who may read it, by {{other}}, and so is at its own hosts only'
        yield Conflict(key, text, ("upstream", place, "authority"))


def _of_ours(key: Key, member: str, upstreams: Sequence[Declared]) -> Iterator[Conflict]:
    """A name that means an upstream, or could only mean one, hosts nothing."""
    for place, upstream in upstreams:
        if first_segment(member) == upstream.registry:
            text = f'"{member}" is a registry\'s name; write "{upstream.prefix}", its prefix at {{other}}'
            yield Conflict(key, text, ("upstream", place, "prefix"))
            return
        if overlap(member, upstream.prefix):
            text = f'"{member}" is neither the prefix "{upstream.prefix}" at {{other}} nor apart from it'
            yield Conflict(key, text, ("upstream", place, "prefix"))
            return
    if "." in first_segment(member):
        text = f'"{member}" looks like a registry, and none of that name is declared'
        yield Conflict(key, text, key[:2])


def overlap(one: str, other: str) -> bool:
    """Whether a name may begin with both."""
    return one == other or within(one, other) or within(other, one)
