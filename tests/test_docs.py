"""What is written for people is true: the example file, the documents, the unit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from cacheproxy.config import TABLES, load
from cacheproxy.config.events import Audit, Webhook
from cacheproxy.config.hosting import Account, Grant, Template
from cacheproxy.config.messages import key_names, tables_in
from cacheproxy.config.sections import Access, Cache, Log, Server, Storage, Traces, Upstream
from cacheproxy.config.virtual import Virtual

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "config" / "cacheproxy.toml"

MODELS = (
    *(Server, Log, Audit, Traces, Storage, Cache, Upstream, Access),
    *(Account, Grant, Template, Virtual, Webhook),
)


def uncommented() -> str:
    """The example file with its commented lines in force; prose has a space after the "#"."""
    return re.sub(r"(?m)^#(?=\S|  \{)", "", EXAMPLE.read_text())


def models(model: type[BaseModel]) -> set[type[BaseModel]]:
    nested = (table for field in model.model_fields.values() for table in tables_in(field.annotation))
    return {model}.union(*map(models, nested))


def test_the_example_file_is_the_default() -> None:
    example, default = load(EXAMPLE, {}), load(None, {})
    assert example.server == default.server
    assert example.log == default.log
    assert example.audit == default.audit
    assert example.traces == default.traces
    assert example.storage == default.storage
    assert example.cache == default.cache
    assert example.access == default.access
    assert example.upstreams == default.upstreams
    assert (example.accounts, example.grants, example.templates) == ((), (), ())


def test_what_the_example_file_shows_commented_out_is_valid(tmp_path: Path) -> None:
    for name in (
        "builder.secret",
        "secret.key",
        "builder.key",
        "docker-hub.password",
        "corp-ca.pem",
        "us.crt",
        "tls.crt",
        "tls.key",
        "s3.ini",
        "htpasswd",
        "clients.pem",
        "cluster.jwks",
    ):
        (tmp_path / name).touch()
    (tmp_path / "c.toml").write_text(uncommented())
    config = load(tmp_path / "c.toml", {})
    assert [upstream.registry for upstream in config.upstreams] == [
        "quay.io",
        "docker.io",
        "registry.corp.example",
    ]
    assert config.storage.state == Path("/var/lib/cacheproxy")


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_key_is_in_the_example_file(model: type[BaseModel]) -> None:
    text = uncommented()
    keys = {key for table in models(model) for key in key_names(table)}
    assert {key for key in keys if not re.search(rf"\b{key} = |\.{key}\]", text)} == set()


def test_every_table_is_in_the_example_file() -> None:
    text = uncommented()
    assert [table for table in TABLES if f"[{table}]" not in text] == []


@pytest.mark.parametrize("target", ["run", "test", "lint", "e2e", "bench"])
def test_the_makefile_has_what_the_readme_names(target: str) -> None:
    assert f"\n{target}:" in (ROOT / "Makefile").read_text()
    assert f"make {target}" in (ROOT / "README.md").read_text()


def test_links_between_documents_lead_somewhere() -> None:
    broken = [
        f"{page.name}: {link}"
        for page in (ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md"))
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text())
        if not (page.parent / link).exists()
    ]
    assert broken == []


UNIT = ROOT / "systemd" / "cacheproxy.service"


def test_the_unit_hands_over_what_the_daemon_asks_for() -> None:
    settings = dict(re.findall(r"(?m)^([A-Z]\w+)=(.*)$", UNIT.read_text()))
    assert settings["Type"] == "notify"
    assert settings["StateDirectory"] == settings["LogsDirectory"] == "cacheproxy"
    assert settings["ExecStart"].endswith("cacheproxy serve --config /etc/cacheproxy/cacheproxy.toml")


def test_the_socket_unit_opens_what_the_readme_tells_to_listen_on() -> None:
    settings = dict(re.findall(r"(?m)^([A-Z]\w+)=(.*)$", UNIT.with_suffix(".socket").read_text()))
    assert settings["ListenStream"] == "127.0.0.1:5000"
    assert f'listen = ["systemd:{settings["FileDescriptorName"]}"]' in (ROOT / "README.md").read_text()
