from __future__ import annotations

import errno
import json
from typing import Any

import pytest
from structlog.testing import capture_logs

from cacheproxy.api.admin import AdminDoor
from cacheproxy.api.ready import ReadyAnswers
from cacheproxy.core.routing import Routes, UpstreamRoute
from cacheproxy.edge.message import BodyTooLarge, Peer, Request, Response
from cacheproxy.store.errors import StoreBusy

ROUTES = Routes([UpstreamRoute("docker.io", "hub", (), library=True, default=True)])


class Purging:
    """Keeps what it was asked for; `fails` when told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None, bool]] = []
        self.fails: Exception | None = None

    async def purge(self, target: Any, reference: str | None, *, earnest: bool) -> dict[str, str]:
        if self.fails is not None:
            raise self.fails
        self.asked.append((target.repository, reference, earnest))
        return {}


@pytest.fixture
def purging() -> Purging:
    return Purging()


@pytest.fixture
def ready() -> ReadyAnswers:
    return ReadyAnswers()


@pytest.fixture
def door(purging: Any, ready: ReadyAnswers) -> AdminDoor:
    nobody: Any = None
    return AdminDoor(ROUTES, ready, nobody, nobody, purging, *[nobody] * 6)


async def ask(door: AdminDoor, method: str, target: str, body: object = b"") -> Response:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def read_body(limit: int) -> bytes:
        if len(data) > limit:
            raise BodyTooLarge
        return data

    return await door.handle(Request(method, target, {}, Peer(None, "http"), "id", read_body))


def error(response: Response) -> str:
    assert isinstance(response.body, bytes)
    return str(json.loads(response.body)["error"])


@pytest.mark.parametrize(("method", "target"), [("GET", "/"), ("POST", "/status"), ("GET", "/v2/")])
async def test_what_is_not_here_is_not_found(door: AdminDoor, method: str, target: str) -> None:
    response = await ask(door, method, target)
    assert response.status == 404
    assert error(response) == f"there is no {method} {target} here"


async def test_a_name_is_resolved_as_for_clients(door: AdminDoor, purging: Purging) -> None:
    for reference in ("alpine", "docker.io/a/b:1", "hub/a"):
        assert (await ask(door, "POST", "/purge", {"reference": reference})).status == 200
    assert purging.asked == [
        ("hub/library/alpine", None, True),
        ("hub/a/b", "1", True),
        ("hub/library/a", None, True),
    ]


async def test_only_what_was_changed_ends_ready_answers(door: AdminDoor, ready: ReadyAnswers) -> None:
    era = ready.era
    await ask(door, "POST", "/purge", {"reference": "a", "dry_run": True})
    assert ready.era == era
    await ask(door, "POST", "/purge", {"reference": "a"})
    assert ready.era > era


@pytest.mark.parametrize("body", [b"", b"[]", {"reference": 1}, {"name": "a"}])
async def test_a_body_that_is_none_is_refused(door: AdminDoor, purging: Purging, body: object) -> None:
    response = await ask(door, "POST", "/purge", body)
    assert response.status == 400
    assert error(response).startswith("not what is asked for here")
    assert purging.asked == []


async def test_a_name_that_is_none_is_refused(door: AdminDoor) -> None:
    response = await ask(door, "POST", "/purge", {"reference": "other.example/a"})
    assert (response.status, error(response)) == (404, "the registry other.example is not declared here")


async def test_a_fault_of_ours_is_told(door: AdminDoor, purging: Purging) -> None:
    purging.fails = KeyError("x")
    response = await ask(door, "POST", "/purge", {"reference": "a"})
    assert (response.status, error(response)) == (500, "KeyError: 'x'")


async def test_a_database_that_is_away_is_no_fault_of_ours(door: AdminDoor, purging: Purging) -> None:
    purging.fails = StoreBusy(errno.EBUSY, "database: no server")
    with capture_logs() as lines:
        response = await ask(door, "POST", "/purge", {"reference": "a"})
    assert (response.status, [line["log_level"] for line in lines]) == (503, ["warning"])
    assert error(response) == (
        "what cacheproxy keeps its records in does not answer; try again ([Errno 16] database: no server)"
    )


async def test_a_body_that_is_too_large_is_the_edges_matter(door: AdminDoor) -> None:
    with pytest.raises(BodyTooLarge):
        await ask(door, "POST", "/purge", b" " * (2 << 20))
