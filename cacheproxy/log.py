"""The log: one line an event, on standard error; JSON for machines, plain text on a terminal.

Much of what is logged was chosen by strangers (paths, user agents, what an upstream says). No line holds a
control character, and no field is longer than LIMIT: what cannot be printed is escaped as in JSON.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, MutableMapping
from typing import Any

import structlog

from cacheproxy.config.sections import Log

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
"""The numbers of the standard library."""

LIMIT = 512
"""Bytes of one field, as written. A line with a few long ones is still below PIPE_BUF, and written whole."""

TRACEBACK_LIMIT = 16 << 10
"""Bytes of a traceback: the one field that may be long, since its text is mostly ours."""

STANDARD_ERROR = 2

_encode = json.JSONEncoder(ensure_ascii=True).encode


def configure(settings: Log, descriptor: int = STANDARD_ERROR) -> None:
    """Set up `structlog.get_logger()` for the whole process."""
    console = is_console(settings, descriptor)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S" if console else "iso", utc=not console, key="ts"),
            structlog.processors.format_exc_info,
            _tame_console if console else _tame_json,
            _console_renderer(descriptor)
            if console
            else structlog.processors.JSONRenderer(separators=(",", ":")),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[settings.level]),
        logger_factory=lambda *_name: _Logger(descriptor),
    )


def is_console(settings: Log, descriptor: int = STANDARD_ERROR) -> bool:
    """Whether lines are for a person; "auto": when they go to a terminal."""
    return settings.format == "console" or (settings.format == "auto" and os.isatty(descriptor))


def quoted(text: str) -> str:
    """`text` as a JSON string in ASCII, with its quotes; at most LIMIT bytes between them."""
    whole = _encode(text)
    return whole if len(whole) <= LIMIT + 2 else f'"{_cut(text, LIMIT)}"'


def printable(text: str) -> str:
    """`text` without anything that could move a cursor, or begin another line."""
    if len(text) <= LIMIT and text.isprintable():
        return text
    return quoted(text)[1:-1]


def write(descriptor: int, lines: bytes) -> None:
    """Write all of it, blocking. A log that nobody takes any more must not stop us: failure is silent."""
    while lines:
        try:
            lines = lines[os.write(descriptor, lines) :]
        except OSError:
            return


def _cut(text: str, limit: int) -> str:
    """As much of `text`, escaped, as fits: never half an escape."""
    kept: list[str] = []
    room = limit - len("...")
    for character in text:
        escaped = _encode(character)[1:-1]
        room -= len(escaped)
        if room < 0:
            break
        kept.append(escaped)
    return "".join(kept) + "..."


class _Logger:
    """What structlog hands finished lines to."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def msg(self, line: str) -> None:
        # A lone surrogate can be in a path or in a message that quotes one.
        write(self._descriptor, line.encode(errors="backslashreplace") + b"\n")

    debug = info = warning = error = critical = msg


Event = MutableMapping[str, Any]


def _tame_json(logger: object, method: str, event: Event) -> Event:
    """Cap the fields. The JSON renderer escapes."""
    _tame(event, lambda text: text if len(_encode(text)) <= LIMIT + 2 else _shortened(text))
    if "exception" in event:
        event["exception"] = event["exception"][-TRACEBACK_LIMIT:]
    # What every line has stands first, as in the lines of requests.
    return {"ts": event.pop("ts"), "level": event.pop("level"), "event": event.pop("event"), **event}


def _tame_console(logger: object, method: str, event: Event) -> Event:
    """Cap the fields and escape what is not printable; a traceback keeps its lines."""
    _tame(event, printable)
    if "exception" in event:
        lines = event["exception"][-TRACEBACK_LIMIT:].splitlines()
        event["exception"] = "\n".join(printable(line) for line in lines)
    return event


def _tame(event: Event, text: Callable[[str], str]) -> None:
    """Make every field a number, a truth value, or tamed text."""
    for name, value in event.items():
        if name == "exception" or value is None or isinstance(value, bool | int | float):
            continue
        event[name] = text(value if isinstance(value, str) else str(value))


def _shortened(text: str) -> str:
    decoded: str = json.loads(f'"{_cut(text, LIMIT)}"')
    return decoded


def _console_renderer(descriptor: int) -> structlog.dev.ConsoleRenderer:
    return structlog.dev.ConsoleRenderer(
        colors=os.isatty(descriptor),
        timestamp_key="ts",
        exception_formatter=structlog.dev.plain_traceback,
    )
