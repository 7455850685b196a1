"""What tokens are for: `repository:team/app:pull,push` (distribution, "Token Scope Documentation")."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from cacheproxy.core.errors import OCIError
from cacheproxy.core.name import parse_requested
from cacheproxy.core.rights import Right
from cacheproxy.core.subjects import Proof

MAX_SCOPES = 100

ACTIONS: Mapping[str, frozenset[Right]] = {
    "pull": frozenset({Right.PULL}),
    "push": frozenset({Right.PUSH, Right.CREATE}),
    "delete": frozenset({Right.DELETE}),
    "list": frozenset({Right.LIST}),
}
"""The words of a scope, as rights. "*" is all of them."""

EVERYWHERE = "*"
"""In place of a repository, where `registry:catalog:*` was asked for. No client can write it as a name."""

_SCOPE = re.compile(r"([a-z]+)(?:\([a-z]+\))?:([^\s]{1,300}):([A-Za-z*,]{0,100})")


Actions = Mapping[str, frozenset[str]]
"""Words of ACTIONS, by repository."""


@dataclass(frozen=True, slots=True)
class Token:
    """What a token says. Times are of the wall clock."""

    subject: str | None
    """Name of a principal; None: who gives no name."""
    actions: Actions
    issued: float
    until: float
    proof: Proof | None = None
    """What made the subject known, if it was no secret of ours: it is asked again at each use."""


class Scope(NamedTuple):
    name: str
    """As the client calls the repository, or EVERYWHERE."""
    actions: frozenset[str]
    """Some of ACTIONS."""


def parse_scopes(texts: Iterable[str]) -> list[Scope]:
    """The scopes among those asked for that mean something here, each text with several between blanks.

    Types and actions that mean nothing here are left out: what a token grants is what both sides know.
    A name is always one repository's, never a pattern. Raises OCIError (400) for what is no scope.
    """
    words = [word for text in texts for word in re.split(r"[ +]+", text) if word]
    if len(words) > MAX_SCOPES:
        raise OCIError("UNSUPPORTED", f"a token has at most {MAX_SCOPES} scopes", status=400)
    parsed = [_parse(word) for word in words]
    return [scope for scope in parsed if scope is not None]


def _parse(text: str) -> Scope | None:
    match = _SCOPE.fullmatch(text)
    if match is None:
        raise OCIError(
            "UNSUPPORTED",
            f"not a scope: {text[:100]!a}; write it as repository:team/app:pull,push",
            status=400,
        )
    kind, name, actions = match.groups()
    if (kind, name) == ("registry", "catalog"):
        return Scope(EVERYWHERE, frozenset({"list"}))
    if kind != "repository":
        return None
    asked = actions.split(",")
    return Scope(parse_requested(name), frozenset(ACTIONS if "*" in asked else ACTIONS.keys() & set(asked)))


def rights_of(actions: Iterable[str]) -> frozenset[Right]:
    """Unknown actions give none."""
    return frozenset().union(*(ACTIONS.get(action, frozenset()) for action in actions))


def written(name: str, actions: Iterable[str]) -> str:
    """A granted scope, as clients write it."""
    return "registry:catalog:*" if name == EVERYWHERE else f"repository:{name}:{','.join(sorted(actions))}"
