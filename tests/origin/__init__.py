"""A scripted origin: an upstream registry on loopback that counts, paces, and misbehaves on command.

It shares no code with cacheproxy, so that a mistake is not made twice. In a test:

    origin = Origin()
    digest = origin.add_image("library/thing", "1", layers=(b"one", b"two"))
    await nursery.start(origin.serve)
    origin.fault({"kind": "blob"}, faults.truncate(2), times=1)

As a process: `python -m tests.origin --help`.
"""

from __future__ import annotations

from tests.origin import faults
from tests.origin.content import Content
from tests.origin.plan import Framing, Plan
from tests.origin.seen import Seen
from tests.origin.server import Origin

__all__ = ["Content", "Framing", "Origin", "Plan", "Seen", "faults"]
