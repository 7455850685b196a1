"""Pairs of access keys, at the admin socket: made, listed, revoked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import msgspec

from cacheproxy.core.errors import OCIError
from cacheproxy.edge.message import Request
from cacheproxy.registry.access_keys import AccessKeys

BODY_LIMIT = 1 << 16


class AccountNamed(msgspec.Struct):
    account: str


class KeyNamed(msgspec.Struct):
    id: str


Wanted = TypeVar("Wanted", bound=msgspec.Struct)


class AccessKeyDesk:
    """Handlers raise OCIError."""

    def __init__(self, keys: AccessKeys, *, named: bool) -> None:
        """`named`: somebody can have a name."""
        self._keys = keys
        self._named = named

    def handlers(self) -> Mapping[tuple[str, str], Callable[[Request], Awaitable[Any]]]:
        return {
            ("GET", "/access-keys"): self._list,
            ("POST", "/access-key"): self._add,
            ("POST", "/access-key/revoke"): self._revoke,
        }

    async def _list(self, request: Request) -> Any:
        return await self._keys.all()

    async def _add(self, request: Request) -> Any:
        wanted = await _body(request, AccountNamed)
        if not self._named:
            said = (
                "nobody has a name here, so this is only a cache: declare an [[account]] or a [[grant]] first"
            )
            raise OCIError("UNSUPPORTED", said, status=409)
        key_id, secret = await self._keys.add(wanted.account)
        return {"id": key_id, "secret": secret}

    async def _revoke(self, request: Request) -> Any:
        await self._keys.revoke((await _body(request, KeyNamed)).id)
        return {}


async def _body(request: Request, kind: type[Wanted]) -> Wanted:
    try:
        return msgspec.json.decode(await request.read_body(BODY_LIMIT), type=kind, strict=True)
    except msgspec.MsgspecError as error:
        raise OCIError("UNSUPPORTED", f"not what is asked for here: {error}", status=400) from error
