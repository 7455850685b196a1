"""What is shown to clients, what is refused at start, and how it is renewed."""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from cacheproxy.edge.certificate import LOOK_EVERY, Certificate, CertificateError
from tests.edge.harness import Scripted, serving
from tests.virtual import clock as clock

AUTHORITY = trustme.CA()
NOW = 1_800_000_000.0
NEVER = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


def issue(
    path: Path, name: str = "localhost", until: datetime.datetime | None = None, beside: bool = False
) -> bytes:
    """Write a chain for `name` to `path`, with its key `beside` it or not; the key as PEM."""
    issued = AUTHORITY.issue_cert(name, not_after=until)
    parts = ([issued.private_key_pem] if beside else []) + issued.cert_chain_pems
    path.write_bytes(b"".join(part.bytes() for part in parts))
    return issued.private_key_pem.bytes()


def self_signed(path: Path, usage: x509.ObjectIdentifier) -> bytes:
    """As `openssl req -x509` makes them, for one use."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    begin = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=36500))
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    return pem(key)


def pem(key: ec.EllipticCurvePrivateKey, password: bytes | None = None) -> bytes:
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        encryption = serialization.BestAvailableEncryption(password)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def read(key: bytes) -> Callable[[], Awaitable[bytes]]:
    async def read_key() -> bytes:
        return key

    return read_key


async def load(chain: Path, key: bytes) -> Certificate:
    certificate = await Certificate.load(chain, read(key), clock=lambda: NOW)
    certificate.announce()
    return certificate


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    return tmp_path / "tls.crt"


async def shown(port: int) -> str:
    """The name in the certificate that a client is shown."""
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    context.check_hostname = False
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        secure = trio.SSLStream(stream, context, https_compatible=True)
        await secure.do_handshake()
        return str(secure.getpeercert()["subjectAltName"][0][1])


async def test_a_good_one_tells_when_it_expires(chain: Path) -> None:
    until = datetime.datetime(2030, 1, 2, tzinfo=datetime.UTC)
    key = issue(chain, until=until)
    with capture_logs() as logged:
        await load(chain, key)
    assert [entry["event"] for entry in logged] == ["certificate loaded"]
    assert logged[0]["expires"] == "2030-01-02 00:00:00 UTC"
    value = REGISTRY.get_sample_value("cacheproxy_tls_certificate_expires_timestamp_seconds")
    assert value == until.timestamp()


async def test_the_key_may_stand_beside_it(chain: Path) -> None:
    issue(chain, beside=True)
    await load(chain, b"")


async def test_a_self_signed_one_is_good(chain: Path) -> None:
    await load(chain, self_signed(chain, ExtendedKeyUsageOID.SERVER_AUTH))


async def test_an_expired_one_is_shown_and_warned_of(chain: Path) -> None:
    key = issue(chain, until=datetime.datetime(2021, 1, 1, tzinfo=datetime.UTC))
    with capture_logs() as logged:
        await load(chain, key)
    assert [(entry["event"], entry["log_level"]) for entry in logged[1:]] == [
        ("certificate has expired, on 2021-01-01 00:00:00 UTC", "warning")
    ]


async def test_one_that_is_not_valid_yet_is_shown_and_warned_of(chain: Path) -> None:
    key = self_signed(chain, ExtendedKeyUsageOID.SERVER_AUTH)
    early = datetime.datetime(2019, 12, 31, tzinfo=datetime.UTC).timestamp()
    with capture_logs() as logged:
        certificate = await Certificate.load(chain, read(key), clock=lambda: early)
        certificate.announce()
    assert certificate.doubt == "is not valid before 2020-01-01 00:00:00 UTC"
    assert [entry["log_level"] for entry in logged] == ["info", "warning"]


async def test_it_must_be_there(chain: Path) -> None:
    with pytest.raises(CertificateError, match=r"tls\.crt: No such file"):
        await load(chain, b"")


async def test_the_key_must_be_its_own(chain: Path, tmp_path: Path) -> None:
    issue(chain)
    with pytest.raises(CertificateError, match=r"tls\.crt: the key is not this certificate's"):
        await load(chain, issue(tmp_path / "other"))


async def test_an_encrypted_key_is_refused_without_asking_for_its_password(chain: Path) -> None:
    issue(chain)
    encrypted = pem(ec.generate_private_key(ec.SECP256R1()), b"secret")
    with pytest.raises(CertificateError, match=r"tls\.crt: its key is encrypted"):
        await load(chain, encrypted)


async def test_one_for_other_uses_is_refused(chain: Path) -> None:
    key = self_signed(chain, ExtendedKeyUsageOID.CLIENT_AUTH)
    with pytest.raises(CertificateError, match=r"tls\.crt: no client takes it: .*purpose"):
        await load(chain, key)


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        (b"\x30\x82 DER", None, "holds no certificate in PEM"),
        (None, b"\x30\x82 DER", "its key is not in PEM"),
        (None, b"", "its key is not in PEM"),
        (NEVER, None, "it or its key is damaged"),
        (None, NEVER.replace(b"CERTIFICATE", b"PRIVATE KEY"), "it or its key is damaged"),
    ],
)
def test_what_is_no_pem_is_named(text: bytes | None, key: bytes | None, words: str, chain: Path) -> None:
    own = issue(chain)
    if text is not None:
        chain.write_bytes(text)
    with pytest.raises(CertificateError, match=words):
        trio.run(load, chain, own if key is None else key)


class Files:
    """A certificate and its key in two files, as an operator keeps them."""

    def __init__(self, folder: Path) -> None:
        self.chain, self.key = folder / "tls.crt", folder / "tls.key"

    def renew(self, name: str) -> None:
        self.key.write_bytes(issue(self.chain, name))

    async def load(self) -> Certificate:
        async def read_key() -> bytes:
            return self.key.read_bytes()

        return await Certificate.load(self.chain, read_key, self.key)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    files = Files(tmp_path)
    files.renew("old.example")
    return files


async def test_new_connections_are_shown_the_new_one_and_running_ones_go_on(
    app: Scripted, files: Files
) -> None:
    certificate = await files.load()
    async with serving(app, tls=certificate.context) as server:
        trusting = ssl.create_default_context()
        AUTHORITY.configure_trust(trusting)
        trusting.check_hostname = False
        client = await server.secure(trusting)
        assert await shown(server.port) == "old.example"
        files.renew("new.example")
        assert await certificate.reload()
        assert await shown(server.port) == "new.example"
        assert (await client.get("/still")).body == b"/still"


async def test_a_bad_one_keeps_the_old_and_says_so(app: Scripted, files: Files) -> None:
    certificate = await files.load()
    files.chain.write_text("nonsense")
    with capture_logs() as logged:
        assert not await certificate.reload()
    assert logged[0]["event"] == "certificate not renewed: the old one stays"
    assert "holds no certificate" in logged[0]["error"]
    async with serving(app, tls=certificate.context) as server:
        assert await shown(server.port) == "old.example"


async def test_a_change_of_the_files_is_noticed_once_both_are_there(
    files: Files, clock: trio.testing.MockClock
) -> None:
    certificate = await files.load()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(certificate.watch)
        await trio.sleep(LOOK_EVERY + 1)
        context = certificate.context()
        key = issue(files.chain, "new.example")
        await trio.sleep(LOOK_EVERY)
        assert certificate.context() is context
        files.key.write_bytes(key)
        await trio.sleep(LOOK_EVERY)
        renewed = certificate.context()
        assert renewed is not context
        await trio.sleep(10 * LOOK_EVERY)
        assert certificate.context() is renewed
        nursery.cancel_scope.cancel()
