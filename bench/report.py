"""The tables, as Markdown: printed to the terminal, and the whole of docs/benchmarks.md."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from bench.bars import BARS, Kind, Medians, Verdict, judge
from bench.lines import LINES, Column, Line

Row = Sequence[str]


@dataclass(frozen=True)
class Results:
    medians: Medians
    failed: Mapping[tuple[str, str], str]
    """(line, server) → why there is no number."""
    titles: Mapping[str, str]
    """Server → how it is called in a table."""
    versions: Mapping[str, str] = field(default_factory=dict)


def table(header: Row, rows: Iterable[Row]) -> str:
    """A Markdown table whose source is aligned, too: it is read in a terminal."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in (header, rule, *lines[1:])
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _compared(verdict: Verdict) -> str:
    """How the value stands to its reference: "3.12 x" or "+ 8.1"."""
    if verdict.reference is None:
        return ""
    form = "{:.2f} x" if verdict.bar.kind is Kind.RATIO else "{:+.1f}"
    return form.format(verdict.shown)


def _verdict_row(verdict: Verdict, line: Line, titles: Mapping[str, str]) -> Row:
    bar = verdict.bar
    return (
        line.title,
        titles[bar.subject],
        next(column.title for column in line.columns if column.key == bar.key),
        bar.text,
        _number(verdict.value),
        "" if verdict.reference is None else _number(verdict.reference),
        _compared(verdict),
        "reached" if verdict.reached else "NOT reached",
    )


def verdicts(medians: Medians) -> list[Verdict]:
    return [verdict for bar in BARS if (verdict := judge(bar, medians)) is not None]


def bars_table(results: Results) -> str:
    header = ("line", "of", "number", "bar", "value", "reference", "compared", "")
    rows = [_verdict_row(one, LINES[one.bar.line], results.titles) for one in verdicts(results.medians)]
    return table(header, _said_once(rows))


def _said_once(rows: Sequence[Row]) -> Iterator[Row]:
    """The first two cells of a row are left empty where they repeat those of the row above."""
    above: Row = ()
    for row in rows:
        yield ("", "", *row[2:]) if row[:2] == above[:2] else row
        above = row


def _cell(column: Column, sample: Mapping[str, float]) -> str:
    value = sample.get(column.key)
    return "-" if value is None else column.form.format(value)


def line_table(line: Line, results: Results) -> str:
    rows = []
    for peer in line.peers:
        sample = results.medians.get((line.name, peer))
        if sample is not None:
            rows.append((results.titles[peer], *(_cell(column, sample) for column in line.columns)))
        elif (line.name, peer) in results.failed:
            rows.append((results.titles[peer], "failed", *[""] * (len(line.columns) - 1)))
    return table(("", *(column.title for column in line.columns)), rows)


def tables(results: Results) -> str:
    measured = {line for line, _ in (*results.medians, *results.failed)}
    parts = [
        f"### {line.title}\n\n{line_table(line, results)}" for line in LINES.values() if line.name in measured
    ]
    return "\n\n".join(parts)


def machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return f"{os.cpu_count()} cores, {memory:.0f} GiB of memory"


DOCUMENT = Path(__file__).with_name("document.md")


def document(results: Results, rounds: int) -> str:
    return DOCUMENT.read_text().format(
        when=f"{datetime.now(UTC):%Y-%m-%d}",
        machine=machine(),
        versions=", ".join(f"{results.titles[name]} {version}" for name, version in results.versions.items()),
        bars=bars_table(results),
        tables=tables(results),
        rounds=rounds,
    )
