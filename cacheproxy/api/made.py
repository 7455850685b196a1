"""Answers as the one way in makes them: failures, and what is kept ready to be sent again."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from cacheproxy.api.answers import Headers
from cacheproxy.core.errors import OCIError
from cacheproxy.edge.message import Ready, Request, Response

API_VERSION = ("Docker-Distribution-API-Version", "registry/2.0")
NOSNIFF = ("X-Content-Type-Options", "nosniff")


@dataclass(frozen=True, slots=True)
class Whose:
    """A repository, as what is said of an answer from it."""

    repository: str
    upstream: str = ""
    namespace: str | None = None
    local: bool = True
    """Our own rights say who gets it: what is made ready asks nothing else."""


def not_now(message: str) -> OCIError:
    return OCIError("UNAVAILABLE", message, status=503, headers=(("Retry-After", "5"),))


def error_answer(error: OCIError, request: Request) -> Response:
    headers: Headers = [("Content-Type", "application/json"), *error.headers]
    return Response(error.status, headers, error.body(request.id))


def made_ready(method: str, whose: Whose, headers: Headers, body: bytes, status: int = 200) -> Ready:
    namespace = [] if whose.namespace is None else [("OCI-Namespace", whose.namespace)]
    fields = [API_VERSION, NOSNIFF, *headers, *namespace, ("Content-Length", str(len(body)))]
    head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n" + "".join(
        f"{name}: {value}\r\n" for name, value in fields
    )
    return Ready(head.encode("ascii"), b"" if method == "HEAD" else body, "hit", whose.upstream, status)
