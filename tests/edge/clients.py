"""Authorities, and the certificates of clients: what a workload shows in its handshake."""

from __future__ import annotations

import datetime
import ssl
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

BEGIN = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
END = datetime.datetime(2120, 1, 1, tzinfo=datetime.UTC)
PAST = datetime.datetime(2021, 1, 1, tzinfo=datetime.UTC)

_PARTS = {"CN": NameOID.COMMON_NAME, "O": NameOID.ORGANIZATION_NAME, "OU": NameOID.ORGANIZATIONAL_UNIT_NAME}


@dataclass(frozen=True)
class Issued:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        form, none = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        return self.key.private_bytes(serialization.Encoding.PEM, form, none)

    def show(self, context: ssl.SSLContext) -> ssl.SSLContext:
        """The context of a client that shows it."""
        with TemporaryDirectory() as folder:
            path = Path(folder, "client.pem")
            path.write_bytes(self.pem + self.key_pem)
            context.load_cert_chain(path)
        return context


class Authority(Issued):
    def issue(
        self,
        *subject: tuple[str, str],
        names: tuple[x509.GeneralName, ...] = (),
        end: datetime.datetime = END,
        usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH,
    ) -> Issued:
        """A client's certificate. `subject`: as (("CN", "build-7"), ("OU", "ci"))."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(subject, self.certificate.subject, key, end).add_extension(
            x509.ExtendedKeyUsage([usage]), critical=False
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return Issued(builder.sign(self.key, hashes.SHA256()), key)


def authority(name: str) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = (("CN", name),)
    builder = _builder(subject, _name(subject), key, END)
    constraint = x509.BasicConstraints(ca=True, path_length=None)
    return Authority(builder.add_extension(constraint, critical=True).sign(key, hashes.SHA256()), key)


def _builder(
    subject: tuple[tuple[str, str], ...],
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    end: datetime.datetime,
) -> x509.CertificateBuilder:
    number = x509.random_serial_number()
    return x509.CertificateBuilder(issuer, _name(subject), key.public_key(), number, BEGIN, end)


def _name(subject: tuple[tuple[str, str], ...]) -> x509.Name:
    return x509.Name([x509.NameAttribute(_PARTS[part], value) for part, value in subject])
