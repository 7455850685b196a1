"""Teams at a registry of their own, with the clients that log in, push, pull, delete and push again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.clients import CLIENTS, Containerd, Docker
from tests.e2e.clients import NAME as OFFICIAL_NAME
from tests.e2e.images import Library
from tests.e2e.programs import ProgramError, installed, packaged, run
from tests.e2e.servers import Daemon
from tests.e2e.test_pushes import LOGIN, NAME, SECRET, hosting, tags
from tests.e2e.test_pushes import source as source

REFUSED = r"(?i)unauthorized|denied|forbidden|insufficient_scope|not valid|401|incorrect|invalid username"
OURS = """
[[template]]
prefix = "team"
applied_for = ["create-on-push"]
"""
"""Names that no upstream is asked about, so that a client need not wait for one that is away."""

ARCHITECTURES = ["amd64", "arm64"]


def architectures(index: str) -> list[str]:
    found: list[dict[str, Any]] = json.loads(index)["manifests"]
    return sorted(each["platform"]["architecture"] for each in found)


def delete(registry: Daemon, folder: Path, name: str, digest: str) -> None:
    """For clients that cannot: as crane does."""
    crane = installed("crane")
    run([crane, "auth", "login", "-u", NAME, "-p", SECRET, registry.host], folder)
    run([crane, "delete", "--insecure", f"{registry.host}/{name}@{digest}"], folder)
    assert tags(registry, name) == []


def test_regctl(library: Library, folder: Path, source: str) -> None:
    image = library.images["multi"]
    with hosting(folder / "daemon", more=OURS) as registry:
        regctl, target = installed("regctl"), f"{registry.host}/team/debian"

        def regctl_says(*words: str) -> str:
            return run([regctl, *words], folder)

        for host in (registry.host, source):
            regctl_says("registry", "set", "--tls", "disabled", "--skip-check", host)
        copy = ("image", "copy", f"{source}/{OFFICIAL_NAME}:multi", f"{target}:1")
        with pytest.raises(ProgramError, match=REFUSED):
            regctl_says(*copy)
        with pytest.raises(ProgramError, match=REFUSED):
            regctl_says("registry", "login", "-u", NAME, "-p", "wrong", registry.host)
        regctl_says("registry", "login", "-u", NAME, "-p", SECRET, registry.host)
        regctl_says(*copy)
        assert regctl_says("image", "digest", f"{target}:1").strip() == image.digest
        assert (
            architectures(regctl_says("manifest", "get", "--format", "raw-body", f"{target}:1"))
            == ARCHITECTURES
        )
        regctl_says("image", "export", f"{target}:1", str(folder / "exported.tar"))
        (folder / "sbom.json").write_text("{}")
        put = ("artifact", "put", "--artifact-type", "test/sbom", "--subject", f"{target}:1")
        regctl_says(*put, "--file", str(folder / "sbom.json"))
        assert "test/sbom" in regctl_says("artifact", "list", f"{target}:1")
        regctl_says("image", "copy", "--referrers", f"{target}:1", f"{registry.host}/team/copy:1")
        assert "test/sbom" in regctl_says("artifact", "list", f"{registry.host}/team/copy:1")
        regctl_says("tag", "delete", f"{target}:1")
        assert tags(registry, "team/debian") == []
        regctl_says("manifest", "delete", f"{target}@{image.digest}")
        with pytest.raises(ProgramError):
            regctl_says("manifest", "head", f"{target}@{image.digest}")
        regctl_says(*copy)
        assert regctl_says("tag", "ls", target).split() == ["1"]


@pytest.mark.parametrize("program", ["containerd-1.6", "containerd-2.4"])
def test_containerd(library: Library, folder: Path, client_folder: Path, source: str, program: str) -> None:
    image = library.images["multi"]
    with (
        hosting(folder / "daemon", more=OURS) as registry,
        CLIENTS[program](client_folder, registry.host) as containerd,
    ):
        assert isinstance(containerd, Containerd)
        there, target = f"{source}/{OFFICIAL_NAME}:multi", f"{registry.host}/team/debian:1"
        ours = ("--plain-http", "--user")
        containerd.ctr("images", "pull", "--plain-http", "--snapshotter", "native", "--all-platforms", there)
        containerd.ctr("images", "tag", there, target)
        for login in (f"{NAME}:wrong", f"reader:{SECRET}"):
            with pytest.raises(ProgramError, match=REFUSED):
                containerd.ctr("images", "push", *ours, login, target)
        push = ("images", "push", *ours, f"{NAME}:{SECRET}", target)
        containerd.ctr(*push)
        assert tags(registry, "team/debian") == ["1"]
        delete(registry, folder, "team/debian", image.digest)
        containerd.ctr(*push)
        containerd.forget()
        pull = ("images", "pull", "--snapshotter", "native", "--all-platforms", *ours)
        with pytest.raises(ProgramError, match=REFUSED):
            containerd.ctr(*pull, f"{NAME}:wrong", target)
        containerd.ctr(*pull, f"reader:{SECRET}", target)
        assert image.digest in containerd.ctr("images", "list", f"name=={target}")


def test_docker(library: Library, folder: Path, client_folder: Path, source: str) -> None:
    image = library.images["docker"]
    with (
        hosting(folder / "daemon", more=OURS) as registry,
        CLIENTS["dockerd"](client_folder, registry.host) as docker,
    ):
        assert isinstance(docker, Docker)
        there, target = f"{source}/{OFFICIAL_NAME}:docker", f"{registry.host}/team/debian:1"
        docker.docker("pull", "--quiet", there)
        docker.docker("tag", there, target)
        with pytest.raises(ProgramError, match=REFUSED):
            docker.docker("push", target)
        with pytest.raises(ProgramError, match=REFUSED):
            docker.docker("login", "--username", NAME, "--password", "wrong", registry.host)
        docker.docker("login", *LOGIN, registry.host)
        docker.docker("push", target)
        assert tags(registry, "team/debian") == ["1"]
        digest = run([installed("crane"), "digest", "--insecure", target], client_folder).strip()
        delete(registry, folder, "team/debian", digest)
        docker.docker("push", target)
        docker.forget()
        docker.docker("pull", "--quiet", target)
        assert docker.docker("image", "inspect", "--format", "{{.Id}}", target).strip() == image.config
        docker.docker("logout", registry.host)
        docker.forget()
        with pytest.raises(ProgramError, match=REFUSED):
            docker.docker("pull", "--quiet", target)


@pytest.mark.parametrize("program", ["podman", "buildah"])
def test_an_engine_puts_an_index_together(
    library: Library, folder: Path, client_folder: Path, source: str, program: str
) -> None:
    places = ("--root", client_folder / "root", "--runroot", client_folder / "run", "--storage-driver", "vfs")
    (client_folder / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')

    def engine(*words: str) -> str:
        more = {"REGISTRY_AUTH_FILE": str(client_folder / "auth.json")}
        return run([packaged(program), *places, *words], client_folder, more)

    (client_folder / "auth.json").write_text("{}")
    with hosting(folder / "daemon", more=OURS) as registry:
        target = f"docker://{registry.host}/team/debian:multi"
        engine("login", "--tls-verify=false", *LOGIN, registry.host)
        engine("manifest", "create", "index")
        for tag in ("oci", "arm64"):
            engine(
                "manifest", "add", "--tls-verify=false", "index", f"docker://{source}/{OFFICIAL_NAME}:{tag}"
            )
        engine("manifest", "push", "--tls-verify=false", "--all", "index", target)
        crane = [installed("crane"), "manifest", "--insecure", target.removeprefix("docker://")]
        run([crane[0], "auth", "login", *("-u", NAME, "-p", SECRET), registry.host], folder)
        assert architectures(run(crane, folder)) == ARCHITECTURES


def test_skopeo_logs_in_copies_all_and_deletes(folder: Path, source: str) -> None:
    skopeo, auth = packaged("skopeo"), folder / "auth.json"
    auth.write_text("{}")

    def skopeo_says(*words: str) -> str:
        return run([skopeo, *words], folder, {"REGISTRY_AUTH_FILE": str(auth)})

    with hosting(folder / "daemon", more=OURS) as registry:
        target = f"docker://{registry.host}/team/debian:1"
        with pytest.raises(ProgramError, match=REFUSED):
            skopeo_says(
                "login", "--tls-verify=false", "--username", NAME, "--password", "wrong", registry.host
            )
        skopeo_says("login", "--tls-verify=false", *LOGIN, registry.host)
        ways = ("--insecure-policy", "--src-tls-verify=false", "--dest-tls-verify=false")
        copy = ("copy", *ways, "--all", f"docker://{source}/{OFFICIAL_NAME}:multi", target)
        skopeo_says(*copy)
        assert architectures(skopeo_says("inspect", "--tls-verify=false", "--raw", target)) == ARCHITECTURES
        skopeo_says("delete", "--tls-verify=false", target)
        assert tags(registry, "team/debian") == []
        skopeo_says(*copy)
        told = skopeo_says("list-tags", "--tls-verify=false", target.rpartition(":")[0])
        assert json.loads(told)["Tags"] == ["1"]


def test_oras_pushes_pulls_and_deletes_files(folder: Path) -> None:
    (folder / "chart.txt").write_text("a chart")
    with hosting(folder / "daemon", more=OURS) as registry:
        oras, target = installed("oras"), f"{registry.host}/team/chart:1"

        def oras_says(*words: str | Path) -> str:
            return run([oras, *words], folder)

        push = (
            "push",
            "--no-tty",
            "--plain-http",
            "--disable-path-validation",
            "--artifact-type",
            "test/chart",
        )
        files = (target, f"{folder}/chart.txt:text/plain")
        with pytest.raises(ProgramError, match=REFUSED):
            oras_says(*push, *files)
        wrong = ("--username", NAME, "--password", "wrong")
        with pytest.raises(ProgramError, match=REFUSED):
            oras_says("login", "--plain-http", *wrong, registry.host)
        oras_says("login", "--plain-http", *LOGIN, registry.host)
        oras_says(*push, *files)
        oras_says("manifest", "delete", "--plain-http", "--force", target)
        assert tags(registry, "team/chart") == []
        oras_says(*push, *files)
        (folder / "chart.txt").unlink()
        oras_says("pull", "--no-tty", "--plain-http", "--allow-path-traversal", "--output", folder, target)
        assert (folder / "chart.txt").read_text() == "a chart"
