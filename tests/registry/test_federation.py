"""Who is vouched for, by tokens and certificates, and for how long that is believed."""

from __future__ import annotations

import pytest

from cacheproxy.core.patterns import Patterns
from cacheproxy.core.rights import Principal
from cacheproxy.core.subjects import Claims, Proof, Subjects, Template
from cacheproxy.registry.federation import Federation, Proven, Refused
from cacheproxy.registry.issuerkeys import Pinned, parse
from cacheproxy.registry.oidc import Issuer, Issuers
from tests.registry.issuer import AUDIENCE, CLAIMS, EC, NAME, NOW, jwks, signed

BY_TOKEN = Subjects(
    Template("ci:{repository}"), (Template("gh-{repository_owner}"),), {"repository_owner": Patterns("acme")}
)
BY_CERTIFICATE = Subjects(Template("user:{CN}"))
ALICE = Principal("user:alice", frozenset({"team"}))
SHOWN: Claims = {"CN": ("alice",), "O": ("Example",)}


class House:
    """An issuer, an authority, and one account."""

    def __init__(self, certificates: Subjects | None = BY_CERTIFICATE) -> None:
        self.now = NOW
        self.accounts = {"user:alice": ALICE}
        self.subjects = BY_TOKEN
        keys = Pinned(parse(jwks(EC)))
        issuers = Issuers([Issuer(NAME, AUDIENCE, self.subjects, keys, lambda: self.now)])
        self.federation = Federation(issuers, certificates, self.account, lambda: self.now)

    async def account(self, name: str) -> Principal | None:
        return self.accounts.get(name)


async def test_a_token_proves_a_principal_until_it_ends() -> None:
    house = House()
    assert await house.federation.token(signed()) == Proven(
        Principal("ci:acme/app", frozenset({"gh-acme"})),
        Proof(NAME, {"repository": ("acme/app",), "repository_owner": ("acme",)}),
        NOW + 300,
    )


async def test_what_is_proven_is_asked_again_from_the_proof_alone() -> None:
    house = House()
    proven = await house.federation.token(signed())
    assert await house.federation.principal(proven.proof) == proven.principal
    assert await house.federation.principal(Proof("https://other.example", proven.proof.claims)) is None
    assert await house.federation.principal(Proof("", proven.proof.claims)) is None
    assert await house.federation.principal(Proof(NAME, {"repository": ("acme/app",)})) is None


@pytest.mark.parametrize("name", ["repository", "repository_owner"])
async def test_a_token_without_what_is_needed_is_refused(name: str) -> None:
    said = {key: value for key, value in CLAIMS.items() if key != name}
    with pytest.raises(Refused, match=f'the token of {NAME} has no "{name}"'):
        await House().federation.token(signed(said))


async def test_a_token_of_nobody_that_is_known_is_refused() -> None:
    house = House()
    other = signed({**CLAIMS, "iss": "https://other.example"})
    assert not house.federation.knows(other)
    assert house.federation.knows(signed())
    with pytest.raises(Refused, match="not known here"):
        await house.federation.token(other)


async def test_a_certificate_is_its_accounts_with_the_groups_of_that() -> None:
    proven = await House().federation.certificate("CN=alice", SHOWN, NOW + 9)
    assert proven == Proven(ALICE, Proof("", {"CN": ("alice",)}), NOW + 9)


async def test_a_certificate_ends_with_its_account() -> None:
    house = House()
    proven = await house.federation.certificate("CN=alice", SHOWN, NOW + 9)
    house.accounts.clear()
    assert await house.federation.principal(proven.proof) is None
    with pytest.raises(Refused, match="CN=alice is of user:alice, and there is no such account"):
        await house.federation.certificate("CN=alice", SHOWN, NOW + 9)


async def test_a_certificate_ends_on_a_connection_that_lasts() -> None:
    house = House()
    house.now += 9
    with pytest.raises(Refused, match="the client certificate CN=alice has expired"):
        await house.federation.certificate("CN=alice", SHOWN, NOW + 9)


async def test_certificates_that_mean_nothing_any_more_are_refused() -> None:
    house = House(certificates=None)
    with pytest.raises(Refused, match="mean nothing here"):
        await house.federation.certificate("CN=alice", SHOWN, NOW + 9)
    assert await house.federation.principal(Proof("", {"CN": ("alice",)})) is None


@pytest.mark.parametrize("name", ["", "alice:x", "al ice", "a" * 200, "../alice"])
async def test_a_name_that_no_account_has_is_nobody(name: str) -> None:
    with pytest.raises(Refused):
        await House().federation.certificate("CN", {"CN": (name,)}, NOW + 9)
