"""An issuer of tokens on loopback: what it publishes, and how it fails."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio

from tests.registry.issuer import AUDIENCE, EC, Signer, jwks, signed


class Issuing:
    def __init__(self) -> None:
        self.port = 0
        self.asked: list[str] = []
        self.keys = jwks(EC)
        self.named = ""
        """The issuer that its document names, where that is not its own name."""
        self.answers: dict[str, bytes] = {}
        """By path, in place of what it would say."""
        self.silent = False

    @property
    def name(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def token(self, key: Signer = EC, **claims: Any) -> str:
        """Good for five minutes, unless it says otherwise."""
        now = int(time.time())
        said = {"iss": self.name, "aud": AUDIENCE, "iat": now, "nbf": now, "exp": now + 300}
        repository = {"sub": "repo:acme/app", "repository": "acme/app", "repository_owner": "acme"}
        return signed({**said, **repository, **claims}, key=key)

    async def serve(self, stream: trio.SocketStream) -> None:
        try:
            async with stream:
                await self._answer(stream)
        except trio.BrokenResourceError:
            pass

    async def _answer(self, stream: trio.SocketStream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            data = await stream.receive_some()
            if not data:
                return
            head += data
        path = head.split(b" ")[1].decode()
        self.asked.append(path)
        if self.silent:
            await trio.sleep_forever()
        await stream.send_all(self.answers.get(path) or self._said(path))

    def _said(self, path: str) -> bytes:
        if path == "/.well-known/openid-configuration":
            document = {"issuer": self.named or self.name, "jwks_uri": f"{self.name}/keys"}
            return answer(json.dumps(document).encode())
        return answer(self.keys) if path == "/keys" else answer(b"", "404 Not Found")


def answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@asynccontextmanager
async def issuing() -> AsyncIterator[Issuing]:
    issuer = Issuing()
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, host="127.0.0.1"), issuer.serve, 0)
        issuer.port = listeners[0].socket.getsockname()[1]
        yield issuer
        nursery.cancel_scope.cancel()
