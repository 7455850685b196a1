"""Why an image is served as it is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from cacheproxy.commands.daemon import Daemon
from cacheproxy.commands.options import Load, as_json, config_file, report
from cacheproxy.commands.words import ago, day, plural, short, size, span, table


@click.command()
@click.argument("reference")
@config_file
@as_json
@click.pass_obj
def explain(load: Load, reference: str, file: Path | None, machine: bool) -> None:
    """What is here of an image, since when, fresh until when, who shares it and when it goes."""
    told = Daemon.of(load(file)).get("/explain", reference=reference)
    report(told, machine, lambda value: lines(value, time.time()))


def lines(told: Any, now: float) -> Iterator[str]:
    separator = "@" if ":" in told["reference"] else ":"
    yield f"{told['repository']}{separator}{told['reference']}, of the upstream {told['upstream']}"
    if told["tag"]:
        yield from _tag(told["tag"], now)
    if not told["images"]:
        yield f"nothing of it is here: {_absent(told['missing'])}"
        return
    for image in told["images"]:
        yield from _image(image, now)
    yield from _end(told)


def _absent(missing: bool) -> str:
    if missing:
        return "the upstream has none either, it said, and is not asked again for a while (missing_for)"
    return "the next request for it asks the upstream"


def _tag(tag: Any, now: float) -> Iterator[str]:
    yield f"  asked upstream  {ago(tag['checked'], now)}"
    until = tag["fresh_until"]
    if tag["pending"]:
        yield f"  moved upstream to {tag['pending']}, which is not here yet: the next request gets it"
    elif until is None:
        yield "  fresh for ever"
    elif until > now:
        yield f"  fresh for another {span(until - now)}: nobody is asked until then"
    else:
        yield f"  fresh until {ago(until, now)}: the next request asks what it means now"
    yield f"  meaning this since {ago(tag['moved'], now)}"


def _image(image: Any, now: float) -> Iterator[str]:
    platform = f" for {image['platform']}" if image["platform"] else ""
    if image["since"] is None:
        yield f"{image['digest']}{platform}: not here; its index is"
        return
    yield f"{image['digest']}{platform}: here since {ago(image['since'], now)}"
    if image["tags"]:
        yield f"  tagged {', '.join(image['tags'])}"
    yield from table((_blob(blob, now) for blob in image["blobs"]), right=frozenset({1}))


def _blob(blob: Any, now: float) -> tuple[str, str, str, str]:
    if blob["here"]:
        state = f"here, used {span(now - blob['used'])} ago"
    elif blob["arriving"] is not None:
        state = f"arriving, {size(blob['arriving'])} so far"
    else:
        state = "not here"
    if blob["pinned"]:
        state += ", pinned"
    if blob["damaged"]:
        state += f", was damaged ({blob['damaged']['found']}) {span(now - blob['damaged']['noticed'])} ago"
    sharers = blob["shared_with"]
    shared = f"shared with {_names(sharers)}" if sharers else ""
    return f"  {short(blob['digest'])}", size(blob["size"]), state, shared


def _names(names: Any) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:3])} and {len(names) - 3} more"


def _end(told: Any) -> Iterator[str]:
    blobs = {blob["digest"]: blob for image in told["images"] for blob in image["blobs"]}
    here = [blob for blob in blobs.values() if blob["here"]]
    total = sum(blob["size"] for blob in here)
    yield f"{size(total)} in {len(here)} of {plural(len(blobs), 'blob')} here"
    if told["pinned"]:
        yield f"pinned by {', '.join(told['pinned'])}: none of it is evicted"
    elif here and all(blob["pinned"] for blob in here):
        yield "pinned through another image: none of it is evicted"
    elif told["older_bytes"] is not None:
        older = told["older_bytes"]
        before = f"after {size(older)} that were used less recently" if older else "before all else"
        yield f"goes when space is needed, {before}"
        if told["kept_until"] is not None:
            yield f"goes on {day(told['kept_until'])} in any case, unless it is pulled before (keep)"
