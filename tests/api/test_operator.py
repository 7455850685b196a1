from __future__ import annotations

import pytest

from cacheproxy.api.operator import NAME, Operators, OperatorsDoor
from cacheproxy.core.rights import Right
from cacheproxy.edge.message import Peer, Ready, Request, Response


class Named:
    """An application that tells which one it is, and whom it was called."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.host: str | None = None

    def immediate(self, method: str, target: str, headers: dict[str, str], peer: Peer) -> Ready | None:
        return None

    async def handle(self, request: Request) -> Response:
        self.host = request.headers.get("host")
        return Response(200, body=self.name.encode())

    def refuse(self, status: int, message: str, request_id: str) -> Response:
        return Response(status, body=self.name.encode())


async def nothing(_: int) -> bytes:
    return b""


@pytest.mark.parametrize(
    ("target", "answered"),
    [
        ("/v2/", b"registry"),
        ("/v2/a/manifests/b", b"registry"),
        ("/v2", b"commands"),
        ("/status", b"commands"),
        ("/status?/v2/", b"commands"),
    ],
)
async def test_the_api_is_beside_the_commands(target: str, answered: bytes) -> None:
    commands, registry = Named("commands"), Named("registry")
    request = Request("GET", target, {"host": "localhost"}, Peer(None, "http"), "id", nothing)
    response = await OperatorsDoor(commands, registry).handle(request)
    assert response.body == answered
    # Its own name may be one of an upstream's hosts.
    assert registry.host == ("" if answered == b"registry" else None)


async def test_who_opens_the_socket_has_all_rights() -> None:
    request = Request("GET", "/v2/", {}, Peer(None, "http"), "id", nothing)
    caller = await Operators().identify(request)
    assert caller.name == NAME
    assert all(caller.may(right, "any/repository") for right in Right)
    assert caller.anything()
    assert not Operators().challenges(request)
