"""Whether a bucket of S3 ends uploads that were cut off in the middle, by a lifecycle rule of its own.

obstore has no call for a bucket's rules, nor one that signs for others: this is the one request that we sign
ourselves (AWS Signature Version 4, by headers).
"""

from __future__ import annotations

import hashlib
import hmac
import re
import ssl
import time
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import NamedTuple
from urllib.parse import urlsplit

from cacheproxy.store.bucket import CONNECT_SECONDS
from cacheproxy.store.errors import StoreUnreachable

LARGEST = 1 << 20
"""Bytes of an answer. A bucket has 1000 rules at most."""

NO_RULES = "NoSuchLifecycleConfiguration"
_RULE = re.compile(r"<Rule>(.*?)</Rule>", re.DOTALL)
_PREFIX = re.compile(r"<Prefix>([^<]*)</Prefix>")
_CODE = re.compile(r"<Code>([A-Za-z0-9]{1,64})</Code>")


class Keys(NamedTuple):
    access: str
    secret: str
    session: str = ""
    """Of temporary ones the token."""


def ends_uploads(endpoint: str, region: str, bucket: str, prefix: str, keys: Keys) -> bool:
    """Blocking. Whether an enabled rule ends unfinished uploads of all keys below the prefix.

    Raises StoreUnreachable when it cannot be told: it takes one more right, s3:GetLifecycleConfiguration.
    """
    parts = urlsplit(endpoint)
    path = f"{parts.path}/{bucket}/"
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.netloc, timeout=CONNECT_SECONDS)
    headers = signed("GET", parts.netloc, path, "lifecycle=", region, keys, time.time())
    try:
        connection.request("GET", f"{path}?lifecycle=", headers=headers)
        answer = connection.getresponse()
        status, text = answer.status, answer.read(LARGEST).decode(errors="replace")
    except (OSError, HTTPException, ssl.SSLError) as error:
        raise StoreUnreachable(f"the rules of {bucket} cannot be had: {error}") from None
    finally:
        connection.close()
    code = found[1] if (found := _CODE.search(text)) else ""
    if status == 200:
        return any(_ends(rule, prefix) for rule in _RULE.findall(text))
    if code == NO_RULES:
        return False
    raise StoreUnreachable(f"the rules of {bucket} cannot be had: {status} {code}".rstrip())


def _ends(rule: str, prefix: str) -> bool:
    named = _PREFIX.search(rule)
    return (
        "<Status>Enabled</Status>" in rule
        and "<AbortIncompleteMultipartUpload>" in rule
        and (named is None or f"{prefix}/".startswith(named[1]))
    )


def signed(
    method: str, host: str, path: str, query: str, region: str, keys: Keys, now: float, body: bytes = b""
) -> Mapping[str, str]:
    """Headers of a request. `query` is as it is sent, with its names in order."""
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    payload = hashlib.sha256(body).hexdigest()
    headers = {"host": host, "x-amz-content-sha256": payload, "x-amz-date": moment}
    if keys.session:
        headers["x-amz-security-token"] = keys.session
    names = ";".join(headers)
    lines = [f"{name}:{value}" for name, value in headers.items()]
    canonical = "\n".join([method, path, query, *lines, "", names, payload])
    scope = f"{moment[:8]}/{region}/s3/aws4_request"
    hashed = hashlib.sha256(canonical.encode()).hexdigest()
    text = "\n".join(["AWS4-HMAC-SHA256", moment, scope, hashed])
    key = f"AWS4{keys.secret}".encode()
    for step in scope.split("/"):
        key = hmac.digest(key, step.encode(), "sha256")
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    credential = f"Credential={keys.access}/{scope}, SignedHeaders={names}, Signature={signature}"
    return headers | {"Authorization": f"AWS4-HMAC-SHA256 {credential}"}
