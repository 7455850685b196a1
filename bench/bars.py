"""What this daemon must reach on each line: data, and the rule that judges it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from bench.measures import Sample


class Kind(StrEnum):
    """What is compared with the limit: the value, its ratio to the reference, or what it exceeds it by."""

    VALUE = "value"
    RATIO = "ratio"
    EXCESS = "excess"


@dataclass(frozen=True)
class Bar:
    line: str
    key: str
    text: str
    kind: Kind
    limit: float
    at_least: bool = False
    """The limit is the least that is good, else the most."""
    reference: tuple[str, str] | None = None
    """Line and server whose same number is the reference."""
    subject: str = "ours"


Medians = Mapping[tuple[str, str], Sample]
"""(line, server) → the median of each number."""


@dataclass(frozen=True)
class Verdict:
    bar: Bar
    value: float
    reference: float | None
    shown: float
    """What is compared with the limit."""
    reached: bool


def judge(bar: Bar, medians: Medians) -> Verdict | None:
    """None: the run did not measure what it takes."""
    value = medians.get((bar.line, bar.subject), {}).get(bar.key)
    reference = medians.get(bar.reference, {}).get(bar.key) if bar.reference else None
    if value is None or (bar.reference and not reference):
        return None
    shown = value
    if reference is not None:
        shown = value / reference if bar.kind is Kind.RATIO else value - reference
    reached = shown >= bar.limit if bar.at_least else shown <= bar.limit
    return Verdict(bar, value, reference, shown, reached)


def _against(line: str, key: str, text: str, limit: float, at_least: bool = False, base: str = "") -> Bar:
    return Bar(line, key, text, Kind.RATIO, limit, at_least, (base or line, "distribution"))


def _over_tls(line: str, key: str, text: str, limit: float, at_least: bool = False) -> Bar:
    return Bar(line, key, text, Kind.RATIO, limit, at_least, (line, "distribution-tls"), "ours-tls")


def _hosted(line: str, key: str, text: str, limit: float) -> Bar:
    return Bar(line, key, text, Kind.RATIO, limit, True, (line, "registry"), "hosting")


_WHOLE = 1.005
"""1.00 x the size, to two decimals."""
_ALONE = ("cold-one", "direct")

BARS = (
    _against("manifest-digest", "rate", "≥ 2.5 x distribution's req/s", 2.5, at_least=True),
    _against("manifest-digest", "cpu", "≤ 1/4 of its CPU a request", 0.25),
    _against("manifest-tag", "rate", "≥ 2.5 x distribution's req/s by digest", 2.5, True, "manifest-digest"),
    _against("manifest-tag", "cpu", "≤ 1/4 of its CPU a request by digest", 0.25, base="manifest-digest"),
    Bar("manifest-tag", "upstream", "0 upstream requests", Kind.VALUE, 0),
    _against("blob-1", "rate", "≥ 1.1 x distribution's GiB/s", 1.1, at_least=True),
    _against("blob-1", "cpu", "≤ 0.7 of its CPU a GiB", 0.7),
    _against("blob-8", "rate", "≥ 1.1 x distribution's GiB/s", 1.1, at_least=True),
    _against("blob-8", "cpu", "≤ 0.7 of its CPU a GiB", 0.7),
    _against("blob-1mib", "requests", "≥ 1.6 x distribution's req/s", 1.6, at_least=True),
    _over_tls("tls-manifest", "rate", "≥ 2 x distribution's req/s", 2, at_least=True),
    _over_tls("tls-blob-8", "cpu", "≤ 1.5 x its CPU a GiB", 1.5),
    Bar("cold-one", "first", "first layer byte ≤ direct + 20 ms", Kind.EXCESS, 20, False, _ALONE, "single"),
    Bar("cold-one", "seconds", "total ≤ 1.05 x direct", Kind.RATIO, 1.05, False, _ALONE, "single"),
    Bar("cold-one", "upstream", "upstream bytes 1.00 x size", Kind.VALUE, _WHOLE, subject="single"),
    Bar("cold-ranges", "seconds", "total ≤ 0.35 x direct", Kind.RATIO, 0.35, False, _ALONE),
    Bar("cold-ranges", "upstream", "upstream bytes 1.00 x size", Kind.VALUE, _WHOLE),
    _against("cold-unlimited", "seconds", "≤ 0.5 x distribution's time", 0.5),
    Bar("fan-out", "upstream", "amplification 1.00", Kind.VALUE, _WHOLE),
    Bar("fan-out", "first", "median first layer byte ≤ 60 ms", Kind.VALUE, 60),
    Bar(
        "fan-out",
        "seconds",
        "last client done ≤ 1.15 x a single pull (direct)",
        Kind.RATIO,
        1.15,
        False,
        _ALONE,
    ),
    Bar("fan-out", "failures", "no failure", Kind.VALUE, 0),
    Bar("fan-out", "upstream", "amplification 1.00", Kind.VALUE, _WHOLE, subject="single"),
    Bar("fan-out", "first", "median first layer byte ≤ 60 ms", Kind.VALUE, 60, subject="single"),
    Bar(
        "fan-out",
        "seconds",
        "last client done ≤ 1.15 x a single pull (its own)",
        Kind.RATIO,
        1.15,
        reference=("cold-one", "single"),
        subject="single",
    ),
    Bar("fan-out", "failures", "no failure", Kind.VALUE, 0, subject="single"),
    Bar("eviction", "over", "p99 ≤ 1.2 x without, or + 5 ms", Kind.VALUE, 1),
    Bar("object-stream", "ratio", "≥ 0.7 x curl from the store itself", Kind.VALUE, 0.7, at_least=True),
    Bar("object-redirect", "ratio", "≥ 0.8 x the req/s of a manifest hit", Kind.VALUE, 0.8, at_least=True),
    _hosted("push", "rate", "≥ 1.0 x distribution's MiB/s, durable", 1.0),
    _hosted("token-digest", "rate", "≥ 2.5 x distribution's req/s without any", 2.5),
    _hosted("token-tag", "rate", "≥ 2.5 x distribution's req/s without any", 2.5),
    Bar("put", "rate", "≥ 500/s, durable", Kind.VALUE, 500, at_least=True, subject="hosting"),
    Bar("tags", "p99", "p99 ≤ 20 ms wherever the page is", Kind.VALUE, 20),
    Bar("collection", "over", "p99 of a push ≤ 1.2 x without, or + 5 ms", Kind.VALUE, 1),
    Bar("memory", "start", "≤ 80 MiB after start", Kind.VALUE, 80),
    Bar("memory", "peak", "≤ 160 MiB at the peak", Kind.VALUE, 160),
    Bar("start", "seconds", "≤ 1 s", Kind.VALUE, 1),
)
