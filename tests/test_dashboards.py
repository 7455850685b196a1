"""What the dashboard and the alert rules ask for is what /metrics has."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from prometheus_client import REGISTRY, generate_latest

import cacheproxy.app  # brings every metric of the daemon
import cacheproxy.tracing.outbox  # noqa: F401 - but those of the extra

CONFIG = Path(__file__).parent.parent / "config"
DASHBOARD, ALERTS = CONFIG / "grafana" / "cacheproxy.json", CONFIG / "prometheus" / "alerts.yml"

_NAME = re.compile(r"cacheproxy_[a-z_]+")
_SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


def exported() -> set[str]:
    return {
        metric.name + suffix
        for metric in REGISTRY.collect()
        if metric.name.startswith("cacheproxy_")
        for suffix in _SUFFIXES[metric.type]
    }


def expressions(file: Path) -> list[str]:
    if file.suffix == ".json":
        panels = json.loads(file.read_text())["panels"]
        return [target["expr"] for panel in panels for target in panel["targets"]]
    return re.findall(r"^ +expr: (.+)$", file.read_text(), re.MULTILINE)


@pytest.mark.parametrize("file", [DASHBOARD, ALERTS], ids=lambda file: file.name)
def test_every_name_is_exported(file: Path) -> None:
    asked = {name for expression in expressions(file) for name in _NAME.findall(expression)}
    assert asked
    assert asked <= exported()


def test_every_metric_of_ours_is_shown_or_watched() -> None:
    text = DASHBOARD.read_text() + ALERTS.read_text()
    left_out = {
        "cacheproxy_upstream_token_requests",
        "cacheproxy_evicted_blobs",
        "cacheproxy_connections_cut",
    }
    left_out |= {"cacheproxy_tls_handshakes_failed"}
    ours = {metric.name for metric in REGISTRY.collect() if metric.name.startswith("cacheproxy_")}
    assert {name for name in ours if name not in text} <= left_out


def test_panels_lie_beside_one_another() -> None:
    places = [panel["gridPos"] for panel in json.loads(DASHBOARD.read_text())["panels"]]
    assert len({(place["x"], place["y"]) for place in places}) == len(places)


def test_the_exposition_can_be_made() -> None:
    assert b"# HELP cacheproxy_requests_total" in generate_latest()
