"""One token, fetched: the requests of distribution's "Token Authentication Specification" and "OAuth2 Token
Authentication", and what may come back."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import urlencode

import httpx
import msgspec
import trio

from cacheproxy.core.failures import Cause, UpstreamError
from cacheproxy.upstream import metrics
from cacheproxy.upstream.body import Chunks, check_identity, read_whole
from cacheproxy.upstream.credentials import Credentials
from cacheproxy.upstream.exchange import Ask, Sender, retry_after
from cacheproxy.upstream.pacing import Lane, Paces, Slots
from cacheproxy.upstream.redirects import STATUSES as REDIRECTS
from cacheproxy.upstream.refusals import cause_of_status

SECONDS = 15.0
"""For one request to a token server, whole."""

LARGEST = 16 << 10
"""Bytes of its answer. Tokens have 1-5 KiB."""

SHORTEST, LONGEST = 60.0, 3600.0
"""Seconds a token is believed to live, whatever it says: 60 is the specification's default and docker's
floor, an hour the most that registries give."""

CLIENT_ID = "cacheproxy"

_NO_OAUTH = frozenset({400, 404, 405, 501})
"""How a token server says that it knows GET only."""

_TOKEN = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class Realm:
    """A bearer challenge that passed the gate."""

    url: httpx.URL
    service: str
    scope: str


@dataclass(frozen=True, slots=True)
class Token:
    text: str = field(repr=False)
    seconds: float
    """How long it lives, from when it was fetched."""


class _Reply(msgspec.Struct):
    token: str = ""
    access_token: str = ""
    expires_in: int | float | None = None


class TokenServer:
    def __init__(
        self,
        upstream: str,
        user_agent: str,
        sender: Sender,
        slots: Slots,
        paces: Paces,
    ) -> None:
        self._upstream = upstream
        self._user_agent = user_agent
        self._sender = sender
        self._slots = slots
        self._paces = paces

    async def fetch(self, realm: Realm, credentials: Credentials | None) -> Token:
        """A token for the realm's scope; anonymous without credentials. Raises UpstreamError."""
        try:
            token = await self._fetch(realm, credentials)
        except UpstreamError as error:
            metrics.TOKEN_REQUESTS.labels(self._upstream, error.cause.value).inc()
            raise
        metrics.TOKEN_REQUESTS.labels(self._upstream, "ok").inc()
        return token

    async def _fetch(self, realm: Realm, credentials: Credentials | None) -> Token:
        if credentials is not None and credentials.identity_token is not None:
            status, body = await self._post(realm, credentials.identity_token)
            if status not in _NO_OAUTH:
                return self._token(status, body)
        return self._token(*await self._get(realm, credentials))

    async def _get(self, realm: Realm, credentials: Credentials | None) -> tuple[int, bytes]:
        asked = {"service": realm.service, "scope": realm.scope}
        url = realm.url.copy_merge_params({name: value for name, value in asked.items() if value})
        headers = [] if credentials is None else [("Authorization", credentials.basic)]
        return await self._send("GET", url, headers)

    async def _post(self, realm: Realm, identity_token: str) -> tuple[int, bytes]:
        form = {
            "grant_type": "refresh_token",
            "refresh_token": identity_token,
            "service": realm.service,
            "scope": realm.scope,
            "client_id": CLIENT_ID,
        }
        headers = [("Content-Type", "application/x-www-form-urlencoded")]
        return await self._send("POST", realm.url, headers, urlencode(form).encode())

    async def _send(
        self, method: str, url: httpx.URL, headers: list[tuple[str, str]], content: bytes = b""
    ) -> tuple[int, bytes]:
        """The status and the body, which is only ever for us. Raises UpstreamError for what is no answer."""
        ours = [
            ("Accept", "application/json"),
            ("Accept-Encoding", "identity"),
            ("User-Agent", self._user_agent),
        ]
        ask = Ask(method, url, ours + headers, "token", Lane.CONTROL, content)
        async with self._slots.hold(Lane.CONTROL):
            deadline = trio.current_time() + SECONDS
            response = await self._sender.send(ask, self._paces.of(url), deadline)
            try:
                return response.status_code, await self._read(response, url.host, deadline)
            finally:
                await response.aclose()

    async def _read(self, response: httpx.Response, host: str, deadline: float) -> bytes:
        status = response.status_code
        if status in REDIRECTS:
            raise UpstreamError(Cause.GATE, f"token server {host} redirects", self._upstream, status=status)
        if status == 429 or cause_of_status(status) is Cause.SERVER:
            what, wait = f"token server {host} answered {status}", retry_after(response)
            raise UpstreamError(
                cause_of_status(status), what, self._upstream, status=status, retry_after=wait
            )
        check_identity(response, self._upstream)
        chunks = Chunks(response, host, self._upstream, SECONDS, rate=0)
        with trio.CancelScope(deadline=deadline):
            try:
                return await read_whole(chunks, LARGEST, self._upstream)
            finally:
                await chunks.aclose()
        raise UpstreamError(Cause.TIMEOUT, f"token server {host} sends too slowly", self._upstream)

    def _token(self, status: int, body: bytes) -> Token:
        if status != 200:
            raise UpstreamError(Cause.AUTH, f"token server answered {status}", self._upstream, status=status)
        try:
            reply = msgspec.json.decode(body, type=_Reply)
        except (msgspec.DecodeError, RecursionError):
            raise UpstreamError(Cause.PROTOCOL, "token server sends no token", self._upstream) from None
        text = reply.token or reply.access_token
        if _TOKEN.fullmatch(text) is None:  # it becomes a header
            raise UpstreamError(Cause.PROTOCOL, "token server sends no token", self._upstream)
        return Token(text, min(max(reply.expires_in or 0.0, SHORTEST), LONGEST))
