from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from cacheproxy import hosting
from cacheproxy.commands import gc
from cacheproxy.core.digest import Digest
from cacheproxy.registry.push import Push
from tests.commands.desk import Desk, at_desk

NAME, SECRET = "builder", "0123456789abcdef0123"
HOSTING = """
[[account]]
name = "builder"
secret = { file = "builder.secret" }
[[grant]]
to = ["user:builder"]
allow = ["pull", "push", "delete", "create"]
[[template]]
prefix = "ROOT"
applied_for = ["create-on-push"]
"""
EMPTY = Digest.of(b"")
NOW = 1_000_000.0


@asynccontextmanager
async def registry(folder: Path) -> AsyncIterator[Desk]:
    """A daemon that hosts, and a blob that was deleted there."""
    (folder / "builder.secret").write_text(SECRET)
    async with at_desk(folder, upstream=HOSTING) as desk:
        login = "Basic " + base64.b64encode(f"{NAME}:{SECRET}".encode()).decode()
        for method, path in (("POST", f"uploads/?digest={EMPTY}"), ("DELETE", EMPTY)):
            heard = await desk.house.ask(f"/v2/team/app/blobs/{path}", method, Authorization=login)
            assert heard.status in {201, 202}, heard
        yield desk


async def test_what_is_needed_no_more_goes_now(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosting, "Push", partial(Push, grace=0.0))
    async with registry(folder) as desk:
        said = (await desk.says("gc", "--dry-run")).splitlines()
        assert said[0] == "would remove 0 images and 0 B in 1 blob"
        assert said[1].startswith("1 item due, the first since ")
        assert await desk.says("gc") == "removed 0 images and 0 B in 1 blob\n"
        assert await desk.says("gc") == "removed 0 images and 0 B in 0 blobs\n"
        assert (await desk.tells("gc"))["state"]["backlog"]["items"] == 0


def told(**other: object) -> dict[str, object]:
    swept = {"looked": 9, "images": 1, "links": 2, "blobs": 2, "bytes": 2048}
    state = {"backlog": {"items": 0, "oldest": 0.0}, "stopped": ""}
    return {"earnest": True, "stopped": "", "swept": swept, "state": state, **other}


def test_why_it_stopped_is_said() -> None:
    said = list(gc.lines(told(stopped="the clock was set"), NOW))
    assert said == ["removed 1 image and 2.0 KiB in 2 blobs", "stopped: the clock was set"]


def test_a_dry_run_says_why_the_collection_has_stopped() -> None:
    state = {"backlog": {"items": 2, "oldest": NOW - 600}, "stopped": "too much"}
    said = list(gc.lines(told(earnest=False, state=state), NOW))
    assert said[1] == "the collection has stopped: too much"
    assert said[2].endswith("(10 min ago)")
