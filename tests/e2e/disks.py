"""File systems in memory: small ones to fill up, and a quick one for clients that sync all they unpack."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def memory_disk(point: Path, size: int, files: int = 0) -> Iterator[Path]:
    """A file system of at most `size` bytes, and so many files (0: any number), at `point`.

    All below it is unmounted on the way out.
    """
    point.mkdir(parents=True)
    options = f"size={size},nr_inodes={files}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "cacheproxy-e2e", point], check=True, timeout=10)
    try:
        yield point
    finally:
        unmount_below(point)
        subprocess.run(["umount", "--lazy", point], check=True, timeout=10)


@contextmanager
def loop_disk(point: Path, size: int) -> Iterator[Path]:
    """An ext4 of its own at `point`, in a file beside it, with all below it unmounted on the way out."""
    point.mkdir(parents=True)
    image = point.with_name(f"{point.name}.image")
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True, timeout=60)
    subprocess.run(["mount", "-o", "loop", image, point], check=True, timeout=10)
    try:
        yield point
    finally:
        unmount_below(point)
        subprocess.run(["umount", "--lazy", point], check=True, timeout=10)


def stop_writing(disk: Path) -> None:
    """As the file system does itself when its medium fails: from here on it is read-only."""
    subprocess.run(["mount", "-o", "remount,abort", disk], check=True, timeout=10)


def unmount_below(folder: Path) -> None:
    """An engine that had to be killed leaves mounts behind."""
    points = [Path(line.split()[1]) for line in Path("/proc/self/mounts").read_text().splitlines()]
    for point in reversed([point for point in points if folder in point.parents]):
        subprocess.run(["umount", "--lazy", point], check=False, timeout=10)


def fill_up(disk: Path) -> Path:
    """A file that takes all the room there was."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(64 << 10))
        except OSError:
            return filler
