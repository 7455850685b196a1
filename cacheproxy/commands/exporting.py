"""Images in one file, for where no network leads: an image layout with all that belongs to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path

import click

from cacheproxy.commands.daemon import Daemon
from cacheproxy.commands.layouts.door import Door, Gone
from cacheproxy.commands.layouts.gathering import Gathered, Gathering
from cacheproxy.commands.layouts.progress import Progress
from cacheproxy.commands.layouts.reading import opened, tree_of
from cacheproxy.commands.layouts.writing import TarWriter, written
from cacheproxy.commands.options import Load, config_file
from cacheproxy.commands.words import plural, short, size, told
from cacheproxy.core import layout
from cacheproxy.core.digest import Digest
from cacheproxy.core.layout import Index, LayoutInvalid
from cacheproxy.core.tree import Blob


@click.command()
@click.argument("references", nargs=-1, required=True)
@click.argument("target", metavar="FILE")
@click.option("--since", metavar="EARLIER", help="Leave out the blobs that this export has, or leaves out.")
@config_file
@click.pass_obj
def export(
    load: Load, references: tuple[str, ...], target: str, since: str | None, file: Path | None
) -> None:
    """Write images into FILE, as an OCI layout in a tar: all platforms, and what refers to them, such as
    signatures and SBOMs. "-" is standard output. Cached images are fetched as far as they are not here.
    """
    try:
        _say(exported(Door(Daemon.of(load(file))), references, target, since, _say))
    except LayoutInvalid as error:
        raise click.ClickException(f"{since}: {error}") from error
    except OSError as error:
        raise click.ClickException(told(error)) from error


def exported(
    door: Door, references: Iterable[str], target: str, since: str | None, warn: Callable[[str], None]
) -> str:
    """What was done. Raises click.ClickException, OSError; LayoutInvalid for what is wrong with `since`."""
    index, left_out = (Index(()), frozenset[Digest]()) if since is None else _earlier(since)
    gathering = Gathering(door, warn)
    for reference in references:
        gathering.take(reference)
    return _write(door, gathering.found, index, left_out, target)


def _say(text: str) -> None:
    click.echo(text, err=True)


def _earlier(place: str) -> tuple[Index, frozenset[Digest]]:
    """What an index says that goes on from there, and the blobs that need not be told again."""
    with opened(place) as earlier:
        tree = tree_of(earlier, layout.parse_index(earlier.index))
        return Index((), str(Digest.of(earlier.index)), Path(place).name), frozenset(tree.blobs)


def _write(door: Door, found: Gathered, since: Index, left_out: frozenset[Digest], target: str) -> str:
    roots = sorted(found.roots.values(), key=lambda root: (root.repository, root.tag, root.digest))
    index = Index(tuple(roots), since.since, since.since_name, frozenset(found.tree.absent))
    blobs = {digest: blob for digest, blob in found.tree.blobs.items() if digest not in left_out}
    progress = Progress("exported", sum(blob.size for blob in blobs.values()))
    said = layout.index(index)
    with written(target) as file:
        tar = TarWriter(file)
        # What says what is to come is first: who reads it as it comes knows where all belongs.
        for name, data in ((layout.MARKER, layout.marker()), (layout.INDEX, said)):
            tar.add(name, len(data), [data])
        for digest, node in found.tree.nodes.items():
            tar.add(layout.blob_path(digest), node.size, [_manifest(door, found.homes[digest], digest)])
        for digest, home in _homes(found, blobs).items():
            _blob(door, home, digest, blobs[digest], tar, progress)
        tar.end()
    progress.end()
    total = sum(blob.size for blob in blobs.values())
    return (
        f"exported {plural(len(roots), 'image')}, {plural(len(blobs), 'blob')} of {size(total)}"
        f" ({short(Digest.of(said))})"
    )


def _homes(found: Gathered, blobs: dict[Digest, Blob]) -> dict[Digest, str]:
    """Where to ask for each blob."""
    return {
        blob: found.homes[digest]
        for digest, node in found.tree.nodes.items()
        for blob in node.blobs
        if blob in blobs
    }


def _manifest(door: Door, repository: str, digest: Digest) -> bytes:
    pulled = door.manifest(repository, digest)
    if pulled is None or pulled.digest != digest:
        raise click.ClickException(f"{repository}@{digest} went while it was exported; do it again")
    return pulled.body


def _blob(
    door: Door, repository: str, digest: Digest, blob: Blob, tar: TarWriter, progress: Progress
) -> None:
    chunks = door.blob(repository, digest, blob.size)
    try:
        first = next(chunks, b"")
    except Gone as error:
        if blob.needed:
            raise click.ClickException(f"{repository} has no blob {digest} (any more)") from error
        return
    tar.add(layout.blob_path(digest), blob.size, progress.passing(_proven(digest, chain([first], chunks))))


def _proven(digest: Digest, chunks: Iterable[bytes]) -> Iterator[bytes]:
    hasher = digest.hasher()
    for chunk in chunks:
        hasher.update(chunk)
        yield chunk
    if hasher.hexdigest() != digest.hex:
        raise click.ClickException(f"what came of {digest} are not its bytes")
