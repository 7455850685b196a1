from __future__ import annotations

import json
import tomllib

import pytest

from cacheproxy.commands.clients.tools import HEADER, TOOLS, Cache, CannotMerge

CACHE = Cache("http://127.0.0.1:5000", ("docker.io", "localhost:5001"), "docker.io")
SECURE = Cache("https://cache.example", ("docker.io",), "docker.io")
PRIVATE = Cache("https://c:5000", ("docker.io",), "docker.io", "CERTIFICATE\n")
"""Signed by somebody whom only we know."""


def texts(tool: str, cache: Cache = CACHE, before: str | None = None) -> dict[str, str]:
    return {planned.path: planned.text(before) for planned in TOOLS[tool].files(cache)}


def test_containerd_has_a_folder_for_each_registry() -> None:
    files = texts("containerd")
    assert list(files) == [
        "etc/containerd/certs.d/docker.io/hosts.toml",
        "etc/containerd/certs.d/localhost_5001_/hosts.toml",
    ]
    assert tomllib.loads(files["etc/containerd/certs.d/docker.io/hosts.toml"]) == {
        "host": {"http://127.0.0.1:5000": {"capabilities": ["pull", "resolve"], "dial_timeout": "1s"}}
    }


def test_docker_has_a_mirror_for_the_hub_and_hosts_for_all() -> None:
    files = texts("docker", before=None)
    assert json.loads(files["etc/docker/daemon.json"]) == {"registry-mirrors": ["http://127.0.0.1:5000"]}
    assert "etc/docker/certs.d/localhost:5001/hosts.toml" in files


def test_dockers_other_settings_and_mirrors_stay() -> None:
    engine = TOOLS["docker"].files(CACHE)[0]
    before = {"debug": True, "registry-mirrors": ["https://other", "http://127.0.0.1:5000/"]}
    assert json.loads(engine.text(json.dumps(before))) == {
        "debug": True,
        "registry-mirrors": ["http://127.0.0.1:5000", "https://other"],
    }


@pytest.mark.parametrize("before", ["[]", "{", '{"registry-mirrors": 1}'])
def test_a_daemon_json_that_is_none_is_left_alone(before: str) -> None:
    with pytest.raises(CannotMerge):
        TOOLS["docker"].files(CACHE)[0].text(before)


def test_docker_has_no_mirror_where_bare_names_are_not_the_hubs() -> None:
    assert "etc/docker/daemon.json" not in texts("docker", Cache("http://c", ("quay.io",), "quay.io"))


def test_podman_has_a_mirror_for_each_registry() -> None:
    (text,) = texts("podman").values()
    assert tomllib.loads(text)["registry"][0] == {
        "prefix": "docker.io",
        "location": "docker.io",
        "mirror": [{"location": "127.0.0.1:5000/docker.io", "insecure": True}],
    }
    (secure,) = texts("podman", SECURE).values()
    assert tomllib.loads(secure)["registry"][0]["mirror"] == [{"location": "cache.example/docker.io"}]


def test_buildkit_knows_that_the_cache_has_no_tls() -> None:
    (text,) = texts("buildkit").values()
    registries = tomllib.loads(text)["registry"]
    assert registries["docker.io"] == {"mirrors": ["127.0.0.1:5000/docker.io"]}
    assert registries["127.0.0.1:5000"] == {"http": True}
    (secure,) = texts("buildkit", SECURE).values()
    assert "cache.example" not in tomllib.loads(secure)["registry"]


def test_buildkits_other_tables_stay() -> None:
    (text,) = texts("buildkit", before="debug = true\n[worker.oci]\nenabled = true\n").values()
    parsed = tomllib.loads(text)
    assert parsed["debug"] is True
    assert parsed["worker"] == {"oci": {"enabled": True}}
    assert "docker.io" in parsed["registry"]


def test_a_registry_that_buildkit_has_already_is_not_overwritten() -> None:
    with pytest.raises(CannotMerge, match="has one of these registries already"):
        texts("buildkit", before='[registry."docker.io"]\nmirrors = ["mine"]\n')


def test_k3s_has_an_endpoint_for_each_registry() -> None:
    (text,) = texts("k3s").values()
    assert text == (
        f'{HEADER}mirrors:\n  "docker.io":\n    endpoint:\n      - "http://127.0.0.1:5000"\n'
        '  "localhost:5001":\n    endpoint:\n      - "http://127.0.0.1:5000"\n'
    )


@pytest.mark.parametrize("tool", ["containerd", "podman", "k3s"])
def test_a_file_of_somebody_else_is_left_alone(tool: str) -> None:
    with pytest.raises(CannotMerge, match="is there already"):
        texts(tool, before="mine")


@pytest.mark.parametrize(
    ("tool", "path"),
    [
        ("docker", "etc/docker/certs.d/c:5000/cacheproxy.crt"),
        ("containerd", "etc/containerd/certs.d/c:5000/cacheproxy.crt"),
        ("podman", "etc/containers/certs.d/c:5000/cacheproxy.crt"),
        ("buildkit", "etc/buildkit/cacheproxy.crt"),
        ("k3s", "etc/rancher/k3s/cacheproxy.crt"),
    ],
)
def test_an_authority_that_clients_do_not_know_is_put_where_they_look(tool: str, path: str) -> None:
    assert texts(tool, PRIVATE)[path] == f"{HEADER}CERTIFICATE\n"
    assert path not in texts(tool, SECURE)
    assert path not in texts(tool, CACHE)


@pytest.mark.parametrize("tool", ["docker", "containerd"])
def test_hosts_toml_names_the_authority_by_its_own_folder(tool: str) -> None:
    file = f"etc/{tool}/certs.d/docker.io/hosts.toml"
    (host,) = tomllib.loads(texts(tool, PRIVATE)[file])["host"].values()
    assert host["ca"] == "../c:5000/cacheproxy.crt"
    assert "\nca = " not in texts(tool, SECURE)[file]


def test_buildkit_and_k3s_name_the_authority_by_the_host_of_the_cache() -> None:
    buildkit = tomllib.loads(texts("buildkit", PRIVATE)["etc/buildkit/buildkitd.toml"])
    assert buildkit["registry"]["c:5000"] == {"ca": ["/etc/buildkit/cacheproxy.crt"]}
    assert texts("k3s", PRIVATE)["etc/rancher/k3s/registries.yaml"].endswith(
        'configs:\n  "c:5000":\n    tls:\n      ca_file: "/etc/rancher/k3s/cacheproxy.crt"\n'
    )
    assert "configs" not in texts("k3s", SECURE)["etc/rancher/k3s/registries.yaml"]
