"""The scripted origin: a registry that answers well until told otherwise, and remembers what it was asked."""

from __future__ import annotations

import re
import ssl
from functools import partial

import trio

from tests.origin.auth import challenge, issue
from tests.origin.content import Body, Bytes, Content, Manifest
from tests.origin.control import control
from tests.origin.faults import Fault, Match, Rule
from tests.origin.plan import Plan, document, error
from tests.origin.seen import Seen, recognise
from tests.origin.wire import Closed, Wire

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class Origin:
    """`await nursery.start(origin.serve)`, then `origin.url`. Every attribute may change while it runs."""

    def __init__(self, content: Content | None = None) -> None:
        self.content = content or Content()
        self.add_blob = self.content.add_blob
        self.add_pattern_blob = self.content.add_pattern_blob
        self.add_manifest = self.content.add_manifest
        self.add_image = self.content.add_image
        self.add_index = self.content.add_index
        self.add_referrer = self.content.add_referrer
        self.url = ""
        self.rate: float | None = None
        """Bytes a second of a blob's body, per connection; None: as fast as it goes."""
        self.latency = 0.0
        """Seconds before each answer."""
        self.ranges = True
        self.accept_ranges_header = True
        self.etag = True
        self.referrers_api = True
        self.redirect_blobs_to: str | None = None
        """A URL before "/_storage/<digest>", which any origin with the same content answers without auth."""
        self.refusing = False
        """Connections are reset as soon as they are accepted."""
        self.page: int | None = None
        """Most tags in one answer."""
        self.headers: dict[str, str] = {}
        """Added to every answer: RateLimit-Remaining and the like."""
        self.auth: str | None = None
        """None, "basic" or "bearer"."""
        self.users: dict[str, str] = {}
        self.readers: dict[str, set[str | None]] = {}
        """Who may read a repository (None: who gives no name); everybody what is not in it."""
        self.anonymous = True
        """The token endpoint answers requests without credentials."""
        self.token_seconds = 300
        """How long a token says it lives, and does."""
        self.realm: str | None = None
        """Another token endpoint in the challenge."""
        self.tokens: dict[str, tuple[frozenset[str], float]] = {}
        """Token → (repositories it may pull, when it ends). Clear it, and everybody must come again."""
        self.seen: list[Seen] = []
        self.connections = 0
        """Accepted so far."""
        self.rules: list[Rule] = []

    def fault(self, match: Match, do: Fault, times: int | None = None, skip: int = 0) -> Rule:
        """Answers to what matches are changed by `do`, after `skip` that are not, `times` times.

        `match` is a function of the Seen, or attributes of it that must be equal (`path`: a regex in it).
        The first rule that takes a request is the only one for it; `heal` ends them all.
        """
        rule = Rule(match, do, times, skip)
        self.rules.append(rule)
        return rule

    def heal(self) -> None:
        self.rules.clear()
        self.refusing = False

    def blob_transfers(self, digest: str) -> int:
        """How many 200 and 206 answers to GET of it were begun."""
        return sum(1 for seen in self.seen if seen.carries_blob and seen.reference == digest)

    def bytes_sent(self, digest: str) -> int:
        """Body bytes of it that were written to sockets, all transfers together."""
        return sum(seen.sent for seen in self.seen if seen.carries_blob and seen.reference == digest)

    def requests(self, kind: str, method: str | None = None) -> int:
        return sum(1 for seen in self.seen if seen.kind == kind and method in {None, seen.method})

    async def serve(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        ssl_context: ssl.SSLContext | None = None,
        *,
        task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until cancelled. Starts with its URL."""
        listeners = await trio.open_tcp_listeners(port, host=host)
        taken = listeners[0].socket.getsockname()[1]
        self.url = f"{'https' if ssl_context else 'http'}://{host}:{taken}"
        async with trio.open_nursery() as nursery:
            handler = partial(self._accepted, ssl_context)
            await nursery.start(partial(trio.serve_listeners, handler, listeners))
            task_status.started(self.url)

    async def _accepted(self, ssl_context: ssl.SSLContext | None, raw: trio.SocketStream) -> None:
        self.connections += 1
        number = self.connections
        try:
            if self.refusing:
                await Wire(raw).reset()
            if ssl_context is None:
                await self._converse(Wire(raw), number)
            else:
                stream = trio.SSLStream(raw, ssl_context, server_side=True, https_compatible=True)
                await self._converse(Wire(stream), number)
        except Closed:
            pass

    async def _converse(self, wire: Wire, number: int) -> None:
        again = True
        while again:
            method, target, headers = await wire.read_head()
            seen = recognise(method, target, headers, trio.current_time(), number)
            seen.body = await wire.read_body(headers)
            again = await self._answer(wire, seen) and headers.get("connection", "").lower() != "close"

    async def _answer(self, wire: Wire, seen: Seen) -> bool:
        return await wire.answer(self._plan(seen), seen)

    def _plan(self, seen: Seen) -> Plan:
        if seen.kind == "control":
            return control(self, seen)
        self.seen.append(seen)
        plan = self._honest(seen)
        plan.headers.update(self.headers)
        plan.delay += self.latency
        if plan.paced:
            plan.rate = self.rate
        for rule in list(self.rules):
            if rule.takes(seen):
                rule.do(plan)
                break
        return plan

    def _honest(self, seen: Seen) -> Plan:
        now = trio.current_time()
        if seen.kind == "token":
            return issue(self, seen, now)
        if seen.kind == "storage":
            return self._bytes(seen, self.content.blobs.get(seen.reference))
        if seen.method not in {"GET", "HEAD"}:
            return error(405, "UNSUPPORTED", "read only")
        refused = challenge(self, seen, now)
        return refused or self._open(seen)

    def _open(self, seen: Seen) -> Plan:
        answers = {
            "ping": self._ping,
            "catalog": self._catalog,
            "manifest": self._manifest,
            "blob": self._blob,
            "tags": self._tags,
            "referrers": self._referrers,
        }
        answer = answers.get(seen.kind)
        return answer(seen) if answer else error(404, "UNSUPPORTED", "no such route")

    def _ping(self, _seen: Seen) -> Plan:
        return document({}, {"Docker-Distribution-API-Version": "registry/2.0"})

    def _catalog(self, _seen: Seen) -> Plan:
        return document({"repositories": sorted(self.content.manifests)})

    def _manifest(self, seen: Seen) -> Plan:
        found = self.content.manifest(seen.repo, seen.reference)
        if found is None:
            return error(404, "MANIFEST_UNKNOWN", "manifest unknown")
        return _manifest_plan(found)

    def _blob(self, seen: Seen) -> Plan:
        body = self.content.blob(seen.repo, seen.reference)
        if body is not None and self.redirect_blobs_to is not None:
            return Plan(307, {"Location": f"{self.redirect_blobs_to}/_storage/{seen.reference}"})
        return self._bytes(seen, body)

    def _bytes(self, seen: Seen, body: Body | None) -> Plan:
        if body is None:
            return error(404, "BLOB_UNKNOWN", "blob unknown to registry")
        headers = {"Content-Type": "application/octet-stream", "Docker-Content-Digest": seen.reference}
        etag = f'"{seen.reference}"'
        if self.etag:
            headers["ETag"] = etag
        if self.ranges and self.accept_ranges_header:
            headers["Accept-Ranges"] = "bytes"
        if_range = seen.headers.get("if-range", etag)
        span = _span(seen.range, body.size) if self.ranges and if_range == etag else (0, body.size, 200)
        if span is None:
            return error(416, "RANGE_INVALID", "no such bytes", {"Content-Range": f"bytes */{body.size}"})
        start, stop, code = span
        if code == 206:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{body.size}"
        return Plan(code, headers, body, start, stop, whole=body, paced=True)

    def _tags(self, seen: Seen) -> Plan:
        if seen.repo not in self.content.manifests:
            return error(404, "NAME_UNKNOWN", "repository name not known to registry")
        last = seen.query.get("last", [""])[0]
        asked = int(seen.query.get("n", ["1000000"])[0])
        count = min(asked, self.page or asked)
        tags = sorted(tag for tag in self.content.tags[seen.repo] if tag > last)
        headers = {}
        if len(tags) > count > 0:
            headers["Link"] = f'</v2/{seen.repo}/tags/list?n={count}&last={tags[count - 1]}>; rel="next"'
        return document({"name": seen.repo, "tags": tags[:count]}, headers)

    def _referrers(self, seen: Seen) -> Plan:
        if not self.referrers_api:
            return error(404, "UNSUPPORTED", "no such route")
        wanted = seen.query.get("artifactType", [None])[0]
        headers = {"Content-Type": "application/vnd.oci.image.index.v1+json"}
        if wanted is not None:
            headers["OCI-Filters-Applied"] = "artifactType"
        return Plan(200, headers, Bytes(self.content.referrers(seen.repo, seen.reference, wanted)))


def _manifest_plan(found: Manifest) -> Plan:
    headers = {
        "Content-Type": found.media_type,
        "Docker-Content-Digest": found.digest,
        "ETag": f'"{found.digest}"',
    }
    return Plan(200, headers, Bytes(found.body))


def _span(header: str | None, size: int) -> tuple[int, int, int] | None:
    """(start, stop, status) of a Range header; None: 416. What is not one plain range gets everything."""
    found = _RANGE.fullmatch(header or "")
    if found is None or found.group() == "bytes=-":
        return 0, size, 200
    first, last = found.groups()
    if not first:
        return (max(size - int(last), 0), size, 206) if int(last) else None
    start, stop = int(first), min(int(last or size) + 1, size)
    return (start, stop, 206) if start < size and start < stop else None
