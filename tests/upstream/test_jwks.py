"""Where an issuer's keys are found, and what is not believed of what it publishes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from ipaddress import ip_network

import pytest

from cacheproxy.core.failures import Cause, UpstreamError
from cacheproxy.upstream import jwks
from cacheproxy.upstream.dialer import Dialer
from cacheproxy.upstream.gate import AddressGate
from cacheproxy.upstream.jwks import IssuerSettings, PublishedKeys
from cacheproxy.upstream.tls import client_context
from tests.issuing import Issuing, answer, issuing

DISCOVERY = "/.well-known/openid-configuration"
HERE = (ip_network("127.0.0.0/8"),)
CONTEXT = client_context()


def published(issuer: str, jwks_uri: str = "", *, closed: bool = False) -> PublishedKeys:
    gate = AddressGate(() if closed else HERE)
    return PublishedKeys(IssuerSettings(issuer, jwks_uri), Dialer(gate, CONTEXT))


async def refused(keys: PublishedKeys) -> UpstreamError:
    with pytest.raises(UpstreamError) as failed:
        await keys.fetch()
    assert failed.value.upstream == keys.settings.issuer
    return failed.value


async def test_the_issuers_document_says_where_its_keys_are() -> None:
    async with issuing() as issuer:
        assert await published(issuer.name).fetch() == issuer.keys
        assert issuer.asked == [DISCOVERY, "/keys"]


async def test_an_issuer_whose_name_ends_with_a_slash_is_found() -> None:
    async with issuing() as issuer:
        issuer.named = f"{issuer.name}/"
        assert await published(issuer.named).fetch() == issuer.keys
        assert issuer.asked == [DISCOVERY, "/keys"]


async def test_told_where_its_keys_are_nothing_else_is_asked() -> None:
    async with issuing() as issuer:
        assert await published("https://a.example", f"{issuer.name}/keys").fetch() == issuer.keys
        assert issuer.asked == ["/keys"]


WRONG: Mapping[str, tuple[Mapping[str, bytes], Cause, str]] = {
    "none": ({DISCOVERY: answer(b"", "404 Not Found")}, Cause.SERVER, "answered 404"),
    "elsewhere": (
        {DISCOVERY: answer(b"", "302 Found", "Location: http://127.0.0.1/")},
        Cause.GATE,
        "redirects, which is not followed",
    ),
    "no document": ({DISCOVERY: answer(b"<html>")}, Cause.PROTOCOL, "names no jwks_uri"),
    "a deep document": ({DISCOVERY: answer(b"[" * 50_000)}, Cause.PROTOCOL, "names no jwks_uri"),
    "another's": (
        {DISCOVERY: answer(json.dumps({"issuer": "https://b.example", "jwks_uri": "x"}).encode())},
        Cause.PROTOCOL,
        "of another issuer, 'https://b.example'",
    ),
    "large": ({"/keys": answer(b" " * (jwks.LARGEST + 1))}, Cause.PROTOCOL, "more than 262144 bytes"),
    "encoded": ({"/keys": answer(b"{}", "200 OK", "Content-Encoding: gzip")}, Cause.PROTOCOL, "gzip"),
    "no HTTP": ({"/keys": b"nonsense\r\n\r\n"}, Cause.PROTOCOL, "no HTTP with"),
}


@pytest.mark.parametrize("case", WRONG)
async def test_what_is_wrong_with_it_is_named(case: str) -> None:
    answers, cause, words = WRONG[case]
    async with issuing() as issuer:
        issuer.answers = dict(answers)
        error = await refused(published(issuer.name))
    assert error.cause is cause
    assert words in error.message


@pytest.mark.parametrize("place", ["nonsense", "ftp://a.example/keys", "http://", "file:///etc/x"])
async def test_keys_that_are_nowhere_are_refused(place: str) -> None:
    async with issuing() as issuer:
        document = json.dumps({"issuer": issuer.name, "jwks_uri": place}).encode()
        issuer.answers[DISCOVERY] = answer(document)
        assert (await refused(published(issuer.name))).cause is Cause.PROTOCOL


def test_tls_is_not_given_up_for_the_keys() -> None:
    keys = published("https://a.example")
    said = json.dumps({"issuer": "https://a.example", "jwks_uri": "http://a.example/keys"}).encode()
    with pytest.raises(UpstreamError, match="without TLS") as failed:
        keys._discovered(said)
    assert failed.value.cause is Cause.GATE


async def test_a_private_address_is_not_asked_unless_listed() -> None:
    async with issuing() as issuer:
        assert (await refused(published(issuer.name, closed=True))).cause is Cause.GATE
        assert issuer.asked == []


async def test_an_issuer_that_says_nothing_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "SECONDS", 0.2)

    async def never(issuer: Issuing) -> None:
        issuer.silent = True
        assert (await refused(published(issuer.name))).cause is Cause.TIMEOUT

    async with issuing() as issuer:
        await never(issuer)
