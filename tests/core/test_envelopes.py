"""Exact shapes: distribution's notifications/event.go, CloudEvents 1.0.2, and Amazon ECR's sample events."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.core.envelopes import FORMATS, TOLD, Teller, moment, told
from cacheproxy.core.events import By, Event, Kind, Noted

DIGEST = "sha256:" + "7f" * 32
OTHER = "sha256:" + "80" * 32
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
ID = "13cde686-328b-6117-af20-0e5566167482"
AT = 1573869274.25

TELLER = Teller(
    url="https://registry.example",
    host="node-1:5000",
    instance="a1b2",
    registries={"docker-hub": "docker.io"},
)
BY = By("user:ci", "f00d", "10.1.2.3", "http://registry.example:5000", "PUT", "docker/27.0")
PUSH = Event(Kind.IMAGE_PUSHED, "team/app", AT, DIGEST, MANIFEST, size=527, tag="latest", before=OTHER, by=BY)
CACHED = Event(
    Kind.IMAGE_CACHED, "docker-hub/alpine", AT, DIGEST, MANIFEST, tag="3.17", upstream="docker-hub"
)


def body(shape: str, event: Event, teller: Teller = TELLER) -> Any:
    return json.loads(told(shape, Noted(ID, event), teller).body)


def test_a_push_in_distributions_envelope() -> None:
    envelope = told("distribution", Noted(ID, PUSH), TELLER)
    assert envelope.content_type == "application/vnd.docker.distribution.events.v2+json"
    assert json.loads(envelope.body) == {
        "events": [
            {
                "id": ID,
                "timestamp": "2019-11-16T01:54:34.250Z",
                "action": "push",
                "target": {
                    "mediaType": MANIFEST,
                    "digest": DIGEST,
                    "size": 527,
                    "length": 527,
                    "repository": "team/app",
                    "url": f"https://registry.example/v2/team/app/manifests/{DIGEST}",
                    "tag": "latest",
                },
                "request": {
                    "id": "f00d",
                    "addr": "10.1.2.3",
                    "host": "registry.example:5000",
                    "method": "PUT",
                    "useragent": "docker/27.0",
                },
                "actor": {"name": "user:ci"},
                "source": {"addr": "node-1:5000", "instanceID": "a1b2"},
            }
        ]
    }


def test_a_mounted_blob_in_distributions_envelope() -> None:
    event = Event(Kind.BLOB_MOUNTED, "team/app", AT, DIGEST, size=9, source="team/base")
    (said,) = body("distribution", event)["events"]
    assert said["action"] == "mount"
    assert said["target"] == {
        "mediaType": "application/octet-stream",
        "digest": DIGEST,
        "size": 9,
        "length": 9,
        "repository": "team/app",
        "fromRepository": "team/base",
        "url": f"https://registry.example/v2/team/app/blobs/{DIGEST}",
    }


@pytest.mark.parametrize(
    ("kind", "action"),
    [
        (Kind.IMAGE_PUSHED, "push"),
        (Kind.IMAGE_CACHED, "push"),
        (Kind.BLOB_PUSHED, "push"),
        (Kind.BLOB_MOUNTED, "mount"),
        (Kind.IMAGE_DELETED, "delete"),
        (Kind.TAG_DELETED, "delete"),
        (Kind.BLOB_DELETED, "delete"),
        (Kind.REPOSITORY_DELETED, "delete"),
    ],
)
def test_distribution_has_three_actions(kind: Kind, action: str) -> None:
    assert body("distribution", Event(kind, "team/app", AT))["events"][0]["action"] == action


def test_without_an_address_of_ours_the_url_is_where_the_client_found_us() -> None:
    (said,) = body("distribution", PUSH, Teller())["events"]
    assert said["target"]["url"] == f"http://registry.example:5000/v2/team/app/manifests/{DIGEST}"
    (said,) = body("distribution", CACHED, Teller())["events"]
    assert "url" not in said["target"]


def test_a_push_as_a_cloudevent() -> None:
    envelope = told("cloudevents", Noted(ID, PUSH), TELLER)
    assert envelope.content_type == "application/cloudevents+json"
    assert json.loads(envelope.body) == {
        "specversion": "1.0",
        "id": ID,
        "source": "https://registry.example",
        "type": "cacheproxy.image.pushed",
        "subject": "team/app:latest",
        "time": "2019-11-16T01:54:34.250Z",
        "datacontenttype": "application/json",
        "data": {
            "repository": "team/app",
            "digest": DIGEST,
            "media_type": MANIFEST,
            "size": 527,
            "tag": "latest",
            "before": OTHER,
            "by": {
                "actor": "user:ci",
                "request": "f00d",
                "address": "10.1.2.3",
                "base": "http://registry.example:5000",
                "method": "PUT",
                "user_agent": "docker/27.0",
            },
        },
    }


@pytest.mark.parametrize(
    ("event", "subject"),
    [
        (Event(Kind.IMAGE_DELETED, "team/app", AT, DIGEST), f"team/app@{DIGEST}"),
        (Event(Kind.REPOSITORY_DELETED, "team/app", AT), "team/app"),
    ],
)
def test_the_subject_is_what_a_client_would_call_it(event: Event, subject: str) -> None:
    assert body("cloudevents", event)["subject"] == subject


def test_a_push_as_eventbridge_has_it() -> None:
    envelope = told("ecr", Noted(ID, PUSH), TELLER)
    assert envelope.content_type == "application/json"
    assert json.loads(envelope.body) == {
        "version": "0",
        "id": ID,
        "detail-type": "ECR Image Action",
        "source": "aws.ecr",
        "account": "000000000000",
        "time": "2019-11-16T01:54:34Z",
        "region": "local",
        "resources": [],
        "detail": {
            "result": "SUCCESS",
            "repository-name": "team/app",
            "image-digest": DIGEST,
            "action-type": "PUSH",
            "image-tag": "latest",
            "manifest-media-type": MANIFEST,
        },
    }


def test_what_is_deleted_as_eventbridge_has_it() -> None:
    artifact = "application/vnd.example.sbom"
    event = Event(Kind.IMAGE_DELETED, "team/app", AT, DIGEST, MANIFEST, artifact)
    assert body("ecr", event)["detail"] == {
        "result": "SUCCESS",
        "repository-name": "team/app",
        "image-digest": DIGEST,
        "action-type": "DELETE",
        "manifest-media-type": MANIFEST,
        "artifact-media-type": artifact,
    }


def test_a_pull_through_as_eventbridge_has_it() -> None:
    said = body("ecr", CACHED)
    assert said["detail-type"] == "ECR Pull Through Cache Action"
    assert said["resources"] == ["arn:aws:ecr:local:000000000000:repository/docker-hub/alpine"]
    assert said["detail"] == {
        "rule-version": "1",
        "sync-status": "SUCCESS",
        "ecr-repository-prefix": "docker-hub",
        "repository-name": "docker-hub/alpine",
        "upstream-registry-url": "docker.io",
        "image-tag": "3.17",
        "image-digest": DIGEST,
    }


segments = st.from_regex(r"[a-z0-9]{1,12}", fullmatch=True)
events = st.builds(
    Event,
    kind=st.sampled_from(Kind),
    repository=st.lists(segments, min_size=1, max_size=4).map("/".join),
    at=st.floats(0, 4e9),
    digest=st.sampled_from(("", DIGEST, "sha512:" + "0a" * 64)),
    media_type=st.text(max_size=200),
    artifact_type=st.text(max_size=200),
    size=st.integers(0, 1 << 40),
    tag=st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", fullmatch=True) | st.just(""),
    before=st.text(max_size=80),
    source=segments,
    upstream=segments,
    by=st.none() | st.builds(By, *[st.text(max_size=512)] * 6),
)


@given(events, st.sampled_from(sorted(FORMATS)))
def test_what_a_format_has_a_word_for_it_tells_with_the_events_id_in_less_than_64_kib(
    event: Event, shape: str
) -> None:
    if event.kind not in TOLD[shape]:
        return
    said = body(shape, event)
    (inner,) = said.get("events", [said])
    assert inner["id"] == ID
    assert len(told(shape, Noted(ID, event), TELLER).body) <= 64 << 10


@given(events)
def test_a_cloudevent_has_all_that_the_specification_requires(event: Event) -> None:
    said = body("cloudevents", event)
    assert said["specversion"] == "1.0"
    assert all(isinstance(said[name], str) and said[name] for name in ("id", "source", "type", "subject"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", said["time"])
    assert all(re.fullmatch(r"[a-z0-9]{1,20}", name) for name in said)


def test_a_moment_is_written_in_utc() -> None:
    assert moment(0.0) == "1970-01-01T00:00:00.000Z"
