"""The tables of the benchmark."""

from __future__ import annotations

from bench.report import Results, bars_table, document, table, tables

TITLES = {"ours": "cacheproxy", "distribution": "distribution", "single": "one", "direct": "direct"}
FAST = {
    "rate": 20_000.0,
    "cpu": 0.5,
    "first": 1.0,
    "p99": 2.0,
    "upstream": 0.0,
    "failures": 0.0,
    "client": 0.4,
}
SLOW = {**FAST, "rate": 10_000.0, "cpu": 1.0}
MEDIANS = {("manifest-digest", "ours"): FAST, ("manifest-digest", "distribution"): SLOW}


def test_table_is_aligned_markdown() -> None:
    assert table(("a", "long"), [("value", "1")]).splitlines() == [
        "| a     | long |",
        "| ----- | ---- |",
        "| value | 1    |",
    ]


def test_bar_shows_value_reference_ratio_and_verdict() -> None:
    row = next(line for line in bars_table(Results(MEDIANS, {}, TITLES)).splitlines() if "2.5 x" in line)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[4:] == ["20,000", "10,000", "2.00 x", "NOT reached"]


def test_failed_server_keeps_its_row() -> None:
    failed = {("manifest-digest", "nginx"): "it was not there"}
    assert "| nginx        | failed |" in tables(Results(MEDIANS, failed, {**TITLES, "nginx": "nginx"}))


def test_number_that_was_not_taken_is_a_dash() -> None:
    direct = {("cold-one", "direct"): {"first": 1.0, "seconds": 5.12, "failures": 0.0, "client": 0.1}}
    row = tables(Results(direct, {}, TITLES)).splitlines()[-1]
    assert [cell.strip() for cell in row.strip("|").split("|")] == [
        "direct",
        "1.0",
        "5.12",
        "-",
        "-",
        "0",
        "0.10",
    ]


def test_document_names_the_versions_and_holds_no_path_of_the_machine() -> None:
    text = document(Results(MEDIANS, {}, TITLES, {"distribution": "3.1.2"}), rounds=3)
    assert "distribution 3.1.2" in text
    assert "/work" not in text
    assert "median of 3 rounds" in text
