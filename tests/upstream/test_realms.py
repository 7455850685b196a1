"""A token is fetched, and a password sent, only where the operator or the challenged host itself says."""

from __future__ import annotations

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.core.failures import Cause, UpstreamError
from cacheproxy.upstream.realms import Realms

HTTPS = Realms(httpx.URL("https://registry.example"), ("auth.example", "login.example:8443"), "hub")
HTTP = Realms(httpx.URL("http://registry.example:5000"), ("auth.example",), "hub")


@pytest.mark.parametrize(
    ("realms", "realm"),
    [
        (HTTPS, "https://registry.example/token"),
        (HTTPS, "https://REGISTRY.example:443/v2/token"),
        (HTTPS, "https://auth.example/token?service=x"),
        (HTTPS, "https://login.example:8443/"),
        (HTTP, "http://registry.example:5000/token"),
        (HTTP, "http://auth.example/token"),
        (HTTP, "https://auth.example/token"),
    ],
)
def test_realms_at_the_host_itself_and_at_listed_ones_are_used(realms: Realms, realm: str) -> None:
    assert realms.check(realm) == httpx.URL(realm)


@pytest.mark.parametrize(
    "realm",
    [
        "https://evil.example/token",
        "https://registry.example.evil.example/token",
        "https://sub.registry.example/token",
        "https://example/token",
        "https://registry.example:444/token",
        "https://registry.example:8443/token",
        "https://login.example/token",
        "https://auth.example:8443/token",
        "https://127.0.0.1/token",
        "https://[::1]/token",
        "https://2130706433/token",
        "https://169.254.169.254/latest/meta-data/",
        "http://registry.example/token",
        "http://auth.example/token",
        "https://registry.example@evil.example/token",
        "https://user:password@registry.example/token",
        "https://evil.example#@registry.example/token",
        "https://registry.example/token#fragment",
        "https://registry.example\\@evil.example/token",
        "https://registry.example%2f@evil.example/",
        "//registry.example/token",
        "/token",
        "ftp://registry.example/token",
        "javascript:alert(1)",
        "file:///etc/passwd",
        "https://",
        "https://registry.example\n/",
        "https://reg\u0131stry.example/token",
        "",
        "https://registry.example/" + "a" * 3000,
    ],
)
def test_any_other_realm_is_refused(realm: str) -> None:
    with pytest.raises(UpstreamError) as caught:
        HTTPS.check(realm)
    assert caught.value.cause is Cause.GATE


@given(st.text(max_size=60) | st.from_regex(r"https?://[a-z@:/.#\\?%0-9\[\]]{0,40}", fullmatch=True))
def test_what_is_let_through_leads_to_an_allowed_host(realm: str) -> None:
    try:
        url = HTTPS.check(realm)
    except UpstreamError as error:
        assert error.cause is Cause.GATE  # noqa: PT017 - either outcome is fine, anything else is not
    else:
        assert (url.scheme, url.host, url.port) in {
            ("https", "registry.example", None),
            ("https", "auth.example", None),
            ("https", "login.example", 8443),
        }
