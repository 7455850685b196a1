from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError, create_model

from cacheproxy.config import values
from cacheproxy.config.sections import Section
from cacheproxy.config.values import Amount, Surroundings


def taken(kind: str, value: object, folder: Path = Path()) -> Any:
    table = create_model("Table", __base__=Section, key=(getattr(values, kind), ...))
    return dict(table.model_validate({"key": value}, context=Surroundings(folder, {})))["key"]


@pytest.mark.parametrize(
    ("kind", "value", "meaning"),
    [
        ("Duration", "90s", 90.0),
        ("Duration", "forever", float("inf")),
        ("PassingDuration", "1h", 3600.0),
        ("Size", "64KiB", 64 << 10),
        ("AmountOf", "2GiB", Amount(bytes=2 << 30)),
        ("AmountOf", "5%", Amount(share=0.05)),
        ("Network", "10.0.0.0/8", ip_network("10.0.0.0/8")),
        ("Network", "10.0.0.1", ip_network("10.0.0.1/32")),
        ("Network", "::1", ip_network("::1/128")),
        ("Registry", "ghcr.io", "ghcr.io"),
        ("Registry", "localhost:5000", "localhost:5000"),
        ("Prefix", "docker-hub", "docker-hub"),
        ("Prefix", "mirror/hub", "mirror/hub"),
        ("Host", "Hub.Cache.Example", "hub.cache.example"),
        ("Host", "cache.example:8443", "cache.example:8443"),
        ("Host", "[::1]:5000", "[::1]:5000"),
        ("Origin", "https://r.example", "https://r.example"),
        ("Origin", "http://R.example:5000/", "http://r.example:5000"),
        ("Origin", "http://[::1]:5000", "http://[::1]:5000"),
        ("Origin", "https://r.example/api/docker/Hub/", "https://r.example/api/docker/Hub"),
        ("ProxyURL", "http://proxy.example:3128", "http://proxy.example:3128"),
        ("ExternalURL", "", ""),
        ("ExternalURL", "http://cache.example/", "http://cache.example"),
        ("Endpoint", "http://127.0.0.1:10000/Account/", "http://127.0.0.1:10000/Account"),
        ("Collector", "http://Collector.example:4318/", "http://collector.example:4318"),
        ("Collector", "https://traces.example/Otlp", "https://traces.example/Otlp"),
        ("Collector", "", ""),
        ("Listen", "127.0.0.1:5000", "127.0.0.1:5000"),
        ("Listen", "0.0.0.0:0", "0.0.0.0:0"),
        ("Listen", "localhost:5000", "localhost:5000"),
        ("Listen", "[::]:5000", "[::]:5000"),
        ("Listen", "unix:/run/cacheproxy/http.sock", "unix:/run/cacheproxy/http.sock"),
        ("Listen", "systemd:http", "systemd:http"),
    ],
)
def test_a_value_is_read(kind: str, value: str, meaning: object) -> None:
    assert taken(kind, value) == meaning


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        ("Duration", 60, "must be a duration in quotes"),
        ("Duration", "sixty", ""),
        ("PassingDuration", "forever", "must end"),
        ("Size", 1024, "must be a size in quotes"),
        ("Size", "many", ""),
        ("AmountOf", "101%", ""),
        ("Network", "10.0.0.1/8", 'has bits beyond its mask; write "10.0.0.0/8"'),
        ("Network", "ten", "is not a network"),
        ("Network", 10, "must be a network in quotes"),
        ("Registry", "https://ghcr.io", "is the name clients use, without https://"),
        ("Registry", "GHCR.io", "is not a host; write it in lower case"),
        ("Registry", "ghcr.io/library", "is not a host"),
        ("Registry", "ghcr.io\n", "is not a host"),
        ("Registry", "", "is not a host"),
        ("Registry", "index.docker.io", 'is one of the hosts of "docker.io"'),
        ("Prefix", "Docker", "is not a name"),
        ("Prefix", "a//b", "is not a name"),
        ("Prefix", "/a", "is not a name"),
        ("Prefix", "", "is not a name"),
        ("Host", "cache.example/", "is not a host"),
        ("Host", "-", "is not a host"),
        ("Origin", "r.example", "is not a URL of this kind; begin it with https:// or http://"),
        ("Origin", "ftp://r.example", "is not a URL of this kind"),
        ("Origin", "https://r.example/v2/", "ends before /v2/"),
        ("Origin", "https://r.example/a/../b", "has a path that is none"),
        ("Origin", "https://r.example/a%2fb", "has a path that is none"),
        ("Origin", "https://r.example?x=1", "ends with its path"),
        ("Origin", "https://r.example/a#x", "ends with its path"),
        (
            "Endpoint",
            "https://store.example/a?sig=x",
            "ends after its path; take out what begins with ? or #",
        ),
        ("ExternalURL", "https://cache.example/registry", "ends after the host and port"),
        ("Origin", "https://us:hunter2@r.example", "holds credentials"),
        ("Origin", "https://", "names no host"),
        ("Origin", "https://r.example:0", "names no host"),
        ("Origin", "https://r.example:99999", "is not a URL"),
        ("Origin", "https://r_\u00e4.example", "names no host"),
        (
            "Collector",
            "collector.example:4318",
            "is not a URL of this kind; begin it with https:// or http://",
        ),
        (
            "Collector",
            "https://us:s3cret@traces.example",
            "holds credentials; take them out, they go into $OTEL_EXPORTER_OTLP_HEADERS",
        ),
        (
            "Collector",
            "https://traces.example/?key=s3cret",
            "ends after its path; take out what begins with ? or #",
        ),
        ("ProxyURL", "https://proxy.example", "is not a URL of this kind; begin it with http://"),
        ("ExternalURL", "cache.example", "is not a URL of this kind"),
        ("Listen", "5000", "is not an address to listen on"),
        ("Listen", "example.com:5000", "is not an address to listen on"),
        ("Listen", "127.0.0.1:65536", "is not an address to listen on"),
        ("Listen", "::1:5000", "is not an address to listen on"),
        ("Listen", "[127.0.0.1]:5000", "is not an address to listen on"),
        ("Listen", "127.0.0.1:\u0665", "is not an address to listen on"),
        ("Listen", "unix:http.sock", "is not an address to listen on"),
        ("Listen", "systemd:a:b", "names no socket"),
        ("Listen", "systemd:", "names no socket"),
        ("PatternList", 1, "must be a pattern in quotes"),
        ("PatternList", ("a", 1), "must be a pattern in quotes"),
    ],
)
def test_a_value_that_is_wrong_is_refused(kind: str, value: object, said: str) -> None:
    with pytest.raises(ValidationError) as failure:
        taken(kind, value)
    (error,) = failure.value.errors()
    assert error["type"] == "value_error"
    assert str(error["ctx"]["error"]).startswith(said)
    assert "hunter2" not in error["msg"]


def test_a_list_of_patterns_is_one_rule() -> None:
    assert taken("PatternList", ("a/**", "b")).matches("a/x/y")
    assert taken("PatternList", "b").matches("b")


def test_a_file_is_looked_for_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").touch()
    assert taken("File", "ca.pem", tmp_path) == tmp_path / "ca.pem"


def test_a_file_that_is_not_there_is_named_in_full(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=f"there is no {tmp_path}/ca.pem"):
        taken("File", "ca.pem", tmp_path)


def test_an_amount_of_a_file_system() -> None:
    assert Amount(share=0.25).of(1000) == 250
    assert Amount(bytes=7).of(1000) == 7
