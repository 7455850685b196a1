"""What h11 alone would let through and we do not: request smuggling, floods of headers.

h11 0.16 accepts Content-Length beside Transfer-Encoding, repeated equal lengths, folded lines, lines that
end in a bare LF, absolute targets, any Host, and limits a head only while it is incomplete. Two servers in
a row that read such requests differently are how one client's bytes become another's request (RFC 9112
11.2), so whatever can be read in two ways is refused and the connection ends.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from cacheproxy.edge import grammar

MAX_HEAD = 16 * 1024
MAX_FIELDS = 100
MAX_TARGET = 8 * 1024
MAX_VALUE = 8 * 1024
END = b"\r\n\r\n"

_LONGEST_REQUEST_LINE = MAX_TARGET + 64
_request_line = re.compile(rb"([A-Z]{1,32}) ([\x21-\x7e]+) HTTP/(1\.[01])").fullmatch
_origin_form = re.compile(rb"/[\x21\x22\x24-\x7e]*").fullmatch
_field = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)").fullmatch
_length = re.compile(rb"[0-9]{1,19}").fullmatch


class Refusal(NamedTuple):
    """Why the edge itself answers: an HTTP status, and words for the error body."""

    status: int
    message: str


Fields = dict[bytes, list[bytes]]
"""Values by lower-case name, in the order they came."""

SINGLE = frozenset(
    (
        *(
            b"authorization",
            b"content-encoding",
            b"content-length",
            b"content-range",
            b"content-type",
            b"date",
        ),
        *(
            b"expect",
            b"from",
            b"host",
            b"if-modified-since",
            b"if-range",
            b"if-unmodified-since",
            b"max-forwards",
        ),
        *(b"proxy-authorization", b"range", b"referer", b"transfer-encoding", b"upgrade", b"user-agent"),
    )
)
"""Fields that are no lists (RFC 9110 5.3), so that two of them cannot be joined."""


def early(data: bytes) -> Refusal | None:
    """Judge a head that is not whole yet: what can only get worse is not waited for.

    The first byte tells a TLS handshake from HTTP: docker and podman fall back to plain HTTP as soon as
    they read an answer that is not TLS.
    """
    if not b"A" <= data[:1] <= b"Z":
        return Refusal(400, "this is not an HTTP/1.1 request")
    if _bare(data[:-1] if data.endswith(b"\r") else data):
        return Refusal(400, "a line ends without CRLF")
    line, crlf, _ = data.partition(b"\r\n")
    if not crlf and len(line) > _LONGEST_REQUEST_LINE:
        return Refusal(414, f"the request target is longer than {MAX_TARGET} bytes")
    if len(data) > MAX_HEAD:
        return Refusal(431, f"the request's head is larger than {MAX_HEAD} bytes")
    return None


def check(head: bytes) -> Refusal | None:
    """Judge a whole head, `END` included. None: h11 may have it."""
    refusal = early(head)
    if refusal is not None:
        return refusal
    lines = head.removesuffix(END).split(b"\r\n")
    match = _request_line(lines[0])
    if match is None:
        return Refusal(400, "the request line is malformed or speaks another version of HTTP")
    method, target, version = match.groups()
    return _check_line(method, target) or _check_fields(lines[1:], version)


def request_line(data: bytes) -> tuple[str, str]:
    """(method, target) for the log of a refused request, as far as they can be told; else empty."""
    match = _request_line(data.partition(b"\r\n")[0])
    return (match[1].decode("ascii"), match[2][:MAX_TARGET].decode("ascii")) if match else ("", "")


def is_field(line: bytes) -> bool:
    """Whether it is a header field, with its CRLF and no other line end."""
    return line.endswith(b"\r\n") and _field(line[:-2]) is not None


def _bare(data: bytes) -> bool:
    """Whether there is a CR or an LF that is not one half of a CRLF."""
    pairs = data.count(b"\r\n")
    return data.count(b"\n") != pairs or data.count(b"\r") != pairs


def _check_line(method: bytes, target: bytes) -> Refusal | None:
    if method in (b"CONNECT", b"TRACE"):
        return Refusal(400, f"{method.decode()} is not served here")
    if len(target) > MAX_TARGET:
        return Refusal(414, f"the request target is longer than {MAX_TARGET} bytes")
    if _origin_form(target) is None:
        return Refusal(400, "the request target must be a path")
    return None


def _check_fields(lines: list[bytes], version: bytes) -> Refusal | None:
    if len(lines) > MAX_FIELDS:
        return Refusal(431, f"more than {MAX_FIELDS} header fields")
    fields: Fields = {}
    for line in lines:
        match = _field(line)
        if match is None:
            return Refusal(400, "a header field is malformed or folded")
        if len(match[2]) > MAX_VALUE:
            return Refusal(431, f"a header field is longer than {MAX_VALUE} bytes")
        fields.setdefault(match[1].lower(), []).append(match[2].rstrip(b" \t"))
    return next((refusal for broken, refusal in _RULES if broken(fields, version)), None)


def _repeated(fields: Fields, _: bytes) -> bool:
    return any(len(values) > 1 and name in SINGLE for name, values in fields.items())


def _bad_length(fields: Fields, _: bytes) -> bool:
    return b"content-length" in fields and _length(fields[b"content-length"][0]) is None


def _length_and_coding(fields: Fields, _: bytes) -> bool:
    return b"content-length" in fields and b"transfer-encoding" in fields


def _coding_before_1_1(fields: Fields, version: bytes) -> bool:
    return b"transfer-encoding" in fields and version == b"1.0"


def _unknown_coding(fields: Fields, _: bytes) -> bool:
    return fields.get(b"transfer-encoding", [b"chunked"])[0].lower() != b"chunked"


def _no_host(fields: Fields, version: bytes) -> bool:
    return b"host" not in fields and version == b"1.1"


def _bad_host(fields: Fields, _: bytes) -> bool:
    return b"host" in fields and grammar.host(fields[b"host"][0].decode("latin-1")) is None


def _upgrade(fields: Fields, _: bytes) -> bool:
    return b"upgrade" in fields


def _unknown_expectation(fields: Fields, _: bytes) -> bool:
    return fields.get(b"expect", [b"100-continue"])[0].lower() != b"100-continue"


_RULES: tuple[tuple[Callable[[Fields, bytes], bool], Refusal], ...] = (
    (_repeated, Refusal(400, "a header field that has one value came twice")),
    (_length_and_coding, Refusal(400, "Content-Length and Transfer-Encoding exclude one another")),
    (_bad_length, Refusal(400, "Content-Length is not a number")),
    (_coding_before_1_1, Refusal(400, "Transfer-Encoding needs HTTP/1.1")),
    (_unknown_coding, Refusal(501, "the only transfer coding here is chunked")),
    (_no_host, Refusal(400, "Host is missing")),
    (_bad_host, Refusal(400, "Host is not of the form host[:port]")),
    (_upgrade, Refusal(400, "this server speaks HTTP/1.1 only and does not upgrade")),
    (_unknown_expectation, Refusal(417, "the only expectation met here is 100-continue")),
)
"""Every rule that looks at fields, in the order of which answer wins."""
