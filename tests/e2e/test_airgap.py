"""Images in files: ours as other tools read them, and theirs as we do."""

from __future__ import annotations

import gzip
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.clients import NAME as OFFICIAL_NAME
from tests.e2e.images import Library
from tests.e2e.programs import REPOSITORY, environment, installed, packaged, run
from tests.e2e.servers import Daemon, daemon, distribution
from tests.e2e.test_pushes import CLOSED, HOSTING, LOGIN, SECRET

COMMAND_WITHIN = 120.0
UNSAFE = ("--insecure-policy", "--src-tls-verify=false", "--dest-tls-verify=false")


class Place:
    """A daemon, and somebody at its machine."""

    def __init__(self, folder: Path, registry: Daemon) -> None:
        self.folder = folder
        self.registry = registry

    def says(self, *words: str | Path) -> str:
        argv = [sys.executable, "-m", "cacheproxy", *words, "--config", self.folder / "cacheproxy.toml"]
        done = subprocess.run(
            list(map(str, argv)),
            env={**environment(self.folder), "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            timeout=COMMAND_WITHIN,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def digest(self, name: str) -> str:
        """What a name means, to a client."""
        crane, host = installed("crane"), self.registry.host
        run([crane, "auth", "login", "-u", LOGIN[1], "-p", SECRET, host], self.folder)
        return run([crane, "digest", "--insecure", f"{host}/{name}"], self.folder).strip()


@pytest.fixture
def place(library: Library, folder: Path) -> Iterator[Place]:
    """A daemon that hosts, and caches a registry with the library."""
    with distribution(library.store, folder / "source") as source:
        (folder / "daemon").mkdir()
        (folder / "daemon" / "builder.secret").write_text(SECRET)
        with daemon(folder / "daemon", source.url, cache=CLOSED, options=HOSTING) as registry:
            yield Place(folder / "daemon", registry)


def test_an_export_is_read_by_skopeo_and_crane(library: Library, folder: Path, place: Place) -> None:
    image, file = library.images["multi"], folder / "x.tar"
    names = [f"{OFFICIAL_NAME}:{tag}" for tag in ("multi", "oci")]
    assert "exported 2 images" in place.says("export", *names, file)
    name = f"docker-hub/{OFFICIAL_NAME}:oci"
    copied = f"oci:{folder}/copied:oci"
    copy = [packaged("skopeo"), "copy", *UNSAFE, "--all", "--preserve-digests"]
    run([*copy, f"oci-archive:{file}:{name}", copied], folder)
    raw = run([packaged("skopeo"), "inspect", "--raw", copied], folder)
    assert raw == run([packaged("skopeo"), "inspect", "--raw", f"oci-archive:{file}:{name}"], folder)
    with tarfile.open(file) as tar:
        tar.extractall(folder / "layout")
    with distribution(folder / "empty", folder / "there") as there:
        target = f"{there.host}/copy:1"
        run([installed("crane"), "push", "--insecure", "--index", folder / "layout", target], folder)
        run([installed("crane"), "validate", "--insecure", "--remote", target], folder)
    place.says("import", file, "--to", "mirror")
    assert place.digest(f"mirror/docker-hub/{OFFICIAL_NAME}:multi") == image.digest


def test_layouts_of_skopeo_crane_and_oras_are_imported(library: Library, folder: Path, place: Place) -> None:
    with distribution(library.store, folder / "elsewhere") as source:
        multi, oci = (f"{source.host}/{OFFICIAL_NAME}:{tag}" for tag in ("multi", "oci"))
        copy = [packaged("skopeo"), "copy", *UNSAFE, "--all", "--preserve-digests", f"docker://{oci}"]
        run([*copy, f"oci-archive:{folder}/skopeo.tar:team/skopeo:1"], folder)
        run([*copy, f"oci:{folder}/skopeo:latest"], folder)
        crane = [installed("crane"), "pull", "--insecure", "--format", "oci", "--annotate-ref"]
        run([*crane, multi, folder / "crane"], folder)
        oras = [installed("oras"), "copy", "--no-tty", "--from-plain-http", "--to-oci-layout"]
        run([*oras, multi, f"{folder}/oras:v1"], folder)
    packed = folder / "skopeo.tar.gz"
    with (folder / "skopeo.tar").open("rb") as file, gzip.open(packed, "wb", compresslevel=1) as out:
        shutil.copyfileobj(file, out)
    place.says("import", folder / "skopeo.tar")
    place.says("import", packed, "--to", "packed")
    place.says("import", folder / "skopeo", "--to", "team/folder")
    place.says("import", folder / "crane", "--to", "team/crane")
    place.says("import", folder / "oras", "--to", "team/oras")
    index, image = (library.images[tag].digest for tag in ("multi", "oci"))
    for name in ("team/skopeo:1", "packed/team/skopeo:1", "team/folder:latest"):
        assert place.digest(name) == image
    for name in ("team/oras:v1", f"team/crane/{OFFICIAL_NAME}:multi"):
        assert place.digest(name) == index


def test_what_oras_attached_goes_along(library: Library, folder: Path, place: Place) -> None:
    oras, target = installed("oras"), f"{place.registry.host}/team/debian"
    with distribution(library.store, folder / "elsewhere") as source:
        run([oras, "login", "--plain-http", *LOGIN, place.registry.host], folder)
        copy = ("copy", "--no-tty", "--from-plain-http", "--to-plain-http")
        run([oras, *copy, f"{source.host}/{OFFICIAL_NAME}:oci", f"{target}:1"], folder)
    (folder / "sbom.json").write_text("{}")
    attach = (
        "attach",
        "--no-tty",
        "--plain-http",
        "--disable-path-validation",
        "--artifact-type",
        "test/sbom",
    )
    run([oras, *attach, f"{target}:1", f"{folder}/sbom.json:test/x"], folder)
    assert "exported 2 images" in place.says("export", "team/debian:1", folder / "x.tar")
    place.says("import", folder / "x.tar", "--to", "copy")
    there = f"{place.registry.host}/copy/team/debian:1"
    assert "test/sbom" in run([oras, "discover", "--plain-http", "--format", "json", there], folder)
