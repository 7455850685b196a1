from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from cacheproxy.commands.clients.authority import NoAuthority, certificates, self_signed

ROOT = trustme.CA()
LEAF = ROOT.issue_cert("127.0.0.1")
OWN = LEAF.cert_chain_pems[0].bytes()


def written(folder: Path, *parts: bytes) -> Path:
    file = folder / "tls.crt"
    file.write_bytes(b"".join(parts))
    return file


def test_the_authority_of_a_chain_is_the_one_that_signed_itself(tmp_path: Path) -> None:
    assert self_signed(written(tmp_path, OWN, ROOT.cert_pem.bytes())) == ROOT.cert_pem.bytes().decode()


def test_an_authority_that_somebody_else_signed_is_not_for_clients(tmp_path: Path) -> None:
    between = ROOT.create_child_ca()
    chain = [pem.bytes() for pem in between.issue_cert("127.0.0.1").cert_chain_pems]
    assert len(chain) == 2
    assert self_signed(written(tmp_path, *chain)) is None
    assert self_signed(written(tmp_path, OWN)) is None


def test_a_key_in_the_same_file_stays_there(tmp_path: Path) -> None:
    key, root = LEAF.private_key_pem.bytes(), ROOT.cert_pem.bytes()
    file = written(tmp_path, b"# a note\n", root.rstrip(b"\n"), b"\n", key, OWN)
    assert certificates(file) == root.decode() + OWN.decode()
    assert self_signed(file) == root.decode()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "holds no certificate"),
        (LEAF.private_key_pem.bytes(), "holds no certificate"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "is damaged"),
    ],
)
def test_a_file_that_has_none_is_told(content: bytes, why: str, tmp_path: Path) -> None:
    with pytest.raises(NoAuthority, match=why):
        certificates(written(tmp_path, content))


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(NoAuthority, match="No such file"):
        self_signed(tmp_path / "none")
