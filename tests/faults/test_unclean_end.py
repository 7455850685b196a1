"""A daemon that was killed: what the next one looks at before it serves, and what it says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import trio

from cacheproxy import config
from cacheproxy.app import main
from cacheproxy.store.errors import DatabaseRefused, InUse
from tests.faults.house import House, Image, hosts
from tests.faults.remains import rows_of
from tests.registry.test_recovery import damage

ADDRESS = "127.0.0.1"
"""Names mean nothing to a process of its own."""

LAYER = b"a layer of the image"


async def pulled_and_killed(h: House) -> Image:
    image = h.image("library/debian", LAYER)
    async with h.process():
        await h.pull(image)
        with trio.fail_after(30):
            while not all(stored(h, digest) for digest in image.blobs):
                await trio.sleep(0.02)
    return image


def stored(h: House, digest: str) -> Path | None:
    with rows_of(h.state) as rows:
        found = rows.execute(
            "SELECT location FROM blob WHERE digest = ? AND generation > 0", (digest,)
        ).fetchall()
    return h.state / "blobs" / str(found[0][0]) if found else None


def says(h: House) -> str:
    return (h.state / "running").read_text().strip()


async def test_whether_the_end_was_in_order_is_known(folder: Path) -> None:
    async with hosts(folder, name=ADDRESS) as h:
        await pulled_and_killed(h)
        assert says(h) == "running"
        async with h.daemon():
            assert says(h) == "running"
        assert says(h) == "stopped"
        async with h.daemon():
            h.cut()
        assert says(h) == "running"


async def test_bytes_that_did_not_outlast_a_kill_are_fetched_again(folder: Path) -> None:
    async with hosts(folder, name=ADDRESS) as h:
        image = await pulled_and_killed(h)
        lost = stored(h, image.layers[0])
        assert lost is not None
        lost.unlink()
        before = h.asked("blob")
        async with h.daemon():
            assert stored(h, image.layers[0]) is None
            assert await h.metric("cacheproxy_integrity_failures_total") >= 1
            await h.pull(image)
            await h.quiet()
            assert h.asked("blob") > before
            assert stored(h, image.layers[0]) not in (None, lost)


async def test_after_an_end_in_order_nothing_is_looked_at(folder: Path) -> None:
    async with hosts(folder, name=ADDRESS) as h:
        image = h.image("library/debian", LAYER)
        async with h.daemon():
            await h.pull(image)
            await h.quiet()
        lost = stored(h, image.layers[0])
        assert lost is not None
        text = lost.read_bytes()
        lost.unlink()
        async with h.daemon():
            assert stored(h, image.layers[0]) == lost
            lost.write_bytes(text)


async def test_a_second_daemon_with_the_same_state_is_refused(folder: Path) -> None:
    async with hosts(folder, name=ADDRESS) as h, h.daemon():
        with pytest.RaisesGroup(
            pytest.RaisesExc(InUse, match=str(h.state)), flatten_subgroups=True, allow_unwrapped=True
        ):
            await main(config.load(h.file), trio.Event())


async def test_a_damaged_database_is_one_line_and_no_daemon(folder: Path) -> None:
    async with hosts(folder, name=ADDRESS) as h:
        async with h.process():
            for number in range(60):
                image = h.image(f"library/debian{number}", LAYER, b"%d" % number)
                assert (await h.ask(image.manifest_path())).status == 200
        async with h.daemon():
            pass  # moves the log into the file
        damage(h.state / "cacheproxy.db")
        (h.state / "running").write_text("running\n")
        command = [sys.executable, "-m", "cacheproxy", "serve", "--config", str(h.file)]
        with trio.fail_after(30):
            ended = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
    assert ended.returncode == 1
    (line,) = [line for line in ended.stderr.decode().splitlines() if not line.startswith(("{", "20"))]
    assert line.startswith(f"cacheproxy: the database {h.state}/cacheproxy.db is damaged (")
    assert DatabaseRefused.damaged("", "").args[0].partition("): ")[2] in line
