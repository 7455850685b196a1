"""Who is known here without a secret of ours: by an issuer's token, or by a certificate."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from cacheproxy.config.base import Section
from cacheproxy.config.values import File, Network, PatternList, ProxyURL
from cacheproxy.core.subjects import OF_CERTIFICATES, Template, kind_of

OURS = "group"
"""A kind of names that nobody can vouch for."""


def _template(text: str) -> str:
    Template(text)
    return text


def _principal(text: str) -> str:
    if kind_of(_template(text)) == OURS:
        raise ValueError("names a group, and not somebody; write groups = [...] beside it")
    return text


def _of_certificates(text: str) -> str:
    unknown = [claim for claim in Template(text).claims if claim not in OF_CERTIFICATES]
    if unknown:
        known = ", ".join(OF_CERTIFICATES)
        raise ValueError(f"names {unknown[0]!a}, which no certificate has; it may have {known}")
    return text


PrincipalTemplate = Annotated[str, AfterValidator(_principal)]
"""The name of a principal, with claims in braces."""
GroupTemplate = Annotated[str, AfterValidator(_template)]


def _issuer(text: str) -> str:
    if not text or not text.isprintable() or any(blank in text for blank in " \t"):
        raise ValueError('is no issuer; write what its tokens have as "iss"')
    return text


def is_reachable(url: str) -> bool:
    """It can be asked without a doubt about who answers: by TLS, or on this host."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and _is_here(host)))


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


class OIDC(Section):
    """An issuer of tokens (OpenID Connect) that workloads or people have, and who they are here."""

    issuer: Annotated[str, AfterValidator(_issuer)]
    """To the letter what its tokens have as `iss`; its keys are found below it, unless told otherwise."""
    audience: str = Field(min_length=1)
    """What its tokens have as `aud` when they are for us."""
    principal: PrincipalTemplate
    """Who a token is for, as "ci:{repository}"; "user:..." is an account of that name, which must exist."""
    groups: tuple[GroupTemplate, ...] = ()
    """Of its principals, as "ci" or "ci-{repository_owner}"; a claim with a list gives a group for each."""
    claims: Mapping[str, PatternList] = Field(default_factory=dict)
    """What a token must have besides, or it is nobody's."""
    jwks: File | None = None
    """Its keys, in a file: then nothing is fetched."""
    jwks_uri: str = ""
    """Where its keys are; default: what /.well-known/openid-configuration below the issuer says."""
    ca: File | None = None
    """PEM certificates to trust beside the system's."""
    proxy: ProxyURL | None = None
    allow_addresses: tuple[Network, ...] = ()
    """Addresses that are not public, and may yet be connected to."""

    @model_validator(mode="after")
    def _has_keys(self) -> Self:
        if self.jwks is not None:
            if self.jwks_uri or self.ca or self.proxy or self.allow_addresses:
                raise ValueError("has its keys in jwks: take out jwks_uri, ca, proxy and allow_addresses")
        elif not is_reachable(self.jwks_uri or self.issuer):
            what = "jwks_uri" if self.jwks_uri else "issuer"
            raise ValueError(f"needs an {what} that begins with https://, or its keys in a file: jwks")
        return self


class MTLS(Section):
    """Who the certificates of server.tls.client_ca are for."""

    principal: Annotated[PrincipalTemplate, AfterValidator(_of_certificates)] = "user:{CN}"
    """As "user:{CN}" for accounts, or "host:{DNS}", "workload:{URI}" for what has none."""
    groups: tuple[Annotated[GroupTemplate, AfterValidator(_of_certificates)], ...] = ()
    """As "{OU}"; of several values each is a group. An account has its own."""
