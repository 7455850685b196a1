"""A whole daemon in this process, and the three hosts behind it: a registry, its token server, its storage.

When a daemon ends it is shown that nothing is left: no task, no descriptor, nothing wrong in the store.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
import trio

from cacheproxy import config, wiring
from cacheproxy.app import main
from cacheproxy.config import Upstream
from cacheproxy.upstream.settings import UpstreamSettings
from cacheproxy.upstream.tls import client_context
from cacheproxy.upstream.transport import OwnedTransport
from tests.faults.client import Address, Asking, Heard, ask, asking
from tests.faults.host import NAME, Host, Names
from tests.faults.remains import Remains, nothing_wrong
from tests.origin import Content
from tests.origin.content import OCI_MANIFEST, sha256
from tests.upstream.authority import ca_file, server_context

CONFIG = """\
[server]
listen = ["127.0.0.1:0"]
metrics = "127.0.0.1:0"
[log]
requests = false
[storage]
state = "{state}"
{storage}
[cache]
min_free = "0%"
{cache}
[[upstream]]
registry = "docker.io"
prefix = "docker-hub"
default = true
url = "{url}"
token_hosts = ["{tokens}"]
allow_addresses = ["127.0.0.0/8"]
fresh = [{{ tags = "**", for = "0s" }}]
missing_for = "{missing_for}"
mirrors = [{mirrors}]
ca = "{ca}"
{upstream}
[[upstream]]
registry = "nowhere.test"
url = "http://nowhere.test"
ca = "{ca}"
"""

PAUSE = 0.05
"""Seconds for which an upstream is left alone after a 429, or after too many failures."""

QUICK: Mapping[str, Any] = {
    "cacheproxy.upstream.mirrors.PAUSES": (0.005, 0.01),
    "cacheproxy.upstream.pacing.OPEN_SECONDS": PAUSE,
    "cacheproxy.upstream.pacing.LONGEST_PAUSE": PAUSE,
    "cacheproxy.registry.transfer.BACKOFF": (0.01, 0.02, 0.04),
    "cacheproxy.registry.fill.GRACE": 0.1,
    "cacheproxy.edge.watchdog.TICK": 0.1,
    "cacheproxy.registry.fillfile.CHECKPOINT_SECONDS": 0.1,
}
"""Waits that are shorter here than a real upstream deserves."""

_once = functools.cache(client_context)
"""To make a TLS context takes longer than all else that a daemon does at its start."""

STALL = 0.3

HASTY: Mapping[str, Any] = {
    "cacheproxy.upstream.body.RATE_SECONDS": STALL,
    "cacheproxy.upstream.tokenserver.SECONDS": STALL,
    "cacheproxy.registry.manifests.PATIENCE": STALL,
}
"""Deadlines that only those tests shorten that wait for them: no other may miss one on a busy machine."""


PROGRAM = f"""
import sys
from pathlib import Path
from cacheproxy import app, config
from cacheproxy.registry import fillfile
fillfile.CHECKPOINT_SECONDS = {QUICK["cacheproxy.registry.fillfile.CHECKPOINT_SECONDS"]}
app.run(config.load(Path(sys.argv[1])))
"""


@dataclasses.dataclass(frozen=True)
class Image:
    repository: str
    tag: str
    digest: str
    manifest: bytes
    blobs: Mapping[str, bytes]
    """The config first, then the layers."""

    @property
    def layers(self) -> list[str]:
        return list(self.blobs)[1:]

    def manifest_path(self, reference: str = "") -> str:
        """By the tag when no reference is given."""
        return f"/v2/docker-hub/{self.repository}/manifests/{reference or self.tag}"

    def blob_path(self, digest: str) -> str:
        return f"/v2/docker-hub/{self.repository}/blobs/{digest}"


class House:
    def __init__(self, folder: Path, nursery: trio.Nursery, name: str, *, tls: bool, hasty: bool) -> None:
        self.state = folder / "state"
        self.file = folder / "cacheproxy.toml"
        self.names = Names()
        self.content = Content()
        context = server_context(NAME) if tls else None
        self.registry, self.auth, self.storage = (Host(nursery, self.content, context) for _ in range(3))
        self.auth.origin.tokens = self.registry.origin.tokens
        self._nursery = nursery
        self._base = f"{'https' if tls else 'http'}://{name}"
        self._hasty = hasty
        self._daemon = trio.CancelScope()
        self._drain = trio.Event()
        self._clients: Address = ("", 0)
        self._operators: Address = ("", 0)

    # Upstream.

    @property
    def hosts(self) -> tuple[Host, Host, Host]:
        return self.registry, self.auth, self.storage

    def url(self, host: Host) -> str:
        return f"{self._base}:{host.port}"

    async def heal(self) -> None:
        """All that was done to the upstream is undone."""
        self.names.known = {NAME}
        for host in self.hosts:
            await host.heal()

    async def calm(self) -> None:
        """What the daemon holds against the upstream has passed."""
        await trio.sleep(PAUSE + 0.01)

    def later(self, happens: Callable[[], Awaitable[None]]) -> None:
        """For what an answer cannot wait for, such as the end of the host that gives it."""
        self._nursery.start_soon(happens)

    def asked(self, *kinds: str) -> int:
        """Requests (of these kinds) that the hosts have had."""
        return sum(not kinds or seen.kind in kinds for host in self.hosts for seen in host.origin.seen)

    def image(self, repository: str, *layers: bytes, tag: str = "latest") -> Image:
        config_blob = json.dumps({"of": [repository, *map(sha256, layers)]}).encode()
        digest = self.content.add_image(repository, tag, layers, config_blob)
        blobs = {sha256(blob): blob for blob in (config_blob, *layers)}
        return Image(repository, tag, digest, self.content.manifests[repository][digest].body, blobs)

    # The daemon.

    @property
    def clients(self) -> Address:
        """Where it listens for them."""
        return self._clients

    @asynccontextmanager
    async def daemon(self) -> AsyncIterator[None]:
        """May be ended by `cut` or `drain`; else it is shown that nothing is left, and it is drained then."""
        self._drain, transports = trio.Event(), list[OwnedTransport]()
        before = Remains(self.state)
        async with trio.open_nursery() as nursery:
            self._daemon = nursery.cancel_scope
            with pytest.MonkeyPatch.context() as patch:
                if self._hasty:
                    patch.setattr(wiring, "upstream_settings", _hasty_settings)
                patch.setattr(wiring, "OwnedTransport", _noted(transports))
                bound = await nursery.start(main, config.load(self.file), self._drain)
            self._clients, self._operators = (_address(bound[door][0]) for door in ("listen", "metrics"))
            await self.ask("/v2/nowhere.test/a/manifests/b")  # some things are opened when first needed
            running = Remains(self.state)
            yield
            if not self._drain.is_set():
                for transport in transports:
                    await transport.aclose()  # what is idle there is no leak
                await running.settled()
            self.drain()
        await before.settled()
        nothing_wrong(self.state)

    def cut(self) -> None:
        """End the daemon in the middle of what it does."""
        self._daemon.cancel()

    def drain(self) -> None:
        """Let the daemon end what it does, and itself."""
        self._drain.set()

    @asynccontextmanager
    async def process(self, program: str = PROGRAM) -> AsyncIterator[trio.Process]:
        """A daemon in a process of its own, to be killed; the names of `names` mean nothing to it."""
        process = await trio.lowlevel.open_process([sys.executable, "-c", program, self.file], stderr=PIPE)
        try:
            with trio.fail_after(20):
                self._clients = await _listening(process)
            yield process
        finally:
            process.kill()
            await process.wait()
            assert process.stderr is not None
            await process.stderr.aclose()

    async def ask(self, path: str, method: str = "GET", **headers: str) -> Heard:
        return await ask(self._clients, path, method, headers)

    def asking(
        self, path: str, *, buffer: int | None = None, **headers: str
    ) -> AbstractAsyncContextManager[Asking]:
        """A GET whose answer is read bit by bit."""
        return asking(self._clients, path, headers=headers, buffer=buffer)

    async def quiet(self) -> None:
        """Wait until nothing is being fetched any more."""
        with trio.fail_after(30):
            while await self.metric("cacheproxy_fills_running"):
                await trio.sleep(0.02)

    async def pull(self, image: Image) -> None:
        """As clients do: the tag, the manifest, its blobs. All of it right, and none of it stale."""
        for method, reference in (("HEAD", image.tag), ("GET", image.tag), ("GET", image.digest)):
            heard = await self.ask(image.manifest_path(reference), method)
            assert (heard.status, heard.headers.get("warning")) == (200, None), heard
            assert heard.headers["docker-content-digest"] == image.digest
            assert heard.headers["content-type"] == OCI_MANIFEST
            assert heard.body == (b"" if method == "HEAD" else image.manifest)
        for digest, data in image.blobs.items():
            heard = await self.ask(image.blob_path(digest))
            assert (heard.status, heard.body == data, heard.whole) == (200, True, True), heard.headers

    async def metric(self, name: str) -> float:
        """By the operators' door; all its labels together."""
        lines = (await ask(self._operators, "/metrics")).body.decode().splitlines()
        found = [line.rpartition(" ") for line in lines if line.partition(" ")[0].partition("{")[0] == name]
        return sum(float(value) for _, _, value in found)


@asynccontextmanager
async def hosts(
    folder: Path,
    *,
    tls: bool = False,
    hasty: bool = False,
    storage: str = "",
    cache: str = 'parallel = "never"',
    upstream: str = "",
    missing_for: str = "0s",
    mirrored: bool = False,
    name: str = NAME,
) -> AsyncIterator[House]:
    """The upstream, and a configuration for daemons before it; the texts are lines of its sections.

    `mirrored`: the storage is a mirror too. `name` is what the configuration calls the hosts.
    """
    with pytest.MonkeyPatch.context() as patch:
        for constant, value in ({**QUICK, **HASTY} if hasty else QUICK).items():
            patch.setattr(constant, value)
        patch.setattr(wiring, "client_context", _once)
        async with trio.open_nursery() as nursery:
            house = House(folder, nursery, name, tls=tls, hasty=hasty)
            for host in house.hosts:
                await host.start()
            house.registry.origin.realm = f"{house.url(house.auth)}/token"
            text = CONFIG.format(
                state=house.state,
                storage=storage,
                cache=cache,
                url=house.url(house.registry),
                tokens=f"{name}:{house.auth.port}",
                upstream=upstream,
                missing_for=missing_for,
                mirrors=f'"{house.url(house.storage)}"' if mirrored else "",
                ca=ca_file(),
            )
            house.file.write_text(text)
            with house.names.patched():
                yield house
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def house(folder: Path, **options: Any) -> AsyncIterator[House]:
    """Such hosts, and a running daemon."""
    async with hosts(folder, **options) as built, built.daemon():
        yield built


_real_settings = wiring.upstream_settings


def _hasty_settings(upstream: Upstream, via: str) -> UpstreamSettings:
    return dataclasses.replace(_real_settings(upstream, via), stall=STALL, control=5 * STALL)


def _noted(transports: list[OwnedTransport]) -> Any:
    def make(*arguments: Any, **options: Any) -> OwnedTransport:
        transports.append(OwnedTransport(*arguments, **options))
        return transports[-1]

    return make


async def _listening(process: trio.Process) -> Address:
    """Where it says that it does."""
    assert process.stderr is not None
    said = b""
    async for data in process.stderr:
        said += data
        if found := re.search(rb'"listen": ?"([^"]+)"', said):
            return _address(found[1].decode())
    raise AssertionError(said.decode())


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    return host, int(port)
