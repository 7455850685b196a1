"""Who may do what: rights, whom they are given to, and which one each request needs.

A right is given to principals for repositories by a rule; a rule may also take away, and then no other gives.
Who may pull without a name is in `access.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from cacheproxy.core import operations as ops
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


@dataclass(frozen=True, slots=True)
class Rule:
    to: frozenset[str]
    """Words of principals."""
    rights: frozenset[Right]
    repositories: Patterns
    """Of canonical names."""
    deny: bool = False


class Rules:
    def __init__(self, rules: Iterable[Rule]) -> None:
        self._rules = tuple(rules)

    def rights(self, principal: Principal | None, repository: str) -> frozenset[Right]:
        """What the principal (None: who gives no name) may do there, as far as the rules say."""
        words = frozenset({ANONYMOUS}) if principal is None else principal.words
        given: set[Right] = set()
        taken: set[Right] = set()
        for rule in self._rules:
            if not words.isdisjoint(rule.to) and rule.repositories.matches(repository):
                (taken if rule.deny else given).update(rule.rights)
        return frozenset(given - taken)

    def anything(self, principal: Principal | None) -> bool:
        """Whether the principal may do anything anywhere: the answer to a ping."""
        words = frozenset({ANONYMOUS}) if principal is None else principal.words
        return any(not rule.deny and not words.isdisjoint(rule.to) for rule in self._rules)
