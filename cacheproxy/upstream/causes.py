"""What can go wrong below a request, and the cause each of it stands for.

    httpx.TransportError
      TimeoutException                TIMEOUT
        ConnectTimeout                  name, addresses, proxy and handshake together took too long
        ReadTimeout                     the head, or the next bytes of a body, did not come: a stall
        WriteTimeout                    the request was not taken
      NetworkError                    CONNECT
        ConnectError                    refused, unreachable, closed during the handshake
          NameUnresolved              DNS
          AddressRefused              GATE
          HandshakeFailed             TLS
        ReadError                       reset
          BrokenOff                     closed before the end
          RecordBroken                TLS
        WriteError
      ProxyError                      CONNECT
      ProtocolError, UnsupportedProtocol, DecodingError, ...  PROTOCOL

All are httpx's own or subclasses, so a client of httpx needs to know nothing of this module.
"""

from __future__ import annotations

import httpx
import trio

from cacheproxy.core.failures import Cause


class NameUnresolved(httpx.ConnectError):
    """The host has no address: unknown, no answer, or not a name at all."""


class AddressRefused(httpx.ConnectError):
    """One of the host's addresses is not one we connect to. Nothing was sent to any of them."""


class HandshakeFailed(httpx.ConnectError):
    """TLS was not agreed on: the certificate is not trusted, or not for this host, or the peer does not speak
    it."""


class RecordBroken(httpx.ReadError):
    """TLS failed after the handshake: a damaged record or an alert (in TLS 1.3 a refused client certificate
    too)."""


class BrokenOff(httpx.ReadError):
    """The peer closed the connection before the response, or its body, was whole."""


_CAUSES: tuple[tuple[type[BaseException], Cause], ...] = (
    (NameUnresolved, Cause.DNS),
    (AddressRefused, Cause.GATE),
    (HandshakeFailed, Cause.TLS),
    (RecordBroken, Cause.TLS),
    (httpx.TimeoutException, Cause.TIMEOUT),
    (trio.TooSlowError, Cause.TIMEOUT),
    (httpx.NetworkError, Cause.CONNECT),
    (httpx.ProxyError, Cause.CONNECT),
    (httpx.HTTPError, Cause.PROTOCOL),
    (httpx.InvalidURL, Cause.PROTOCOL),
)
"""First match wins: subclasses stand before their bases."""


def cause_of(error: BaseException) -> Cause:
    """The cause that a failed request stands for. Raises TypeError for what no request raises: that is a
    bug."""
    for kind, cause in _CAUSES:
        if isinstance(error, kind):
            return cause
    raise TypeError(f"not a failure of a request: {error!r}") from error
