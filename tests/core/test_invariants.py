from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.core.digest import Digest
from cacheproxy.core.invariants import (
    ImageRow,
    Stored,
    StoredRow,
    altered,
    lacking,
    misread,
    orphans,
    unreadable,
)
from tests.store.images import CONFIG_DIGEST, IMAGE, LAYER_DIGEST, image

DIGESTS = [Digest.of(bytes([n])) for n in range(4)]

ROWS = st.dictionaries(st.sampled_from(DIGESTS), st.tuples(st.integers(0, 3), st.integers(1, 3)))
FILES = st.sets(st.tuples(st.sampled_from(DIGESTS), st.integers(0, 3), st.integers(1, 3)))


def at(digest: Digest, generation: int) -> str:
    return f"{digest}.{generation}"


@given(ROWS, FILES, st.sets(st.tuples(st.sampled_from(DIGESTS), st.integers(1, 3))))
def test_rows_and_files_are_of_one_another_or_a_finding(
    rows: dict[Digest, tuple[int, int]],
    files: set[tuple[Digest, int, int]],
    trash: set[tuple[Digest, int]],
) -> None:
    lines = [
        StoredRow(digest, size, generation, at(digest, generation))
        for digest, (size, generation) in rows.items()
    ]
    there = {
        at(digest, generation): Stored(digest, at(digest, generation), size, 1.0)
        for digest, size, generation in files
    }
    whole = {
        line.digest for line in lines if line.location in there and there[line.location].size == line.size
    }
    assert {finding.where for finding in lacking(lines, there)} == {line.digest for line in lines} - whole
    named = {line.location for line in lines} | {at(*one) for one in trash}
    assert {finding.where for finding in orphans(there.values(), named, 2.0)} == there.keys() - named
    assert list(orphans(there.values(), named, 1.0)) == []


def test_bytes_are_forgotten_by_their_generation() -> None:
    row = StoredRow(DIGESTS[0], 3, 7, "there")
    (missing,) = lacking([row], {})
    (short,) = lacking([row], {"there": Stored(DIGESTS[0], "there", 2, 0.0)})
    (foreign,) = lacking([row], {"there": Stored(DIGESTS[1], "there", 3, 0.0)})
    assert [(one.invariant, one.remedy, one.generation) for one in (missing, short, foreign)] == [
        ("I8", "forget", 7),
        ("I10", "forget", 7),
        ("I8", "forget", 7),
    ]


def test_bytes_are_what_their_name_says() -> None:
    row = StoredRow(Digest.of(b"right"), 5, 1, "there")
    assert list(altered(row, Digest.of(b"right").hex)) == []
    (finding,) = altered(row, Digest.of(b"wrong").hex)
    assert (finding.invariant, finding.where, finding.remedy) == ("I2", row.digest, None)
    assert "Input/output error" in unreadable(row, "Input/output error").what


BODY = image()
ROW = ImageRow(
    "hub/alpine", Digest.of(BODY), IMAGE, "application/vnd.oci.image.config.v1+json", len(BODY), None
)
BLOBS: dict[str, set[str]] = {ROW.repository: {CONFIG_DIGEST, LAYER_DIGEST}}


def test_rows_of_an_image_are_what_its_manifest_says() -> None:
    assert list(misread(BODY, [ROW], BLOBS, {})) == []


def test_each_repository_is_told_by_itself() -> None:
    other = ROW._replace(repository="quay/alpine")
    (finding,) = misread(BODY, [ROW, other], BLOBS, {})
    assert finding.where == f"quay/alpine@{ROW.digest}"


def test_all_that_differs_is_told() -> None:
    row = ROW._replace(size=1, subject=DIGESTS[0], artifact_type="x")
    found = [finding.invariant for finding in misread(BODY, [row], BLOBS, {ROW.repository: {DIGESTS[1]}})]
    assert found == ["I10", "I3", "I11", "I11"]
