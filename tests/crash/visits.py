"""Requests to a daemon that is killed now and then: answered, or lost with it."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from dataclasses import dataclass, field

import trio

from tests.crash.daemons import Daemon
from tests.crash.pushed import INDEX, Item, Shelf
from tests.faults.client import Heard, ask

SECRET = "0123456789abcdef0123"
ACCOUNTS = ("builder", "reader", "cleaner")
BUSY = 503
PATIENCE = 0.2


class Lost(Exception):
    """The daemon ended before it answered: whatever was asked for may have happened."""


@dataclass
class Door:
    """Where the daemon is at the time; nobody gets in while there is none."""

    daemon: Daemon | None = None
    opened: trio.Event = field(default_factory=trio.Event)

    async def enter(self) -> Daemon:
        while self.daemon is None:
            await self.opened.wait()
        return self.daemon

    def open(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.opened.set()

    def close(self) -> None:
        """What is heard from now on was not told."""
        self.daemon, self.opened = None, trio.Event()


@dataclass
class Visitor:
    """One account's requests."""

    name: str
    door: Door
    shelf: Shelf

    async def ask(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Heard:
        """Raises Lost."""
        while True:
            heard = await self._once(path, method, body, headers)
            if heard.status != BUSY:
                return heard
            self.shelf.count("told to come again")
            await trio.sleep(PATIENCE)

    async def _once(self, path: str, method: str, body: bytes | None, headers: dict[str, str]) -> Heard:
        daemon = await self.door.enter()
        login = b64encode(f"{self.name}:{SECRET}".encode()).decode()
        fields = {"Authorization": f"Basic {login}", **headers}
        fault = ""
        try:
            heard = await ask(daemon.clients, path, method, fields, body)
        except (OSError, trio.BrokenResourceError, trio.TooSlowError) as error:
            heard, fault = Heard(0, {}, b""), repr(error)
        if self.door.daemon is not daemon or (not heard.status and await _ended(daemon)):
            raise Lost
        whole = heard.whole or method == "HEAD" or heard.status == 204
        if heard.status == 0 or heard.status >= 500 != heard.status == BUSY or not whole:
            said = f"{method} {path}: {heard.status} {fault} {heard.body[:300]!r}"
            self.shelf.wrong.append(said)
            raise Lost
        return heard

    async def command(self, path: str, **values: object) -> int:
        """At the admin socket, again until it is answered: the status."""
        while True:
            daemon = await self.door.enter()
            try:
                status, _ = await daemon.command(path, **values)
            except (OSError, trio.BrokenResourceError) as error:
                if self.door.daemon is daemon:
                    self.shelf.wrong.append(f"{path} is not answered: {error!r}")
                    raise Lost from None
            else:
                if status != BUSY:
                    return status
                await trio.sleep(PATIENCE)

    async def see(self, item: Item) -> str:
        """What is wrong with an image that should be whole; "": nothing. Raises Lost."""
        heard = await self.ask(item.path, Accept=item.media_type)
        if (heard.status, heard.body) != (200, item.body):
            return f"{item}: {heard.status} {heard.body[:200]!r}"
        for digest in item.blobs:
            heard = await self.ask(f"/v2/{item.repository}/blobs/{digest}")
            if heard.status != 200 or f"sha256:{hashlib.sha256(heard.body).hexdigest()}" != digest:
                return f"{item}: its blob {digest[:19]}: {heard.status}, {len(heard.body)} bytes"
        for child in item.children:
            if wrong := await self.see(child):
                return f"{item}: its child: {wrong}"
        return ""

    async def meaning(self, path: str) -> str | None:
        """The digest of a tag's image; None: there is no such tag. Raises Lost."""
        heard = await self.ask(path, Accept=INDEX)
        if heard.status == 200:
            return "sha256:" + hashlib.sha256(heard.body).hexdigest()
        if heard.status != 404:
            self.shelf.wrong.append(f"{path}: {heard.status} {heard.body[:200]!r}")
        return None


async def _ended(daemon: Daemon) -> bool:
    """Whether it is gone, by itself: whoever waits for its end says how it should have ended."""
    with trio.move_on_after(PATIENCE):
        await daemon.ended()
        return True
    return False
