"""Events as receivers know them: distribution's envelope, CloudEvents, EventBridge's shapes of Amazon ECR.

A format tells what its readers have a word for: TOLD says which kinds, and no other is noted for such a
receiver.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from cacheproxy.core import operations as ops
from cacheproxy.core.digest import Digest
from cacheproxy.core.events import By, Event, Kind, Noted


@dataclass(frozen=True, slots=True)
class Teller:
    """Who tells."""

    url: str = ""
    """As clients see us, without a "/" at its end; "": as the client of the request in question did."""
    host: str = ""
    """Of this node."""
    instance: str = ""
    """Of this run of the daemon."""
    account: str = "000000000000"
    region: str = "local"
    """As the ECR shapes have it."""
    registries: Mapping[str, str] | None = None
    """What upstreams are called, by their prefixes."""


class Envelope(NamedTuple):
    content_type: str
    body: bytes


def told(shape: str, noted: Noted, teller: Teller) -> Envelope:
    """The body of one POST. `shape` is one of FORMATS."""
    return FORMATS[shape](noted, teller)


# distribution: notifications/event.go

DISTRIBUTION = "application/vnd.docker.distribution.events.v2+json"

ACTIONS: Mapping[Kind, str] = {
    Kind.IMAGE_PUSHED: "push",
    Kind.IMAGE_CACHED: "push",
    Kind.BLOB_PUSHED: "push",
    Kind.BLOB_MOUNTED: "mount",
    Kind.IMAGE_DELETED: "delete",
    Kind.TAG_DELETED: "delete",
    Kind.BLOB_DELETED: "delete",
    Kind.REPOSITORY_DELETED: "delete",
}
"""The words that it has."""


def distribution(noted: Noted, teller: Teller) -> Envelope:
    event, by = noted.event, noted.event.by or By()
    body = {
        "id": noted.id,
        "timestamp": moment(event.at),
        "action": ACTIONS[event.kind],
        "target": _target(event, teller),
        "request": _filled(
            id=by.request,
            addr=by.address,
            host=by.base.partition("://")[2],
            method=by.method,
            useragent=by.user_agent,
        ),
        "actor": _filled(name=by.actor),
        "source": _filled(addr=teller.host, instanceID=teller.instance),
    }
    return Envelope(DISTRIBUTION, msgspec.json.encode({"events": [body]}))


def _target(event: Event, teller: Teller) -> dict[str, Any]:
    return _filled(
        mediaType=event.media_type or ("application/octet-stream" if _is_blob(event) else ""),
        digest=event.digest,
        size=event.size,
        length=event.size,
        repository=event.repository,
        fromRepository=event.source,
        url=_address(event, teller),
        tag=event.tag,
    )


def _address(event: Event, teller: Teller) -> str:
    """Where it can be pulled; "" for what has no digest, and where nobody said what we are called."""
    base = teller.url or ("" if event.by is None else event.by.base)
    if not base or not event.digest:
        return ""
    digest = Digest.parse(event.digest)
    where = ops.Blob if _is_blob(event) else ops.Manifest
    return base + ops.path(where(event.repository, digest))


def _is_blob(event: Event) -> bool:
    return event.kind.startswith("blob.")


# CloudEvents 1.0.2, JSON format, structured mode

CLOUDEVENTS = "application/cloudevents+json"
TYPE = "cacheproxy."
"""What the types begin with."""
SOURCE = "/cacheproxy"
"""Where nobody said what we are called; a URI reference, as the specification wants."""


def cloudevents(noted: Noted, teller: Teller) -> Envelope:
    event = noted.event
    data = msgspec.to_builtins(event)
    for known in ("kind", "at"):  # they are in the envelope
        data.pop(known)
    body = {
        "specversion": "1.0",
        "id": noted.id,
        "source": teller.url or SOURCE,
        "type": TYPE + event.kind,
        "subject": _subject(event),
        "time": moment(event.at),
        "datacontenttype": "application/json",
        "data": data,
    }
    return Envelope(CLOUDEVENTS, msgspec.json.encode(body))


def _subject(event: Event) -> str:
    if event.tag:
        return f"{event.repository}:{event.tag}"
    return f"{event.repository}@{event.digest}" if event.digest else event.repository


# Amazon EventBridge, "aws.ecr"

ECR_ACTIONS: Mapping[Kind, str] = {
    Kind.IMAGE_PUSHED: "PUSH",
    Kind.IMAGE_DELETED: "DELETE",
    Kind.TAG_DELETED: "DELETE",
}
"""Of "ECR Image Action"."""


def ecr(noted: Noted, teller: Teller) -> Envelope:
    event = noted.event
    cached = event.kind is Kind.IMAGE_CACHED
    body = {
        "version": "0",
        "id": noted.id,
        "detail-type": "ECR Pull Through Cache Action" if cached else "ECR Image Action",
        "source": "aws.ecr",
        "account": teller.account,
        "time": datetime.fromtimestamp(event.at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "region": teller.region,
        "resources": [_arn(event, teller)] if cached else [],
        "detail": _pulled_through(event, teller) if cached else _image_action(event),
    }
    return Envelope("application/json", msgspec.json.encode(body))


def _image_action(event: Event) -> dict[str, Any]:
    given = {
        "result": "SUCCESS",
        "repository-name": event.repository,
        "image-digest": event.digest,
        "action-type": ECR_ACTIONS[event.kind],
        "image-tag": event.tag,
        "manifest-media-type": event.media_type,
        "artifact-media-type": event.artifact_type,
    }
    return {key: value for key, value in given.items() if value}


def _pulled_through(event: Event, teller: Teller) -> dict[str, Any]:
    given = {
        "rule-version": "1",
        "sync-status": "SUCCESS",
        "ecr-repository-prefix": event.upstream,
        "repository-name": event.repository,
        "upstream-registry-url": (teller.registries or {}).get(event.upstream, event.upstream),
        "image-tag": event.tag,
        "image-digest": event.digest,
    }
    return {key: value for key, value in given.items() if value}


def _arn(event: Event, teller: Teller) -> str:
    return f"arn:aws:ecr:{teller.region}:{teller.account}:repository/{event.repository}"


FORMATS: Mapping[str, Callable[[Noted, Teller], Envelope]] = {
    "cloudevents": cloudevents,
    "distribution": distribution,
    "ecr": ecr,
}

TOLD: Mapping[str, frozenset[Kind]] = {
    "cloudevents": frozenset(Kind),
    "distribution": frozenset(ACTIONS),
    "ecr": frozenset({*ECR_ACTIONS, Kind.IMAGE_CACHED}),
}


def moment(at: float) -> str:
    """RFC 3339 in UTC, to the millisecond."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _filled(**given: Any) -> dict[str, Any]:
    return {key: value for key, value in given.items() if value}
