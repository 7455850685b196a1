"""Issuers of tokens and certificates of clients, as they are configured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cacheproxy.config.federation import MTLS, OIDC, is_reachable
from cacheproxy.config.values import Surroundings

ISSUER = {"issuer": "https://token.actions.example", "audience": "cacheproxy", "principal": "ci:{repository}"}


def oidc(folder: Path = Path(), **keys: Any) -> OIDC:
    return OIDC.model_validate({**ISSUER, **keys}, context=Surroundings(folder, {}))


def test_three_keys_are_enough() -> None:
    issuer = oidc()
    assert (issuer.groups, issuer.claims, issuer.jwks) == ((), {}, None)


def test_claims_are_patterns() -> None:
    issuer = oidc(claims={"repository_owner": "acme", "ref": ("refs/heads/main", "refs/tags/*")})
    assert issuer.claims["ref"].matches("refs/tags/v1")
    assert not issuer.claims["repository_owner"].matches("other")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"issuer": ""}, "is no issuer"),
        ({"issuer": "a b"}, "is no issuer"),
        ({"issuer": "http://token.actions.example"}, "begins with https://"),
        ({"issuer": "token.actions.example"}, "begins with https://"),
        ({"issuer": "kubernetes/serviceaccount"}, "or its keys in a file"),
        ({"jwks_uri": "http://token.actions.example/keys"}, "jwks_uri that begins with https://"),
        ({"audience": ""}, "at least 1 character"),
        ({"principal": "{repository}"}, "kind of its own"),
        ({"principal": "group:{repository}"}, "names a group"),
        ({"principal": "ci:{a}{b}"}, 'needs a ":" between'),
        ({"principal": "ci:{a"}, "other characters"),
        ({"groups": ("{a}{b}",)}, 'needs a ":" between'),
        ({"claims": {"ref": "a b"}}, "not a pattern"),
        ({"claims": {"ref": 7}}, "must be a pattern"),
        ({"jwks": "nowhere.json"}, "there is no"),
    ],
)
def test_what_is_wrong_is_told(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        oidc(**keys)


@pytest.mark.parametrize("key", ["jwks_uri", "proxy", "allow_addresses"])
def test_keys_in_a_file_are_not_fetched(key: str, tmp_path: Path) -> None:
    (tmp_path / "keys.json").touch()
    assert oidc(tmp_path, issuer="kubernetes/serviceaccount", jwks="keys.json").jwks is not None
    values = {
        "jwks_uri": "https://a.example/keys",
        "proxy": "http://proxy.example:3128",
        "allow_addresses": ("10.0.0.0/8",),
    }
    with pytest.raises(ValidationError, match="has its keys in jwks"):
        oidc(tmp_path, jwks="keys.json", **{key: values[key]})


@pytest.mark.parametrize(
    ("url", "reachable"),
    [
        ("https://a.example", True),
        ("https://a.example:8443/realms/x", True),
        ("http://127.0.0.1:8080", True),
        ("http://[::1]:8080", True),
        ("http://localhost", True),
        ("http://localhost.example", False),
        ("http://127.0.0.1.example", False),
        ("http://10.0.0.1", False),
        ("https://", False),
        ("ftp://a.example", False),
        ("https://[", False),
        ("", False),
    ],
)
def test_nobody_is_asked_without_tls_but_on_this_host(url: str, reachable: bool) -> None:
    assert is_reachable(url) == reachable


def test_a_certificate_means_the_account_of_its_common_name() -> None:
    assert (MTLS().principal, MTLS().groups) == ("user:{CN}", ())


@pytest.mark.parametrize("principal", ["host:{DNS}", "workload:{URI}", "cert:{O}:{OU}:{CN}", "mail:{email}"])
def test_a_certificate_may_mean_somebody_else(principal: str) -> None:
    assert MTLS(principal=principal).principal == principal


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"principal": "host:{IP}"}, "which no certificate has; it may have CN, O, OU"),
        ({"principal": "group:{CN}"}, "names a group"),
        ({"principal": "{CN}"}, "kind of its own"),
        ({"groups": ("{team}",)}, "which no certificate has"),
    ],
)
def test_what_no_certificate_says_is_refused(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        MTLS.model_validate(keys)
