"""What an export writes and an import reads: the same images, whatever they are."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cacheproxy.commands.exporting import exported
from cacheproxy.commands.importing import imported
from cacheproxy.core.digest import Digest
from cacheproxy.core.layout import LayoutInvalid
from cacheproxy.core.name import fallback_tag
from tests.commands.layouts.memory import Memory, described

QUIET = settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
"""A busy machine is no fault of theirs."""


def silent(text: str) -> None:
    raise AssertionError(text)


def export(source: Memory, file: Path, *references: str, since: Path | None = None) -> str:
    return exported(source, references, str(file), None if since is None else str(since), silent)


@st.composite
def registries(draw: st.DrawFn) -> Memory:
    """Some repositories with images, indexes of them, and what refers to either, by both ways."""
    registry = Memory()
    layers = st.lists(st.sampled_from([b"", b"one", b"two", b"three" * 300]), max_size=3)
    for repository in draw(st.sets(st.sampled_from(["a", "b/c", "d__e/f"]), min_size=1)):
        made: list[Digest] = []
        for number in range(draw(st.integers(1, 6))):
            kind = draw(st.sampled_from(["image", "index", "referrer", "signature"]))
            tag = draw(st.sampled_from(["", f"v{number}"])) if made else "latest"
            if kind == "index" and made:
                children = draw(st.lists(st.sampled_from(made), unique=True))
                made.append(registry.index(repository, *children, tag=tag, annotations={"n": str(number)}))
                continue
            subject = draw(st.sampled_from(made)) if made and kind == "referrer" else None
            if kind == "signature" and made:
                tag = fallback_tag(draw(st.sampled_from(made))) + draw(st.sampled_from(["", ".sig"]))
            note = {"annotations": {"n": str(number)}}
            made.append(registry.image(repository, *draw(layers), tag=tag, subject=subject, **note))
    return registry


def reached(registry: Memory) -> dict[str, tuple[dict[str, Digest], set[Digest], set[Digest]]]:
    """What its ordinary tags lead to, with all that refers to it: tags, manifests and blobs by repository."""
    found = {}
    for name, kept in registry.kept.items():
        tags = {tag: digest for tag, digest in kept.tags.items() if not tag.startswith("sha256-")}
        waiting, manifests, blobs = list(tags.values()), set[Digest](), set[Digest]()
        while waiting:
            digest = waiting.pop()
            if digest in manifests:
                continue
            manifests.add(digest)
            body = json.loads(kept.manifests[digest][1])
            waiting += [Digest.parse(child["digest"]) for child in body.get("manifests", ())]
            waiting += registry.referrers(name, digest)
            for tag in registry.tags(name, fallback_tag(digest)):
                tags[tag] = kept.tags[tag]
                waiting.append(kept.tags[tag])
            blobs |= {Digest.parse(blob["digest"]) for blob in body.get("layers", ())}
            blobs |= {Digest.parse(body["config"]["digest"])} if "config" in body else set()
        found[name] = tags, manifests, blobs
    return found


def named(registry: Memory) -> list[str]:
    return [
        f"{name}:{tag}"
        for name, kept in registry.kept.items()
        for tag in kept.tags
        if not tag.startswith("sha256-")
    ]


def shape(registry: Memory) -> dict[str, tuple[dict[str, Digest], set[Digest], set[Digest]]]:
    """All that is in it."""
    return {
        name: (kept.tags, set(kept.manifests), set(kept.blobs))
        for name, kept in registry.kept.items()
        if kept.manifests
    }


@QUIET
@given(registries())
def test_what_is_exported_and_imported_is_the_same(tmp_path: Path, registry: Memory) -> None:
    export(registry, tmp_path / "x.tar", *named(registry))
    there = Memory()
    imported(there, str(tmp_path / "x.tar"), "")
    assert shape(there) == reached(registry)


@QUIET
@given(registries(), st.data())
def test_an_import_that_ends_anywhere_leaves_whole_images_and_goes_on(
    tmp_path: Path, registry: Memory, data: st.DataObject
) -> None:
    export(registry, tmp_path / "x.tar", *named(registry))
    there = Memory()
    there.changes_left = data.draw(st.integers(0, 30))
    try:
        imported(there, str(tmp_path / "x.tar"), "")
    except click.ClickException:
        for name, (tags, manifests, blobs) in reached(there).items():
            assert set(tags.values()) <= manifests <= set(there.kept[name].manifests)
            assert blobs <= set(there.kept[name].blobs)
    there.changes_left = 1 << 30
    imported(there, str(tmp_path / "x.tar"), "")
    assert shape(there) == reached(registry)


@QUIET
@given(registries(), registries())
def test_an_export_and_what_was_new_since_give_all_of_it(
    tmp_path: Path, before: Memory, after: Memory
) -> None:
    first, second, third = (tmp_path / name for name in ("1.tar", "2.tar", "3.tar"))
    export(before, first, *named(before))
    export(after, second, *named(after), since=first)
    export(after, third, *named(after), since=second)
    known = {blob for _, _, blobs in reached(before).values() for blob in blobs}
    assert not held(second) & known
    assert not held(third) & {blob for _, _, blobs in reached(after).values() for blob in blobs}
    there = Memory()
    for file in (first, second, third):
        imported(there, str(file), "")
    for name, (tags, manifests, blobs) in reached(after).items():
        kept = there.kept[name]
        assert tags.items() <= kept.tags.items()
        assert manifests <= set(kept.manifests)
        assert blobs <= set(kept.blobs)


def held(file: Path) -> set[Digest]:
    """Of all that is in a layout, by its name."""
    with tarfile.open(file) as tar:
        paths = [name.split("/") for name in tar.getnames() if name.startswith("blobs/")]
    return {Digest.parse(f"{algorithm}:{hexadecimal}") for _, algorithm, hexadecimal in paths}


def unpack(file: Path, folder: Path) -> None:
    with tarfile.open(file) as tar:
        for member in tar:
            path = folder / member.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes((tar.extractfile(member) or io.BytesIO()).read())


def one(tag: str = "v1") -> Memory:
    registry = Memory()
    registry.image("team/app", b"layer", tag=tag)
    return registry


def test_the_same_images_give_the_same_file(tmp_path: Path) -> None:
    for name in ("1.tar", "2.tar"):
        export(one(), tmp_path / name, "team/app:v1")
    assert (tmp_path / "1.tar").read_bytes() == (tmp_path / "2.tar").read_bytes()


def test_each_image_is_named_whole(tmp_path: Path) -> None:
    registry = one()
    subject = registry.kept["team/app"].tags["v1"]
    referrer = registry.image("team/app", b"sbom", subject=subject)
    export(registry, tmp_path / "x.tar", "team/app:v1")
    with tarfile.open(tmp_path / "x.tar") as tar:
        index = json.load(tar.extractfile("index.json") or io.BytesIO())
    names = {each["annotations"]["org.opencontainers.image.ref.name"] for each in index["manifests"]}
    assert names == {"team/app:v1", f"team/app@{referrer}"}


def test_sha512_is_moved_too(tmp_path: Path) -> None:
    registry = one()
    long = registry.add("team/app", b"long", "sha512")
    layer = {"mediaType": "x", "digest": long, "size": 4}
    registry.image("team/app", tag="v2", layers=[layer])
    export(registry, tmp_path / "x.tar", "team/app:v2")
    there = Memory()
    imported(there, str(tmp_path / "x.tar"), "")
    assert there.kept["team/app"].blobs[long] == b"long"


def test_a_layer_that_is_to_be_had_elsewhere_may_be_missing(tmp_path: Path) -> None:
    registry = one()
    elsewhere = {**described(b"elsewhere"), "urls": ["https://elsewhere.example/layer"]}
    digest = registry.image("team/app", tag="v2", layers=[elsewhere])
    export(registry, tmp_path / "x.tar", "team/app:v2")
    there = Memory()
    imported(there, str(tmp_path / "x.tar"), "")
    assert there.kept["team/app"].tags == {"v2": digest}


def test_a_sparse_index_stays_one(tmp_path: Path) -> None:
    registry = one()
    children = [registry.image("team/app", data) for data in (b"here", b"gone")]
    index = registry.index("team/app", *children, tag="multi")
    del registry.kept["team/app"].manifests[children[1]]
    export(registry, tmp_path / "x.tar", "team/app:multi")
    there = Memory()
    imported(there, str(tmp_path / "x.tar"), "")
    assert there.kept["team/app"].tags == {"multi": index}
    assert set(there.kept["team/app"].manifests) == {index, children[0]}


def test_a_second_import_changes_nothing(tmp_path: Path) -> None:
    export(one(), tmp_path / "x.tar", "team/app:v1")
    there = Memory()
    assert "2 blobs" in imported(there, str(tmp_path / "x.tar"), "")
    there.changes_left = 0
    assert (
        imported(there, str(tmp_path / "x.tar"), "") == "imported 0 blobs (0 B sent), 0 manifests and 0 tags"
    )


def test_a_delta_alone_says_what_it_lacks(tmp_path: Path) -> None:
    registry = one()
    export(registry, tmp_path / "monday.tar", "team/app:v1")
    export(registry, tmp_path / "x.tar", "team/app:v1", since=tmp_path / "monday.tar")
    there = Memory()
    with pytest.raises(LayoutInvalid, match=r"missing.*goes on from another export \(monday.tar, sha256:"):
        imported(there, str(tmp_path / "x.tar"), "")
    assert shape(there) == {}


@pytest.mark.parametrize(
    ("to", "place"), [("", "team/app"), ("mirror", "mirror/team/app"), ("a/b", "a/b/team/app")]
)
def test_repositories_go_below_a_prefix(tmp_path: Path, to: str, place: str) -> None:
    export(one(), tmp_path / "x.tar", "team/app:v1")
    there = Memory()
    imported(there, str(tmp_path / "x.tar"), to)
    assert set(shape(there)) == {place}


def test_what_is_an_upstreams_takes_another_place(tmp_path: Path) -> None:
    registry = Memory()
    registry.image("docker-hub/library/debian", b"layer", tag="12")
    export(registry, tmp_path / "x.tar", "docker-hub/library/debian:12")
    there = Memory()
    with pytest.raises(LayoutInvalid, match=r"is an upstream's.*--to"):
        imported(there, str(tmp_path / "x.tar"), "")
    imported(there, str(tmp_path / "x.tar"), "mirror")
    assert set(shape(there)) == {"mirror/docker-hub/library/debian"}


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    registry = one()
    registry.image("team/app", b"other", tag="v2")
    export(registry, tmp_path / "x.tar", "team/app:v1")
    before = (tmp_path / "x.tar").read_bytes()
    registry.kept["team/app"].blobs[Digest.of(b"other")] = b"wrong"
    with pytest.raises(click.ClickException, match="are not its bytes"):
        export(registry, tmp_path / "x.tar", "team/app:v2")
    del registry.kept["team/app"].blobs[Digest.of(b"other")]
    with pytest.raises(click.ClickException, match="has no blob"):
        export(registry, tmp_path / "x.tar", "team/app:v2")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"x.tar": before}


@pytest.mark.parametrize("wanted", ["team/app:none", "nobody/nothing", "Team/App"])
def test_what_is_not_there_is_not_exported(tmp_path: Path, wanted: str) -> None:
    registry = one()
    with pytest.raises(click.ClickException):
        export(registry, tmp_path / "x.tar", "team/app:v1", wanted)
    assert list(tmp_path.iterdir()) == []


def packed(tar: bytes) -> bytes:
    return gzip.compress(tar)


def damaged(tar: bytes) -> bytes:
    return tar.replace(b"layer", b"lawer")


@pytest.mark.parametrize("change", [packed, lambda tar: tar], ids=["gzip", "plain"])
def test_a_tar_may_be_compressed(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    registry, file = one(), tmp_path / "x.tar"
    export(registry, file, "team/app:v1")
    file.write_bytes(change(file.read_bytes()))
    there = Memory()
    imported(there, str(file), "")
    assert shape(there) == reached(registry)


def test_a_folder_is_as_good(tmp_path: Path) -> None:
    registry = one()
    export(registry, tmp_path / "x.tar", "team/app:v1")
    unpack(tmp_path / "x.tar", tmp_path / "layout")
    there = Memory()
    imported(there, str(tmp_path / "layout"), "")
    assert shape(there) == reached(registry)


@pytest.mark.parametrize("change", [damaged, lambda tar: packed(damaged(tar))], ids=["plain", "gzip"])
def test_wrong_bytes_are_refused_and_nothing_is_tagged(
    tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    file = tmp_path / "x.tar"
    export(one(), file, "team/app:v1")
    file.write_bytes(change(file.read_bytes()))
    there = Memory()
    with pytest.raises((click.ClickException, LayoutInvalid)):
        imported(there, str(file), "")
    assert not there.kept["team/app"].tags
    assert not there.kept["team/app"].manifests


@QUIET
@given(st.data())
def test_a_file_that_is_cut_off_anywhere_is_refused_or_whole(tmp_path: Path, data: st.DataObject) -> None:
    file = tmp_path / "x.tar"
    export(one(), file, "team/app:v1")
    whole = data.draw(st.sampled_from([file.read_bytes(), packed(file.read_bytes())]))
    file.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    there = Memory()
    try:
        imported(there, str(file), "")
    except LayoutInvalid:
        assert shape(there) == {}
    else:
        assert shape(there) == reached(one())


def test_a_manifest_that_is_not_its_digests_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.tar"
    export(one(), file, "team/app:v1")
    file.write_bytes(file.read_bytes().replace(b'"schemaVersion": 2', b'"schemaVersion": 1'))
    there = Memory()
    with pytest.raises(LayoutInvalid, match="are not its own"):
        imported(there, str(file), "")
    assert shape(there) == {}


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    registry = one()
    registry.image("other/app", b"other", tag="v1")
    export(registry, tmp_path / "x.tar", "team/app:v1", "other/app:v1")
    unpack(tmp_path / "x.tar", tmp_path / "layout")
    index = tmp_path / "layout" / "index.json"
    index.write_bytes(index.read_bytes().replace(b"other/app:v1", b"team/app:v1"))
    there = Memory()
    with pytest.raises(LayoutInvalid, match="two images team/app:v1"):
        imported(there, str(tmp_path / "layout"), "")
    assert shape(there) == {}
