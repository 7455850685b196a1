"""One question to one endpoint: authorised, and followed to where its redirects lead."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import httpx
import trio

from cacheproxy.upstream.body import Chunks, check_identity, content_length, read_whole
from cacheproxy.upstream.exchange import Ask, Sender
from cacheproxy.upstream.pacing import Lane, Pace, Slots
from cacheproxy.upstream.redirects import STATUSES as REDIRECTS
from cacheproxy.upstream.redirects import for_strangers, next_hop, place
from cacheproxy.upstream.refusals import refusal
from cacheproxy.upstream.settings import UpstreamSettings


class Authorizer(Protocol):
    """What says who asks. Raises UpstreamError."""

    async def header(self, scope: str) -> str | None:
        """What to send with a first try; None: nothing, until it asks."""
        ...

    async def answer(self, challenges: str, scope: str, refused: str | None) -> str:
        """What to send after a 401 with these challenges; `refused` is what was sent before."""
        ...


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The upstream itself, or one of its mirrors."""

    url: httpx.URL
    pace: Pace
    authorizer: Authorizer

    def __str__(self) -> str:
        return str(self.url)

    def at(self, target: str) -> httpx.URL:
        """`target` is a path from /v2/ on, with its query."""
        return self.url.copy_with(raw_path=self.url.raw_path.rstrip(b"/") + target.encode("ascii"))


@dataclass(frozen=True, slots=True)
class Call:
    method: str
    target: str
    kind: str
    scope: str
    """Of the token it takes."""
    headers: Sequence[tuple[str, str]] = ()
    accepts: frozenset[int] = frozenset({200})
    """Statuses that are answers; all others are raised."""
    lane: Lane = Lane.CONTROL
    deadline: float = math.inf
    """By trio's clock, for everything."""
    turn: float = math.inf
    """Seconds for the heads on the way, once it is our turn in line."""


@dataclass(frozen=True, slots=True)
class Answer:
    response: httpx.Response
    upstream: str
    host: str
    foreign: bool
    """Not the endpoint's own: it was redirected to."""
    chunks: Chunks

    @property
    def status(self) -> int:
        return self.response.status_code

    @property
    def headers(self) -> httpx.Headers:
        return self.response.headers

    @property
    def length(self) -> int | None:
        return content_length(self.response)

    async def read(self, limit: int) -> bytes:
        """The whole body, of at most `limit` bytes. Raises UpstreamError."""
        return await read_whole(self.chunks, limit, self.upstream)


class Asker:
    def __init__(self, settings: UpstreamSettings, sender: Sender, slots: Slots) -> None:
        self._settings = settings
        self._sender = sender
        self._slots = slots

    @asynccontextmanager
    async def ask(self, endpoint: Endpoint, call: Call) -> AsyncIterator[Answer]:
        """An answer that `call` accepts; a slot is held while it is read. Raises UpstreamError.

        A 401 is answered once: what is sent then is new, or we give up.
        """
        sent = await endpoint.authorizer.header(call.scope)
        async with self._followed(endpoint, call, sent) as answer:
            if not _challenges(answer):
                yield await self._judged(answer, call)
                return
            challenges = answer.headers.get("www-authenticate", "")
        sent = await endpoint.authorizer.answer(challenges, call.scope, refused=sent)
        async with self._followed(endpoint, call, sent) as answer:
            yield await self._judged(answer, call)

    async def _judged(self, answer: Answer, call: Call) -> Answer:
        if answer.status not in call.accepts and not _says_nothing(answer, call):
            raise await refusal(answer.response, answer.host, answer.upstream, foreign=answer.foreign)
        if call.method != "HEAD" and answer.status < 300:
            check_identity(answer.response, answer.upstream)
        return answer

    @asynccontextmanager
    async def _followed(
        self, endpoint: Endpoint, call: Call, authorization: str | None
    ) -> AsyncIterator[Answer]:
        async with self._slots.hold(call.lane, call.deadline):
            response, url, foreign = await self._follow(endpoint, call, authorization)
            settings = self._settings
            body = Chunks(response, url.host, settings.name, settings.stall, settings.minimum_rate)
            async with aclosing(response), aclosing(body) as chunks:
                yield Answer(response, settings.name, url.host, foreign, chunks)

    async def _follow(
        self, endpoint: Endpoint, call: Call, authorization: str | None
    ) -> tuple[httpx.Response, httpx.URL, bool]:
        """The first answer that is no redirect, where it came from, and whether that is a stranger."""
        url, foreign, headers = endpoint.at(call.target), False, self._headers(call, authorization)
        visited, deadline = [url], min(call.deadline, trio.current_time() + call.turn)
        while True:
            ask = Ask(call.method, url, headers, call.kind, call.lane)
            response = await self._sender.send(ask, None if foreign else endpoint.pace, deadline)
            if response.status_code not in REDIRECTS:
                return response, url, foreign
            await response.aclose()
            url = next_hop(url, response.headers.get("location"), visited, self._settings.name)
            visited.append(url)
            if not foreign and place(url) != place(endpoint.url):
                # For good: what comes back from a stranger is his, whatever host it names.
                foreign, headers = True, for_strangers(headers)

    def _headers(self, call: Call, authorization: str | None) -> list[tuple[str, str]]:
        headers = [("User-Agent", self._settings.user_agent), ("Accept-Encoding", "identity"), *call.headers]
        if self._settings.via is not None:
            headers.append(("Via", f"1.1 {self._settings.via}"))
        if authorization is not None:
            headers.append(("Authorization", authorization))
        return headers


def _challenges(answer: Answer) -> bool:
    return answer.status == 401 and not answer.foreign


def _says_nothing(answer: Answer, call: Call) -> bool:
    """A HEAD that an object store refuses: signatures of redirects are made for GET."""
    return call.method == "HEAD" and answer.foreign and answer.status in {400, 401, 403}
