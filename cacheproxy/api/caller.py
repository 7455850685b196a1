"""Who asks, as a handler sees it: by name or without one, and what it may do."""

from __future__ import annotations

import math
from collections.abc import Mapping

from cacheproxy.core.access import Access
from cacheproxy.core.rights import ANONYMOUS, Principal, Right, Rules
from cacheproxy.core.scopes import EVERYWHERE

REMEMBERED = 4096
"""Repositories for which one caller's rights are remembered."""

READING = frozenset({Right.PULL, Right.LIST})
"""What a network that may pull without a name may do."""

NONE: frozenset[Right] = frozenset()

Scope = Mapping[str, frozenset[Right]]
"""What a token was made for: rights by repository, literally, or EVERYWHERE."""


class Caller:
    """Rights are worked out once a repository, for as long as the caller is remembered."""

    def __init__(
        self,
        principal: Principal | None,
        mask: int,
        access: Access,
        rules: Rules,
        scope: Scope | None = None,
        until: float = math.inf,
        unbound: int = 0,
    ) -> None:
        """`mask`: the access class of its network; `unbound`: the rules' one. `until`: wall clock; then its
        token ends.
        """
        self.principal = principal
        self.name = ANONYMOUS if principal is None else principal.name
        self.scoped = scope is not None
        self.until = until
        self._mask = mask
        self._access = access
        self._rules = rules
        self._unbound = unbound
        self._scope = scope
        self._known: dict[str, frozenset[Right]] = {}

    def may(self, right: Right, repository: str) -> bool:
        """Whether it has the right in a repository, by canonical name."""
        rights = self._known.get(repository)
        if rights is None:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            rights = self._known[repository] = self._rights(repository)
        return right in rights

    def anything(self) -> bool:
        """Whether it may do anything at all: the answer to a ping."""
        return self._access.anything(self._mask) or self._rules.anything(self.principal, self._unbound)

    def because(self, right: Right, repository: str) -> str:
        """Which rule says that it may, or why none does: for people, and worked out anew."""
        if right in READING and self._access.may_pull(self._mask, repository):
            return "access.anonymous_pull"
        said = self._rules.matching(self.principal, repository, self._unbound)
        rules = sorted((rule for rule in said if right in rule.rights), key=lambda rule: not rule.deny)
        if not rules:
            return "no rule gives it"
        if not rules[0].deny and not self.may(right, repository):
            return "the token is not for it"
        return rules[0].source or "a rule"

    def _rights(self, repository: str) -> frozenset[Right]:
        rights = self._rules.rights(self.principal, repository, self._unbound)
        if self._scope is not None:
            rights &= self._scope.get(repository, NONE) | self._scope.get(EVERYWHERE, NONE)
        # What a network may do needs no token, and no token takes it away.
        return rights | READING if self._access.may_pull(self._mask, repository) else rights
