"""The door of the commands: JSON over HTTP on a unix socket, for whoever may open it. Not for clients."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, TypeVar

import msgspec
import structlog

from cacheproxy.api.meter import outcomes
from cacheproxy.api.ready import ReadyAnswers
from cacheproxy.core import events
from cacheproxy.core.digest import Digest
from cacheproxy.core.errors import OCIError, Unavailable
from cacheproxy.core.events import By
from cacheproxy.core.image import DEFAULT_TAG, parse_image
from cacheproxy.core.query import first, parse_query
from cacheproxy.core.routing import Routes, Target
from cacheproxy.edge.message import BodyBroken, BodyTooLarge, Peer, Ready, Request, Response
from cacheproxy.registry.collection import Collector, Pass
from cacheproxy.registry.condition import Watch
from cacheproxy.registry.inventory import Inventory
from cacheproxy.registry.issued import Issued
from cacheproxy.registry.pins import Pins
from cacheproxy.registry.prefetch import Prefetch, Wished
from cacheproxy.registry.quarantine import Quarantine
from cacheproxy.registry.removal import Purge
from cacheproxy.registry.scrub import Scrub

log = structlog.get_logger()

_encode = msgspec.json.Encoder(enc_hook=str).encode
"""Digests are strings of their own kind."""

Handler = Callable[[Request], Awaitable[Any]]
"""Returns what is sent as JSON. Raises OCIError for what is wrong with the request."""


DAMAGE = 20
"""Damaged blobs that are told of, the last ones: a person looks at the disk after three."""

BODY_LIMIT = 1 << 20
"""Bytes: thousands of references to prefetch."""


class Reference(msgspec.Struct):
    reference: str


class PurgeWanted(Reference):
    dry_run: bool = False


class PrefetchWanted(msgspec.Struct):
    references: list[str]
    platforms: list[str]


class CollectionWanted(msgspec.Struct):
    dry_run: bool = False
    anyway: bool = False


class AccountNamed(msgspec.Struct):
    name: str


class AccountWanted(AccountNamed):
    groups: list[str] = []
    seconds: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """None: for ever."""


class ScrubWanted(msgspec.Struct):
    references: list[str]
    """None: all that is stored."""


Wanted = TypeVar("Wanted", bound=msgspec.Struct)


class AdminDoor:
    """edge.message.Application for the admin socket."""

    def __init__(
        self,
        routes: Routes,
        ready: ReadyAnswers,
        watch: Watch,
        inventory: Inventory,
        purge: Purge,
        pins: Pins,
        prefetch: Prefetch,
        scrub: Scrub,
        quarantine: Quarantine,
        collector: Collector,
        accounts: Issued,
        further: Mapping[tuple[str, str], Handler] = MappingProxyType({}),
    ) -> None:
        self._names = routes
        self._ready = ready
        self._watch = watch
        self._inventory = inventory
        self._removal = purge
        self._pinning = pins
        self._prefetching = prefetch
        self._scrubbing = scrub
        self._quarantine = quarantine
        self._collector = collector
        self._accounts = accounts
        self._handlers: dict[tuple[str, str], Handler] = {
            ("GET", "/status"): self._status,
            ("GET", "/use"): self._use,
            ("GET", "/explain"): self._explain,
            ("GET", "/pins"): self._pins,
            ("POST", "/pin"): self._pin,
            ("POST", "/unpin"): self._unpin,
            ("POST", "/purge"): self._purge,
            ("POST", "/prefetch"): self._prefetch,
            ("GET", "/job"): self._job,
            ("POST", "/scrub"): self._scrub,
            ("GET", "/scrub"): self._scrubbed,
            ("POST", "/gc"): self._gc,
            ("GET", "/gc"): self._collected,
            **further,
            ("GET", "/accounts"): self._listed,
            ("POST", "/account"): self._add,
            ("POST", "/account/revoke"): self._revoke,
        }

    def immediate(self, method: str, target: str, headers: dict[str, str], peer: Peer) -> Ready | None:
        return None

    async def handle(self, request: Request) -> Response:
        structlog.contextvars.bind_contextvars(request=request.id)
        events.by.set(By("admin socket", request.id, method=request.method))
        handler = self._handlers.get((request.method, request.path))
        if handler is None:
            return _refusal(404, f"there is no {request.method} {request.path} here")
        try:
            return _json(200, await handler(request))
        except OCIError as error:
            return _refusal(error.status, error.message)
        except (BodyTooLarge, BodyBroken):
            raise
        except Unavailable as error:
            log.warning("request not served", target=request.target, error=str(error))
            return _refusal(503, f"{error.told} ({error})")
        except Exception as error:
            log.exception("request failed", target=request.target)
            return _refusal(500, f"{type(error).__name__}: {error}")

    def refuse(self, status: int, message: str, request_id: str) -> Response:
        return _refusal(status, message)

    async def _status(self, request: Request) -> Any:
        try:
            damage: Any = (await self._quarantine.damage())[:DAMAGE]
        except Unavailable:  # all else can be told all the same
            damage = []
        return {"condition": self._watch.condition(), "requests": outcomes(), "damage": damage}

    async def _use(self, request: Request) -> Any:
        return await self._inventory.use()

    async def _explain(self, request: Request) -> Any:
        text = first(parse_query(request.query), "reference") or ""
        virtual = self._names.virtual(parse_image(text).name)
        if virtual is not None:
            return await self._inventory.explain_first(virtual, parse_image(text).reference or DEFAULT_TAG)
        target, reference = self._meant(text)
        return await self._inventory.explain(target, reference or DEFAULT_TAG)

    async def _purge(self, request: Request) -> Any:
        wanted = await _body(request, PurgeWanted)
        target, reference = self._meant(wanted.reference)
        purged = await self._removal.purge(target, reference, earnest=not wanted.dry_run)
        if not wanted.dry_run:
            self._ready.clear()
        return purged

    async def _prefetch(self, request: Request) -> Any:
        """A job, whose progress is asked for: it outlives the connection."""
        asked = await _body(request, PrefetchWanted)
        wanted = []
        for text in asked.references:
            target, reference = self._meant(text)
            wanted.append(Wished(text, target, reference or DEFAULT_TAG))
        return {"job": self._prefetching.start(wanted, asked.platforms)}

    async def _job(self, request: Request) -> Any:
        return self._prefetching.progress(first(parse_query(request.query), "job") or "")

    async def _scrub(self, request: Request) -> Any:
        wanted = await _body(request, ScrubWanted)
        if not wanted.references:
            return await self._scrubbing.ask(None)
        stored = [digest for text in wanted.references for digest in await self._stored(text)]
        return await self._scrubbing.ask(stored)

    async def _stored(self, text: str) -> list[Digest]:
        """The blobs of an image that are here."""
        target, reference = self._meant(text)
        told = await self._inventory.explain(target, reference or DEFAULT_TAG)
        found = [blob.digest for image in told.images for blob in image.blobs if blob.here]
        if not found:
            raise OCIError("MANIFEST_UNKNOWN", f"nothing of {text} is stored here")
        return [Digest.parse(digest) for digest in found]

    async def _scrubbed(self, request: Request) -> Any:
        progress = await self._scrubbing.progress()
        return {**dataclasses.asdict(progress), "damage": (await self._quarantine.damage())[:DAMAGE]}

    async def _gc(self, request: Request) -> Any:
        wanted = await _body(request, CollectionWanted)
        return self._told(self._collector.ask(earnest=not wanted.dry_run, anyway=wanted.anyway))

    async def _collected(self, request: Request) -> Any:
        number = first(parse_query(request.query), "number") or ""
        known = number.isdecimal() and len(number) < 10
        return self._told(self._collector.progress(int(number) if known else 0))

    def _told(self, wish: Pass) -> Any:
        return {**dataclasses.asdict(wish), "state": self._collector.state()}

    async def _listed(self, request: Request) -> Any:
        return await self._accounts.all()

    async def _add(self, request: Request) -> Any:
        wanted = await _body(request, AccountWanted)
        return {"secret": await self._accounts.add(wanted.name, wanted.groups, wanted.seconds)}

    async def _revoke(self, request: Request) -> Any:
        wanted = await _body(request, AccountNamed)
        await self._accounts.revoke(wanted.name)
        return {}

    async def _pins(self, request: Request) -> Any:
        return await self._pinning.all()

    async def _pin(self, request: Request) -> Any:
        target, reference = self._meant((await _body(request, Reference)).reference)
        return await self._pinning.pin(target, reference or DEFAULT_TAG)

    async def _unpin(self, request: Request) -> Any:
        target, reference = self._meant((await _body(request, Reference)).reference)
        return await self._pinning.unpin(target, reference or DEFAULT_TAG)

    def _meant(self, text: str) -> tuple[Target, Digest | str | None]:
        """The repository and the reference that a person means; None: only the repository was named."""
        image = parse_image(text)
        return self._names.resolve(image.name, None, ""), image.reference


async def _body(request: Request, kind: type[Wanted]) -> Wanted:
    try:
        return msgspec.json.decode(await request.read_body(BODY_LIMIT), type=kind, strict=True)
    except msgspec.MsgspecError as error:
        raise OCIError("UNSUPPORTED", f"not what is asked for here: {error}", status=400) from error


def _refusal(status: int, message: str) -> Response:
    return _json(status, {"error": message})


def _json(status: int, value: Any) -> Response:
    return Response(status, [("Content-Type", "application/json")], _encode(value))
