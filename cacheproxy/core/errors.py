"""What a client is told when a request fails: one table of codes, one exception, one maker of bodies.

OCIError
  raised anywhere below the dispatch, turned into an answer there and nowhere else
Unavailable
  the base of what says that something of ours does not answer; 503 for a client
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec


class Code(NamedTuple):
    status: int
    """The HTTP status, where who raises it names no other."""
    text: str


CODES: Mapping[str, Code] = {
    # distribution-spec, "Error Codes"
    "BLOB_UNKNOWN": Code(404, "blob unknown to registry"),
    "BLOB_UPLOAD_INVALID": Code(400, "blob upload invalid"),
    "BLOB_UPLOAD_UNKNOWN": Code(404, "blob upload unknown to registry"),
    "DIGEST_INVALID": Code(400, "provided digest is not valid or did not match the content"),
    "MANIFEST_BLOB_UNKNOWN": Code(404, "manifest references a manifest or blob unknown to registry"),
    "MANIFEST_INVALID": Code(400, "manifest invalid"),
    "MANIFEST_UNKNOWN": Code(404, "manifest unknown to registry"),
    "NAME_INVALID": Code(400, "invalid repository name"),
    "NAME_UNKNOWN": Code(404, "repository name not known to registry"),
    "SIZE_INVALID": Code(400, "provided length did not match content length"),
    "UNAUTHORIZED": Code(401, "authentication required"),
    "DENIED": Code(403, "requested access to the resource is denied"),
    "UNSUPPORTED": Code(405, "the operation is unsupported"),
    "TOOMANYREQUESTS": Code(429, "too many requests"),
    # Not in the specification, but in use by distribution and known to clients.
    "PAGINATION_NUMBER_INVALID": Code(400, "invalid number of results requested"),
    "RANGE_INVALID": Code(416, "invalid content range"),
    "TAG_INVALID": Code(400, "invalid tag name"),
    "UNAVAILABLE": Code(503, "service unavailable"),
    "UNKNOWN": Code(500, "unknown error"),
}


class Unavailable(Exception):
    """A store of ours does not answer now, and may again. The message is for the log: it may name hosts."""

    told = "what cacheproxy keeps its records in does not answer; try again"
    """What a client hears."""


class OCIError(Exception):
    """A request that ends in an error answer.

    `message` says what happened and what to do about it; "" takes the code's own text. `headers` go into the
    answer beside Content-Type (Allow, Retry-After, Content-Range).
    """

    def __init__(
        self,
        code: str,
        message: str = "",
        *,
        detail: Mapping[str, object] | None = None,
        status: int | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        row = CODES[code]
        self.code = code
        self.status = row.status if status is None else status
        self.message = message or row.text
        self.detail = detail
        self.headers = headers
        super().__init__(f"{code}: {self.message}")

    def body(self, request_id: str) -> bytes:
        """The application/json body (distribution-spec, "Error Codes"), with the request's id in `detail`."""
        detail = {**(self.detail or {}), "request": request_id}
        return msgspec.json.encode(
            {"errors": [{"code": self.code, "message": self.message, "detail": detail}]}
        )
