"""How far something long is, on standard error: a line that moves where a person looks, else nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import click

from cacheproxy.commands.words import size

EVERY = 0.2
"""Seconds."""


class Progress:
    def __init__(self, what: str, total: int) -> None:
        self._what = what
        self._total = total
        self._done = 0
        self._moving = sys.stderr.isatty()
        self._told = time.monotonic()

    def passing(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """The same chunks, counted."""
        for chunk in chunks:
            yield chunk
            self.add(len(chunk))

    def add(self, count: int) -> None:
        self._done += count
        if self._moving and time.monotonic() - self._told >= EVERY:
            self._told = time.monotonic()
            click.echo(f"\r\x1b[K{self._what} {size(self._done)} of {size(self._total)}", nl=False, err=True)

    def end(self) -> None:
        if self._moving:
            click.echo("\r\x1b[K", nl=False, err=True)
