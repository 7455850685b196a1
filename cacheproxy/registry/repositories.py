"""Which repositories are hosted here, how they come to be, and how they end."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from functools import partial as bind
from typing import TypeVar

import structlog
import trio

from cacheproxy.core.errors import OCIError
from cacheproxy.core.settings import Settings
from cacheproxy.core.templates import ROOT, Birth, Templates
from cacheproxy.store.errors import StoreBusy, StoreError
from cacheproxy.store.hosted import Hosted, Kept
from cacheproxy.store.pushing import NoRepository

log = structlog.get_logger()

T = TypeVar("T")

SETTLES = 60.0
"""Seconds for a write that is waited for when nobody else waits any more: no healthy database needs them."""


class Repositories:
    """All raise OCIError; and StoreError where the rows cannot be had."""

    def __init__(
        self,
        hosted: Hosted,
        templates: Templates,
        clock: Callable[[], float],
        changed: Callable[[], None],
    ) -> None:
        """`changed` is called when a name has come to mean something else, before anybody hears of it."""
        self._hosted = hosted
        self._templates = templates
        self._clock = clock
        self._changed = changed

    async def is_hosted(self, name: str) -> bool:
        return await self._hosted.settings(name) is not None

    def foresees(self, name: str) -> bool:
        """Whether a push would make the repository."""
        return self._templates.choose(name, Birth.PUSH) is not None

    def covers(self, name: str) -> bool:
        """Whether a template other than ROOT is for it."""
        template = self._templates.choose(name, Birth.PUSH)
        return template is not None and template.prefix != ROOT

    def birth(self, name: str) -> Settings | None:
        """How a push would make the repository; None: it would not."""
        template = self._templates.choose(name, Birth.PUSH)
        return None if template is None else template.settings

    async def unmake(self, name: str) -> None:
        """Undo `born_by_push`, where nothing has come of the push, nor of another one."""
        try:
            if await settled(bind(self._hosted.drop_empty, name, self._clock()), self._changed):
                log.info("repository deleted: nothing was pushed", repository=name)
        except (OSError, StoreError) as error:
            log.warning("empty repository not deleted", repository=name, error=str(error))

    async def born_by_push(self, name: str) -> bool:
        """Make the repository that somebody pushes to; False: no template covers it, or its name is taken."""
        template = self._templates.choose(name, Birth.PUSH)
        if template is None:
            return False
        if await self._made(name, template.settings):
            log.info("repository created by a push", repository=name, template=template.prefix)
            return True
        return await self.is_hosted(name)  # another push was first

    async def create(self, name: str, settings: Settings) -> None:
        if not await self._made(name, settings):
            raise OCIError("NAME_INVALID", f"there is a repository {name} already", status=409)
        log.info("repository created", repository=name)

    async def configure(self, name: str, settings: Settings) -> None:
        try:
            await self._hosted.configure(name, settings)
        except NoRepository:
            raise unknown(name) from None

    async def settings(self, name: str) -> Settings:
        settings = await self._hosted.settings(name)
        if settings is None:
            raise unknown(name)
        return settings

    async def rename(self, old: str, new: str) -> None:
        try:
            renamed = await settled(bind(self._hosted.rename, old, new, self._clock()), self._changed)
        except NoRepository:
            raise unknown(old) from None
        if not renamed:
            raise OCIError("NAME_INVALID", f"there is a repository {new} already", status=409)
        log.info("repository renamed", repository=old, new=new)

    async def delete(self, name: str, *, force: bool = False) -> None:
        try:
            delete = bind(self._hosted.delete, name, self._clock(), force=force)
            gone = await settled(delete, self._changed)
        except NoRepository:
            raise unknown(name) from None
        if not gone:
            raise OCIError("DENIED", f"{name} has images: delete them first, or force it", status=409)
        log.info("repository deleted", repository=name)

    async def all(self) -> list[Kept]:
        """By name."""
        return await self._hosted.all()

    async def usage(self, name: str) -> tuple[int, int]:
        """(bytes, images)."""
        try:
            return await self._hosted.usage(name)
        except NoRepository:
            raise unknown(name) from None

    async def _made(self, name: str, settings: Settings) -> bool:
        # What the default upstream has by that name is no answer from now on.
        return await settled(bind(self._hosted.create, name, settings, self._clock()), self._changed)


async def settled(
    write: Callable[[], Awaitable[T]],
    changed: Callable[[], None],
    changes: Callable[[T], object] = bool,
) -> T:
    """A write to its end, also when its client goes away: answers made before it must not outlive it.

    `changes`: whether what it gives says that it changed what answers depend on. A write that fails may have
    been done all the same. Raises StoreBusy beside what the write does.
    """
    with trio.move_on_after(SETTLES) as scope:
        scope.shield = True
        try:
            given = await write()
        except BaseException:
            changed()
            raise
        if changes(given):
            changed()
        return given
    raise StoreBusy(errno.ETIMEDOUT, "the database does not answer")


def unknown(name: str) -> OCIError:
    return OCIError("NAME_UNKNOWN", f"there is no repository {name} here", detail={"name": name})
