"""Hosted repositories: how they come to be, and who hears that a name means something else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from cacheproxy.core.errors import OCIError
from cacheproxy.core.settings import Settings
from cacheproxy.core.templates import ROOT, Birth, Template, Templates
from cacheproxy.registry.repositories import Repositories, settled
from cacheproxy.store.errors import StoreBusy
from cacheproxy.store.hosted import Hosted
from cacheproxy.store.sqlite import SQLite

PUSH = frozenset({Birth.PUSH})
TEMPLATES = Templates(
    [Template("team", PUSH, Settings(immutable=True)), Template(ROOT, PUSH, Settings())],
    default_upstream=True,
)


class Desk(Repositories):
    def __init__(self, database: SQLite) -> None:
        self.changes = 0
        super().__init__(Hosted(database), TEMPLATES, lambda: 1e9, self._note)

    def _note(self) -> None:
        self.changes += 1


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with SQLite.open(tmp_path / "rows.db") as database:
        yield Desk(database)


async def test_a_push_makes_a_repository_with_the_settings_of_its_template(desk: Desk) -> None:
    assert await desk.born_by_push("team/app")
    assert (await desk.settings("team/app")).immutable
    assert await desk.born_by_push("app")
    assert not (await desk.settings("app")).immutable


async def test_a_repository_that_another_push_made_is_as_good(desk: Desk) -> None:
    assert await desk.born_by_push("team/app")
    assert await desk.born_by_push("team/app")


async def test_no_push_makes_a_repository_in_the_place_of_the_default_upstreams_own(desk: Desk) -> None:
    assert not desk.foresees("library/debian")
    assert not await desk.born_by_push("library/debian")
    assert not await desk.is_hosted("library/debian")


async def test_only_a_template_of_its_own_covers_a_name(desk: Desk) -> None:
    assert desk.covers("team/app")
    assert not desk.covers("app")


async def test_a_name_that_comes_to_be_hosted_is_told(desk: Desk) -> None:
    await desk.born_by_push("team/app")
    await desk.create("app", Settings())
    assert desk.changes == 2


@pytest.mark.parametrize(
    "change",
    [lambda desk: desk.rename("app", "other"), lambda desk: desk.delete("app")],
    ids=["rename", "delete"],
)
async def test_a_name_that_is_hosted_no_more_is_told(desk: Desk, change: Callable[[Desk], Any]) -> None:
    await desk.create("app", Settings())
    desk.changes = 0
    await change(desk)
    assert desk.changes == 1
    assert not await desk.is_hosted("app")


async def test_two_repositories_never_share_a_name(desk: Desk) -> None:
    await desk.create("app", Settings())
    await desk.create("other", Settings())
    for taken in (desk.create("app", Settings()), desk.rename("app", "other")):
        with pytest.raises(OCIError) as caught:
            await taken
        assert caught.value.status == 409


@pytest.mark.parametrize(
    "asked",
    [
        lambda desk: desk.rename("none", "other"),
        lambda desk: desk.delete("none"),
        lambda desk: desk.configure("none", Settings()),
        lambda desk: desk.settings("none"),
        lambda desk: desk.usage("none"),
    ],
    ids=["rename", "delete", "configure", "settings", "usage"],
)
async def test_what_is_not_there_is_told_by_name(
    desk: Desk, asked: Callable[[Desk], Awaitable[object]]
) -> None:
    with pytest.raises(OCIError, match="no repository none") as caught:
        await asked(desk)
    assert caught.value.code == "NAME_UNKNOWN"


async def test_settings_are_changed_as_a_whole(desk: Desk) -> None:
    await desk.create("app", Settings(description="ours"))
    await desk.configure("app", Settings(quota_images=3))
    assert await desk.settings("app") == Settings(quota_images=3)


async def test_a_write_whose_client_went_away_is_told_when_it_is_done() -> None:
    told: list[str] = []
    written = trio.Event()

    async def write() -> bool:
        await written.wait()
        told.append("written")
        return True

    async with trio.open_nursery() as nursery:
        client = trio.CancelScope()

        async def ask() -> None:
            with client:
                await settled(write, lambda: told.append("changed"))

        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        client.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert told == []
        written.set()
    assert told == ["written", "changed"]


async def test_a_write_of_which_nothing_is_known_may_have_been_done() -> None:
    told: list[str] = []

    async def write() -> bool:
        raise StoreBusy(1, "gone")

    with pytest.raises(StoreBusy):
        await settled(write, lambda: told.append("changed"))
    assert told == ["changed"]


async def test_a_database_that_never_answers_is_not_waited_for_for_ever(
    autojump_clock: trio.testing.MockClock,
) -> None:
    told: list[str] = []
    with pytest.raises(StoreBusy):
        await settled(trio.sleep_forever, lambda: told.append("changed"))
    assert told == ["changed"]
