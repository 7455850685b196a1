"""What a client's certificate says, as plain values. OpenSSL has proven it, and reads it."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Iterator
from typing import Any

from cacheproxy.edge.message import ClientCertificate

_SUBJECT = {"commonName": "CN", "organizationName": "O", "organizationalUnitName": "OU"}
_ALTERNATIVE = frozenset({"DNS", "URI", "email"})


def shown(tls: ssl.SSLObject) -> ClientCertificate | None:
    """After the handshake; None: the client showed none."""
    encoded, said = tls.getpeercert(binary_form=True), tls.getpeercert()
    if encoded is None or not said:
        return None
    subject = list(_attributes(said))
    return ClientCertificate(
        hashlib.sha256(encoded).hexdigest(),
        ", ".join(f"{_SUBJECT.get(name, name)}={value}" for name, value in subject)[:200],
        (*((_SUBJECT[name], value) for name, value in subject if name in _SUBJECT), *_alternatives(said)),
        ssl.cert_time_to_seconds(str(said["notAfter"])),
    )


def _attributes(said: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for part in said.get("subject", ()):
        yield from part


def _alternatives(said: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for kind, value in said.get("subjectAltName", ()):
        if kind in _ALTERNATIVE:
            yield kind, value
