"""Each way of failing stands for one cause."""

from __future__ import annotations

import httpx
import pytest
import trio

from cacheproxy.core.failures import Cause
from cacheproxy.upstream import causes


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (causes.NameUnresolved(""), Cause.DNS),
        (causes.AddressRefused(""), Cause.GATE),
        (causes.HandshakeFailed(""), Cause.TLS),
        (causes.RecordBroken(""), Cause.TLS),
        (causes.BrokenOff(""), Cause.CONNECT),
        (httpx.ConnectError(""), Cause.CONNECT),
        (httpx.ReadError(""), Cause.CONNECT),
        (httpx.WriteError(""), Cause.CONNECT),
        (httpx.ProxyError(""), Cause.CONNECT),
        (httpx.ConnectTimeout(""), Cause.TIMEOUT),
        (httpx.ReadTimeout(""), Cause.TIMEOUT),
        (httpx.WriteTimeout(""), Cause.TIMEOUT),
        (trio.TooSlowError(), Cause.TIMEOUT),
        (httpx.RemoteProtocolError(""), Cause.PROTOCOL),
        (httpx.LocalProtocolError(""), Cause.PROTOCOL),
        (httpx.UnsupportedProtocol(""), Cause.PROTOCOL),
        (httpx.TooManyRedirects(""), Cause.PROTOCOL),
        (httpx.InvalidURL(""), Cause.PROTOCOL),
    ],
)
def test_each_failure_has_its_cause(error: Exception, cause: Cause) -> None:
    assert causes.cause_of(error) is cause


def test_a_bug_has_no_cause() -> None:
    with pytest.raises(TypeError, match="KeyError"):
        causes.cause_of(KeyError("x"))
