"""A private registry behind the cache, whose own accounts decide: crane and distribution with htpasswd."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import pytest

from bench.processes import free_port
from tests.e2e.clients import NAME
from tests.e2e.images import Library
from tests.e2e.programs import ProgramError, installed, run
from tests.e2e.servers import Daemon, Distribution, daemon, distribution

HOST = "localhost"
"""The upstream's own name for clients; the daemon's other address is 127.0.0.1."""
UPSTREAM = """
[[upstream]]
registry = "corp.test"
prefix = "corp"
url = "{url}"
hosts = ["localhost"]
allow_addresses = ["127.0.0.0/8"]
authority = "caller"
"""
USERS = {"alice": "wonderland", "mallory": "guess"}


@contextlib.contextmanager
def private(library: Library, folder: Path) -> Iterator[tuple[Distribution, Daemon]]:
    """Distribution asks for Basic; only alice has an account there."""
    folder.mkdir(parents=True)
    passwords = folder / "htpasswd"
    passwords.write_bytes(b"alice:" + bcrypt.hashpw(USERS["alice"].encode(), bcrypt.gensalt(4)) + b"\n")
    auth = f"auth:\n  htpasswd:\n    realm: corp\n    path: {passwords}\n"
    with distribution(library.store, folder / "upstream", more=auth) as upstream:
        options = UPSTREAM.format(url=upstream.url)
        with daemon(folder / "daemon", f"http://127.0.0.1:{free_port()}", options=options) as cache:
            yield upstream, cache


def crane(folder: Path, who: str, cache: Daemon, tag: str, reference: str = "") -> str:
    """Pull as somebody; the digest of what came."""
    home, host = folder / who, f"{HOST}:{cache.port}"
    home.mkdir(exist_ok=True)
    if who in USERS:
        login = ("auth", "login", host, "-u", who, "-p", USERS[who])
        run([installed("crane"), *login, "--insecure"], home)
    target = home / "layout"
    shutil.rmtree(target, ignore_errors=True)  # it would not fetch what is there
    source = reference or f"{host}/{NAME}:{tag}"
    run([installed("crane"), "pull", "--insecure", "--format", "oci", source, target], home)
    index = json.loads((target / "index.json").read_bytes())
    return str(index["manifests"][0]["digest"])


def test_callers_pull_with_their_own_logins_and_nobody_else_does(library: Library, folder: Path) -> None:
    image = library.images["multi"]
    with private(library, folder / "private") as (upstream, cache):
        assert crane(folder, "alice", cache, image.tag) == image.digest
        cache.stored()
        reads = upstream.blob_reads(set())
        for who in ("mallory", "nobody"):
            with pytest.raises(ProgramError, match=r"401|UNAUTHORIZED|unauthorized"):
                crane(folder, who, cache, image.tag)
        with pytest.raises(ProgramError, match=r"DENIED|403"):
            crane(folder, "alice", cache, image.tag, f"127.0.0.1:{cache.port}/corp/{NAME}:{image.tag}")
        assert crane(folder, "alice", cache, image.tag) == image.digest
        assert upstream.blob_reads(set()) == reads
