"""The key that seals the secrets of rows: a file of this node, or what is configured for all nodes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import trio

from cacheproxy import wiring
from cacheproxy.config import Storage
from cacheproxy.registry.keys import SigningKeys
from cacheproxy.registry.sealing import Seal, SealedElsewhere
from cacheproxy.store.keyfile import read_or_make
from cacheproxy.upstream.credentials import CredentialsFailed, read_secret

NAME = "secret.key"
"""In the state folder."""


async def equip(seal: Seal, section: Storage) -> None:
    """Give it its key, if it has none. Raises CannotStart, StoreSuspect."""
    if seal.ready:
        return
    if section.key is not None:
        await configured(seal, section)
        return
    path = section.state / NAME
    try:
        seal.use(await trio.to_thread.run_sync(partial(read_or_make, path)))
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise wiring.CannotStart(f"the key that seals the secrets of accounts: {path}: {said}") from error


async def configured(seal: Seal, section: Storage) -> None:
    """Raises CannotStart."""
    assert section.key is not None
    try:
        seal.use(await read_secret(wiring.secret(section.key)))
    except (CredentialsFailed, ValueError) as error:
        raise wiring.CannotStart(f"storage.key: {error}") from error


async def look(keys: SigningKeys, section: Storage) -> None:
    """For the first time. Raises StoreError, CannotStart."""
    try:
        await keys.look()
    except SealedElsewhere as error:
        raise wiring.CannotStart(_advice(section, error)) from error


def _advice(section: Storage, error: SealedElsewhere) -> str:
    said = f"the database has secrets that this node's key does not open ({error}): "
    lost = "; if that key is lost, give up what it sealed: cacheproxy account reset-keys"
    where = "storage.key" if section.key is not None else str(section.state / NAME)
    if isinstance(section.database, Path):
        return f"{said}put back the {where} that belongs to the database{lost}"
    first = f"the {NAME} of the first node" if section.key is None else "the same key"
    return f"{said}all nodes over one PostgreSQL need one key: name {first} in storage.key of each{lost}"
