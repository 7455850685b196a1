from __future__ import annotations

from pathlib import Path

import pytest

from cacheproxy.commands.clients.files import Files
from cacheproxy.commands.clients.proof import Image, NotProven, image_of, requests
from cacheproxy.commands.clients.tools import TOOLS, Cache

CACHE = Cache("http://c:5000", ("docker.io", "localhost:5001"), "docker.io")
DEBIAN = Image("docker.io", "library/debian", "12")
TOOL = Image("localhost:5001", "org/tool", "latest")
PATH = "library/debian/manifests/12"


def asked(tool: str, root: Path, image: Image) -> list[str]:
    Files(root, tool).write(TOOLS[tool].files(CACHE))
    return [f"{request.method} {request.url}" for request in requests(tool, root, image)]


@pytest.mark.parametrize(
    ("tool", "expected"),
    [
        (
            "docker",
            [
                "GET http://c:5000/v2/",
                f"HEAD http://c:5000/v2/{PATH}",
                f"HEAD http://c:5000/v2/{PATH}?ns=docker.io",
            ],
        ),
        ("containerd", [f"HEAD http://c:5000/v2/{PATH}?ns=docker.io"]),
        ("podman", ["GET http://c:5000/v2/", f"GET http://c:5000/v2/docker.io/{PATH}"]),
        ("buildkit", [f"HEAD http://c:5000/v2/docker.io/{PATH}?ns=docker.io"]),
        ("k3s", [f"HEAD http://c:5000/v2/{PATH}?ns=docker.io"]),
    ],
)
def test_each_tool_asks_in_its_own_way(tool: str, expected: list[str], tmp_path: Path) -> None:
    assert asked(tool, tmp_path, DEBIAN) == expected


@pytest.mark.parametrize("tool", TOOLS)
def test_a_registry_with_a_port_is_found(tool: str, tmp_path: Path) -> None:
    assert "org/tool/manifests/latest" in asked(tool, tmp_path, TOOL)[-1]


@pytest.mark.parametrize("tool", TOOLS)
def test_without_files_nothing_is_proven(tool: str, tmp_path: Path) -> None:
    with pytest.raises(NotProven, match="--write first"):
        requests(tool, tmp_path, DEBIAN)


@pytest.mark.parametrize(
    ("tool", "path", "text"),
    [
        ("docker", "docker/daemon.json", '{"log-driver": "local"}'),
        ("docker", "docker/certs.d/docker.io/hosts.toml", 'server = "https://docker.io"'),
        ("containerd", "containerd/certs.d/docker.io/hosts.toml", 'server = "https://docker.io"'),
        ("podman", "containers/registries.conf.d/a.conf", "[aliases]"),
        ("buildkit", "buildkit/buildkitd.toml", "debug = true"),
        ("k3s", "rancher/k3s/registries.yaml", "mirrors: {}"),
    ],
)
def test_files_that_name_no_mirror_prove_nothing(tool: str, path: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / "etc" / path
    file.parent.mkdir(parents=True)
    file.write_text(text)
    with pytest.raises(NotProven, match="--write first"):
        requests(tool, tmp_path, DEBIAN)


def test_a_file_of_another_shape_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "etc/docker").mkdir(parents=True)
    (tmp_path / "etc/docker/daemon.json").write_text("[]")
    with pytest.raises(NotProven, match="cannot be read"):
        requests("docker", tmp_path, DEBIAN)


def test_files_that_are_broken_prove_nothing(tmp_path: Path) -> None:
    asked("containerd", tmp_path, DEBIAN)
    (tmp_path / "etc/containerd/certs.d/docker.io/hosts.toml").write_text("[")
    with pytest.raises(NotProven, match="cannot be read"):
        requests("containerd", tmp_path, DEBIAN)


def test_an_image_has_its_registry_in_its_name() -> None:
    assert image_of("docker.io/debian:12") == DEBIAN
    assert image_of("localhost:5001/org/tool") == TOOL
    with pytest.raises(NotProven, match="with its registry"):
        image_of("debian")
