"""All doors at once: listeners, who answers at them, and the order in which they close."""

from __future__ import annotations

import resource
from collections.abc import Callable, Mapping
from functools import partial as bind
from typing import NamedTuple

import structlog
import trio

from cacheproxy import request_log
from cacheproxy.api.meter import Meter
from cacheproxy.config import Config
from cacheproxy.edge.limits import Limits
from cacheproxy.edge.listeners import Passed, describe, open_listeners
from cacheproxy.edge.message import Application, Exchange, Log
from cacheproxy.edge.server import serve
from cacheproxy.entrance import Entrance

log = structlog.get_logger()


class Applications(NamedTuple):
    """By who comes to them (edge.message.Application)."""

    clients: Application
    operators: Application
    commands: Application


async def serve_all(
    config: Config,
    passed: Passed,
    entrance: Entrance,
    applications: Applications,
    observe: Log,
    ready: Callable[[str], None],
    drain: trio.Event,
    task_status: trio.TaskStatus[Mapping[str, list[str]]],
) -> None:
    """All doors, open until `drain`; the operators' ones close after the clients' one."""
    listeners = await trio.to_thread.run_sync(open_listeners, config.server.listen, passed)
    metrics = await trio.to_thread.run_sync(open_listeners, (config.server.metrics,), passed)
    admin = await trio.to_thread.run_sync(open_listeners, (f"unix:{config.admin_socket}",))
    for name in passed:
        if f"systemd:{name}" not in (*config.server.listen, config.server.metrics):
            # Its clients would connect, and wait for ever.
            log.warning("a socket of the service manager is not in server.listen", name=name)
    bound = {
        "listen": [describe(listener) for listener in listeners],
        "metrics": [describe(listener) for listener in metrics],
        "admin": [describe(listener) for listener in admin],
    }
    closed = trio.Event()
    inside = bind(serve, limits=Limits(), log=request_log.unlogged, drain=closed)
    async with trio.open_nursery() as doors:
        await doors.start(inside, metrics, applications.operators)
        await doors.start(inside, admin, applications.commands)
        log.info(
            "serving", upstreams=len(config.upstreams), **{door: " ".join(bound[door]) for door in bound}
        )
        ready(f"serving on {' '.join(bound['listen'])}")
        task_status.started(bound)
        await serve(
            listeners,
            applications.clients,
            limits=Limits.within(resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
            forwarding=entrance.forwarding,
            log=observe,
            drain=drain,
            tls=entrance.context,
        )
        closed.set()


def observer(meter: Meter, write: Log) -> Log:
    def observe(exchange: Exchange) -> None:
        meter.count(exchange)
        write(exchange)

    return observe
