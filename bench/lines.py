"""The lines of the benchmark: what is measured of whom, and how its numbers are shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench import eviction, measures, objects, pushes
from bench.measures import Run, Sample
from bench.servers import Server


@dataclass(frozen=True)
class Column:
    key: str
    title: str
    form: str = "{:.2f}"


@dataclass(frozen=True)
class Line:
    name: str
    title: str
    measure: Callable[[Run, Server, int], Sample]
    peers: tuple[str, ...]
    columns: tuple[Column, ...]
    short: bool = True
    """Measured as many times as the scale says, not once."""
    warm: bool = False


CACHES = ("ours", "distribution", "drayage", "nginx")
REGISTRIES = ("hosting", "registry")
OVER_TLS = ("ours-tls", "distribution-tls")
_FAILURES = Column("failures", "failures", "{:.0f}")
_CLIENT = Column("client", "client's cores")
_MANIFEST = (
    Column("rate", "req/s", "{:,.0f}"),
    Column("cpu", "CPU s / 10k"),
    Column("first", "median ms"),
    Column("p99", "p99 ms"),
    Column("upstream", "upstream requests", "{:,.0f}"),
    _FAILURES,
    _CLIENT,
)
_BLOB = (
    Column("rate", "GiB/s"),
    Column("cpu", "CPU s / GiB"),
    Column("first", "first byte ms", "{:.1f}"),
    Column("upstream", "upstream requests", "{:,.0f}"),
    _FAILURES,
    _CLIENT,
)
_COLD = (
    Column("first", "first layer byte ms", "{:,.1f}"),
    Column("seconds", "total s"),
    Column("cpu", "CPU s / GiB"),
    Column("upstream", "upstream bytes x size"),
    _FAILURES,
    _CLIENT,
)
_EVICTION = (
    Column("with", "p99 ms beside it", "{:.1f}"),
    Column("without", "p99 ms without", "{:.1f}"),
    Column("over", "of what it may be"),
    Column("rate", "req/s beside it", "{:,.0f}"),
    Column("evicted", "evicted", "{:,.0f}"),
    Column("seconds", "in s", "{:.1f}"),
    _FAILURES,
)
_OF_STORE = (
    Column("rate", "GiB/s"),
    Column("beside", "the store itself GiB/s"),
    Column("ratio", "of it"),
    Column("cpu", "CPU s / GiB"),
    Column("first", "first byte ms", "{:.1f}"),
)
_REDIRECT = (
    Column("rate", "req/s", "{:,.0f}"),
    Column("beside", "req/s of a manifest", "{:,.0f}"),
    Column("ratio", "of it"),
    Column("cpu", "CPU s / 10k"),
    Column("p99", "p99 ms"),
    _FAILURES,
    _CLIENT,
)
_PULLED = tuple(column for column in _MANIFEST if column.key != "upstream")
_MEMORY = (Column("start", "after start MiB", "{:.0f}"), Column("peak", "peak MiB", "{:.0f}"))

LINES = {
    line.name: line
    for line in (
        Line(
            "manifest-digest",
            "Warm manifest by digest, 64 connections",
            measures.manifest_by_digest,
            CACHES,
            _MANIFEST,
            warm=True,
        ),
        Line(
            "manifest-tag",
            "Warm manifest by fresh tag, 64 connections",
            measures.manifest_by_tag,
            CACHES,
            _MANIFEST,
            warm=True,
        ),
        Line("blob-1", "Warm 512 MiB blob, 1 stream", measures.blob_one_stream, CACHES, _BLOB, warm=True),
        Line(
            "blob-8",
            "Warm 512 MiB blob, 8 streams",
            measures.blob_eight_streams,
            ("ours", "distribution", "nginx"),  # drayage would take a minute for it
            _BLOB,
            warm=True,
        ),
        Line(
            "blob-1mib",
            "Warm 1 MiB blobs, 64 connections",
            measures.small_blobs,
            CACHES,
            (Column("requests", "req/s", "{:,.0f}"), *_BLOB),
            warm=True,
        ),
        Line(
            "tls-manifest",
            "Warm manifest by digest over TLS, 64 connections",
            measures.manifest_by_digest,
            OVER_TLS,
            _MANIFEST,
            warm=True,
        ),
        Line(
            "tls-blob-8",
            "Warm 512 MiB blob over TLS, 8 streams",
            measures.blob_eight_streams,
            OVER_TLS,
            _BLOB,
            warm=True,
        ),
        Line(
            "cold-one",
            "Cold 256 MiB layer, upstream 50 MiB/s a connection, one transfer",
            measures.cold_slow,
            ("direct", "single", "distribution", "drayage", "nginx"),
            _COLD,
            short=False,
        ),
        Line(
            "cold-ranges",
            "Cold 256 MiB layer, upstream 50 MiB/s a connection, 4 ranged transfers",
            measures.cold_slow,
            ("ours",),
            _COLD,
            short=False,
        ),
        Line(
            "cold-unlimited",
            "Cold 256 MiB layer, upstream unlimited",
            measures.cold_unlimited,
            ("direct", *CACHES),
            _COLD,
        ),
        Line(
            "fan-out",
            "Cold fan-out of a 256 MiB layer to 32 clients, upstream 50 MiB/s a connection",
            measures.fan_out,
            ("ours", "single", "distribution", "drayage", "nginx"),
            _COLD,
            short=False,
        ),
        Line(
            "eviction",
            "64 clients of warm 64 KiB blobs, while 10 000 blobs are evicted and while not, 5 pairs",
            eviction.beside_pulls,
            ("ours",),
            _EVICTION,
            short=False,
        ),
        Line(
            "object-stream",
            "512 MiB blob streamed from SeaweedFS to curl, beside curl from the store itself, 5 pairs",
            objects.stream,
            ("ours",),
            _OF_STORE,
            short=False,
        ),
        Line(
            "object-redirect",
            "Redirects to SeaweedFS, 64 connections, beside a manifest hit, 5 pairs",
            objects.redirect,
            ("ours",),
            _REDIRECT,
            short=False,
        ),
        Line(
            "push",
            "Push: 16 layers of 16 MiB at once, then the manifest",
            pushes.layers,
            REGISTRIES,
            (
                Column("rate", "MiB/s", "{:,.0f}"),
                Column("seconds", "total s"),
                Column("cpu", "CPU s / GiB"),
                _CLIENT,
            ),
        ),
        Line(
            "token-digest",
            "Warm manifest by digest, ours with a Bearer token, distribution's without any, 64 connections",
            pushes.by_digest,
            REGISTRIES,
            _PULLED,
        ),
        Line(
            "token-tag",
            "Warm manifest by tag, ours with a Bearer token, distribution's without any, 64 connections",
            pushes.by_tag,
            REGISTRIES,
            _PULLED,
        ),
        Line(
            "put",
            "PUT of manifests of small images, each with a tag, 16 connections",
            pushes.manifests,
            REGISTRIES,
            tuple(column for column in _PULLED if column.key != "failures"),
        ),
        Line(
            "tags",
            "Pages of 100 tags of a repository of 100 000, 4 connections",
            pushes.lists,
            ("ours",),
            (
                *(Column(place, f"p99 ms, {place}", "{:.1f}") for place in pushes.PLACES),
                Column("p99", "the worst p99 ms", "{:.1f}"),
                Column("spread", "slowest median x fastest"),
                Column("rate", "req/s", "{:,.0f}"),
            ),
            short=False,
        ),
        Line(
            "collection",
            "4 clients push images of 64 KiB, while 100 000 blobs are collected and while not, 5 pairs",
            pushes.beside_collection,
            ("ours",),
            (
                *_EVICTION[:3],
                Column("rate", "pushes/s beside it", "{:,.0f}"),
                Column("alone", "pushes/s without", "{:,.0f}"),
                Column("collected", "collected a s", "{:,.0f}"),
            ),
            short=False,
        ),
        Line(
            "memory",
            "Memory after start, and at the peak of all the above",
            measures.memory_used,
            ("ours", "single", "distribution", "drayage", "nginx"),
            _MEMORY,
            short=False,
        ),
        Line(
            "start",
            "Start to the first 200 (cacheproxy: 10 000 cached images in the store; the others: empty)",
            measures.start,
            CACHES,
            (Column("seconds", "s"),),
        ),
    )
}
