"""What can be configured of those who are told what happens, and of the record of decisions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, model_validator

from cacheproxy.config.sections import Secret, Section, written
from cacheproxy.config.values import File, HookURL, Network, PatternList, ProxyURL
from cacheproxy.core.envelopes import TOLD
from cacheproxy.core.events import WORDS, Kind
from cacheproxy.core.patterns import Patterns

EventWord = Literal["push", "delete", "cache", "repository", "blob"]
"""core.events.WORDS."""


STDERR = "stderr"


def _place(value: object) -> object:
    if value in ("", STDERR):
        return value
    if isinstance(value, str) and value.startswith("/"):
        return Path(value)
    raise ValueError(
        'is no place; write a path from the root on, as "/var/log/cacheproxy/audit.log", or "stderr"'
    )


class Audit(Section):
    file: Annotated[Path | str, BeforeValidator(_place)] = written("")
    """Where each decision of the doors is recorded; "": nowhere. Opened again at SIGHUP."""
    pulls: bool = True
    """Also those that let somebody read, most of all there are."""


class Webhook(Section):
    """A receiver of events."""

    url: HookURL
    name: str = Field(
        default_factory=lambda known: urlsplit(known.get("url", "")).hostname or "webhook",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$",
    )
    """What commands, metrics and the log call it; what waits for it is kept under this name."""
    events: tuple[EventWord, ...] = Field(default=("push", "delete"), min_length=1)
    repositories: PatternList = Patterns(("**",))
    format: Literal["cloudevents", "distribution", "ecr"] = "cloudevents"
    secret: Secret | None = None
    """What deliveries are signed with (Standard Webhooks: "whsec_..."); None: they are not."""
    ca: File | None = None
    """PEM certificates to trust beside the system's."""
    proxy: ProxyURL | None = None
    allow_addresses: tuple[Network, ...] = ()
    """Addresses that are not public, and may yet be connected to."""

    @property
    def kinds(self) -> frozenset[Kind]:
        """What it is told of."""
        return frozenset().union(*(WORDS[word] for word in self.events)) & TOLD[self.format]

    @model_validator(mode="after")
    def _told_of_something(self) -> Self:
        if not self.kinds:
            said = f'the format "{self.format}" has no word for any of these events; choose others'
            raise ValueError(said)
        return self
