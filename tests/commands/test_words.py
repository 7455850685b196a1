from __future__ import annotations

import pytest

from cacheproxy.commands.words import plural, short, size, span, table, told


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KiB"),
        (5 << 20, "5.0 MiB"),
        (500 << 20, "500 MiB"),
        (1023 << 20, "1.0 GiB"),
        (1 << 60, "1024 PiB"),
    ],
)
def test_sizes_have_few_digits(count: int, said: str) -> None:
    assert size(count) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-1, "0.0 s"), (0.25, "0.2 s"), (90, "90 s"), (120, "2 min"), (7200, "2 h"), (1e6, "12 d")],
)
def test_spans_are_in_one_unit(seconds: float, said: str) -> None:
    assert span(seconds) == said


def test_a_table_has_columns() -> None:
    assert table([("A", "N"), ("long", "1"), ("b", "20")], right=frozenset({1})) == [
        "A      N",
        "long   1",
        "b     20",
    ]
    assert table([]) == []


def test_digests_are_cut_and_words_counted() -> None:
    assert short("sha256:" + "a" * 64) == "sha256:aaaaaaaaaaaa"
    assert (plural(1, "blob"), plural(2, "blob")) == ("1 blob", "2 blobs")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(30, "Read-only file system", "/x"), "/x: Read-only file system"),
        (OSError(30, "cannot write /x: Read-only file system"), "cannot write /x: Read-only file system"),
        (OSError("no address"), "no address"),
        (ValueError("what"), "what"),
    ],
)
def test_errors_have_no_numbers(error: Exception, said: str) -> None:
    assert told(error) == said
