"""What an export takes along: images with all that they consist of, and all that refers to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import click

from cacheproxy.commands.daemon import Refused
from cacheproxy.commands.layouts.door import Door, Pulled
from cacheproxy.core.digest import Digest
from cacheproxy.core.errors import OCIError
from cacheproxy.core.image import DEFAULT_TAG, parse_image
from cacheproxy.core.layout import Root
from cacheproxy.core.manifest import ManifestInvalid
from cacheproxy.core.name import fallback_tag
from cacheproxy.core.tree import Tree


@dataclass(slots=True)
class Gathered:
    tree: Tree = field(default_factory=Tree)
    roots: dict[tuple[str, str], Root] = field(default_factory=dict)
    """By repository and tag, or digest where it is not meant by a tag."""
    homes: dict[Digest, str] = field(default_factory=dict)
    """Where each manifest was found, and so its blobs."""


class Gathering:
    """Raises NoDaemon and Refused, and click.ClickException for what is not there."""

    def __init__(self, door: Door, warn: Callable[[str], None]) -> None:
        self._door = door
        self._warn = warn
        self._seen: set[tuple[str, Digest]] = set()
        self.found = Gathered()

    def take(self, text: str) -> None:
        """An image as a person names it."""
        try:
            image = parse_image(text)
        except OCIError as error:
            raise click.ClickException(f"{text}: {error.message}") from error
        repository = self._door.meaning(image.name).pulled
        if repository is None:
            raise click.ClickException(f"there is no repository {image.name} here")
        reference = image.reference or DEFAULT_TAG
        fresh = self._root(repository, reference)
        if fresh is None:
            raise click.ClickException(f"{repository} has no image {reference}")
        self._attached(repository, fresh)

    def _root(self, repository: str, reference: Digest | str) -> list[Digest] | None:
        """Take an image: its manifests that were not seen in this repository. None: there is none."""
        pulled = self._door.manifest(repository, reference)
        if pulled is None:
            return None
        tag = "" if isinstance(reference, Digest) else reference
        root = Root(pulled.digest, pulled.media_type, len(pulled.body), repository, tag)
        self.found.roots.setdefault((repository, tag or pulled.digest), root)
        self._add(repository, pulled)
        fresh = [
            digest
            for digest in self.found.tree.below([pulled.digest])
            if (repository, digest) not in self._seen
        ]
        self._seen.update((repository, digest) for digest in fresh)
        return fresh

    def _add(self, repository: str, pulled: Pulled) -> None:
        """The manifest, and all below it that is there."""
        tree, waiting = self.found.tree, [pulled]
        while waiting:
            pulled = waiting.pop()
            self.found.homes.setdefault(pulled.digest, repository)
            tree.absent.discard(pulled.digest)
            try:
                children = tree.add(pulled.digest, pulled.body, pulled.media_type)
            except ManifestInvalid as error:
                raise click.ClickException(f"{repository}: {error}") from error
            for child, _ in children:
                found = self._door.manifest(repository, child)
                if found is None:
                    tree.absent.add(child)
                else:
                    waiting.append(found)

    def _attached(self, repository: str, subjects: list[Digest]) -> None:
        """All that refers to these, and to that in turn, by the API or by a tag made of the digest."""
        tags = self._tags_of_digests(repository) if subjects else {}
        waiting = list(subjects)
        while waiting:
            subject = waiting.pop()
            for reference in (*self._referrers(repository, subject), *tags.get(fallback_tag(subject), ())):
                waiting += self._root(repository, reference) or ()

    def _referrers(self, repository: str, subject: Digest) -> Iterable[Digest]:
        try:
            return list(self._door.referrers(repository, subject))
        except Refused as error:
            self._warn(f"what refers to {subject} is left out: {error.message}")
            return ()

    def _tags_of_digests(self, repository: str) -> dict[str, list[str]]:
        """By the fallback tag that they begin with: that itself, and what cosign adds to it (".sig")."""
        found: dict[str, list[str]] = {}
        try:
            for algorithm in ("sha256-", "sha512-"):
                for tag in self._door.tags(repository, algorithm):
                    found.setdefault(tag.partition(".")[0], []).append(tag)
        except Refused as error:
            self._warn(f"tags that refer to images are left out: {error.message}")
        return found
