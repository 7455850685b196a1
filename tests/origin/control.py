"""How another process steers an origin: GET /_seen, POST /_reset, POST /_set, POST /_image."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.origin.plan import Plan, document, error
from tests.origin.seen import Seen

if TYPE_CHECKING:
    from tests.origin.server import Origin

SETTINGS = frozenset(
    {
        "rate",
        "latency",
        "ranges",
        "accept_ranges_header",
        "etag",
        "referrers_api",
        "refusing",
        "redirect_blobs_to",
    }
)


def control(origin: Origin, seen: Seen) -> Plan:
    handler = _HANDLERS.get((seen.method, seen.path))
    return handler(origin, seen) if handler else error(405, "UNSUPPORTED", "no such method here")


def describe_image(origin: Origin, repo: str, tag: str) -> dict[str, Any]:
    manifest = origin.content.manifest(repo, tag)
    assert manifest is not None
    layers = json.loads(manifest.body)["layers"]
    blobs = [{"digest": layer["digest"], "size": layer["size"]} for layer in layers]
    return {"repository": repo, "tag": tag, "digest": manifest.digest, "blobs": blobs}


def add_pattern_image(origin: Origin, repo: str, tag: str, sizes: list[int], seed: object) -> dict[str, Any]:
    """An image of incompressible layers of these sizes; the same seed makes the same image."""
    layers = [
        origin.content.add_pattern_blob(size, f"{seed}/{number}", repo) for number, size in enumerate(sizes)
    ]
    config = json.dumps({"architecture": "amd64", "os": "linux", "seed": str(seed)}).encode()
    origin.content.add_image(repo, tag, layers, config)
    return describe_image(origin, repo, tag)


def _seen(origin: Origin, _seen_now: Seen) -> Plan:
    """Every request since the last reset, and for each blob its transfers and bytes."""
    digests = sorted({seen.reference for seen in origin.seen if seen.carries_blob})
    blobs = {
        digest: {"transfers": origin.blob_transfers(digest), "bytes": origin.bytes_sent(digest)}
        for digest in digests
    }
    requests = [seen.as_dict() for seen in origin.seen]
    return document({"seen": requests, "blobs": blobs, "connections": origin.connections})


def _reset(origin: Origin, _seen_now: Seen) -> Plan:
    origin.seen.clear()
    return document({})


def _set(origin: Origin, seen: Seen) -> Plan:
    """A JSON object of attributes of the Origin."""
    wanted = json.loads(seen.body)
    unknown = set(wanted) - SETTINGS
    if unknown:
        return error(400, "UNSUPPORTED", f"no such setting: {', '.join(sorted(unknown))}")
    for name, value in wanted.items():
        setattr(origin, name, value)
    return document({})


def _image(origin: Origin, seen: Seen) -> Plan:
    """{"repository", "tag", "sizes": [bytes, ...], "seed"}: an image is made and described."""
    asked = json.loads(seen.body)
    made = add_pattern_image(
        origin, asked["repository"], asked["tag"], asked["sizes"], asked.get("seed", asked["tag"])
    )
    return document(made)


_HANDLERS = {
    ("GET", "/_seen"): _seen,
    ("POST", "/_reset"): _reset,
    ("POST", "/_set"): _set,
    ("POST", "/_image"): _image,
}
