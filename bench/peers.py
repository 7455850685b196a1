"""The servers under measurement: pull-through caches of the same origin, and registries of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import trustme

from bench import tools
from bench.processes import BenchError, Command
from cacheproxy import __version__

CONFIG = "config"
"""Name of a server's configuration in its folder."""
FILL_WITHIN = 120.0
"""Seconds for bench.store; 10 000 images take a tenth of it."""

OURS = """\
[server]
listen = ["127.0.0.1:{port}"]
metrics = "127.0.0.1:{spare_port}"
{tls}
[storage]
state = "{folder}/state"
{extra}
[[upstream]]
registry = "docker.io"
default = true
url = "http://127.0.0.1:{origin}"
allow_addresses = ["127.0.0.0/8"]
"""
LOGIN = "builder:0123456789abcdef0123"
"""Name and secret of an account."""
HOSTING = """
[[account]]
name = "builder"
secret = {{ file = "{folder}/secret" }}
[[grant]]
to = ["user:builder"]
allow = ["pull", "push", "list", "create"]
[[template]]
prefix = "ROOT"
applied_for = ["create-on-push"]
"""
OURS_TLS = 'tls = {{ certificate = "{folder}/server.pem" }}'
ONE_TRANSFER = """
[cache]
parallel = "never"
"""

# One line a request, the access log, as the others write; at its own level "info" it writes two.
DISTRIBUTION = """\
version: 0.1
log:
  level: error
storage:
  filesystem:
    rootdirectory: {folder}/state
http:
  addr: 127.0.0.1:{port}
{tls}
{extra}
"""
DISTRIBUTION_PROXY = """\
proxy:
  remoteurl: http://127.0.0.1:{origin}
"""
DISTRIBUTION_TLS = """\
  tls:
    certificate: {folder}/server.pem
    key: {folder}/server.pem
"""

DRAYAGE = """\
listen = "127.0.0.1:{port}"
cache_dir = "{folder}/state"

[upstreams.docker_io]
registry = "http://127.0.0.1:{origin}"
"""

# The lock's defaults (5 s) send followers of a slow layer upstream: raised, so that it does what it can.
NGINX = """\
daemon off;
user root;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log {folder}/access.log;
  client_body_temp_path {folder}/body;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000;
  proxy_cache_path {folder}/state levels=1:2 keys_zone=cache:16m max_size=64g inactive=1h use_temp_path=off;
  proxy_temp_path {folder}/temp;
  upstream origin {{
    server 127.0.0.1:{origin};
    keepalive 64;
  }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://origin;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_cache cache;
      proxy_cache_valid 200 1h;
      proxy_cache_lock on;
      proxy_cache_lock_timeout 10m;
      proxy_cache_lock_age 10m;
      proxy_max_temp_file_size 4096m;
    }}
  }}
}}
"""


@dataclass(frozen=True)
class Place:
    """What a server is started with: an empty folder of its own, two free ports, the origin's port."""

    folder: Path
    port: int
    spare_port: int
    origin: int


@dataclass(frozen=True)
class Peer:
    name: str
    title: str
    command: Callable[[Place], Command]
    version: Callable[[], str]
    prefix: str = "/v2/"
    """What stands before the repository's name in its paths."""
    fill_store: Callable[[Path, int], None] | None = None
    """Fills the store that a configuration names with so many cached images."""
    secure: bool = False
    """It speaks TLS."""


def _written(place: Place, text: str, extra: str = "", tls: str = "") -> str:
    """The path of the configuration, after writing it; with `tls`, beside a certificate and its key."""
    path = place.folder / CONFIG
    path.write_text(
        text.format(
            folder=place.folder,
            port=place.port,
            spare_port=place.spare_port,
            origin=place.origin,
            extra=extra,
            tls=tls.format(folder=place.folder),
        )
    )
    if tls:
        issued = trustme.CA().issue_cert("127.0.0.1")
        issued.private_key_and_cert_chain_pem.write_to_path(place.folder / "server.pem")
    (place.folder / "state").mkdir(exist_ok=True)
    return str(path)


def ours(extra: str = "", tls: str = "") -> Callable[[Place], Command]:
    """`extra` goes on with [storage], or begins tables of its own."""

    def command(place: Place) -> Command:
        config = _written(place, OURS, extra, tls)
        return Command((sys.executable, "-m", "cacheproxy", "serve", "--config", config), {})

    return command


def _fill_store(config: Path, images: int) -> None:
    argv = (sys.executable, "-m", "bench.store", str(config), str(images))
    done = subprocess.run(argv, capture_output=True, text=True, timeout=FILL_WITHIN, check=False)
    if done.returncode:
        raise BenchError(f"filling the store ended with {done.returncode}: {done.stderr[-2000:]}")


def _distribution(tls: str = "", *, caches: bool = True) -> Callable[[Place], Command]:
    def command(place: Place) -> Command:
        proxy = DISTRIBUTION_PROXY.format(origin=place.origin) if caches else ""
        config = _written(place, DISTRIBUTION, proxy, tls)
        return Command((tools.path("registry"), "serve", config), {"OTEL_TRACES_EXPORTER": "none"})

    return command


def _hosting(place: Place) -> Command:
    (place.folder / "secret").write_text(LOGIN.partition(":")[2])
    return ours(HOSTING.format(folder=place.folder))(place)


def _drayage(place: Place) -> Command:
    return Command((tools.path("drayage"), "serve", "--config", _written(place, DRAYAGE)), {})


def _nginx(place: Place) -> Command:
    config = _written(place, NGINX)
    return Command((tools.path("nginx"), "-p", str(place.folder), "-c", config), {})


def _tool_version(name: str) -> Callable[[], str]:
    return lambda: tools.version(name)


PEERS = {
    peer.name: peer
    for peer in (
        Peer("ours", "cacheproxy", ours(), lambda: __version__, fill_store=_fill_store),
        Peer("single", 'cacheproxy, parallel = "never"', ours(ONE_TRANSFER), lambda: __version__),
        Peer("ours-tls", "cacheproxy, TLS", ours(tls=OURS_TLS), lambda: __version__, secure=True),
        Peer("distribution", "distribution", _distribution(), _tool_version("registry")),
        Peer(
            "distribution-tls",
            "distribution, TLS",
            _distribution(DISTRIBUTION_TLS),
            _tool_version("registry"),
            secure=True,
        ),
        Peer("hosting", "cacheproxy, with an account", _hosting, lambda: __version__),
        Peer(
            "registry",
            "distribution, a registry",
            _distribution(caches=False),
            _tool_version("registry"),
        ),
        Peer("drayage", "drayage", _drayage, _tool_version("drayage"), prefix="/v2/docker.io/"),
        Peer("nginx", "nginx", _nginx, _tool_version("nginx")),
    )
}
