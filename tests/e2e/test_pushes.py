"""Repositories of our own: the official conformance program, and clients that log in, push and pull."""

from __future__ import annotations

import contextlib
import json
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.e2e.clients import NAME as OFFICIAL_NAME
from tests.e2e.images import Library
from tests.e2e.programs import ProgramError, installed, packaged, run
from tests.e2e.servers import Daemon, daemon, distribution
from tests.e2e.stores import Shared

NAME, SECRET = "builder", "0123456789abcdef0123"
HOSTING = """
[[account]]
name = "builder"
secret = { file = "builder.secret" }
[[account]]
name = "reader"
secret = { file = "builder.secret" }
[[grant]]
to = ["user:builder"]
allow = ["pull", "push", "delete", "list", "create"]
[[grant]]
to = ["*"]
allow = ["pull"]
repositories = "team/**"
[[template]]
prefix = "ROOT"
applied_for = ["create-on-push"]
[[template]]
prefix = "conformance"
applied_for = ["create-on-push"]
sparse = "images"
"""
CLOSED = "[access]\nanonymous_pull = []\n"
NOBODY = "http://127.0.0.1:9"
"""The default upstream: nothing is there."""
ALL = {
    "OCI_VERSION": "dev",
    "OCI_API_BLOBS_DIGEST_HEADER": "true",
    "OCI_API_BLOBS_UPLOAD_CANCEL": "true",
    "OCI_API_MANIFESTS_DIGEST_HEADER": "true",
    "OCI_API_MANIFESTS_TAG_PARAM": "true",
    "OCI_DATA_SPARSE": "true",
}
"""Every optional part of the specification, too."""
PASSED = 800
"""The program counts some 828 checks: far fewer, and it has left something out."""


@contextlib.contextmanager
def hosting(folder: Path, storage: str = "", more: str = "") -> Iterator[Daemon]:
    """A daemon with two accounts, closed to everybody else; `more` is of its configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "builder.secret").write_text(SECRET)
    with daemon(folder, NOBODY, storage=storage, cache=CLOSED, options=HOSTING + more) as started:
        yield started


def conforms(registry: Daemon, folder: Path) -> None:
    results = folder / "results"
    environment = {
        "OCI_REGISTRY": registry.host,
        "OCI_TLS": "disabled",
        "OCI_REPO1": "conformance/one",
        "OCI_REPO2": "conformance/two",
        "OCI_USERNAME": NAME,
        "OCI_PASSWORD": SECRET,
        "OCI_RESULTS_DIR": str(results),
        **ALL,
    }
    try:
        run([installed("conformance")], folder, environment)
    except ProgramError as error:
        raise AssertionError(f"{error}\n{_failures(results)}") from None
    cases = list(ElementTree.parse(results / "junit.xml").iter("testcase"))
    skipped = [case.get("name") for case in cases if case.find("skipped") is not None]
    assert len(cases) - len(skipped) >= PASSED, skipped


def _failures(results: Path) -> str:
    cases = ElementTree.parse(results / "junit.xml").iter("testcase")
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    return "\n".join(f"{case.get('classname')} {case.get('name')}" for case in failed[:20])


def test_conforms_on_sqlite_and_a_disk(folder: Path) -> None:
    with hosting(folder / "daemon") as registry:
        conforms(registry, folder)


def test_conforms_on_postgresql_and_s3(folder: Path, shared: Shared) -> None:
    with hosting(folder / "daemon", shared.storage()) as registry:
        conforms(registry, folder)


LOGIN = ("--username", NAME, "--password", SECRET)
INSECURE = "--tls-verify=false"


@pytest.fixture
def source(library: Library, folder: Path) -> Iterator[str]:
    """An image, in somebody else's registry: its host."""
    with distribution(library.store, folder / "source") as registry:
        yield registry.host


def tags(registry: Daemon, name: str) -> list[str]:
    return list(ask(registry, f"/v2/{name}/tags/list")["tags"])


def ask(registry: Daemon, path: str) -> Any:
    token = b64encode(f"{NAME}:{SECRET}".encode()).decode()
    request = urllib.request.Request(registry.url + path, headers={"Authorization": f"Basic {token}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def test_crane_pushes_pulls_and_deletes(library: Library, folder: Path, source: str) -> None:
    image = library.images["multi"]
    with hosting(folder / "daemon") as registry:
        crane, target = installed("crane"), f"{registry.host}/team/debian"
        copy = [crane, "copy", "--insecure", f"{source}/{OFFICIAL_NAME}:multi", f"{target}:1"]
        with pytest.raises(ProgramError, match="UNAUTHORIZED"):
            run(copy, folder)
        run([crane, "auth", "login", "-u", NAME, "-p", SECRET, registry.host], folder)
        run(copy, folder)
        assert run([crane, "digest", "--insecure", f"{target}:1"], folder).strip() == image.digest
        run([crane, "pull", "--insecure", "--format", "oci", f"{target}:1", folder / "layout"], folder)
        run([crane, "tag", "--insecure", f"{target}:1", "2"], folder)
        assert tags(registry, "team/debian") == ["1", "2"]
        run([crane, "delete", "--insecure", f"{target}@{image.digest}"], folder)
        assert tags(registry, "team/debian") == []
        run(copy, folder)
        assert tags(registry, "team/debian") == ["1"]


def test_skopeo_copies_in_and_out(library: Library, folder: Path, source: str) -> None:
    image = library.images["oci"]
    with hosting(folder / "daemon") as registry:
        skopeo, target = packaged("skopeo"), f"docker://{registry.host}/team/debian:1"
        options = (
            "--insecure-policy",
            "--src-tls-verify=false",
            "--dest-tls-verify=false",
            "--all",
            "--preserve-digests",
        )
        there = f"docker://{source}/{OFFICIAL_NAME}:oci"
        with pytest.raises(ProgramError, match="unauthorized"):
            run([skopeo, "copy", *options, there, target], folder)
        run([skopeo, "copy", *options, "--dest-creds", f"{NAME}:{SECRET}", there, target], folder)
        back = f"dir:{folder}/back"
        run([skopeo, "copy", *options, "--src-creds", f"{NAME}:{SECRET}", target, back], folder)
        told = run([skopeo, "manifest-digest", folder / "back" / "manifest.json"], folder)
        assert told.strip() == image.digest


@pytest.mark.parametrize("program", ["podman", "buildah"])
def test_an_engine_logs_in_pushes_and_pulls(
    library: Library, folder: Path, client_folder: Path, source: str, program: str
) -> None:
    places = ("--root", client_folder / "root", "--runroot", client_folder / "run", "--storage-driver", "vfs")
    (client_folder / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    (client_folder / "auth.json").write_text("{}")
    policy = ("--signature-policy", str(client_folder / "policy.json"))

    def engine(*words: str) -> str:
        more = {"REGISTRY_AUTH_FILE": str(client_folder / "auth.json")}
        return run([packaged(program), *places, *words], client_folder, more)

    with hosting(folder / "daemon") as registry:
        local, target = f"{source}/{OFFICIAL_NAME}:oci", f"{registry.host}/team/debian:1"
        engine("pull", INSECURE, *policy, local)
        with pytest.raises(ProgramError):
            engine("login", INSECURE, "--username", NAME, "--password", "wrong", registry.host)
        engine("login", INSECURE, *LOGIN, registry.host)
        engine("tag", local, target)
        engine("push", INSECURE, *policy, target)
        engine("rmi", "--all", "--force")
        engine("pull", INSECURE, *policy, target)
        assert tags(registry, "team/debian") == ["1"]


def test_a_reader_reads_and_nobody_reads_nothing(library: Library, folder: Path, source: str) -> None:
    with hosting(folder / "daemon") as registry:
        crane, target = installed("crane"), f"{registry.host}/team/debian:1"
        run([crane, "auth", "login", "-u", NAME, "-p", SECRET, registry.host], folder)
        copy = [crane, "copy", "--insecure", f"{source}/{OFFICIAL_NAME}:oci"]
        run([*copy, target], folder)
        run([*copy, f"{registry.host}/private/debian:1"], folder)
        reader = folder / "reader"
        reader.mkdir()
        with pytest.raises(ProgramError, match="UNAUTHORIZED"):
            run([crane, "digest", "--insecure", target], reader)
        run([crane, "auth", "login", "-u", "reader", "-p", SECRET, registry.host], reader)
        run([crane, "digest", "--insecure", target], reader)
        for refused in (
            [*copy, f"{registry.host}/team/debian:2"],
            [crane, "digest", "--insecure", f"{registry.host}/private/debian:1"],
        ):
            with pytest.raises(ProgramError, match=r"UNAUTHORIZED|DENIED"):
                run(refused, reader)


def test_oras_attaches_finds_and_copies_with_what_refers(library: Library, folder: Path, source: str) -> None:
    with hosting(folder / "daemon") as registry:
        oras, target = installed("oras"), f"{registry.host}/team/debian"
        run([oras, "login", "--plain-http", *LOGIN, registry.host], folder)
        there = f"{source}/{OFFICIAL_NAME}:oci"
        run([oras, "copy", "--no-tty", "--from-plain-http", "--to-plain-http", there, f"{target}:1"], folder)
        (folder / "sbom.json").write_text("{}")
        attach = ("attach", "--no-tty", "--plain-http", "--disable-path-validation")
        run(
            [oras, *attach, "--artifact-type", "test/sbom", f"{target}:1", f"{folder}/sbom.json:test/x"],
            folder,
        )
        found = run([oras, "discover", "--plain-http", "--format", "json", f"{target}:1"], folder)
        assert "test/sbom" in found
        copy = ("copy", "-r", "--no-tty", "--from-plain-http", "--to-plain-http")
        run([oras, *copy, f"{target}:1", f"{registry.host}/team/copy:1"], folder)
        found = run(
            [oras, "discover", "--plain-http", "--format", "json", f"{registry.host}/team/copy:1"], folder
        )
        assert "test/sbom" in found
