"""What doctor finds where traces go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from cacheproxy.commands.checks import Finding

if TYPE_CHECKING:
    from cacheproxy.config import Config


async def collector(config: Config) -> list[Finding]:
    """Whether it takes spans: a daemon starts without one that does, but not without the libraries."""
    endpoint = config.traces.endpoint
    if not endpoint:
        return []
    try:
        from cacheproxy.tracing.collector import unproven
    except ImportError as error:
        return [Finding("fail", "traces", str(error), "install cacheproxy[otel]")]
    reason = await trio.to_thread.run_sync(unproven, endpoint)
    if reason:
        advice = "look at traces.endpoint and at the collector's OTLP/HTTP receiver; requests are served"
        return [Finding("warn", "traces", f"{endpoint} takes no spans: {reason}", advice)]
    return [Finding("ok", "traces", f"{endpoint} takes spans")]
