"""What clients and commands were told: after a crash it must still be so, or something later explains it.

Times are trio's. A purge that has not been answered yet may or may not have happened to what was told before
it ended; with the crash it has ended.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import trio

from tests.crash.remains import Found
from tests.crash.world import PINNED, World


@dataclass(eq=False)
class Purge:
    repository: str
    alone: bool
    """Nobody asked the repository for anything meanwhile."""
    ended: float = math.inf


@dataclass
class Ledger:
    world: World
    told_images: dict[tuple[str, str], float] = field(default_factory=dict)
    """Repository and digest; when the request began that was answered."""
    told_tags: dict[tuple[str, str], tuple[int, float]] = field(default_factory=dict)
    """How often the tag had moved, and when the request began."""
    stored: set[str] = field(default_factory=set)
    """Blobs that were seen in the rows, and that nothing may have taken away since."""
    gone: set[str] = field(default_factory=set)
    """Repositories that were purged, and that nobody asked for since."""
    wrong: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    _purges: dict[str, list[Purge]] = field(default_factory=dict)
    _busy: dict[str, int] = field(default_factory=dict)

    # What happens.

    def begins(self, repository: str) -> float:
        """A request for something in the repository."""
        self.gone.discard(repository)
        for purge in self._purges.get(repository, ()):
            purge.alone &= purge.ended < math.inf
        self._busy[repository] = self._busy.get(repository, 0) + 1
        return trio.current_time()

    def ends(self, repository: str) -> None:
        self._busy[repository] -= 1

    def tell_image(self, repository: str, digest: str, began: float) -> None:
        self._count("manifests")
        self.told_images[repository, digest] = began

    def tell_tag(self, repository: str, tag: str, digest: str, began: float) -> None:
        moved = self.world.age(repository, tag, digest)
        before = self.told_tags.get((repository, tag), (-1, 0.0))
        self.told_tags[repository, tag] = max(before, (moved, began))

    def tell_blob(self) -> None:
        self._count("blobs")

    def see_stored(self, digests: set[str]) -> None:
        """In the rows of a running daemon that evicts nothing but what is not pinned."""
        purging = [name for name, purges in self._purges.items() if purges and purges[-1].ended == math.inf]
        doubtful = {digest for name in purging for digest in self._named(name)}
        self.stored |= digests - doubtful

    def purge_begins(self, repository: str) -> Purge:
        purge = Purge(repository, not self._busy.get(repository))
        self._purges.setdefault(repository, []).append(purge)
        self.stored -= self._named(repository) - self._named(PINNED)
        return purge

    def purge_ends(self, purge: Purge) -> None:
        self._count("purges")
        purge.ended = trio.current_time()
        if purge.alone:
            self.gone.add(purge.repository)

    def crash(self) -> None:
        """All that was under way has ended."""
        self._busy.clear()
        now = trio.current_time()
        for purges in self._purges.values():
            for purge in purges:
                purge.ended = min(purge.ended, now)

    def evicting(self) -> None:
        """From now on what is not pinned may go."""
        self.stored &= self._named(PINNED)

    # What must be.

    def judge(self, found: Found) -> None:
        """Put what is missing into `wrong`."""
        self.wrong += found.wrong
        for key in self.certain_images() - found.images:
            self.wrong.append(f"told image is gone: {key}")
        for key, moved in self.certain_tags().items():
            now = found.tags.get(key)
            if now is None or self.world.age(*key, now) < moved:
                self.wrong.append(f"told tag is gone, or went back: {key} is {now}, {moved} moves were told")
        for digest in self.stored - found.stored.keys():
            self.wrong.append(f"stored blob is gone: {digest}")
        for repository, digest in found.images:
            if repository in self.gone:
                self.wrong.append(f"purged image is back: {repository}@{digest}")

    def certain_images(self) -> set[tuple[str, str]]:
        return {key for key, began in self.told_images.items() if began > self._purged(key[0])}

    def certain_tags(self) -> dict[tuple[str, str], int]:
        told = self.told_tags.items()
        return {key: moved for key, (moved, began) in told if began > self._purged(key[0])}

    def _purged(self, repository: str) -> float:
        return max((purge.ended for purge in self._purges.get(repository, ())), default=-math.inf)

    def _named(self, repository: str) -> set[str]:
        images = [image for image in self.world.images.values() if image.repository == repository]
        return {digest for image in images for digest in image.blobs}

    def _count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1
