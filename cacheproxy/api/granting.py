"""Who may do what, at the admin socket: the grants of the file and of the rows, and why somebody may."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from cacheproxy.core.access import Access, Address
from cacheproxy.core.errors import OCIError
from cacheproxy.core.query import first, parse_query
from cacheproxy.core.rights import ANONYMOUS, Principal, Right, Rule
from cacheproxy.core.routing import Bare, Routes, Virtual
from cacheproxy.edge.message import Request
from cacheproxy.registry.accounts import Accounts
from cacheproxy.registry.grants import READING, Grants, Standing

BODY_LIMIT = 1 << 20


class GrantWanted(msgspec.Struct):
    to: list[str]
    rights: list[str]
    repositories: list[str]
    networks: list[str] = []
    deny: bool = False


class GrantNamed(msgspec.Struct):
    grant: str


Wanted = TypeVar("Wanted", bound=msgspec.Struct)


class Granting:
    """Handlers raise OCIError and StoreError."""

    def __init__(
        self,
        declared: Sequence[Rule],
        grants: Grants,
        accounts: Accounts,
        access: Access,
        routes: Routes,
        *,
        named: bool,
    ) -> None:
        """`declared`: the rules of the file. `named`: somebody can have a name."""
        self._declared = declared
        self._grants = grants
        self._standing = Standing(declared, grants)
        self._accounts = accounts
        self._access = access
        self._routes = routes
        self._named = named

    def handlers(self) -> Mapping[tuple[str, str], Callable[[Request], Awaitable[Any]]]:
        return {
            ("GET", "/grants"): self._list,
            ("POST", "/grant"): self._add,
            ("POST", "/grant/remove"): self._remove,
            ("GET", "/access"): self._explain,
        }

    async def _list(self, request: Request) -> Any:
        """The file's first: they are managed there, and their name is where."""
        await self._grants.look()
        return [
            *({"grant": rule.source, "managed": True, **_told(rule)} for rule in self._declared),
            *(
                {"grant": str(row.id), "managed": False, **_told(rule), "created": row.created}
                for row, rule in zip(self._grants.known, self._grants.rules, strict=True)
            ),
        ]

    async def _add(self, request: Request) -> Any:
        wanted = await _body(request, GrantWanted)
        if not self._named:
            raise OCIError(
                "UNSUPPORTED",
                "nobody has a name here, so this is only a cache: declare an [[account]], a [[grant]] or"
                " [access] htpasswd first, and send SIGHUP",
                status=409,
            )
        added = self._grants.add(
            wanted.to, wanted.rights, wanted.repositories, wanted.networks, deny=wanted.deny
        )
        return {"grant": str(await added)}

    async def _remove(self, request: Request) -> Any:
        text = (await _body(request, GrantNamed)).grant
        if text in {rule.source for rule in self._declared}:
            said = f"that grant is the configuration's: take it out of the file, at {text}, and send SIGHUP"
            raise OCIError("DENIED", said, status=409)
        if not (text.isascii() and text.isdecimal()) or len(text) > 15:
            said = f"{text[:100]!a} is no grant's number: see `cacheproxy grant list`"
            raise OCIError("UNSUPPORTED", said, status=400)
        await self._grants.remove(int(text))
        return {}

    async def _explain(self, request: Request) -> Any:
        query = parse_query(request.query)
        asked = {name: first(query, name) or "" for name in ("account", "repository", "address")}
        principal = await self._principal(asked["account"], query.get("group", ()))
        names = self._names(asked["repository"])
        address = _address(asked["address"]) if asked["address"] else None
        await self._grants.look()
        return {
            "account": ANONYMOUS if principal is None else principal.name,
            "groups": [] if principal is None else sorted(principal.groups),
            "repositories": [self._rights(principal, name, address) for name in names],
        }

    async def _principal(self, account: str, groups: Sequence[str]) -> Principal | None:
        """Of whom an issuer or a certificate vouches for, nothing is known here but what is asked."""
        if account == ANONYMOUS:
            return None
        name = account if ":" in account else f"user:{account}"
        if not name.startswith("user:"):
            return Principal(name, frozenset(groups))
        principal = await self._accounts.named(name)
        if principal is None:
            said = f"there is no account {account[:150]!a}: neither in the configuration nor by command"
            raise OCIError("UNSUPPORTED", said, status=404)
        return principal

    def _names(self, text: str) -> list[str]:
        """A bare name may be a hosted repository, or an image of the default upstream."""
        meant = self._routes.meaning(text, None, "")
        if isinstance(meant, Virtual):
            return [meant.name, *meant.places]
        if not isinstance(meant, Bare):
            return [meant.repository]
        return [meant.name, *([] if meant.default is None else [meant.default.repository])]

    def _rights(self, principal: Principal | None, repository: str, address: Address | None) -> Any:
        rules = self._standing.rules
        mask = rules.classify(address)
        matching = list(rules.matching(principal, repository, mask))
        public = self._access.may_pull(self._access.classify(address), repository)
        held = rules.rights(principal, repository, mask) | (READING if public else frozenset())
        return {
            "repository": repository,
            "rights": [right for right in Right if right in held],
            "because": [
                *({"rule": rule.source, **_told(rule)} for rule in matching),
                *([{"rule": "access.anonymous_pull", "allow": sorted(READING)}] if public else []),
            ],
        }


def _told(rule: Rule) -> dict[str, Any]:
    return {
        "to": sorted(rule.to),
        "deny" if rule.deny else "allow": [right for right in Right if right in rule.rights],
        "repositories": list(rule.repositories.texts),
        "networks": list(map(str, rule.networks)),
    }


def _address(text: str) -> Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError as error:
        raise OCIError("UNSUPPORTED", f"not an address: {error}", status=400) from None


async def _body(request: Request, kind: type[Wanted]) -> Wanted:
    try:
        return msgspec.json.decode(await request.read_body(BODY_LIMIT), type=kind, strict=True)
    except msgspec.MsgspecError as error:
        raise OCIError("UNSUPPORTED", f"not what is asked for here: {error}", status=400) from error
