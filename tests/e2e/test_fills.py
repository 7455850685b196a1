"""Fills under real processes: killed and restarted, followed by many clients, on a disk that is full."""

from __future__ import annotations

import hashlib
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.disks import fill_up, memory_disk
from tests.e2e.programs import environment, installed
from tests.e2e.servers import Daemon, OriginProcess, daemon, origin

MIB = 1 << 20
ONE_TRANSFER = '[cache]\nparallel = "never"'
ALL_OF_THE_DISK = '[cache]\nbudget = "1GiB"\nmin_free = "0%"'
"""So that the disk itself is what is full, not what the configuration grants of it."""
FILL_WITHIN = 120.0
UNFLUSHED_SECONDS = 2.5
"""Between two checkpoints of a fill, with time for the disk."""
UNFLUSHED_BYTES = 12 * MIB
"""What a fill may leave unflushed beside that, and what is on its way in the sockets' buffers."""


def crane_blob(
    cache: Daemon, image: dict[str, Any], folder: Path, output: Path | None = None
) -> subprocess.Popen[bytes]:
    """crane reading the image's layer; it proves the digest by itself, and its exit status tells."""
    source = f"{cache.host}/{image['repository']}@{image['blobs'][0]['digest']}"
    command = [installed("crane"), "blob", "--insecure", source]
    with (output or Path("/dev/null")).open("wb") as into, (folder / "crane.log").open("ab") as errors:
        return subprocess.Popen(command, env=environment(folder), stdout=into, stderr=errors)


def pull_blob(cache: Daemon, image: dict[str, Any], folder: Path) -> None:
    output = folder / "blob"
    assert crane_blob(cache, image, folder, output).wait(FILL_WITHIN) == 0
    with output.open("rb") as file:
        assert "sha256:" + hashlib.file_digest(file, "sha256").hexdigest() == image["blobs"][0]["digest"]


def bytes_sent(upstream: OriginProcess, image: dict[str, Any]) -> int:
    return sum(transfer["sent"] for transfer in upstream.transfers(image["blobs"][0]["digest"]))


def wait_until_sent(upstream: OriginProcess, image: dict[str, Any], count: int) -> None:
    deadline = time.monotonic() + FILL_WITHIN
    while bytes_sent(upstream, image) < count:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("cache_section", "transfers"), [(ONE_TRANSFER, 1), ("", 4)], ids=["one transfer", "four ranges"]
)
def test_killed_fill_goes_on_after_the_restart(cache_section: str, transfers: int, folder: Path) -> None:
    """The pull ends well, and upstream sent no byte twice but those that were not on the disk yet."""
    size, rate = 96 * MIB, 16 * MIB // transfers
    with origin(folder / "origin", "--blob-size", str(size), "--rate", str(rate)) as upstream:
        image = upstream.images[0]
        with daemon(folder / "daemon", upstream.url, cache=cache_section) as cache:
            reader = crane_blob(cache, image, folder)
            wait_until_sent(upstream, image, 80 * MIB)
            cache.kill()
            assert reader.wait(FILL_WITHIN) != 0, "what was cut short is not taken for whole"
        with daemon(folder / "daemon", upstream.url, cache=cache_section) as cache:
            pull_blob(cache, image, folder)
        again = bytes_sent(upstream, image) - size
        assert 0 <= again <= UNFLUSHED_SECONDS * transfers * rate + UNFLUSHED_BYTES


def test_32_clients_of_one_cold_layer_are_one_transfer(folder: Path) -> None:
    with (
        origin(folder / "origin", "--blob-size", "256MiB") as upstream,
        daemon(folder / "daemon", upstream.url, cache=ONE_TRANSFER) as cache,
    ):
        image = upstream.images[0]
        readers = [crane_blob(cache, image, folder) for _ in range(32)]
        assert [reader.wait(FILL_WITHIN) for reader in readers] == [0] * 32
        transfers = upstream.transfers(image["blobs"][0]["digest"])
        assert [transfer["sent"] for transfer in transfers] == [256 * MIB]


def test_blob_larger_than_the_disk_passes_through(folder: Path) -> None:
    with (
        memory_disk(folder / "disk", 24 * MIB) as disk,
        origin(folder / "origin", "--image", "a/large:1=64MiB", "--image", "a/small:1=1MiB") as upstream,
        daemon(folder / "daemon", upstream.url, storage=f'blobs = "{disk}"', cache=ALL_OF_THE_DISK) as cache,
    ):
        large, small = upstream.images
        pull_blob(cache, large, folder)
        assert cache.metric("cacheproxy_uncached_total") == 1
        pull_blob(cache, small, folder)
        pull_blob(cache, small, folder)
        assert len(upstream.transfers(small["blobs"][0]["digest"])) == 1, "what fits is cached as ever"
        pull_blob(cache, large, folder)


def test_full_disk_passes_through_and_heals_when_there_is_room(folder: Path) -> None:
    with (
        memory_disk(folder / "disk", 24 * MIB) as disk,
        origin(folder / "origin", "--blob-size", "2MiB") as upstream,
        daemon(folder / "daemon", upstream.url, storage=f'blobs = "{disk}"', cache=ALL_OF_THE_DISK) as cache,
    ):
        image = upstream.images[0]
        filler = fill_up(disk)
        pull_blob(cache, image, folder)
        pull_blob(cache, image, folder)
        filler.unlink()
        pull_blob(cache, image, folder)
        before = bytes_sent(upstream, image)
        pull_blob(cache, image, folder)
        assert bytes_sent(upstream, image) == before, "cached since there is room"


def test_disk_that_fills_up_in_the_middle_of_a_fill_fails_no_pull(folder: Path) -> None:
    with (
        memory_disk(folder / "disk", 24 * MIB) as disk,
        origin(folder / "origin", "--blob-size", "16MiB", "--rate", "8MiB") as upstream,
        daemon(folder / "daemon", upstream.url, storage=f'blobs = "{disk}"', cache=ALL_OF_THE_DISK) as cache,
    ):
        image = upstream.images[0]
        reader = crane_blob(cache, image, folder)
        wait_until_sent(upstream, image, 4 * MIB)
        assert cache.metric("cacheproxy_uncached_total") == 0
        filler = fill_up(disk)
        assert reader.wait(FILL_WITHIN) == 0
        assert cache.metric("cacheproxy_uncached_total") == 1
        pull_blob(cache, image, folder)
        filler.unlink()
        pull_blob(cache, image, folder)
        before = bytes_sent(upstream, image)
        pull_blob(cache, image, folder)
        assert bytes_sent(upstream, image) == before, "cached since there is room"
