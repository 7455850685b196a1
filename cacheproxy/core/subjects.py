"""Who somebody is here by what others say: claims of an issuer's token, names in a certificate. Pure.

A template such as "ci:{repository}" makes the name of a principal. No two that an issuer tells apart become
one: what stands in the braces cannot reach beyond its place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from cacheproxy.core.patterns import Patterns
from cacheproxy.core.rights import KIND, NAME, OTHER, Principal

Claims = Mapping[str, tuple[str, ...]]
"""What is said: texts, by the name of the claim. Several where the claim is a list."""

OF_CERTIFICATES = ("CN", "O", "OU", "DNS", "URI", "email")
"""What a certificate says, as openssl calls it: parts of its subject, then kinds of alternative names."""

WORD = rf"user:{NAME}|{OTHER}"
"""Whom others may vouch for."""

_PLACE = re.compile(r"\{([^{}]*)\}")
_CLAIM = re.compile(r"[A-Za-z0-9_.:/-]{1,128}")
_WORD = re.compile(WORD)
_NAME = re.compile(NAME)
_BEGINNING = re.compile(rf"({KIND}):")
_LITERAL = re.compile(r"[A-Za-z0-9._@+:/=~-]*")


class Unmapped(Exception):
    """What is said makes no principal of anybody: why, for whoever said it."""


class Template:
    """Text with names of claims in braces. Raises ValueError for one that could make one name of two."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._literals = tuple(_PLACE.split(text)[::2])
        self.claims = tuple(_PLACE.findall(text))
        if any(_LITERAL.fullmatch(literal) is None for literal in self._literals):
            raise ValueError('has other characters than a name; write it as "ci:{repository}"')
        if any(_CLAIM.fullmatch(claim) is None for claim in self.claims):
            raise ValueError('has braces without the name of a claim; write it as "ci:{repository}"')
        if any(":" not in between for between in self._literals[1:-1]):
            raise ValueError('needs a ":" between two claims, or two could be taken for one')

    def fill(self, claims: Claims) -> str:
        """The one text that it makes. Raises Unmapped."""
        return self._joined([self._only(claims, name) for name in self.claims])

    def all(self, claims: Claims) -> Iterator[str]:
        """The texts that it makes: one claim may have several values, or none."""
        if len(self.claims) == 1:
            yield from (self._joined([value]) for value in claims.get(self.claims[0], ()) if value)
        elif all(len(claims.get(name, ())) == 1 for name in self.claims):
            yield self.fill(claims)

    def _only(self, claims: Claims, name: str) -> str:
        values = claims.get(name, ())
        if len(values) != 1:
            count = "more than one" if values else "no"
            raise Unmapped(f'has {count} "{name}", which a name here is made of')
        if ":" in values[0] and len(self.claims) > 1:
            raise Unmapped(f'has a ":" in "{name}", which ends a part of its name')
        return values[0]

    def _joined(self, values: list[str]) -> str:
        pieces = [self._literals[0]]
        for value, literal in zip(values, self._literals[1:], strict=True):
            pieces += (value, literal)
        return "".join(pieces)


def kind_of(template: str) -> str:
    """What a principal's name begins with. Raises ValueError where a claim would decide that."""
    match = _BEGINNING.match(template)
    if match is None:
        raise ValueError('needs a kind of its own first; write it as "ci:{repository}"')
    return match[1]


@dataclass(frozen=True, slots=True)
class Subjects:
    """Whom an issuer, or an authority of certificates, may vouch for, and as what."""

    name: Template
    """Of kind "user" it means an account of that name, which has to be there."""
    groups: tuple[Template, ...] = ()
    required: Mapping[str, Patterns] = field(default_factory=dict)
    """What claims have to be, each matched by one of its values at least."""

    def principal(self, claims: Claims) -> Principal:
        """Raises Unmapped."""
        for claim, patterns in self.required.items():
            if not any(patterns.matches(value) for value in claims.get(claim, ())):
                raise Unmapped(f'has no "{claim}" that is accepted here')
        name = self.name.fill(claims)
        if _WORD.fullmatch(name) is None:
            raise Unmapped(f"would be called {name[:300]!a}, which is no name of a principal")
        groups = (group for template in self.groups for group in template.all(claims))
        return Principal(name, frozenset(group for group in groups if _NAME.fullmatch(group)))

    def needed(self, claims: Claims) -> Claims:
        """Of what is said, what `principal` looks at."""
        templates = (self.name, *self.groups)
        names = {*self.required, *(claim for template in templates for claim in template.claims)}
        return {name: claims[name] for name in sorted(names) if name in claims}


class Proof(NamedTuple):
    """What made somebody known who has no account: enough to ask again who that is."""

    issuer: str
    """Of tokens; "": the authorities of client certificates."""
    claims: Claims
