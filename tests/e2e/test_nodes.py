"""Two daemons over one PostgreSQL and one bucket: one of them is killed, the other one serves on."""

from __future__ import annotations

import subprocess
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from bench.processes import end
from tests.e2e.clients import CLIENTS, Containerd, Podman
from tests.e2e.images import Library
from tests.e2e.programs import environment
from tests.e2e.servers import Daemon, daemon, distribution, origin
from tests.e2e.stores import Shared
from tests.e2e.test_fills import FILL_WITHIN, MIB, bytes_sent, crane_blob, pull_blob, wait_until_sent

SIZE = 48 * MIB
ONE_LAYER = ("--image", f"library/debian:latest={SIZE}", "--rate", "16MiB")


def node(folder: Path, upstream: str, shared: Shared) -> AbstractContextManager[Daemon]:
    """In a folder of its own; all else it shares."""
    return daemon(folder, upstream, storage=shared.storage())


def test_killed_node_comes_back_to_what_the_other_one_fetched(shared: Shared, folder: Path) -> None:
    with (
        origin(folder / "origin", *ONE_LAYER) as upstream,
        node(folder / "b", upstream.url, shared) as b,
    ):
        image = upstream.images[0]
        with node(folder / "a", upstream.url, shared) as a:
            reader = crane_blob(a, image, folder)
            wait_until_sent(upstream, image, SIZE // 2)
            a.kill()
            assert reader.wait(FILL_WITHIN) != 0, "what was cut short is not taken for whole"
        pull_blob(b, image, folder)
        b.stored()
        before = bytes_sent(upstream, image)
        with node(folder / "a", upstream.url, shared) as a:
            pull_blob(a, image, folder)
            pull_blob(b, image, folder)
        assert bytes_sent(upstream, image) == before, "once in the bucket, for both"


@pytest.mark.parametrize("client", ["containerd-1.6", "containerd-2.4"])
def test_layer_goes_on_from_the_other_node_when_its_own_is_killed(
    client: str, shared: Shared, folder: Path, client_folder: Path
) -> None:
    """One pull: containerd asks its next mirror for the rest."""
    log = client_folder / "fetch.log"
    with (
        origin(folder / "origin", *ONE_LAYER) as upstream,
        node(folder / "b", upstream.url, shared) as b,
        node(folder / "a", upstream.url, shared) as a,
        CLIENTS[client](client_folder, a.host) as puller,
    ):
        assert isinstance(puller, Containerd)
        puller.use(a.host, b.host)
        image = upstream.images[0]
        name = f"docker.io/{image['repository']}:{image['tag']}"
        fetch = puller.command("content", "fetch", "--hosts-dir", puller.hosts, name)
        with (
            log.open("wb") as output,
            subprocess.Popen(fetch, env=environment(client_folder), stdout=output, stderr=output) as process,
        ):
            wait_until_sent(upstream, image, SIZE // 2)
            a.kill()
            assert process.wait(FILL_WITHIN) == 0, log.read_text()
        assert image["blobs"][0]["digest"] in puller.ctr("content", "list", "--quiet").split()
        served = b.metric("cacheproxy_served_bytes_total")
        assert 0 < served < SIZE, "only what the first one had not sent"


def test_podman_pulls_from_the_node_that_is_left(
    shared: Shared, library: Library, folder: Path, client_folder: Path
) -> None:
    with (
        distribution(library.store, folder / "upstream") as upstream,
        node(folder / "b", upstream.url, shared) as b,
        node(folder / "a", upstream.url, shared) as a,
        CLIENTS["podman"](client_folder, a.host) as podman,
    ):
        assert isinstance(podman, Podman)
        podman.use(a.host, b.host)
        image = library.images["multi"]
        assert podman.pull("multi") == image.config
        a.stored()
        assert b.metric("cacheproxy_served_bytes_total") == 0
        podman.forget()
        a.kill()
        end(upstream.process)
        assert podman.pull("multi") == image.config
        assert b.metric("cacheproxy_served_bytes_total") > 0
