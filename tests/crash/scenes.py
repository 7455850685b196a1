"""Short stories of a daemon, told from each storage call on: it dies there, or that call fails, or the disk
is full from there.

Each begins with the same state. How many calls it has depends on threads: the numbers are gone through until
the story is over before the call comes.
"""

from __future__ import annotations

import errno
import json
import os
import random
import re
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path

import apsw
import trio

from tests.crash.daemons import CONFIG, Daemon, DidNotStart, Nest, nest
from tests.crash.remains import Found, look
from tests.crash.world import KIB, MIB, Image, manifests
from tests.faults.client import Heard
from tests.origin import Content, Origin
from tests.origin.content import sha256


@dataclass
class Stage:
    folder: Path
    origin: Origin
    nest: Nest
    blobs: dict[str, bytes] = field(default_factory=dict)
    images: dict[str, Image] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)
    """Digests of images, and names of commands, that were answered."""
    ailing: bool = False
    """A storage call fails: what is not answered right is refused in clear words."""

    @property
    def full(self) -> Path:
        """While it is there, a daemon that was told so has no room; or a call of it has failed."""
        return self.folder / "full"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def image(self, repository: str, tag: str = "latest", seed: int = 1) -> Image:
        """With a small layer, and one that comes in ranged transfers."""
        rng = random.Random(f"{repository} {seed}")
        layers = [rng.randbytes(70 * KIB), rng.randbytes(MIB + 300 * KIB)]
        config = json.dumps({"of": repository, "seed": seed}).encode()
        digest = self.origin.content.add_image(repository, tag, layers, config)
        self.blobs |= {sha256(data): data for data in (config, *layers)}
        body = self.origin.content.manifests[repository][digest].body
        self.images[digest] = Image(repository, digest, body, tuple(map(sha256, (config, *layers))))
        return self.images[digest]

    def config(self, budget: str) -> Path:
        file = self.folder / "cacheproxy.toml"
        file.write_text(CONFIG.format(state=self.state, budget=budget, url=self.origin.url))
        return file

    def look(self) -> Found:
        return look(self.state, self.blobs)

    def file(self, image: Image) -> Path:
        """That of its last layer."""
        location, _ = self.look().stored[image.blobs[-1]]
        return self.state / "blobs" / location

    async def pull(self, daemon: Daemon, image: Image, tag: str = "latest") -> None:
        """Raises OSError when the daemon is gone; what it answers is right."""
        if self._right(await daemon.ask(manifests(image.repository) + tag), image.manifest):
            self.told.add(image.digest)
        for digest in image.blobs:
            self._right(await daemon.ask(image.blob(digest)), self.blobs[digest])
        await self.quiet(daemon)

    def _right(self, heard: Heard, body: bytes) -> bool:
        """False: it was refused, or cut short, as a failing disk excuses."""
        _alive(heard.status if heard.whole or self.ailing else 0)
        if (heard.status, heard.whole, heard.body == body) == (200, True, True):
            return True
        assert self.ailing, (heard.status, heard.headers, heard.body[:1000])
        assert self.full.exists(), "nothing had failed yet"
        if heard.status == 200:
            assert not heard.whole
            assert body.startswith(heard.body)
        else:
            assert heard.status in (502, 503), heard.body
            assert json.loads(heard.body)["errors"][0]["message"]
        return False

    async def quiet(self, daemon: Daemon) -> None:
        """Nothing is being fetched any more."""
        while await daemon.metric("cacheproxy_fills_running"):
            await trio.sleep(0.01)

    async def purge(self, daemon: Daemon, image: Image) -> None:
        status, _ = await daemon.command("/purge", reference=image.repository)
        if status in (500, 503) and self.full.exists():
            return  # it cannot even be written down, and is told
        assert status in (200, 404)
        self.told.add("purge")


def _alive(status: int) -> None:
    if status == 0:
        raise BrokenPipeError("cut off")


Act = Callable[[Stage, Daemon], Awaitable[None]]


@dataclass(frozen=True)
class Scene:
    name: str
    before: Act | None
    """With a daemon in good health, whose state is kept for each start of the story."""
    between: Callable[[Stage], None] | None
    """After that daemon's end."""
    story: Act
    budget: str = "100MiB"
    stays: tuple[str, ...] = ()
    """Repositories that lose nothing whatever happens."""
    mends: bool = False
    """Something is wrong with a layer of "library/other", until the story mends it."""


async def _pull_one(stage: Stage, daemon: Daemon) -> None:
    await stage.pull(daemon, stage.image("library/one"))


async def _pull_other(stage: Stage, daemon: Daemon) -> None:
    await stage.pull(daemon, stage.image("library/other"))


async def _purge_other(stage: Stage, daemon: Daemon) -> None:
    await stage.purge(daemon, stage.image("library/other"))


async def _pull_moved(stage: Stage, daemon: Daemon) -> None:
    await stage.pull(daemon, stage.image("library/one", seed=2))


async def _nothing(stage: Stage, daemon: Daemon) -> None:
    del stage, daemon


async def _leave_unfinished(stage: Stage, daemon: Daemon) -> None:
    """A download that a kill cuts short."""
    image = stage.image("library/one")
    stage.origin.rate = MIB / 2
    assert (await daemon.ask(manifests(image.repository) + "latest")).status == 200
    digest = image.blobs[-1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(daemon.ask, image.blob(digest))
        while stage.origin.bytes_sent(digest) < len(stage.blobs[digest]) // 2:
            await trio.sleep(0.01)
        await daemon.kill()
    stage.origin.rate = None


def _forget_file(stage: Stage) -> None:
    """The bytes of a layer are gone, and the row does not know."""
    stage.file(stage.image("library/other")).unlink()


def _damage_file(stage: Stage) -> None:
    """Seen when it is opened, and put into quarantine."""
    file = stage.file(stage.image("library/other"))
    os.truncate(file, file.stat().st_size - 1)


def _leave_trash(stage: Stage) -> None:
    """As a kill in the middle of an eviction does."""
    file = stage.file(stage.image("library/other"))
    left = file.with_suffix(".77")
    shutil.copyfile(file, left)
    with closing(apsw.Connection(str(stage.state / "cacheproxy.db"))) as database:
        place = str(left.relative_to(stage.state / "blobs"))
        database.execute("INSERT INTO trash (path, not_before) VALUES (?, 0)", (place,))


SCENES = (
    # The first start makes folders and schema (S1), the pull passes C1 to C5.
    Scene("first pull", None, None, _pull_one),
    Scene("pull", _pull_other, None, _pull_one, stays=("library/other",)),
    Scene("tag that moved", _pull_one, None, _pull_moved),
    # G1 to G4; and C1 to C4 behind them.
    Scene("eviction", _pull_other, None, _pull_one, budget="2MiB"),
    Scene("purge", _pull_other, None, _purge_other),
    Scene("lost file", _pull_other, _forget_file, _pull_other, mends=True),
    Scene("damaged file", _pull_other, _damage_file, _pull_other, mends=True),
    Scene("resumed pull", _leave_unfinished, None, _pull_one),
    Scene("trash at the start", _pull_other, _leave_trash, _nothing, stays=("library/other",)),
)


@asynccontextmanager
async def staged(folder: Path, scene: Scene) -> AsyncIterator[Stage]:
    """What comes before the story has happened."""
    async with nest() as warm, trio.open_nursery() as nursery:
        origin = Origin(Content())
        await nursery.start(origin.serve)
        stage = Stage(folder, origin, warm)
        stage.state.mkdir()
        if scene.before is not None:
            async with warm.daemon(stage.config(scene.budget)) as daemon:
                await scene.before(stage, daemon)
                await daemon.stop()
        if scene.between is not None:
            scene.between(stage)
        stage.state.rename(folder / "before")
        yield stage
        nursery.cancel_scope.cancel()


def wrong(stage: Stage, scene: Scene, found: Found) -> list[str]:
    """But for what the scene began with."""
    before = stage.image("library/other").blobs[-1].removeprefix("sha256:")
    return [said for said in found.wrong if not (scene.mends and before in said)]


def from_the_start(stage: Stage) -> None:
    shutil.rmtree(stage.state, ignore_errors=True)
    shutil.copytree(stage.folder / "before", stage.state, ignore=shutil.ignore_patterns("*.sock"))
    stage.told.clear()


async def die(stage: Stage, scene: Scene, number: int) -> bool:
    """Tell the story with a daemon that dies before its storage call of that number; whether it did."""
    from_the_start(stage)
    code = -9
    try:
        async with stage.nest.daemon(stage.config(scene.budget), {"kill_at": number}) as daemon:
            await scene.story(stage, daemon)
            code = await daemon.stop()
    except* (DidNotStart, OSError, trio.BrokenResourceError):
        pass
    return code != 0


async def starve(stage: Stage, scene: Scene, number: int) -> bool:
    """Tell the story on a disk that is full from that storage call on; whether it came to that.

    It is told well all the same, and what is pulled once there is room is kept.
    """
    from_the_start(stage)
    stage.full.unlink(missing_ok=True)
    try:
        async with stage.nest.daemon(
            stage.config(scene.budget), {"full_at": number, "full": str(stage.full)}
        ) as daemon:
            await scene.story(stage, daemon)
            was_full = stage.full.exists()
            stage.full.unlink(missing_ok=True)
            await _kept(stage, scene, daemon)
            assert await daemon.stop() == 0
    except* DidNotStart as group:
        # A start may be refused for want of room, if it says so.
        if not re.search("space|room", str(group.exceptions)):
            raise
        was_full = True
    assert wrong(stage, scene, stage.look()) == []
    return was_full


async def ail(stage: Stage, scene: Scene, number: int) -> bool:
    """Tell the story with a daemon of which one storage call fails; whether it came to that.

    Whoever asks gets what is right, or hears that it cannot be had; and nothing wrong is kept.
    """
    from_the_start(stage)
    stage.full.unlink(missing_ok=True)
    stage.ailing = True
    try:
        async with stage.nest.daemon(
            stage.config(scene.budget), {"fail_at": number, "full": str(stage.full)}
        ) as daemon:
            await scene.story(stage, daemon)
            assert await daemon.stop() in (0, 1)
    except* DidNotStart as group:
        # A start may be refused, if it says why.
        if not re.search(os.strerror(errno.EIO), str(group.exceptions), re.IGNORECASE):
            raise
    finally:
        stage.ailing = False
    failed = stage.full.exists()
    stage.full.unlink(missing_ok=True)
    assert wrong(stage, scene, stage.look()) == []
    return failed


async def _kept(stage: Stage, scene: Scene, daemon: Daemon) -> None:
    with trio.fail_after(20):
        while True:
            stage.told.clear()
            await scene.story(stage, daemon)
            wanted = {digest for told in stage.told - {"purge"} for digest in stage.images[told].blobs}
            found = stage.look()
            if wanted <= found.stored.keys() and stage.told - {"purge"} <= {one for _, one in found.images}:
                return
            await trio.sleep(0.1)


async def heal(stage: Stage, scene: Scene) -> None:
    """The next start tells the story to its end, and leaves nothing behind."""
    for file in (stage.state / "blobs" / "blobs").rglob("*.*"):
        os.utime(file, (time.time() - 86400,) * 2)
    async with stage.nest.daemon(stage.config(scene.budget)) as daemon:
        await scene.story(stage, daemon)
        with trio.fail_after(20):
            while (found := stage.look()).orphans or found.trash:
                await trio.sleep(0.02)
        assert await daemon.stop() == 0
    assert stage.look().wrong == []
