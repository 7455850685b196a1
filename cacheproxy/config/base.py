"""What every table of the file is made from."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A table of the file. Unknown keys are refused: a misspelt one is a setting that is not in force."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, validate_default=True, arbitrary_types_allowed=True
    )


def written(default: object, alias: str | None = None) -> Any:
    """A default in the words of the file, read as if it stood there."""
    return Field(default=default, alias=alias)
