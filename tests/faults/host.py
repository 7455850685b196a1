"""A scripted origin that keeps its port while it goes away, and names that may lead nowhere."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import trio

from tests.origin import Content, Origin

TOP = ".test"
"""No resolver outside knows names below it (RFC 6761, 6.2)."""

NAME = "upstream" + TOP


class Host:
    def __init__(self, nursery: trio.Nursery, content: Content, context: ssl.SSLContext | None) -> None:
        self.origin = Origin(content)
        self.port = 0
        self._nursery = nursery
        self._context = context
        self._scope = trio.CancelScope()
        self._gone = trio.Event()
        self._gone.set()
        self._right = False

    async def start(self) -> None:
        await self._start(self._context)
        self._right = True

    async def stop(self) -> None:
        """Every connection ends, and the next is refused."""
        self._right = False
        self._scope.cancel()
        await self._gone.wait()

    async def pretend(self, context: ssl.SSLContext) -> None:
        """Somebody else is there, with another certificate."""
        await self.stop()
        await self._start(context)

    async def heal(self) -> None:
        self.origin.heal()
        if not self._right:
            await self.stop()
            await self.start()

    async def _start(self, context: ssl.SSLContext | None) -> None:
        url = await self._nursery.start(self._serve, context)
        self.port = int(url.rpartition(":")[2])

    async def _serve(self, context: ssl.SSLContext | None, *, task_status: trio.TaskStatus[str]) -> None:
        self._gone = trio.Event()
        with trio.CancelScope() as self._scope:
            serve = partial(self.origin.serve, port=self.port, ssl_context=context)
            await serve(task_status=task_status)
        self._gone.set()


class Names:
    """What the C library's resolver says of names below `TOP`: all that it knows are this host."""

    def __init__(self) -> None:
        self.known = {NAME}

    @contextmanager
    def patched(self) -> Iterator[None]:
        real = socket.getaddrinfo

        def look_up(host: Any, *arguments: Any, **options: Any) -> Any:
            name = host.decode() if isinstance(host, bytes) else str(host)
            if not name.endswith(TOP):
                return real(host, *arguments, **options)
            if name not in self.known or options.get("flags", 0) & socket.AI_NUMERICHOST:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            return real("127.0.0.1", *arguments, **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(socket, "getaddrinfo", look_up)
            yield
