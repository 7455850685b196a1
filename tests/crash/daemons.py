"""Daemons in processes of their own, to be killed: as an operator starts them, or from a warm nest."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from tests.faults.client import Address, Heard, ask

READY_WITHIN = 60.0
"""Seconds from the start to READY. It takes one; a machine that others keep busy makes it many."""

END_WITHIN = 20.0

CONFIG = """\
[server]
listen = ["127.0.0.1:0"]
metrics = "127.0.0.1:0"
[log]
requests = false
format = "json"
[storage]
state = "{state}"
[cache]
budget = "{budget}"
min_free = "0%"
finish_fill = "0%"
parallel = {{ from = "1MiB", ranges = 3 }}
[[upstream]]
registry = "docker.io"
prefix = "docker-hub"
default = true
url = "{url}"
allow_addresses = ["127.0.0.0/8"]
fresh = [{{ tags = "**", for = "0s" }}]
missing_for = "0s"
"""


PROGRAM = """
from cacheproxy.cli import main
from cacheproxy.registry import fillfile
fillfile.CHECKPOINT_SECONDS, fillfile.CHECKPOINT_BYTES = 0.05, 64 << 10
main(prog_name="cacheproxy")
"""
"""`python -m cacheproxy`, but with journals for downloads as short as these tests have them."""


class DidNotStart(AssertionError):
    """With what it said."""


@dataclass(frozen=True)
class Daemon:
    pid: int
    ended: Callable[[], Awaitable[int]]
    """Waits for its end; its exit code, as subprocess has it."""
    clients: Address
    operators: Address
    admin: Path
    ready_after: float
    """Seconds."""

    async def ask(self, path: str, method: str = "GET", **headers: str) -> Heard:
        return await ask(self.clients, path, method, headers)

    async def command(self, path: str, **values: object) -> tuple[int, Any]:
        """POST to the admin socket: status and answer. Raises OSError and trio.BrokenResourceError."""
        body = json.dumps(values).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        said = b""
        async with await trio.open_unix_socket(self.admin) as stream:
            await stream.send_all(head.encode() + body)
            async for data in stream:
                said += data
        if not said:
            raise BrokenPipeError("no answer to a command")
        first, _, answer = said.partition(b"\r\n\r\n")
        return int(first.split(b" ")[1]), json.loads(answer)

    async def metric(self, name: str) -> float:
        """All its labels together."""
        lines = (await ask(self.operators, "/metrics")).body.decode().splitlines()
        found = [line.rpartition(" ") for line in lines if line.partition(" ")[0].partition("{")[0] == name]
        return sum(float(value) for _, _, value in found)

    def signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    async def kill(self) -> None:
        self.signal(signal.SIGKILL)
        with trio.fail_after(END_WITHIN):
            await self.ended()

    async def stop(self) -> int:
        self.signal(signal.SIGTERM)
        with trio.fail_after(END_WITHIN):
            return await self.ended()


@asynccontextmanager
async def served(config: Path) -> AsyncIterator[Daemon]:
    """`cacheproxy serve`, killed on the way out."""
    log, began = config.with_suffix(".log"), trio.current_time()
    command = [sys.executable, "-c", PROGRAM, "serve", "--config", str(config)]
    with log.open("wb") as output:
        process = await trio.lowlevel.open_process(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        yield await _ready(process.pid, process.wait, lambda: process.returncode, log, began)
    finally:
        process.kill()
        await process.wait()


async def examined(config: Path) -> Any:
    """What `cacheproxy fsck --deep --json` says, beside a daemon or without one."""
    command = [sys.executable, "-m", "cacheproxy", "fsck", "--config", str(config), "--deep", "--json"]
    with trio.fail_after(READY_WITHIN):
        done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
    if done.returncode not in (0, 1):
        raise AssertionError(f"fsck ended with {done.returncode}: {done.stderr.decode()[-1000:]}")
    said = json.loads(done.stdout)
    assert bool(said["findings"]) == bool(done.returncode)
    return said


async def fsck(config: Path) -> list[str]:
    """What it finds."""
    return [f"fsck: {finding}" for finding in (await examined(config))["findings"]]


class Nest:
    """A process that has all of the program loaded, and forks: a daemon is there in a tenth of the time."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._said = bytearray()

    @asynccontextmanager
    async def daemon(
        self,
        config: Path,
        plan: Mapping[str, object] | None = None,
        *,
        quick: bool = False,
        grace: float | None = None,
    ) -> AsyncIterator[Daemon]:
        """One at a time; `plan` is for steps.py, `quick` for quick.py, `grace` the age from which on files go
        that have no row. Raises DidNotStart."""
        log, began = config.with_suffix(".log"), trio.current_time()
        log.write_bytes(b"")
        order = {"config": str(config), "log": str(log), "plan": plan, "quick": quick, "grace": grace}
        assert self._process.stdin is not None
        await self._process.stdin.send_all(json.dumps(order).encode() + b"\n")
        pid, over, code = await self._number(), trio.Event(), list[int]()

        async def ended() -> int:
            await over.wait()
            return code[0]

        async def watch() -> None:
            code.append(await self._number())
            over.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            try:
                yield await _ready(pid, ended, lambda: code[0] if code else None, log, began)
            finally:
                if not over.is_set():
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                    with trio.CancelScope(shield=True), trio.move_on_after(END_WITHIN):
                        await over.wait()

    async def _number(self) -> int:
        assert self._process.stdout is not None
        while b"\n" not in self._said:
            data = await self._process.stdout.receive_some()
            assert data, "the nest is gone"
            self._said += data
        line, _, rest = self._said.partition(b"\n")
        self._said[:] = rest
        return int(line)


@asynccontextmanager
async def nest() -> AsyncIterator[Nest]:
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "tests.crash.nest"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        yield Nest(process)
    finally:
        process.kill()
        await process.wait()
        assert process.stdin is not None
        assert process.stdout is not None
        await process.stdin.aclose()
        await process.stdout.aclose()


async def _ready(
    pid: int, ended: Callable[[], Awaitable[int]], code: Callable[[], int | None], log: Path, began: float
) -> Daemon:
    doors = dict[str, str]()
    with trio.move_on_after(READY_WITHIN):
        while code() is None and not doors:
            await trio.sleep(0.005)
            if found := re.search(rb"^.*\"serving\".*$", _read(log), re.MULTILINE):
                doors = json.loads(found[0])
        while code() is None and doors:
            with suppress(OSError):
                if (await ask(_address(doors["metrics"]), "/readyz")).status == 200:
                    break
            await trio.sleep(0.005)
    if not doors or code() is not None:
        raise DidNotStart(f"exit {code()}: {_read(log)[-3000:].decode()}")
    clients, operators = _address(doors["listen"]), _address(doors["metrics"])
    admin = Path(doors["admin"].removeprefix("unix:"))
    return Daemon(pid, ended, clients, operators, admin, trio.current_time() - began)


def _read(log: Path) -> bytes:
    return log.read_bytes()


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    return host, int(port)
