"""What must hold between those who can have a name and what is said of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cacheproxy.config.checks import Conflict
from cacheproxy.config.hosting import Grant
from cacheproxy.config.sections import Access, Server
from cacheproxy.config.toml_lines import Key
from cacheproxy.core.subjects import kind_of


def name_conflicts(
    server: Server | None, access: Access | None, grants: Sequence[tuple[int, Grant]]
) -> Iterator[Conflict]:
    if access is None:
        return
    yield from _issuers(access)
    if server is not None and access.mtls is not None and (server.tls is None or not server.tls.client_ca):
        text = "means nothing without server.tls.client_ca: no client is asked for a certificate"
        yield Conflict(("access", "mtls"), text, ("access", "mtls"))
    yield from _kinds(access, grants)


def _issuers(access: Access) -> Iterator[Conflict]:
    seen: dict[str, Key] = {}
    for number, each in enumerate(access.oidc):
        key: Key = ("access", "oidc", number, "issuer")
        if each.issuer in seen:
            text = f'"{each.issuer}" is declared at {{other}} already; keep one of the two'
            yield Conflict(key, text, seen[each.issuer])
        seen.setdefault(each.issuer, key)


def _kinds(access: Access, grants: Sequence[tuple[int, Grant]]) -> Iterator[Conflict]:
    """Nobody is called what no issuer and no certificate calls anybody."""
    templates = [each.principal for each in access.oidc]
    if access.mtls is not None:
        templates.append(access.mtls.principal)
    known = {"user", "group", *map(kind_of, templates)}
    for number, grant in grants:
        for place, word in enumerate(grant.to):
            kind, colon, _ = word.partition(":")
            if colon and kind not in known:
                names = ", ".join(f'"{each}:..."' for each in sorted(known))
                key: Key = ("grant", number, "to", place)
                yield Conflict(
                    key, f'is nobody\'s name; here there are {names}, and "*" for all of them', key
                )
