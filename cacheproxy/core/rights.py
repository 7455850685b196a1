"""Who may do what: rights, whom they are given to, and which one each request needs.

A right is given to principals for repositories by a rule; a rule may also take away, and then no other gives.
Who may pull without a name is in `access.py`, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from cacheproxy.core import operations as ops
from cacheproxy.core.access import Address, Network, within
from cacheproxy.core.patterns import Patterns


class Right(StrEnum):
    PULL = "pull"
    """Manifests, blobs, tags and referrers."""
    PUSH = "push"
    DELETE = "delete"
    LIST = "list"
    """To see the repository in the catalog."""
    CREATE = "create"
    """To push into a repository that is not there yet, and so make it."""
    ADMIN = "admin"
    """Its settings, its name, its end."""


NEEDS: Mapping[tuple[type[ops.Operation], str], Right | None] = {
    (ops.Ping, "GET"): None,
    (ops.Catalog, "GET"): None,
    (ops.Manifest, "GET"): Right.PULL,
    (ops.Manifest, "PUT"): Right.PUSH,
    (ops.Manifest, "DELETE"): Right.DELETE,
    (ops.Blob, "GET"): Right.PULL,
    (ops.Blob, "DELETE"): Right.DELETE,
    (ops.Uploads, "POST"): Right.PUSH,
    (ops.Upload, "GET"): Right.PUSH,
    (ops.Upload, "PATCH"): Right.PUSH,
    (ops.Upload, "PUT"): Right.PUSH,
    # Not DELETE: podman ends an upload that a mount did not need, with the token that it pushes with.
    (ops.Upload, "DELETE"): Right.PUSH,
    (ops.Tags, "GET"): Right.PULL,
    (ops.Referrers, "GET"): Right.PULL,
}
"""The right in its repository that a request needs; HEAD is as GET. None: any right anywhere is enough, and
the catalog shows what the caller may list. What is not here is not done."""


def methods(operation: type[ops.Operation]) -> tuple[str, ...]:
    """For the Allow header (RFC 9110, 10.2.1)."""
    allowed = [method for known, method in NEEDS if known is operation]
    return tuple(each for method in allowed for each in (("GET", "HEAD") if method == "GET" else (method,)))


NAME = r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}"
"""Of accounts and groups: no ":", which ends the name in Basic credentials (RFC 7617)."""


@dataclass(frozen=True, slots=True)
class Principal:
    name: str
    """"user:terraform", "ci:team/app": what kind it is, and its name among those."""
    groups: frozenset[str] = frozenset()
    """Without "group:"."""

    @property
    def words(self) -> frozenset[str]:
        """What a rule may call it."""
        return frozenset({"*", self.name, *(f"group:{group}" for group in self.groups)})


ANONYMOUS = "anonymous"
"""What a rule calls who gives no name; "*" is everyone who gives one."""


KIND = r"[a-z][a-z0-9-]{0,31}"
OTHER = rf"(?!user:|group:){KIND}:[A-Za-z0-9][A-Za-z0-9._@+:/=~-]{{0,254}}"
"""Of principals that have no account, but whom somebody else vouches for: "ci:team/app"."""

WORD = re.compile(rf"(?:user|group):{NAME}|{OTHER}|\*")
"""What a rule may call those who have a name."""


@dataclass(frozen=True, slots=True)
class Rule:
    to: frozenset[str]
    """Words of principals."""
    rights: frozenset[Right]
    repositories: Patterns
    """Of canonical names."""
    deny: bool = False
    networks: tuple[Network, ...] = ()
    """From where it holds; none: from anywhere."""
    source: str = ""
    """Where it is declared, for people."""


class Rules:
    def __init__(self, rules: Iterable[Rule]) -> None:
        self._rules = tuple(rules)
        self._bound = [(1 << i, rule) for i, rule in enumerate(self._rules) if rule.networks]

    def classify(self, address: Address | None, *, anywhere: bool = False) -> int:
        """Those rules of networks that do not hold for a client there, as a bit mask.

        `anywhere`: nobody knows where it is. Then no network gives, and each one takes away.
        """
        if anywhere:
            return sum(bit for bit, rule in self._bound if not rule.deny)
        return sum(bit for bit, rule in self._bound if not within(address, rule.networks))

    def matching(self, principal: Principal | None, repository: str, mask: int = 0) -> Iterator[Rule]:
        """The rules that say something of the principal (None: who gives no name) there."""
        return (rule for rule in self._naming(principal, mask) if rule.repositories.matches(repository))

    def rights(self, principal: Principal | None, repository: str, mask: int = 0) -> frozenset[Right]:
        """What it may do there, as far as the rules say; `mask` as `classify` says."""
        given: set[Right] = set()
        taken: set[Right] = set()
        for rule in self.matching(principal, repository, mask):
            (taken if rule.deny else given).update(rule.rights)
        return frozenset(given - taken)

    def anything(self, principal: Principal | None, mask: int = 0) -> bool:
        """Whether the principal may do anything anywhere: the answer to a ping."""
        return any(not rule.deny for rule in self._naming(principal, mask))

    def _naming(self, principal: Principal | None, mask: int) -> Iterator[Rule]:
        words = frozenset({ANONYMOUS}) if principal is None else principal.words
        for i, rule in enumerate(self._rules):
            if not mask >> i & 1 and not words.isdisjoint(rule.to):
                yield rule
