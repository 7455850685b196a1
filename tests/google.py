"""Google Cloud Storage's XML API on loopback, as far as it is S3's in other clothes.

No emulator that could be had speaks it. Who asks is checked here, by Google's published rules: a service
account's own JWT, or a V4 signature in the query. What is asked for then goes to a SeaweedFS that lets
everybody in. So this shows that requests and signatures are what Google documents, and that S3's answers
are understood; not that Google answers as S3 does, nor how it fails.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
import time
from calendar import timegm
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from cacheproxy.store.bucket import Bucket, connect
from tests.seaweed import BUCKET, Seaweed, seaweed

ACCOUNT = "tests@project.iam.gserviceaccount.com"
SCOPES = (
    "https://www.googleapis.com/auth/cloud-platform",
    "https://www.googleapis.com/auth/devstorage.full_control",
)
PASSED = {
    "content-type": "Content-Type",
    "range": "Range",
    "if-match": "If-Match",
    "if-none-match": "If-None-Match",
    "x-goog-copy-source": "x-amz-copy-source",
}
"""Headers of requests that go on to the store, in its words."""
HOP = frozenset({"connection", "transfer-encoding", "date", "server", "content-length"})
"""Headers of its answers that do not come back."""

HOST = "storage.googleapis.com"
"""What obstore signs, whatever address it was given: its addresses are good for Google's own name only. Here
they are taken as if they had come by that name."""

STORAGE = """\
blobs = "gs://{bucket}/{prefix}"
[storage.objects]
endpoint = "{endpoint}"
credentials = {{ file = "{credentials}" }}
"""


@cache
def _key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def _pem() -> bytes:
    return _key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


class Refused(Exception):
    """The message says why Google would."""


@dataclass(frozen=True, slots=True)
class Google:
    port: int

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def credentials(self) -> str:
        """The JSON that Google gives for a service account, as far as it is read."""
        return json.dumps(
            {
                "type": "service_account",
                "private_key": _pem().decode(),
                "private_key_id": "key-1",
                "client_email": ACCOUNT,
            }
        )

    def storage(self, prefix: str, credentials: Path) -> str:
        """Lines of a configuration; the credentials are written to that file."""
        credentials.write_text(self.credentials)
        return STORAGE.format(bucket=BUCKET, prefix=prefix, endpoint=self.endpoint, credentials=credentials)

    def connect(self, prefix: str = "") -> Bucket:
        settings = {"base_url": self.endpoint, "service_account_key": self.credentials}
        return connect("gs", BUCKET, prefix or secrets.token_hex(6), settings, plain=True)


@contextmanager
def google(folder: Path) -> Iterator[Google]:
    with seaweed(folder, identities=False) as behind:
        _make_bucket(behind)
        server = ThreadingHTTPServer(("127.0.0.1", 0), _door(behind))
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield Google(server.server_port)
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def _make_bucket(behind: Seaweed) -> None:
    connection = HTTPConnection("127.0.0.1", behind.port, timeout=30)
    connection.request("PUT", f"/{BUCKET}")
    assert connection.getresponse().status == 200
    connection.close()


def _door(behind: Seaweed) -> type[BaseHTTPRequestHandler]:
    class Door(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked = {name.lower(): value for name, value in self.headers.items()}
            try:
                path = demand(self.command, self.path, asked)
            except Refused as reason:
                said = f"<Error><Code>AccessDenied</Code><Details>{reason}</Details></Error>".encode()
                self._send(403, {}, said)
                return
            headers = {PASSED[name]: value for name, value in asked.items() if name in PASSED}
            connection = HTTPConnection("127.0.0.1", behind.port, timeout=30)
            try:
                connection.request(self.command, path, body, headers)
                answer = connection.getresponse()
                self._send(answer.status, dict(answer.getheaders()), answer.read())
            finally:
                connection.close()

        def _send(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
            length = next((v for k, v in headers.items() if k.lower() == "content-length"), str(len(body)))
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in HOP:
                    self.send_header(name, value)
            self.send_header("Content-Length", length if self.command == "HEAD" else str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing: a test's output is its own."""

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer  # noqa: N815 - as the standard library has it

    return Door


def demand(method: str, target: str, headers: Mapping[str, str]) -> str:
    """What is asked for, without what proves who asks. Raises Refused."""
    parts = urlsplit(target)
    if "X-Goog-Signature" in parts.query:
        _demand_signature(method, target)
        return parts.path
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme != "Bearer":
        raise Refused("nobody says who asks")
    _demand_token(token)
    return target


def _demand_token(token: str) -> None:
    """A JWT that the account signed itself (Google: "Service account authorization without OAuth")."""
    try:
        told = jwt.decode(token, RSAKey.import_key(_pem()), algorithms=["RS256"])
    except (JoseError, ValueError) as error:
        raise Refused(f"not a token of the account: {error}") from error
    claims = told.claims
    if (claims["iss"], claims["sub"]) != (ACCOUNT, ACCOUNT) or claims["scope"] not in SCOPES:
        raise Refused(f"a token of another account, or for something else: {claims}")
    if not claims["iat"] - 60 <= time.time() < claims["exp"] <= claims["iat"] + 3600:
        raise Refused("a token that is not good now, or for more than an hour")


def _demand_signature(method: str, target: str) -> None:
    """V4, as "Signatures" of Google's documents has it: its text made anew from the request."""
    parts = urlsplit(target)
    query = dict(parse_qsl(parts.query, strict_parsing=True))
    signature = bytes.fromhex(query.pop("X-Goog-Signature"))
    began = timegm(time.strptime(query["X-Goog-Date"], "%Y%m%dT%H%M%SZ"))
    scope = f"{query['X-Goog-Date'][:8]}/auto/storage/goog4_request"
    if query["X-Goog-Credential"] != f"{ACCOUNT}/{scope}" or query["X-Goog-Algorithm"] != "GOOG4-RSA-SHA256":
        raise Refused(f"a signature of another account or kind: {query}")
    if not began - 60 <= time.time() <= began + int(query["X-Goog-Expires"]):
        raise Refused("a signature that is not good now")
    ordered = "&".join(f"{quote(k, safe='')}={quote(v, safe='')}" for k, v in sorted(query.items()))
    canonical = "\n".join([method, parts.path, ordered, f"host:{HOST}", "", "host", "UNSIGNED-PAYLOAD"])
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    signed = "\n".join(["GOOG4-RSA-SHA256", query["X-Goog-Date"], scope, digest])
    try:
        _key().public_key().verify(signature, signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature as error:
        raise Refused("a signature over something else") from error
