"""What is set for one repository, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from cacheproxy.core.patterns import Patterns

Sparse = Literal["nothing", "indexes", "images"]
"""Nothing; indexes their images; and images their layers, too, which whoever pulls has to get elsewhere."""


class Settings(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Kept as JSON beside the repository's name."""

    immutable: bool = False
    """A tag stays where it is; pushing the same image to it again is no change."""
    except_tags: tuple[str, ...] = ()
    """Patterns of tags for which the opposite holds."""
    sparse: Sparse = "indexes"
    """What may name what is not here."""
    description: str = ""
    labels: Mapping[str, str] = {}
    """Keys and values of whoever runs the registry."""
    quota_bytes: int | None = None
    """Of all blobs that the repository has, each counted once."""
    quota_images: int | None = None

    def movable(self, tag: str) -> bool:
        """Whether the tag may come to mean another image."""
        excepted = bool(self.except_tags) and Patterns(self.except_tags).matches(tag)
        return self.immutable == excepted

    def text(self) -> str:
        return msgspec.json.encode(self).decode()

    @classmethod
    def parse(cls, text: str) -> Settings:
        """Raises ValueError for what this version cannot have written."""
        try:
            return msgspec.json.decode(text, type=cls)
        except msgspec.MsgspecError as error:
            raise ValueError(f"not a repository's settings: {error}") from error
