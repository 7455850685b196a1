"""Workloads without a secret of ours: a job's token for crane and skopeo, a certificate for skopeo."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.certificates import Certificate
from tests.e2e.clients import NAME as OFFICIAL_NAME
from tests.e2e.images import Library
from tests.e2e.programs import ProgramError, installed, packaged, run
from tests.e2e.servers import Daemon, daemon, distribution
from tests.edge.clients import authority
from tests.registry.issuer import AUDIENCE, EC, jwks, signed

CLOSED = "[access]\nanonymous_pull = []\n"
NOBODY = "http://127.0.0.1:9"
GRANTS = """
[[grant]]
to = [{to}]
allow = ["pull", "push", "list", "create"]
repositories = "team/**"
[[template]]
prefix = "ROOT"
applied_for = ["create-on-push"]
"""
ISSUER = """
[[access.oidc]]
issuer = "{issuer}"
audience = "cacheproxy"
principal = "ci:{{repository}}"
claims = {{ repository_owner = "acme" }}
allow_addresses = ["127.0.0.0/8"]
"""


class Publishes(http.server.BaseHTTPRequestHandler):
    """An issuer's two documents."""

    def do_GET(self) -> None:
        own = f"http://{self.headers['Host']}"
        body = jwks(EC)
        if self.path.endswith("/openid-configuration"):
            body = json.dumps({"issuer": own, "jwks_uri": f"{own}/keys"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, *_: Any) -> None:
        """Nobody reads it."""


@contextlib.contextmanager
def issuer() -> Iterator[str]:
    """What its tokens have as `iss`."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Publishes) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def token(name: str, repository: str) -> str:
    now = int(time.time())
    times = {"iat": now, "nbf": now, "exp": now + 900}
    owner, _, _ = repository.partition("/")
    return signed(
        {"iss": name, "aud": AUDIENCE, "repository": repository, "repository_owner": owner, **times}
    )


@pytest.fixture
def source(library: Library, folder: Path) -> Iterator[str]:
    """An image, in somebody else's registry: its host."""
    with distribution(library.store, folder / "source") as registry:
        yield registry.host


@contextlib.contextmanager
def trusting(folder: Path, name: str) -> Iterator[Daemon]:
    """A daemon that knows nobody but the jobs of acme/app."""
    options = ISSUER.format(issuer=name) + GRANTS.format(to='"ci:acme/app"')
    with daemon(folder, NOBODY, cache=CLOSED, options=options) as started:
        yield started


def test_crane_logs_in_with_a_jobs_token_and_pushes(library: Library, folder: Path, source: str) -> None:
    image, crane = library.images["multi"], installed("crane")
    with issuer() as name, trusting(folder / "daemon", name) as registry:
        target = f"{registry.host}/team/debian:1"
        copy = [crane, "copy", "--insecure", f"{source}/{OFFICIAL_NAME}:multi", target]
        for stranger in ("acme/other", "mallory/app"):
            run([crane, "auth", "login", "-u", "x", "-p", token(name, stranger), registry.host], folder)
            with pytest.raises(ProgramError, match=r"401 Unauthorized|UNAUTHORIZED"):
                run(copy, folder)
        run([crane, "auth", "login", "-u", "any", "-p", token(name, "acme/app"), registry.host], folder)
        run(copy, folder)
        assert run([crane, "digest", "--insecure", target], folder).strip() == image.digest


def test_skopeo_logs_in_with_a_jobs_token_and_pushes(library: Library, folder: Path, source: str) -> None:
    skopeo, insecure = packaged("skopeo"), ("--src-tls-verify=false", "--dest-tls-verify=false")
    with issuer() as name, trusting(folder / "daemon", name) as registry:
        more = {"REGISTRY_AUTH_FILE": str(folder / "auth.json")}
        login = [skopeo, "login", "--tls-verify=false", "-u", "any", registry.host, "-p"]
        with pytest.raises(ProgramError):
            run([*login, token(name, "mallory/app")], folder, more)
        run([*login, token(name, "acme/app")], folder, more)
        there, target = f"docker://{source}/{OFFICIAL_NAME}:oci", f"docker://{registry.host}/team/debian:1"
        run([skopeo, "--insecure-policy", "copy", *insecure, "--all", there, target], folder, more)
        run([skopeo, "inspect", "--tls-verify=false", target], folder, more)


def test_skopeo_pushes_with_a_certificate(library: Library, folder: Path, source: str) -> None:
    clients = authority("clients")
    shown, home = clients.issue(("CN", "build-7")), folder / "daemon"
    server = Certificate(home)
    (home / "clients.pem").write_bytes(clients.pem)
    certificates = folder / "certificates"
    certificates.mkdir()
    (certificates / "ca.crt").write_bytes(server.authority.read_bytes())
    tls = f'{server.server.removesuffix("}")}, client_ca = "clients.pem" }}'
    access = CLOSED + 'mtls = { principal = "host:{CN}" }\n'
    options = GRANTS.format(to='"host:build-7"')
    with daemon(home, NOBODY, server=tls, cache=access, options=options) as registry:
        there, target = f"docker://{source}/{OFFICIAL_NAME}:oci", f"docker://{registry.host}/team/debian:1"
        copy = [packaged("skopeo"), "--insecure-policy", "copy", "--src-tls-verify=false", "--all"]
        command = [*copy, "--dest-cert-dir", str(certificates), there, target]
        with pytest.raises(ProgramError, match="unauthorized"):
            run(command, folder)
        (certificates / "client.cert").write_bytes(shown.pem)
        (certificates / "client.key").write_bytes(shown.key_pem)
        run(command, folder)
