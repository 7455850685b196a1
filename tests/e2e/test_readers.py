"""What `client-config` writes for tools that no test can run here, read by those tools' own packages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.certificates import Certificate
from tests.e2e.programs import installed, run
from tests.e2e.servers import daemon
from tests.e2e.test_client_config import client_config

NOBODY = "http://127.0.0.1:9"
FILES = {"buildkit": "etc/buildkit/buildkitd.toml", "k3s": "etc/rancher/k3s/registries.yaml"}


def read(tool: str, folder: Path, server: str = "") -> tuple[Any, str]:
    """What the tool makes of its file; the cache's host and port."""
    root = folder / "root"
    root.mkdir()
    with daemon(folder / "daemon", NOBODY, server=server) as cache:
        client_config(folder / "daemon", root, tool, "--write")
        return json.loads(run([installed("readers"), tool, root / FILES[tool]], folder)), cache.host


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_buildkit_has_the_cache_as_a_mirror(secure: bool, folder: Path) -> None:
    told, host = read("buildkit", folder, Certificate(folder / "daemon").server if secure else "")
    assert told["docker.io"]["Mirrors"] == [f"{host}/docker.io"]
    assert told[host]["PlainHTTP"] == (None if secure else True)
    assert told[host]["RootCAs"] == (["/etc/buildkit/cacheproxy.crt"] if secure else None)


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_k3s_has_the_cache_as_an_endpoint(secure: bool, folder: Path) -> None:
    told, host = read("k3s", folder, Certificate(folder / "daemon").server if secure else "")
    scheme = "https" if secure else "http"
    assert told["mirrors"]["docker.io"]["endpoint"] == [f"{scheme}://{host}"]
    tls = (told["configs"] or {}).get(host, {}).get("tls")
    assert (tls and tls["ca_file"]) == ("/etc/rancher/k3s/cacheproxy.crt" if secure else None)
