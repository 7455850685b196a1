"""What a trace tells of a pull, at a collector: who asked whom, and who waited for what."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs

from tests.collector import Collector, Seen, collector
from tests.faults.client import Heard
from tests.faults.house import House, house
from tests.origin import faults

LAYER = b"layer" * 1000
ALL = 'sample = "100%"'


@asynccontextmanager
async def traced(folder: Path, traces: str = ALL) -> AsyncIterator[tuple[House, Collector]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cacheproxy.tracing.outbox.LAG", 0.02)
        async with collector() as at:
            section = f'parallel = "never"\n[traces]\nendpoint = "{at.url}"\n{traces}'
            async with house(folder, cache=section) as h:
                h.registry.origin.auth = "bearer"
                yield h, at


async def last_request(at: Collector, path: str, count: int = 1) -> Seen:
    """The server's span of the last of so many requests for the path."""

    def wanted(span: Seen) -> bool:
        return span.kind == "server" and span.attributes["url.path"] == path

    return (await at.wait(wanted, count))[-1]


async def test_a_miss_is_a_request_with_those_that_it_took_upstream(folder: Path) -> None:
    async with traced(folder) as (h, at):
        image = h.image("library/app", LAYER)
        assert (await h.ask(image.manifest_path())).status == 200
        asked = await last_request(at, image.manifest_path())
        assert asked.name == "GET /v2/{name}/manifests/{reference}"
        assert (asked.parent, asked.failed) == ("", False)
        assert asked.attributes["http.response.status_code"] == 200
        assert asked.attributes["oci.repository"] == "docker-hub/library/app"
        assert asked.attributes["oci.operation"] == "manifest"
        assert asked.attributes["cacheproxy.outcome"] == "miss"
        assert asked.attributes["cacheproxy.upstream"] == "docker-hub"
        refused, token, manifest = await at.below(asked, 3)
        kinds = [span.attributes["cacheproxy.kind"] for span in (refused, token, manifest)]
        assert kinds == ["manifest", "token", "manifest"]
        assert {(span.kind, span.trace) for span in (refused, token, manifest)} == {("client", asked.trace)}
        assert refused.attributes["http.response.status_code"] == 401
        assert not refused.failed
        assert "?" not in str(token.attributes["url.full"])
        assert at.resource["service.name"] == "cacheproxy"


async def test_a_hit_is_a_request_alone(folder: Path) -> None:
    async with traced(folder) as (h, at):
        image = h.image("library/app", LAYER)
        await h.ask(image.manifest_path())
        for _ in range(2):  # the first from a row, the second from what is ready
            assert (await h.ask(image.manifest_path(image.digest))).status == 200
        hit = await last_request(at, image.manifest_path(image.digest), 2)
        assert hit.attributes["cacheproxy.outcome"] == "hit"
        assert 0 < hit.seconds < 1
        await at.below(hit, 0)


async def test_a_fill_is_a_trace_of_its_own_that_those_who_wait_are_linked_to(folder: Path) -> None:
    async with traced(folder) as (h, at):
        image = h.image("library/app", LAYER)
        await h.ask(image.manifest_path())
        path = image.blob_path(image.layers[0])
        rule = h.registry.origin.fault({"kind": "blob"}, faults.delay(0.3))
        heard = list[Heard]()

        async def ask() -> None:
            heard.append(await h.ask(path))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            while not rule.hits:
                await trio.sleep(0.01)
            nursery.start_soon(ask)
        assert [one.body == LAYER for one in heard] == [True, True]
        await last_request(at, path, 2)
        [fill] = await at.wait(lambda span: span.name == "fill")
        first, second = await at.wait(lambda span: span.attributes.get("url.path") == path, 2)
        assert {span.attributes["cacheproxy.outcome"] for span in (first, second)} == {"miss", "coalesced"}
        assert first.links == second.links == {fill.id}
        assert fill.parent == ""
        assert len({fill.trace, first.trace, second.trace}) == 3
        assert fill.attributes["cacheproxy.result"] == "stored"
        *transfers, commit = await at.below(fill, 2)
        assert [span.attributes["cacheproxy.kind"] for span in transfers] == ["blob"]
        assert commit.name == "store commit"


async def test_who_shares_a_manifest_is_linked_to_who_asked_first(folder: Path) -> None:
    async with traced(folder) as (h, at):
        image = h.image("library/app", LAYER)
        rule = h.registry.origin.fault({"kind": "manifest"}, faults.delay(0.3))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(h.ask, image.manifest_path())
            while not rule.hits:
                await trio.sleep(0.01)
            nursery.start_soon(h.ask, image.manifest_path())
        await last_request(at, image.manifest_path(), 2)
        spans = {span.attributes.get("cacheproxy.outcome"): span for span in at.spans}
        assert spans["coalesced"].links == {spans["miss"].id}
        await at.below(spans["coalesced"], 0)


async def test_a_stale_answer_shows_what_failed(folder: Path) -> None:
    async with traced(folder) as (h, at):
        image = h.image("library/app", LAYER)
        await h.ask(image.manifest_path())
        h.registry.origin.fault({"kind": "manifest"}, faults.status(503))
        assert (await h.ask(image.manifest_path())).status == 200
        stale = await last_request(at, image.manifest_path(), 2)
        assert (stale.attributes["cacheproxy.outcome"], stale.failed) == ("stale", False)
        below = [span for span in at.spans if span.parent == stale.id]
        assert below
        assert all(span.failed and span.attributes["error.type"] == "503" for span in below)


async def test_an_upstream_that_cannot_be_reached_is_an_error_with_its_cause(folder: Path) -> None:
    async with traced(folder) as (h, at):
        assert (await h.ask("/v2/nowhere.test/a/manifests/c")).status == 503
        asked = await last_request(at, "/v2/nowhere.test/a/manifests/c")
        assert (asked.failed, asked.attributes["error.type"]) == (True, "503")
        below = [span for span in at.spans if span.parent == asked.id]
        assert {span.attributes["error.type"] for span in below} == {"dns"}


@pytest.mark.parametrize(
    ("trusted", "flags", "traced_"),
    [(True, "01", "theirs"), (True, "00", None), (False, "01", None)],
    ids=["sampled", "not sampled", "a stranger"],
)
async def test_a_callers_trace_goes_on_here_only_if_its_word_counts(
    trusted: bool, flags: str, traced_: str | None, folder: Path
) -> None:
    callers = 'trusted_callers = ["127.0.0.1"]' if trusted else ""
    async with traced(folder, f'sample = "0%"\n{callers}') as (h, at):
        image = h.image("library/app", LAYER)
        trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
        for path in (image.manifest_path(), *[image.manifest_path(image.digest)] * 3):
            assert (await h.ask(path, traceparent=f"00-{trace}-{span}-{flags}")).status == 200
        if traced_ is None:
            await trio.sleep(0.2)
            assert at.spans == []
        else:
            asked = await at.wait(lambda seen: seen.kind == "server", 4)
            assert {(seen.trace, seen.parent) for seen in asked} == {(trace, span)}


async def test_no_upstream_hears_of_a_trace(folder: Path) -> None:
    async with traced(folder) as (h, _):
        await h.pull(h.image("library/app", LAYER))
        headers = {name.lower() for host in h.hosts for seen in host.origin.seen for name in seen.headers}
        assert "authorization" in headers
        assert {"traceparent", "tracestate", "baggage"}.isdisjoint(headers)


async def test_a_collector_that_is_away_hurts_nobody_and_is_said_once(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch, capture_logs() as lines:
        patch.setattr("cacheproxy.tracing.outbox.LAG", 0.02)
        patch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
        section = f'parallel = "never"\n[traces]\nendpoint = "http://127.0.0.1:9"\n{ALL}'
        async with house(folder, cache=section) as h:
            image = h.image("library/app", LAYER)
            before = await h.metric("cacheproxy_trace_spans_total")
            for _ in range(3):
                await h.pull(image)
                await trio.sleep(0.3)
            assert await h.metric("cacheproxy_trace_spans_total") > before
    [line] = [line for line in lines if line["event"] == "traces are not sent"]
    assert "refused" in line["reason"]


async def test_the_last_spans_are_sent_at_the_end(folder: Path) -> None:
    async with collector() as at:
        section = f'parallel = "never"\n[traces]\nendpoint = "{at.url}"\n{ALL}'
        async with house(folder, cache=section) as h:
            image = h.image("library/app", LAYER)
            await h.pull(image)
        await last_request(at, image.blob_path(image.layers[0]))
