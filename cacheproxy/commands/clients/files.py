"""Writing the files of a tool, and taking that back.

A journal says what was there and what was written, so that undoing touches nothing that was edited since. It
is written before the files are: whatever a crash leaves can be undone.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from cacheproxy.commands.clients.tools import CannotMerge, Planned

JOURNALS = "var/lib/cacheproxy-client-config"
BACKUP = ".before-cacheproxy"
READABLE = 0o644


class CannotWrite(Exception):
    """Nothing was changed; the message says which file, and what to do."""


@dataclass(frozen=True, slots=True)
class _Entry:
    path: str
    was: str | None
    """SHA-256 of what was there; None: nothing."""
    wrote: str


@dataclass(frozen=True, slots=True)
class _Journal:
    files: list[_Entry]
    folders: list[str]
    """Those that were made, the outermost first."""


class Files:
    """The files of one tool below `root`."""

    def __init__(self, root: Path, tool: str) -> None:
        self._root = root
        self._journal = root / JOURNALS / f"{tool}.json"

    def texts(self, planned: Iterable[Planned]) -> list[tuple[Path, str]]:
        """What each file will be. Raises CannotWrite."""
        return [(self._root / plan.path, self._text(plan)) for plan in planned]

    def write(self, planned: Sequence[Planned]) -> list[Path]:
        """All or nothing; what an earlier call wrote is undone first. Raises CannotWrite, OSError."""
        wanted = self.texts(planned)
        self.undo()
        folders = [str(folder) for path, _ in wanted for folder in _missing(path.parent)]
        entries = [_Entry(str(path), _digest(_read(path)), _digest(text) or "") for path, text in wanted]
        self._journal.parent.mkdir(parents=True, exist_ok=True)
        journal = _Journal(entries, list(dict.fromkeys(folders)))
        _replace(self._journal, json.dumps(asdict(journal), indent=2), READABLE)
        for path, text in wanted:
            _put(path, text)
        return [path for path, _ in wanted]

    def undo(self) -> list[Path]:
        """Put back what was there. Raises CannotWrite when a file is not as it was written."""
        journal = self._read_journal()
        if journal is None:
            return []
        for entry in journal.files:
            now = _digest(_read(Path(entry.path)))
            if now not in (entry.wrote, entry.was, None):
                raise CannotWrite(
                    f"{entry.path} was edited since it was written: undo it by hand"
                    + (f" (what was there is in {entry.path}{BACKUP})" if entry.was else "")
                    + f", then remove {self._journal}"
                )
        for entry in journal.files:
            _restore(Path(entry.path), existed=entry.was is not None)
        for folder in reversed(journal.folders):
            with suppress(OSError):  # somebody else uses it by now
                Path(folder).rmdir()
        self._journal.unlink()
        return [Path(entry.path) for entry in journal.files]

    def written(self) -> list[Path]:
        """What an earlier call wrote, whether or not it is still as it was."""
        journal = self._read_journal()
        return [] if journal is None else [Path(entry.path) for entry in journal.files]

    def _text(self, plan: Planned) -> str:
        path = self._root / plan.path
        try:
            return plan.text(self._without_us(path))
        except CannotMerge as error:
            raise CannotWrite(f"{path} {error}") from error

    def _without_us(self, path: Path) -> str | None:
        """What is there, or was before we wrote it."""
        if path not in self.written():
            return _read(path)
        return _read(_backup(path))

    def _read_journal(self) -> _Journal | None:
        text = _read(self._journal)
        if text is None:
            return None
        value = json.loads(text)
        return _Journal([_Entry(**entry) for entry in value["files"]], value["folders"])


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    before, mode = _read(path), READABLE
    if before is not None:
        mode = path.stat().st_mode & 0o777
        _replace(_backup(path), before, mode)
    _replace(path, text, mode)


def _restore(path: Path, *, existed: bool) -> None:
    backup = _backup(path)
    if existed and backup.exists():
        backup.replace(path)
    elif not existed:
        path.unlink(missing_ok=True)


def _replace(path: Path, text: str, mode: int) -> None:
    """Whole, or not at all; never readable for more than it will be."""
    scratch = path.with_name(f"{path.name}.new-cacheproxy")
    scratch.unlink(missing_ok=True)
    fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        os.fchmod(fd, mode)
        file.write(text)
        file.flush()
        os.fsync(fd)
    scratch.replace(path)


def _missing(folder: Path) -> list[Path]:
    """The folder and those above it that are not there, the outermost first."""
    found: list[Path] = []
    while not folder.exists():
        found.insert(0, folder)
        folder = folder.parent
    return found


def _backup(path: Path) -> Path:
    return path.with_name(path.name + BACKUP)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def _digest(text: str | None) -> str | None:
    return None if text is None else hashlib.sha256(text.encode()).hexdigest()
