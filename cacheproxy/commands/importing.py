"""Images out of a file or a folder, into hosted repositories: pushed, as any client would push them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

import click

from cacheproxy.commands.daemon import Daemon
from cacheproxy.commands.layouts.door import Door
from cacheproxy.commands.layouts.progress import Progress
from cacheproxy.commands.layouts.reading import Layout, listed, manifest_in, opened, tree_of
from cacheproxy.commands.options import Load, config_file
from cacheproxy.commands.words import plural, size, told
from cacheproxy.core.digest import Digest
from cacheproxy.core.errors import OCIError
from cacheproxy.core.layout import Index, LayoutInvalid, parse_index, placed
from cacheproxy.core.name import parse_repository
from cacheproxy.core.tree import Tree


@dataclass(slots=True)
class Wanted:
    """Of one repository."""

    roots: dict[Digest, None] = field(default_factory=dict)
    tags: dict[str, Digest] = field(default_factory=dict)


@dataclass(slots=True)
class Plan:
    repositories: dict[str, Wanted]
    tree: Tree
    sending: dict[Digest, list[str]] = field(default_factory=dict)
    """Blobs of the file, with the repositories that lack them."""


@click.command("import")
@click.argument("source", metavar="FILE")
@click.option("--to", metavar="PREFIX", default="", help="Put the repositories below it.")
@config_file
@click.pass_obj
def import_(load: Load, source: str, to: str, file: Path | None) -> None:
    """Push the images of an OCI layout: a tar, by gzip or as it is, a folder, or "-" for standard input.

    What is here already is not sent again, so it may be repeated. Tags move last, once all is here. Images
    that name no repository go to PREFIX itself.
    """
    try:
        click.echo(imported(Door(Daemon.of(load(file))), source, to))
    except LayoutInvalid as error:
        raise click.ClickException(f"{source}: {error}") from error
    except OCIError as error:
        raise click.ClickException(f"{to}: {error.message}") from error
    except OSError as error:
        raise click.ClickException(told(error)) from error


def imported(door: Door, source: str, to: str) -> str:
    """What was done. Raises LayoutInvalid, OSError, click.ClickException; and OCIError for what `to` says."""
    if to:
        parse_repository(to)
    with opened(source) as layout:
        index = parse_index(layout.index)
        plan = Plan(_placed(door, index, to), tree_of(layout, index))
        _check(door, layout, index, plan)
        return _carry_out(door, layout, plan)


def _placed(door: Door, index: Index, to: str) -> dict[str, Wanted]:
    """What goes where. Raises LayoutInvalid."""
    repositories: defaultdict[str, Wanted] = defaultdict(Wanted)
    destination = cache(partial(_destination, door))
    for root in index.roots:
        name = destination(placed(root, to))
        wanted = repositories[name]
        wanted.roots[root.digest] = None
        if root.tag and wanted.tags.setdefault(root.tag, root.digest) != root.digest:
            raise LayoutInvalid(f"it has two images {name}:{root.tag}")
    return repositories


def _destination(door: Door, name: str) -> str:
    """The repository that a push by this name goes into. Raises LayoutInvalid."""
    pushed = door.meaning(name).pushed
    if pushed is None:
        said = f"{name} is an upstream's, or of several places, and nothing is pushed there"
        raise LayoutInvalid(f"{said}: name another place by --to")
    return pushed


def _check(door: Door, layout: Layout, index: Index, plan: Plan) -> None:
    """Before anything is sent: that all of it is here, or there."""
    missing: set[Digest] = set()
    for name, wanted in plan.repositories.items():
        for digest, blob in plan.tree.blobs_of(plan.tree.below(wanted.roots)).items():
            held = layout.size(digest)
            if held is not None and held != blob.size:
                raise LayoutInvalid(f"the blob {digest} has {held} bytes in it, and not {blob.size}")
            if door.has(name, digest):
                continue
            if held is not None:
                plan.sending.setdefault(digest, []).append(name)
            elif not door.mount(name, digest) and blob.needed:
                missing.add(digest)
    if missing:
        raise LayoutInvalid(f"blobs are missing, here and in it: {listed(missing)}{_base(index)}")


def _base(index: Index) -> str:
    if not index.since:
        return ""
    return f". It goes on from another export ({index.since_name}, {index.since}): import that first"


def _carry_out(door: Door, layout: Layout, plan: Plan) -> str:
    """Blobs, then manifests, then tags. What was done."""
    sizes = {digest: plan.tree.blobs[digest].size for digest in plan.sending}
    progress = Progress("imported", sum(sizes.values()))
    sent = 0
    for digest in sorted(plan.sending, key=layout.place):
        for name in plan.sending[digest]:
            if not door.mount(name, digest):  # no other repository has it
                sent += sizes[digest]
                door.push(name, digest, sizes[digest], progress.passing(layout.chunks(digest)))
    progress.end()
    images = sum(_put_manifests(door, layout, plan.tree, *each) for each in plan.repositories.items())
    tags = sum(_put_tags(door, layout, plan.tree, *each) for each in plan.repositories.items())
    return (
        f"imported {plural(len(sizes), 'blob')} ({size(sent)} sent),"
        f" {plural(images, 'manifest')} and {plural(tags, 'tag')}"
    )


def _put_manifests(door: Door, layout: Layout, tree: Tree, name: str, wanted: Wanted) -> int:
    """How many were not there."""
    fresh = [digest for digest in tree.below(wanted.roots) if door.means(name, digest) is None]
    for digest in fresh:
        door.put(name, digest, manifest_in(layout, digest), tree.nodes[digest].media_type)
    return len(fresh)


def _put_tags(door: Door, layout: Layout, tree: Tree, name: str, wanted: Wanted) -> int:
    """How many meant something else, or nothing. Those of what refers to images first, as with a signer."""
    moving = {tag: digest for tag, digest in _in_turn(wanted.tags) if door.means(name, tag) != digest}
    for tag, digest in moving.items():
        door.put(name, tag, manifest_in(layout, digest), tree.nodes[digest].media_type)
    return len(moving)


def _in_turn(tags: Mapping[str, Digest]) -> Iterator[tuple[str, Digest]]:
    yield from sorted(tags.items(), key=lambda tag: (not tag[0].startswith(("sha256-", "sha512-")), tag[0]))
