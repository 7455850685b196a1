"""A configuration tried without a network and without a daemon: what the files hold that it names."""

from __future__ import annotations

import os
from collections.abc import Awaitable
from typing import NamedTuple

import trio

from cacheproxy import hosting, issuers, secretkey, webhooks, wiring
from cacheproxy.config import BucketURL, Config, Secret, ServerCertificate, Upstream
from cacheproxy.groups import leaves
from cacheproxy.registry.sealing import Seal
from cacheproxy.store.errors import StoreError


class Tried(NamedTuple):
    problems: list[str]
    """What the daemon would not start with."""
    warnings: list[str]


async def tried(config: Config) -> Tried:
    """The server's certificate with its key, the upstreams' ones, passwords, the keys of bucket and rows."""
    found = Tried([], [])
    if config.server.tls is not None:
        await _try(found, _certificate(config.server.tls, found.warnings))
    for upstream in config.upstreams:
        await _try(found, _upstream(upstream))
    if config.storage.key is not None and not _elsewhere(config.storage.key):
        await _try(found, secretkey.configured(Seal(), config.storage))
    for webhook in config.webhooks:
        if webhook.secret is None or not _elsewhere(webhook.secret):
            await _try(found, webhooks.tried(webhook))
    if config.access.htpasswd is not None:
        await _try(found, hosting.passwords(config.access.htpasswd))
    await _try(found, issuers.KeyRings().open(config.access.oidc))
    found.warnings.extend(_known_to_all(config))
    keys = config.storage.objects.credentials
    if isinstance(config.storage.blobs, BucketURL) and (keys is None or not _elsewhere(keys)):
        await _try(found, wiring.open_bucket(config.storage.blobs, config.storage.objects))
    return found


def _known_to_all(config: Config) -> list[str]:
    """Issuers that serve strangers too, as those of public CI systems do."""
    if not any("*" in grant.to and grant.allow for grant in config.grants):
        return []
    return [
        f'access.oidc: whoever has a token of {issuer.issuer} for "{issuer.audience}" has what [[grant]]'
        ' gives to "*"; say by claims whose tokens are meant, unless all of them are'
        for issuer in config.access.oidc
        if not issuer.claims
    ]


async def _try(found: Tried, look: Awaitable[object]) -> None:
    try:
        await look
    except* (wiring.CannotStart, StoreError) as group:
        found.problems.extend(map(str, leaves(group)))


def _elsewhere(secret: Secret) -> bool:
    """It is the service manager's, and this is not the service."""
    return secret.credential is not None and "CREDENTIALS_DIRECTORY" not in os.environ


async def _certificate(section: ServerCertificate, warnings: list[str]) -> None:
    if section.key is not None and _elsewhere(section.key):
        warnings.append("server.tls: not tried, for its key is a credential that only the service has")
        return
    shown = await wiring.server_certificate(section)
    if shown is not None and shown.doubt:
        warnings.append(f"server.tls: {section.certificate} {shown.doubt}")


async def _upstream(upstream: Upstream) -> None:
    certificate = upstream.client_certificate
    if certificate is not None and certificate.key is not None and _elsewhere(certificate.key):
        return
    async with trio.open_nursery() as nursery:
        settings = wiring.upstream_settings(upstream, "cacheproxy")
        async with wiring.open_registry(settings, nursery):
            nursery.cancel_scope.cancel()
