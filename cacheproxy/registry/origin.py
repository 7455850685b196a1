"""An upstream and the rules for what is cached of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from cacheproxy.core.digest import Digest
from cacheproxy.core.failures import Cause, UpstreamError
from cacheproxy.core.freshness import FreshRule, StaleRule
from cacheproxy.core.settings import Settings
from cacheproxy.registry.transfer import Upstream
from cacheproxy.store.scratch import Scratch
from cacheproxy.upstream.registry import FetchedManifest, Head


class Registry(Upstream, Protocol):
    """What pulling needs of `upstream.registry.Registry`."""

    async def head_manifest(
        self, repository: str, reference: Digest | str, *, patience: float | None = None
    ) -> Head: ...
    async def get_manifest(
        self, repository: str, reference: Digest | str, *, patience: float | None = None
    ) -> FetchedManifest: ...
    async def head_blob(self, repository: str, digest: Digest) -> int: ...
    async def list_tags(self, repository: str) -> Sequence[str]: ...
    async def referrers(self, repository: str, digest: Digest) -> Sequence[dict[str, object]] | None: ...


def nothing_set(repository: str) -> Settings:
    """Where no template covers it."""
    return Settings()


@dataclass(frozen=True, slots=True)
class Origin:
    registry: Registry
    fresh: tuple[FreshRule, ...]
    stale: StaleRule
    missing_for: float
    """Seconds for which a 404 is remembered."""
    born: Callable[[str], Settings] = nothing_set
    """What is set for a repository, by canonical name, from when the first of it is here."""


class RememberedMissing(UpstreamError):
    """The upstream said 404 a moment ago, and was not asked again."""


class Missing:
    """Which things an upstream said it does not have: for a short time, and never for want of a right."""

    def __init__(self, scratch: Scratch) -> None:
        self._scratch = scratch

    def check(self, kind: str, repository: str, what: str, upstream: str) -> None:
        """Raises RememberedMissing."""
        if self.holds(kind, repository, what):
            message = (
                f"{repository} had no {kind} {what} a moment ago; it is asked again when that is forgotten"
            )
            raise RememberedMissing(Cause.MISSING, message, upstream, status=404)

    def holds(self, kind: str, repository: str, what: str) -> bool:
        return self._scratch.get(_key(kind, repository, what)) is not None

    async def remember(self, kind: str, repository: str, what: str, seconds: float) -> None:
        if seconds > 0:
            await self._scratch.put(_key(kind, repository, what), b"", seconds)


def _key(kind: str, repository: str, what: str) -> str:
    return f"missing {kind} {repository} {what}"
