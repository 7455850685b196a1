"""What can be configured of hosted repositories: who may do what in them, and how they are born."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from cacheproxy.config.sections import Secret, Section, written
from cacheproxy.config.values import Network, PatternList, Size
from cacheproxy.core import rights
from cacheproxy.core.errors import OCIError
from cacheproxy.core.name import parse_repository
from cacheproxy.core.patterns import Patterns
from cacheproxy.core.rights import ANONYMOUS, WORD
from cacheproxy.core.templates import ROOT

NAME = f"^{rights.NAME}$"

RightName = Literal["pull", "push", "delete", "list", "create", "admin"]
"""core.rights.Right, as it is written."""


class Account(Section):
    """A robot, or a person; in grants it is "user:NAME"."""

    name: str = Field(pattern=NAME)
    secret: Secret
    """What it proves itself with, wherever a password is asked for."""
    groups: tuple[Annotated[str, Field(pattern=NAME)], ...] = ()
    access_key: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_]{16,128}$")
    """The id by which signed requests name it (AWS Signature Version 4)."""
    secret_key: Secret | None = None
    """What signs them."""

    @model_validator(mode="after")
    def _whole_pair(self) -> Self:
        if (self.access_key is None) != (self.secret_key is None):
            raise ValueError("access_key and secret_key go together; add the other one")
        return self


def _word(text: str) -> str:
    if text == ANONYMOUS:
        raise ValueError("is nobody's name; who gives none is let in by access.anonymous_pull")
    if WORD.fullmatch(text) is None:
        raise ValueError(
            'is nobody\'s name; write "user:NAME", "group:NAME", or "*" for everyone who has one'
        )
    return text


class Grant(Section):
    """Rights for repositories. What one grant denies, no other allows."""

    to: tuple[Annotated[str, AfterValidator(_word)], ...] = Field(min_length=1)
    allow: tuple[RightName, ...] = ()
    deny: tuple[RightName, ...] = ()
    repositories: PatternList = Patterns(("**",))
    networks: tuple[Network, ...] = ()
    """From where it holds; none: from anywhere."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if bool(self.allow) == bool(self.deny):
            raise ValueError("needs either allow or deny, and some rights there")
        return self


@dataclass(frozen=True, slots=True)
class Mutability:
    immutable: bool = False
    other: tuple[str, ...] = ()
    """Patterns of tags for which the opposite holds."""


_EXCEPTIONS = {"immutable_except": True, "mutable_except": False}


def _mutability(value: object) -> Mutability:
    if isinstance(value, Mutability):
        return value
    if value in ("mutable", "immutable"):
        return Mutability(value == "immutable")
    if isinstance(value, dict) and len(value) == 1:
        ((key, patterns),) = value.items()
        if key in _EXCEPTIONS and isinstance(patterns, list | tuple) and patterns:
            return Mutability(_EXCEPTIONS[key], Patterns(patterns).texts)
    raise ValueError('is "mutable", "immutable", or { immutable_except = ["latest", "dev-*"] }')


def _covered(text: str) -> str:
    if text == ROOT:
        return text
    try:
        return parse_repository(text)
    except OCIError:
        raise ValueError('is not the beginning of a name; write "team", "team/ci" or "ROOT"') from None


class Template(Section):
    """How a repository is born that nobody created by name."""

    prefix: Annotated[str, AfterValidator(_covered)]
    """Whole segments; the longest one wins. "ROOT" covers what no other does."""
    applied_for: tuple[Literal["create-on-push", "pull-through-cache"], ...] = Field(min_length=1)
    tag_mutability: Annotated[Mutability, BeforeValidator(_mutability)] = written("mutable")
    quota: Size | None = None
    """Bytes of all blobs in the repository; None: as many as there is room for."""
    quota_images: int | None = Field(default=None, ge=1)
    sparse: Literal["nothing", "indexes", "images"] = "indexes"
    """What may name what is not here: indexes their images; "images": these their layers, too."""
    description: str = Field(default="", max_length=256)
