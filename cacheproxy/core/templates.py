"""How a repository is born: settings by the beginning of its name (Amazon ECR's creation templates)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from cacheproxy.core.settings import Settings

ROOT = "ROOT"
"""In place of a prefix: what no other template covers."""

SHADOWED = "library"
"""Names below this are the default upstream's, whatever ROOT says: nobody takes its place by accident."""


class Birth(StrEnum):
    """By what a repository comes to be that nobody created by name."""

    PUSH = "create-on-push"
    PULL = "pull-through-cache"


@dataclass(frozen=True, slots=True)
class Template:
    prefix: str
    """Whole segments; or ROOT."""
    births: frozenset[Birth]
    settings: Settings


class Templates:
    def __init__(self, templates: Iterable[Template], *, default_upstream: bool = False) -> None:
        """`default_upstream`: bare names may mean another registry's images."""
        self._by_prefix = {(birth, each.prefix): each for each in templates for birth in each.births}
        self._default_upstream = default_upstream

    def settings(self, name: str, birth: Birth) -> Settings:
        """What is set for a repository of that name that comes to be so."""
        template = self.choose(name, birth)
        return Settings() if template is None else template.settings

    def choose(self, name: str, birth: Birth) -> Template | None:
        """The template with the longest prefix of those for this birth; None: there is none."""
        head = name
        while head:
            found = self._by_prefix.get((birth, head))
            if found is not None and head != ROOT:
                return found
            head = head.rpartition("/")[0]
        if self._default_upstream and name.partition("/")[0] == SHADOWED:
            return None
        return self._by_prefix.get((birth, ROOT))
