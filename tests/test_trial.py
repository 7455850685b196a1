"""What is wrong with the files that a configuration names, before any daemon starts with them."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
import trio
import trustme

from cacheproxy.config import load
from cacheproxy.trial import Tried, tried

AUTHORITY = trustme.CA()
TLS = 'server.tls = {{ certificate = "tls.crt", key = {key} }}\n'
KEY_FILE = TLS.format(key='{ file = "tls.key" }')


def issue(folder: Path, until: datetime.datetime | None = None) -> None:
    issued = AUTHORITY.issue_cert("localhost", not_after=until)
    issued.cert_chain_pems[0].write_to_path(folder / "tls.crt")
    issued.private_key_pem.write_to_path(folder / "tls.key")


def trial(folder: Path, text: str) -> Tried:
    (folder / "c.toml").write_text(text)
    return trio.run(tried, load(folder / "c.toml", {}))


def test_a_good_certificate_is_not_mentioned(tmp_path: Path) -> None:
    issue(tmp_path)
    assert trial(tmp_path, KEY_FILE) == ([], [])


def test_a_key_of_another_certificate_is_a_problem(tmp_path: Path) -> None:
    issue(tmp_path)
    AUTHORITY.issue_cert("localhost").private_key_pem.write_to_path(tmp_path / "tls.key")
    words = f"server.tls: {tmp_path}/tls.crt: the key is not this certificate's"
    assert trial(tmp_path, KEY_FILE) == ([words], [])


def test_an_expired_certificate_is_warned_of(tmp_path: Path) -> None:
    issue(tmp_path, datetime.datetime(2021, 1, 1, tzinfo=datetime.UTC))
    words = f"server.tls: {tmp_path}/tls.crt has expired, on 2021-01-01 00:00:00 UTC"
    assert trial(tmp_path, KEY_FILE) == ([], [words])


def test_a_key_that_only_the_service_has_is_not_held_against_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "")
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    issue(tmp_path)
    problems, warnings = trial(tmp_path, TLS.format(key='{ credential = "tls.key" }'))
    assert (problems, len(warnings)) == ([], 1)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert trial(tmp_path, TLS.format(key='{ credential = "tls.key" }')) == ([], [])


def test_each_upstreams_authorities_and_certificates_are_tried(tmp_path: Path) -> None:
    (tmp_path / "bad.pem").write_text("nobody")
    text = '[[upstream]]\nregistry = "a.test"\nurl = "https://a.test"\nca = "bad.pem"\n'
    other = text.replace("a.test", "b.test").replace(
        'ca = "bad.pem"', 'client_certificate = { certificate = "bad.pem" }'
    )
    problems, warnings = trial(tmp_path, text + other)
    assert [problem.partition(" cannot")[0] for problem in problems] == [
        "upstream a.test: its ca",
        "upstream b.test: its client_certificate",
    ]
    assert warnings == []


def test_keys_of_a_bucket_must_be_keys(tmp_path: Path) -> None:
    (tmp_path / "s3.ini").write_text("nonsense")
    text = '[storage]\nblobs = "s3://bucket"\n[storage.objects]\ncredentials = { file = "s3.ini" }\n'
    (problem,) = trial(tmp_path, text).problems
    assert problem.startswith("storage.objects.credentials: ")


def test_a_file_of_passwords_is_read(tmp_path: Path) -> None:
    (tmp_path / "people").write_text("alice:$2y$05$" + "a" * 53 + "\n")
    text = '[access]\nhtpasswd = "people"\n'
    assert trial(tmp_path, text) == ([], [])
    (tmp_path / "people").write_text("alice:secret\n")
    problems, _ = trial(tmp_path, text)
    assert len(problems) == 1
    assert problems[0].startswith(f"access.htpasswd: {tmp_path}/people: line 1 is no name with a bcrypt hash")


def test_keys_that_the_bucket_has_no_use_for_are_a_problem(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text('{"type": "nonsense"}')
    text = (
        'storage.blobs = "gs://bucket"\ncache.budget = "1GiB"\n'
        'storage.objects.credentials = { file = "keys.json" }\n'
    )
    (problem,), _ = trial(tmp_path, text)
    assert problem.startswith("gs://bucket cannot be used: ")


def test_a_key_of_the_rows_that_is_none_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "rows.key").write_text("too short")
    text = 'storage.key = { file = "rows.key" }\n'
    (problem,) = trial(tmp_path, text).problems
    assert problem == "storage.key: is not 64 hexadecimal digits; make a key with: openssl rand -hex 32"
    (tmp_path / "rows.key").write_text("ab" * 32 + "\n")
    assert trial(tmp_path, text) == ([], [])
