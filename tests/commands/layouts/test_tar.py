from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cacheproxy.commands.layouts import tar as tars
from cacheproxy.commands.layouts.tar import Entry, Inflating, entries
from cacheproxy.commands.layouts.writing import TarWriter
from cacheproxy.core.layout import LayoutInvalid

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


def made(
    *members: tuple[str, bytes], format_: int = tarfile.PAX_FORMAT, kind: bytes = tarfile.REGTYPE
) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format_) as tar:
        for name, data in members:
            header = tarfile.TarInfo(name)
            header.size, header.type = len(data), kind
            if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                header.linkname, header.size = "elsewhere", 0
            tar.addfile(header, io.BytesIO(data))
    return file.getvalue()


def read(data: bytes) -> dict[str, bytes]:
    return {entry.name: data[entry.offset : entry.offset + entry.size] for entry in entries(io.BytesIO(data))}


@pytest.mark.parametrize("format_", FORMATS)
def test_files_of_each_format_are_found(format_: int) -> None:
    members = {"oci-layout": b"{}", "./blobs/sha256/ab": b"x" * 513, "empty": b"", "a/" + "b" * 80: b"long"}
    found = read(made(*members.items(), format_=format_))
    assert found == {name.removeprefix("./"): data for name, data in members.items()}


@pytest.mark.parametrize("format_", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_long_name_is_read_whole(format_: int) -> None:
    name = f"blobs/sha512/{'ab' * 64}"
    assert read(made((name, b"x"), ("next", b"y"), format_=format_)) == {name: b"x", "next": b"y"}


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.dictionaries(st.text("abc/", min_size=1).map(lambda text: f"x{text}x"), st.binary(max_size=2000)))
def test_what_is_written_is_read(files: dict[str, bytes]) -> None:
    out = io.BytesIO()
    writer = TarWriter(out)
    for name, data in files.items():
        writer.add(name, len(data), [data])
    writer.end()
    found = [out.getvalue()[entry.offset : entry.offset + entry.size] for entry in entries(out)]
    assert found == list(files.values())
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as tar:
        assert [member.name for member in tar] == [name.rstrip("/") for name in files]


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.binary(max_size=3000))
def test_other_bytes_are_refused_at_most(data: bytes) -> None:
    with suppress(LayoutInvalid):
        list(entries(io.BytesIO(data)))


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.data())
def test_a_damaged_tar_is_read_or_refused(data: st.DataObject) -> None:
    whole = bytearray(made(("a" * 120, b"x" * 600), ("b", b"y")))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = list(entries(io.BytesIO(whole)))
    except LayoutInvalid:
        return
    assert all(entry.offset + entry.size <= len(whole) for entry in found)


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x", "blobs/sha256/../../x"])
def test_a_path_that_leads_out_is_refused(name: str) -> None:
    with pytest.raises(LayoutInvalid, match="leads out"):
        read(made((name, b"x")))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_what_is_neither_file_nor_folder_is_refused(kind: bytes) -> None:
    with pytest.raises(LayoutInvalid, match="neither a file nor a folder"):
        read(made(("index.json", b""), kind=kind))


def test_folders_are_passed_over() -> None:
    assert read(made(("blobs/", b""), kind=tarfile.DIRTYPE)) == {}


def test_a_name_without_end_is_not_taken_into_memory() -> None:
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 1 << 40
    with pytest.raises(LayoutInvalid, match="bytes"):
        read(header.tobuf(tarfile.GNU_FORMAT))


@pytest.mark.parametrize(
    "record", [b"x", b"5 a=b\n", b"99 path=x\n", b"0 path=x\n", b"12 GNU.sparse.size=1\n", b"-1 a=b\n"]
)
def test_extended_headers_that_are_damaged_are_refused(record: bytes) -> None:
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, len(record)
    data = header.tobuf(tarfile.PAX_FORMAT) + record.ljust(512, b"\0") + made(("x", b"x"))
    with pytest.raises(LayoutInvalid):
        read(data)


def test_more_entries_than_anybody_needs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tars, "MOST_ENTRIES", 2)
    with pytest.raises(LayoutInvalid, match="more than 2"):
        read(made(("a", b""), ("b", b""), ("c", b"")))


@pytest.mark.parametrize("cut", [lambda data: data[:511], lambda data: data[:700], lambda data: b""])
def test_a_tar_that_is_cut_off_is_refused(cut: Callable[[bytes], bytes]) -> None:
    with pytest.raises(LayoutInvalid):
        read(cut(made(("a", b"x" * 1000))))


def test_the_end_may_lack_its_empty_blocks() -> None:
    assert read(made(("a", b"x" * 512))[:1024]) == {"a": b"x" * 512}


def inflating(data: bytes) -> Inflating:
    return Inflating(io.BytesIO(gzip.compress(data)))


def test_what_is_compressed_is_read_forwards_and_backwards() -> None:
    data = bytes(range(256)) * 5000
    source = inflating(data)
    for offset in (1_000_000, 5, 1_279_999):
        assert source.seek(offset) == offset
        assert source.read(1) == data[offset : offset + 1]


def test_a_compressed_tar_has_the_same_entries() -> None:
    data = made(("a", b"x" * 1000), ("b", b"y"))
    assert (
        list(entries(inflating(data)))
        == list(entries(io.BytesIO(data)))
        == [
            Entry("a", 512, 1000),
            Entry("b", 2048, 1),
        ]
    )


def test_a_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tars, "FREE", 1 << 20)
    with pytest.raises(LayoutInvalid, match="times as large"):
        list(entries(inflating(made(("blob", bytes(8 << 20))))))


def test_damaged_compression_is_refused() -> None:
    packed = bytearray(gzip.compress(bytes(range(256)) * 100))
    packed[20] ^= 0xFF
    with pytest.raises(LayoutInvalid, match="damaged"):
        Inflating(io.BytesIO(packed)).read(100_000)
