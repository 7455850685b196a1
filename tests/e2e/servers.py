"""Servers on loopback, each in its own folder: distribution's registry, our daemon, the scripted origin."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.processes import Command, answers, free_port, running, wait_until
from tests.e2e.programs import REPOSITORY, environment, installed

DISTRIBUTION = """\
version: 0.1
log:
  level: info
storage:
  filesystem:
    rootdirectory: {store}
http:
  addr: 127.0.0.1:{port}
{more}
"""
DAEMON = """\
[server]
listen = ["{address}:{port}"]
metrics = "127.0.0.1:{metrics_port}"
{server}

[storage]
state = "{folder}/state"
{storage}
{cache}
[[upstream]]
registry = "docker.io"
prefix = "docker-hub"
url = "{upstream}"
default = true
allow_addresses = ["127.0.0.0/8"]
{options}
"""
STORED_WITHIN = 60.0
LOGGED_WITHIN = 5.0
"""Seconds from an answer to its line in the access log, on a busy machine."""
_BLOB_READ = re.compile(r'"GET /v2/\S+/blobs/(?P<digest>[^?\s]+)\S* HTTP/1\.1" 20[06] ')


@dataclass
class Server:
    """One running process."""

    port: int
    log: Path
    process: subprocess.Popen[bytes]
    address: str = field(default="127.0.0.1", kw_only=True)

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    @property
    def host(self) -> str:
        return f"{self.address}:{self.port}"


class Distribution(Server):
    def blob_reads(self, wanted: Set[str]) -> Counter[str]:
        """How often each blob was sent, by the access log, which may be a little late with those wanted."""
        deadline = time.monotonic() + LOGGED_WITHIN
        while True:
            reads = Counter(found["digest"] for found in _BLOB_READ.finditer(self.log.read_text()))
            if wanted <= set(reads) or time.monotonic() > deadline:
                return reads
            time.sleep(0.05)

    def requests(self) -> int:
        return self.log.read_text().count(' HTTP/1.1" ')


@dataclass
class Daemon(Server):
    metrics_port: int
    ends_with: int = 0
    """The exit status that `daemon` expects in the end."""

    def kill(self) -> None:
        """As a power cut would, but for the page cache."""
        self.process.kill()
        self.process.wait()
        self.ends_with = -signal.SIGKILL

    def metric(self, name: str, **labels: str) -> float:
        """A metric's value, all of it together that has these labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return sum(
            float(line.rpartition(" ")[2])
            for line in lines
            if re.split(r"[ {]", line)[0] == name and all(each in line for each in wanted)
        )

    def stored(self) -> None:
        """Wait until what was fetched is stored: clients have it before."""
        deadline = time.monotonic() + STORED_WITHIN
        while self.metric("cacheproxy_fills_running"):
            assert time.monotonic() < deadline
            time.sleep(0.05)


class OriginProcess(Server):
    images: list[dict[str, Any]]

    def ask(self, path: str, **body: Any) -> Any:
        """One of the origin's own routes: GET without a body, else POST."""
        data = json.dumps(body).encode() if path != "/_seen" else None
        with urllib.request.urlopen(urllib.request.Request(self.url + path, data), timeout=10) as answer:
            return json.load(answer)

    def transfers(self, digest: str) -> list[dict[str, Any]]:
        """The requests that carried bytes of a blob, in order."""
        return [
            seen
            for seen in self.ask("/_seen")["seen"]
            if seen["reference"] == digest and seen["method"] == "GET" and seen["status"] in {200, 206}
        ]


@contextmanager
def distribution(store: Path, folder: Path, more: str = "") -> Iterator[Distribution]:
    """Distribution's registry over what `store` holds; `more` are lines of its configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    port, log, config = free_port(), folder / "distribution.log", folder / "distribution.yml"
    config.write_text(DISTRIBUTION.format(store=store, port=port, more=more))
    with running(Command([installed("registry"), "serve", str(config)], environment(folder)), log) as process:
        wait_until(lambda: answers(port, "/v2/"), process, log)
        yield Distribution(port, log, process)


@contextmanager
def daemon(
    folder: Path,
    upstream: str,
    *,
    address: str = "127.0.0.1",
    port: int = 0,
    server: str = "",
    storage: str = "",
    cache: str = "",
    options: str = "",
) -> Iterator[Daemon]:
    """Our daemon in front of `upstream`, which it calls docker.io and asks for bare names too."""
    folder.mkdir(parents=True, exist_ok=True)
    log, config = folder / "daemon.log", folder / "cacheproxy.toml"
    port, metrics_port = port or free_port(), free_port()
    config.write_text(
        DAEMON.format(
            address=address,
            port=port,
            metrics_port=metrics_port,
            folder=folder,
            upstream=upstream,
            server=server,
            storage=storage,
            cache=cache,
            options=options,
        )
    )
    argv = [sys.executable, "-m", "cacheproxy", "serve", "--config", str(config)]
    with running(Command(argv, {**environment(folder), "PYTHONPATH": str(REPOSITORY)}), log) as process:
        wait_until(lambda: answers(metrics_port, "/readyz"), process, log)
        started = Daemon(port, log, process, metrics_port, address=address)
        yield started
    assert process.returncode == started.ends_with, log.read_text()[-2000:]
    assert "Traceback" not in log.read_text()


@contextmanager
def origin(folder: Path, *options: str) -> Iterator[OriginProcess]:
    """The scripted origin as a process of its own: its counts outlive whatever the daemon goes through."""
    folder.mkdir(parents=True, exist_ok=True)
    port, log = free_port(), folder / "origin.log"
    argv: Sequence[str] = [sys.executable, "-m", "tests.origin", "--port", str(port), *options]
    with running(Command(argv, {"PYTHONPATH": str(REPOSITORY)}), log) as process:
        wait_until(lambda: log.stat().st_size > 0, process, log)
        started = OriginProcess(port, log, process)
        started.images = json.loads(log.read_text().splitlines()[0])["images"]
        yield started
