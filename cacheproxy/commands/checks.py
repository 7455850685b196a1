"""What doctor finds on this host."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cacheproxy.commands.words import size

if TYPE_CHECKING:
    from cacheproxy.config import Config

LOW = 2
"""Times the reserve: below, the disk is soon full."""


@dataclass(frozen=True, slots=True)
class Finding:
    level: Literal["ok", "warn", "fail"]
    what: str
    said: str
    advice: str = ""
    """What to do; "": nothing."""


def folders(config: Config, daemon: int | None) -> Iterator[Finding]:
    """Rights on what the daemon writes; `daemon` is the user that it runs as, None: whoever asks."""
    user = os.geteuid() if daemon is None else daemon
    storage = config.storage
    wanted = {"state": storage.state, "blobs": storage.partial}
    if isinstance(storage.database, Path):
        wanted["database"] = storage.database.parent
    for path in dict.fromkeys(wanted.values()):
        name = " and ".join(name for name, its in wanted.items() if its == path)
        yield _folder(name, path, user, private=path == storage.partial)


def _folder(name: str, path: Path, user: int, *, private: bool) -> Finding:
    """`private`: what is in it are images, and who may have those is for `access` to say."""
    try:
        state = path.stat()
    except FileNotFoundError:
        return Finding("warn", name, f"{path} is not there yet", "the daemon makes it at its first start")
    except OSError as error:
        return Finding("fail", name, f"{path}: {error.strerror}", "run this as root, or as the daemon's user")
    if not stat.S_ISDIR(state.st_mode):
        return Finding("fail", name, f"{path} is no folder", "move it away")
    if user != 0 and (state.st_uid != user or state.st_mode & 0o700 != 0o700):
        return Finding(
            "fail", name, f"user {user} cannot write to {path}", f"chown -R {user} {path}; chmod u+rwx {path}"
        )
    if private and state.st_mode & 0o007:
        return Finding("warn", name, f"everybody may look into {path}", f"chmod o= {path}")
    return Finding("ok", name, str(path))


def disk(config: Config) -> Iterator[Finding]:
    """Room where bytes arrive, beside what the configuration wants of it."""
    place = config.storage.partial
    while not place.exists():
        place = place.parent
    state = os.statvfs(place)
    free, total = state.f_bavail * state.f_frsize, state.f_blocks * state.f_frsize
    reserve, budget = config.cache.min_free.of(total), config.cache.budget.of(total)
    said = f"{size(free)} of {size(total)} free at {place}"
    if state.f_flag & os.ST_RDONLY:
        what = "dmesg says why, if it was not mounted so: a disk that fails becomes read-only"
        yield Finding("fail", "read-only", f"nothing can be written at {place}", what)
    if free <= reserve:
        what = f"below min_free ({size(reserve)}): free some, or lower cache.min_free"
        yield Finding("fail", "disk", said, what)
    elif free <= LOW * reserve:
        yield Finding("warn", "disk", said, f"near min_free ({size(reserve)})")
    else:
        yield Finding("ok", "disk", said)
    if budget > total - reserve:
        what = f"the budget is {size(budget)}, the disk less min_free has {size(total - reserve)}"
        yield Finding("warn", "budget", what, "min_free will stop it first: lower cache.budget to be told")
    if state.f_files and state.f_favail * 20 < state.f_files:
        yield Finding("warn", "inodes", f"{state.f_favail} of {state.f_files} left", "remove small files")
