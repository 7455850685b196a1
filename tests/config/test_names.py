"""Who can have a name, and who is called what: a whole file."""

from __future__ import annotations

from pathlib import Path

import pytest

from cacheproxy.config import ConfigError, load

ISSUER = """
[[access.oidc]]
issuer = "{name}"
audience = "cacheproxy"
principal = "ci:{{repository}}"
"""
GRANT = """
[[grant]]
to = ["{word}"]
allow = ["pull"]
"""


def problems(folder: Path, text: str) -> list[str]:
    (folder / "c.toml").write_text(text)
    try:
        load(folder / "c.toml", {})
    except ConfigError as error:
        return [str(problem).removeprefix(f"{folder}/") for problem in error.problems]
    return []


def test_a_grant_may_be_to_whom_an_issuer_vouches_for(tmp_path: Path) -> None:
    text = ISSUER.format(name="https://a.example") + GRANT.format(word="ci:acme/app")
    assert problems(tmp_path, text) == []


def test_a_grant_may_be_to_whom_a_certificate_means(tmp_path: Path) -> None:
    for file in ("tls.crt", "clients.pem"):
        (tmp_path / file).touch()
    text = """
        server.tls = { certificate = "tls.crt", client_ca = "clients.pem" }
        access.mtls = { principal = "host:{DNS}" }
    """
    assert problems(tmp_path, text + GRANT.format(word="host:a.example")) == []


@pytest.mark.parametrize("word", ["usr:builder", "ci:acme/app", "host:a.example"])
def test_a_grant_to_whom_nobody_vouches_for_is_refused(tmp_path: Path, word: str) -> None:
    found = problems(tmp_path, GRANT.format(word=word))
    assert len(found) == 1
    assert found[0].startswith("c.toml:3: grant[1].to[1]") or "c.toml:3" in found[0]
    assert 'is nobody\'s name; here there are "group:...", "user:..."' in found[0]


def test_an_issuer_is_declared_once(tmp_path: Path) -> None:
    text = ISSUER.format(name="https://a.example") * 2
    (found,) = problems(tmp_path, text)
    assert "is declared at" in found
    assert problems(tmp_path, ISSUER.format(name="https://b.example") + text[: len(text) // 2]) == []


def test_a_meaning_of_certificates_needs_an_authority(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, 'access.mtls = { principal = "host:{DNS}" }')
    assert "means nothing without server.tls.client_ca" in found
