"""Loop-mounted file systems that lose what was not synced, as in a power cut (reliability: H3)."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SIZE = 512 << 20
"""Bytes: xfs takes no less than 300 MiB. The file is sparse."""

FORMAT = {"ext4": ("mkfs.ext4", "-q", "-F"), "xfs": ("mkfs.xfs", "-q", "-f")}

FS_IOC_SHUTDOWN = 0x8004587D
NOLOGFLUSH = 2
"""Neither data nor journal get to the disk any more (Linux: XFS_FSOP_GOING_FLAGS_NOLOGFLUSH)."""


class Disk:
    def __init__(self, image: Path, point: Path) -> None:
        self.point = point
        self._image = image

    def mount(self) -> None:
        """As after the power has come back: what is mounted must not be the file system that was cut."""
        _run("mount", "-o", "loop", self._image, self.point)
        try:
            (self.point / "alive").touch()
        except OSError as error:
            busy = "somebody's mount namespace still has what was cut: run it by unshare --mount"
            raise AssertionError(f"{self.point}: {error}; {busy}") from error

    def unmount(self) -> None:
        _run("umount", self.point)

    def cut(self) -> None:
        """From here on nothing reaches the disk. What it does not have is lost with the unmounting."""
        descriptor = os.open(self.point, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, FS_IOC_SHUTDOWN, struct.pack("I", NOLOGFLUSH))
        finally:
            os.close(descriptor)


@contextmanager
def disk(kind: str, folder: Path) -> Iterator[Disk]:
    """A new file system of this kind, mounted below `folder`, with all of it unmounted on the way out."""
    image, point = folder / f"{kind}.image", folder / kind
    with image.open("wb") as file:
        file.truncate(SIZE)
    _run(*FORMAT[kind], image)
    point.mkdir()
    made = Disk(image, point)
    made.mount()
    try:
        yield made
    finally:
        subprocess.run(["umount", "--lazy", point], check=False, timeout=10, capture_output=True)


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, check=False, timeout=60, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stderr}"
