"""What doctor finds where rows and bytes are, when that is not this host."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from cacheproxy import wiring
from cacheproxy.commands.checks import Finding
from cacheproxy.config import BucketURL
from cacheproxy.store.errors import SchemaBehind, StoreError, StoreNotOurs
from cacheproxy.store.mark import demand_ours
from cacheproxy.upstream.credentials import read_secret

if TYPE_CHECKING:
    from cacheproxy.config import Config, Objects
    from cacheproxy.store.bucket import Bucket
    from cacheproxy.store.lifecycle import Keys
    from cacheproxy.store.postgres_probe import Condition

SKEWED = 10.0
"""Seconds that a database's clock may be off: rows hold times of several nodes."""

REGION = "us-east-1"
"""Where no region is named, as obstore has it."""
SECRETS = ("secret_access_key", "session_token")

BY_ITSELF = frozenset({"az"})
"""Stores that end unfinished uploads without a rule."""


async def database(config: Config) -> list[Finding]:
    """PostgreSQL: connection, version, promises, rights, schema, clock; SQLite: would a daemon take it?"""
    url = config.storage.database
    if isinstance(url, Path):
        return await _file(config, url)
    try:
        from cacheproxy.store import postgres_probe
    except ImportError as error:
        return [Finding("fail", "postgres", str(error), "install cacheproxy[postgres]")]
    try:
        condition = await trio.to_thread.run_sync(postgres_probe.examine, url)
    except StoreError as error:
        advice = "look at storage.database, and at what the server's log says of it"
        return [Finding("fail", "postgres", str(error), advice)]
    return list(_judged(condition))


async def _file(config: Config, path: Path) -> list[Finding]:
    """Rights are not looked at here, and nothing is said of a file that is in order, or not there yet."""
    if not os.access(path, os.R_OK):
        return []
    try:
        async with wiring.look_at_rows(config.storage):
            return []
    except SchemaBehind as error:
        return [Finding("warn", "schema", str(error))]
    except (StoreError, OSError) as error:
        return [Finding("fail", "rows", str(error))]


def _judged(condition: Condition) -> Iterator[Finding]:
    yield Finding("ok", "postgres", f"version {condition.version} answers")
    for broken in condition.broken:
        yield Finding("fail", "postgres promises", broken, "the daemon does not start with it")
    for lacking in condition.lacking:
        advice = "make the daemon's role the owner of its schema and of all tables in it"
        yield Finding("fail", "postgres rights", lacking, advice)
    if condition.schema:
        yield Finding("warn" if condition.usable else "fail", "postgres schema", condition.schema)
    if abs(condition.ahead) >= SKEWED:
        way = "ahead of" if condition.ahead > 0 else "behind"
        said = f"its clock is {abs(condition.ahead):.0f} s {way} ours"
        yield Finding("warn", "postgres clock", said, "set the one that is wrong (timedatectl set-ntp true)")


async def bucket(config: Config) -> list[Finding]:
    """What an object store cannot do would end the daemon at its start, or comes up later."""
    url = config.storage.blobs
    if not isinstance(url, BucketURL):
        return []
    try:
        opened = await wiring.open_bucket(url, config.storage.objects)
        await wiring.prove_content(config.storage)
    except (wiring.CannotStart, StoreError) as error:
        advice = "look at storage.blobs and [storage.objects], and at the rights of those keys"
        return [Finding("fail", "objects", str(error), advice)]
    found = [Finding("ok", "objects", f"{url} takes, gives and removes objects")]
    found += await trio.to_thread.run_sync(_later, opened, bool(config.storage.objects.redirect))
    if url.scheme not in BY_ITSELF:
        found.append(await _uploads(url, config.storage.objects))
    return found


async def _uploads(url: BucketURL, section: Objects) -> Finding:
    """Whether what a cut upload leaves behind, and costs, goes by itself."""
    from cacheproxy.store import lifecycle

    advice = "a lifecycle rule (AbortIncompleteMultipartUpload) lets go what cut uploads have left"
    keys = await _keys(section) if url.scheme == "s3" else None
    if keys is None:
        said = "whether the bucket ends unfinished uploads could not be told"
        return Finding("warn", "uploads", said, f"look at its rules: {advice}")
    region = section.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or REGION
    endpoint = section.endpoint or f"https://s3.{region}.amazonaws.com"
    ask = partial(lifecycle.ends_uploads, endpoint, region, url.bucket, url.prefix, keys)
    try:
        ends = await trio.to_thread.run_sync(ask)
    except StoreError as error:
        return Finding("warn", "uploads", str(error), f"look at its rules: {advice}")
    if ends:
        return Finding("ok", "uploads", "a rule of the bucket ends unfinished ones")
    return Finding("warn", "uploads", "no rule of the bucket ends unfinished ones", advice)


async def _keys(section: Objects) -> Keys | None:
    """Those of the configuration, or of the environment; those of a role only obstore knows: None."""
    from cacheproxy.store.bucketkeys import parse
    from cacheproxy.store.lifecycle import Keys

    if section.credentials is not None:
        told = parse("s3", await read_secret(wiring.secret(section.credentials)))
    else:
        told = {name: os.environ.get(f"AWS_{name.upper()}", "") for name in ("access_key_id", *SECRETS)}
    access, secret, session = (told.get(name, "") for name in ("access_key_id", *SECRETS))
    return Keys(access, secret, session) if access and secret else None


async def mark(config: Config) -> list[Finding]:
    """Whether the bytes are those of these rows. Nothing is said where no daemon has been yet."""
    try:
        async with wiring.look_at_rows(config.storage) as rows:
            await demand_ours(rows, await wiring.mark(config.storage))
    except StoreNotOurs as error:
        return [Finding("fail", "mark", str(error), "no daemon starts with it")]
    except (StoreError, OSError, ImportError, wiring.CannotStart):
        return []  # said of the rows, or of the bucket
    return []


def _later(opened: Bucket, redirecting: bool) -> list[Finding]:
    """What no start depends on. Blocking."""
    from cacheproxy.store import probe

    found = []
    try:
        probe.prove_list(opened)
    except StoreError as error:
        found.append(Finding("warn", "listing", str(error), "fsck and sweeping need the right to list"))
    else:
        found.append(Finding("ok", "listing", "its objects may be listed"))
    if redirecting:
        found.append(Finding("ok", "redirects", "presigned addresses answer"))
        return found
    try:
        probe.prove(opened, presigned=True)
    except StoreError as error:
        found.append(Finding("warn", "redirects", str(error), "leave storage.objects.redirect out"))
    else:
        found.append(Finding("ok", "redirects", "presigned addresses answer; redirect is not set"))
    return found
