"""Each client pulls Debian and an index: cold, warm, upstream gone; from a disk, from S3, through a chain."""

from __future__ import annotations

import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from bench.processes import end
from tests.e2e.clients import CLIENTS, Client
from tests.e2e.images import REPOSITORY, Library
from tests.e2e.servers import Distribution, daemon, distribution
from tests.e2e.stores import NOBODY, Shared

REDIRECTED = {"podman", "containerd-2.4", "containerd-2.4-parallel"}
"""These get their blobs from S3 itself, by presigned addresses."""


def pull_all(client: Client, library: Library) -> None:
    """Every image of the library arrives as what it is."""
    expected = {tag: getattr(image, client.tells) for tag, image in library.images.items()}
    assert {tag: client.pull(tag) for tag in library.images} == expected


def assert_fetched_once(upstream: Distribution, client: Client, library: Library) -> None:
    """Upstream sent each blob once, and no other platform's layers unless the client asked for them."""
    wanted = frozenset[str]().union(*(image.blobs for image in library.images.values()))
    reads = upstream.blob_reads(wanted)
    assert {digest: reads[digest] for digest in wanted} == dict.fromkeys(wanted, 1)
    assert library.other_platform & set(reads) == (
        library.other_platform if client.takes_all_platforms else set()
    )


@pytest.mark.parametrize("client", CLIENTS)
def test_pulls_cold_then_warm_then_without_upstream(
    client: str, library: Library, folder: Path, client_folder: Path
) -> None:
    with (
        distribution(library.store, folder / "upstream") as upstream,
        daemon(folder / "daemon", upstream.url) as cache,
        CLIENTS[client](client_folder, cache.host) as puller,
    ):
        pull_all(puller, library)
        assert_fetched_once(upstream, puller, library)

        puller.forget()
        before = upstream.requests()
        pull_all(puller, library)
        assert upstream.requests() == before, "a warm pull asks upstream nothing"

        puller.forget()
        end(upstream.process)
        pull_all(puller, library)


@pytest.mark.parametrize("client", CLIENTS)
def test_pulls_cold_then_without_upstream_from_postgres_and_s3(
    client: str, library: Library, shared: Shared, folder: Path, client_folder: Path
) -> None:
    """An index and its image: what else a manifest may be matters to no store."""
    library = replace(library, images={"multi": library.images["multi"]})
    redirect = "127.0.0.0/8" if client in REDIRECTED else NOBODY
    with (
        distribution(library.store, folder / "upstream") as upstream,
        daemon(folder / "daemon", upstream.url, storage=shared.storage(redirect)) as cache,
        CLIENTS[client](client_folder, cache.host) as puller,
    ):
        pull_all(puller, library)
        assert_fetched_once(upstream, puller, library)
        cache.stored()

        puller.forget()
        end(upstream.process)
        pull_all(puller, library)
        assert (cache.metric("cacheproxy_requests_total", code="307") > 0) == (client in REDIRECTED)


@pytest.mark.parametrize("client", CLIENTS)
def test_pulls_through_a_chain_of_two_daemons(
    client: str, library: Library, folder: Path, client_folder: Path
) -> None:
    with (
        distribution(library.store, folder / "upstream") as upstream,
        daemon(folder / "far", upstream.url) as far,
        daemon(folder / "near", far.url) as near,
        CLIENTS[client](client_folder, near.host) as puller,
    ):
        pull_all(puller, library)
        assert_fetched_once(upstream, puller, library)

        puller.forget()
        end(far.process)
        end(upstream.process)
        pull_all(puller, library)


def test_expired_tag_is_served_with_a_warning_while_upstream_is_gone(
    library: Library, folder: Path, client_folder: Path
) -> None:
    expired = 'fresh = [{ tags = "**", for = "0s" }]'
    with (
        distribution(library.store, folder / "upstream") as upstream,
        daemon(folder / "daemon", upstream.url, options=expired) as cache,
        CLIENTS["crane"](client_folder, cache.host) as crane,
    ):
        pull_all(crane, library)
        end(upstream.process)
        crane.forget()
        pull_all(crane, library)
        with urllib.request.urlopen(f"{cache.url}/v2/{REPOSITORY}/manifests/oci", timeout=10) as answer:
            assert answer.headers["Warning"].startswith("299 - ")
