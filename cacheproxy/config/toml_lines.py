"""Where each key of a TOML document stands, so that an error about a value can name its line.

The standard parser gives values without places. This scanner gives places without values: it reads text that
`tomllib` has already accepted, and therefore checks nothing.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_left

Key = tuple[str | int, ...]
"""A path into a document: names of tables and keys, numbers of array elements."""

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR = re.compile(r"[^,\]}#\r\n]*")
_STRINGS = (
    re.compile(r'"""(?:\\.|[^\\])*?"""(?:"{0,2})', re.DOTALL),
    re.compile(r"'''.*?'''(?:'{0,2})", re.DOTALL),
    re.compile(r'"(?:\\.|[^"\\])*"'),
    re.compile(r"'[^']*'"),
)


def positions(text: str) -> dict[Key, int]:
    """The line (from 1) of each table, key and array element of a valid document.

    A table that is opened by several headers or dotted keys has the line of the first.
    """
    return _Scanner(text).document()


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._found: dict[Key, int] = {}
        self._elements: dict[Key, int] = {}
        """How many [[headers]] each array of tables has had so far."""
        self._line_ends = [match.start() for match in re.finditer("\n", text)]

    def document(self) -> dict[Key, int]:
        table: Key = ()
        while self._skip(_BLANK) < len(self._text):
            if self._take("[["):
                table = self._header(array=True)
            elif self._take("["):
                table = self._header(array=False)
            else:
                self._pair(table)
        return self._found

    def _header(self, *, array: bool) -> Key:
        start = self._at
        self._skip(_SPACE)
        *parents, name = self._key()
        self._skip(_SPACE)
        self._take("]]" if array else "]")
        path: Key = ()
        for parent in parents:
            path = self._last_element((*path, parent))
        path = (*path, name)
        if array:
            self._note(path, start)
            self._elements[path] = self._elements.get(path, 0) + 1
        path = self._last_element(path)
        self._note(path, start)
        return path

    def _last_element(self, path: Key) -> Key:
        """A header below an array of tables speaks of the table opened last."""
        count = self._elements.get(path)
        return path if count is None else (*path, count - 1)

    def _pair(self, table: Key) -> None:
        start = self._at
        path = table
        for name in self._key():
            path = (*path, name)
            self._note(path, start)
        self._skip(_SPACE)
        self._take("=")
        self._skip(_SPACE)
        self._value(path)

    def _key(self) -> list[str]:
        names = [self._name()]
        while self._skip(_SPACE) and self._take("."):
            self._skip(_SPACE)
            names.append(self._name())
        return names

    def _name(self) -> str:
        start = self._at
        if self._string():
            decoded: str = tomllib.loads(f"name = {self._text[start : self._at]}")["name"]
            return decoded
        self._skip(_BARE_KEY)
        return self._text[start : self._at]

    def _value(self, path: Key) -> None:
        if self._take("["):
            self._array(path)
        elif self._take("{"):
            self._inline_table(path)
        elif not self._string():
            self._skip(_SCALAR)

    def _array(self, path: Key) -> None:
        count = 0
        while self._skip(_BLANK) and not self._take("]"):
            self._note((*path, count), self._at)
            self._value((*path, count))
            count += 1
            self._skip(_BLANK)
            self._take(",")

    def _inline_table(self, path: Key) -> None:
        # Line ends are skipped too: TOML 1.1 allows them here.
        while self._skip(_BLANK) and not self._take("}"):
            self._pair(path)
            self._skip(_BLANK)
            self._take(",")

    def _string(self) -> bool:
        start = self._at
        return any(self._skip(string) > start for string in _STRINGS)

    def _skip(self, pattern: re.Pattern[str]) -> int:
        """Go past what `pattern` takes from here, if anything; the new offset."""
        if found := pattern.match(self._text, self._at):
            self._at = found.end()
        return self._at

    def _take(self, mark: str) -> bool:
        if not self._text.startswith(mark, self._at):
            return False
        self._at += len(mark)
        return True

    def _note(self, path: Key, offset: int) -> None:
        self._found.setdefault(path, bisect_left(self._line_ends, offset) + 1)
