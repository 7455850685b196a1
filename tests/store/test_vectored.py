from __future__ import annotations

import os
from pathlib import Path

import pytest

from cacheproxy.store.vectored import IOV_MAX, write_at


@pytest.fixture
def fd(tmp_path: Path) -> int:
    return os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)


def test_more_buffers_than_one_call_takes(fd: int) -> None:
    write_at(fd, [b"%4d" % number for number in range(IOV_MAX + 1)], 2)
    assert os.pread(fd, 4, 2 + 4 * IOV_MAX) == b"%4d" % IOV_MAX


def test_a_write_that_is_cut_short_goes_on_where_it_ended(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.pwritev

    def short(fd: int, buffers: list[memoryview], offset: int) -> int:
        return whole(fd, [buffers[0][:2]], offset)

    monkeypatch.setattr(os, "pwritev", short)
    write_at(fd, [b"abc", b"", b"defgh", memoryview(b"i")], 0)
    assert os.pread(fd, 100, 0) == b"abcdefghi"
