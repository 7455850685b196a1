"""Name patterns: one grammar for repositories and tags, everywhere in the configuration.

"*" stands for any characters within one path segment, "**" for any number of whole segments: at the end for
one or more ("team/**" is what is inside team), elsewhere for none or more ("**/cache" is also "cache"). A
leading "!" takes away. Of several patterns the last that matches decides; what none matches is not in.

No regular expression is made of what somebody wrote, and matching never goes back: each piece is taken where
it first fits, which is right because whatever stands between two pieces takes anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_SEGMENT = re.compile(r"[A-Za-z0-9._:*-]+")

Segment = tuple[str, ...]
"""The literal pieces between a segment's stars: ("a", "b") is "a*b", ("a",) is "a"."""
Run = tuple[Segment, ...]
"""Neighbouring segments without a "**" between them."""


class Patterns:
    """Compiled once, compared by their texts. A single text is a list of one. Raises ValueError."""

    def __init__(self, texts: str | Iterable[str]) -> None:
        self.texts = (texts,) if isinstance(texts, str) else tuple(texts)
        self._rules = [(not text.startswith("!"), _compile(text.removeprefix("!"))) for text in self.texts]
        self._rules.reverse()

    def matches(self, name: str) -> bool:
        segments = name.split("/")
        for adds, pattern in self._rules:
            if pattern.matches(segments):
                return adds
        return False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Patterns) and self.texts == other.texts

    def __hash__(self) -> int:
        return hash(self.texts)

    def __repr__(self) -> str:
        return f"Patterns({self.texts!r})"


@dataclass(frozen=True, slots=True)
class _Pattern:
    runs: tuple[Run, ...]
    """Between two of them stands a "**". The first is at the name's beginning, the last at its end."""
    inside: bool
    """The pattern ends in "**": at least one segment is left over for it."""

    def matches(self, segments: Sequence[str]) -> bool:
        first, *middle = self.runs
        if not middle:
            return len(first) == len(segments) and _fits(first, segments, 0)
        last = middle.pop()
        at, end = len(first), len(segments) - len(last)
        if at > end - self.inside or not _fits(first, segments, 0) or not _fits(last, segments, end):
            return False
        for run in middle:
            found = _find(run, segments, at, end - self.inside)
            if found is None:
                return False
            at = found + len(run)
        return True


def _compile(text: str) -> _Pattern:
    runs: list[Run] = [()]
    segments = text.split("/")
    for segment in segments:
        if segment == "**":
            runs.append(())
        elif "**" in segment or _SEGMENT.fullmatch(segment) is None:
            raise ValueError(f"not a pattern: {text!a}: segments are letters, digits and . _ : - *, or **")
        else:
            runs[-1] = (*runs[-1], tuple(segment.split("*")))
    return _Pattern(tuple(runs), inside=segments[-1] == "**")


def _find(run: Run, segments: Sequence[str], start: int, end: int) -> int | None:
    """The first place from `start` at which the run fits and ends by `end`."""
    places = range(start, end - len(run) + 1)
    return next((place for place in places if _fits(run, segments, place)), None)


def _fits(run: Run, segments: Sequence[str], place: int) -> bool:
    return all(_segment_fits(piece, segments[place + i]) for i, piece in enumerate(run))


def _segment_fits(pieces: Segment, text: str) -> bool:
    first, *middle = pieces
    if not middle:
        return text == first
    last = middle.pop()
    at, end = len(first), len(text) - len(last)
    if at > end or not text.startswith(first) or not text.endswith(last):
        return False
    for piece in middle:
        found = text.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True
