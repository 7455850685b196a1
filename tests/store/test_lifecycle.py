from __future__ import annotations

import time
from collections.abc import Iterator
from http.client import HTTPConnection

import pytest

from cacheproxy.store.errors import StoreUnreachable
from cacheproxy.store.lifecycle import Keys, ends_uploads, signed
from tests.seaweed import ACCESS_KEY, BUCKET, SECRET_KEY, Seaweed

OURS = Keys(ACCESS_KEY, SECRET_KEY)
RULE = """\
<LifecycleConfiguration><Rule><ID>x</ID><Filter><Prefix>{prefix}</Prefix></Filter><Status>{status}</Status>\
<{kind}><{days}>3</{days}></{kind}></Rule></LifecycleConfiguration>"""
ABORT = {"kind": "AbortIncompleteMultipartUpload", "days": "DaysAfterInitiation"}
EXPIRE = {"kind": "Expiration", "days": "Days"}


def test_a_request_is_signed_as_amazons_own_example_is() -> None:
    """ "GET Bucket Lifecycle" of "Authenticating Requests: Using the Authorization Header"."""
    keys = Keys("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    host, now = "examplebucket.s3.amazonaws.com", 1369353600.0
    headers = signed("GET", host, "/", "lifecycle=", "us-east-1", keys, now)
    assert headers["Authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
        " SignedHeaders=host;x-amz-content-sha256;x-amz-date,"
        " Signature=fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"
    )


def test_the_token_of_temporary_keys_is_signed() -> None:
    headers = signed("GET", "h", "/", "", "r", Keys("a", "b", "session"), 0.0)
    assert headers["x-amz-security-token"] == "session"
    assert ";x-amz-security-token," in headers["Authorization"]


def rules(server: Seaweed, method: str, body: str = "") -> int:
    """Set (PUT) or forgotten (DELETE)."""
    host, path, data = f"127.0.0.1:{server.port}", f"/{BUCKET}/", body.encode()
    headers = signed(method, host, path, "lifecycle=", "us-east-1", OURS, time.time(), data)
    connection = HTTPConnection(host, timeout=20)
    try:
        connection.request(method, f"{path}?lifecycle=", data, dict(headers))
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.fixture
def store(seaweed_server: Seaweed) -> Iterator[Seaweed]:
    """With its bucket, and without rules before and afterwards."""
    seaweed_server.connect().put("x", 1, iter([b"x"]))
    rules(seaweed_server, "DELETE")
    yield seaweed_server
    rules(seaweed_server, "DELETE")


def asked(server: Seaweed, keys: Keys = OURS) -> bool:
    return ends_uploads(server.endpoint, "us-east-1", BUCKET, "team/cache", keys)


def test_a_bucket_without_rules_ends_nothing(store: Seaweed) -> None:
    assert not asked(store)


@pytest.mark.parametrize(
    ("prefix", "status", "rule", "ends"),
    [
        ("", "Enabled", ABORT, True),
        ("team/", "Enabled", ABORT, True),
        ("team/cache/", "Enabled", ABORT, True),
        ("other/", "Enabled", ABORT, False),
        ("", "Disabled", ABORT, False),
        ("", "Enabled", EXPIRE, False),
    ],
)
def test_a_rule_counts_if_it_is_enabled_for_our_keys_and_ends_uploads(
    store: Seaweed, prefix: str, status: str, rule: dict[str, str], ends: bool
) -> None:
    assert rules(store, "PUT", RULE.format(prefix=prefix, status=status, **rule)) == 200
    assert asked(store) == ends


def test_who_may_not_ask_is_told_so_without_a_secret(store: Seaweed) -> None:
    with pytest.raises(StoreUnreachable, match="cannot be had: 403 SignatureDoesNotMatch") as caught:
        asked(store, Keys(ACCESS_KEY, "wrong"))
    assert "wrong" not in str(caught.value)


def test_a_store_that_does_not_answer_is_said() -> None:
    with pytest.raises(StoreUnreachable, match=r"cannot be had: .*refused"):
        ends_uploads("http://127.0.0.1:9", "r", "bucket", "", OURS)
