from __future__ import annotations

from pathlib import Path

from cacheproxy.commands import explain
from tests.commands.desk import at_desk

BIG = b"layer" * 1000


async def test_it_tells_what_is_here_of_an_image(folder: Path) -> None:
    async with at_desk(folder) as desk:
        image = desk.house.image("library/a", BIG)
        await desk.pull(image)
        told = await desk.tells("explain", "a")
        said = await desk.says("explain", "docker.io/library/a:latest")
    assert (told["repository"], told["reference"], told["upstream"]) == (
        "docker-hub/library/a",
        "latest",
        "docker-hub",
    )
    (facts,) = told["images"]
    assert facts["digest"] == image.digest
    assert facts["tags"] == ["latest"]
    assert {blob["digest"]: blob["here"] for blob in facts["blobs"]} == dict.fromkeys(image.blobs, True)
    assert told["older_bytes"] is not None
    assert said.startswith("docker-hub/library/a:latest, of the upstream docker-hub\n")
    assert "4.9 KiB  here, used" in said
    assert "in 2 of 2 blobs here" in said


VIRTUAL = """
[[upstream]]
registry = "second.test"
prefix = "second"
url = "http://127.0.0.1:9"
[[virtual]]
prefix = "all"
members = ["platform", "second", "docker-hub"]
"""


async def test_of_a_virtual_name_it_tells_which_place_has_it(folder: Path) -> None:
    async with at_desk(folder, upstream=VIRTUAL) as desk:
        await desk.pull(desk.house.image("library/a", BIG))
        told = await desk.tells("explain", "all/a")
        nothing = await desk.tells("explain", "all/b")
    assert (told["repository"], told["upstream"]) == ("docker-hub/library/a", "docker-hub")
    assert (nothing["repository"], nothing["images"]) == ("second/b", [])


async def test_a_virtual_name_of_a_hosted_repository_is_said_to_be_that(folder: Path) -> None:
    async with at_desk(folder, upstream=VIRTUAL) as desk:
        await desk.says("repository", "create", "platform/a")
        said = await desk.refuses("explain", "all/a")
    assert "all/a is platform/a, which is hosted here" in said


TEMPLATE = """
[[template]]
prefix = "docker-hub/library"
applied_for = ["pull-through-cache"]
tag_mutability = { immutable_except = ["latest"] }
"""


async def test_a_tag_that_stays_is_fresh_for_ever(folder: Path) -> None:
    async with at_desk(folder, upstream=TEMPLATE) as desk:
        for tag in ("latest", "1"):
            await desk.pull(desk.house.image("library/a", BIG, tag=tag))
        fixed, moving = [await desk.tells("explain", f"a:{tag}") for tag in ("1", "latest")]
        before = desk.house.asked()
        desk.house.image("library/a", b"other", tag="1")
        heard = await desk.house.ask("/v2/docker-hub/library/a/manifests/1")
        assert heard.headers["docker-content-digest"] == fixed["images"][0]["digest"]
        assert desk.house.asked() == before
    assert fixed["tag"]["fresh_until"] is None
    assert moving["tag"]["fresh_until"] is not None


async def test_when_it_goes_is_told(folder: Path) -> None:
    async with at_desk(folder, upstream='keep = "90d"') as desk:
        await desk.pull(desk.house.image("library/a", BIG))
        told = await desk.tells("explain", "a")
        said = await desk.says("explain", "a")
    used = min(blob["used"] for blob in told["images"][0]["blobs"])
    assert told["kept_until"] == used + 90 * 86400
    assert "goes when space is needed, before all else\n" in said
    assert "in any case, unless it is pulled before (keep)" in said


async def test_layers_that_nobody_asked_for_are_not_here(folder: Path) -> None:
    async with at_desk(folder) as desk:
        image = desk.house.image("library/a", BIG)
        await desk.house.ask(image.manifest_path())
        told = await desk.tells("explain", "a")
    assert [blob["here"] for blob in told["images"][0]["blobs"]] == [False, False]
    assert told["older_bytes"] is None


async def test_who_shares_a_layer_is_named(folder: Path) -> None:
    async with at_desk(folder) as desk:
        for name in ("library/a", "library/b"):
            await desk.pull(desk.house.image(name, BIG))
        told = await desk.tells("explain", "a")
    assert [blob["shared_with"] for blob in told["images"][0]["blobs"]] == [[], ["docker-hub/library/b"]]


async def test_an_index_tells_of_its_platforms(folder: Path) -> None:
    async with at_desk(folder) as desk:
        house = desk.house
        image = house.image("library/a", BIG)
        index = house.content.add_index("library/a", "multi", [image.digest])
        await house.ask(image.manifest_path("multi"))
        told = await desk.tells("explain", "a:multi")
        assert [(row["digest"], row["since"] is None) for row in told["images"]] == [
            (index, False),
            (image.digest, True),
        ]
        await desk.pull(image)
        by_digest = await desk.tells("explain", f"a@{index}")
    assert (by_digest["tag"], len(by_digest["images"])) == (None, 2)


async def test_what_is_not_here_is_said(folder: Path) -> None:
    async with at_desk(folder) as desk:
        assert (await desk.says("explain", "a:1")).splitlines() == [
            "docker-hub/library/a:1, of the upstream docker-hub",
            "nothing of it is here: the next request for it asks the upstream",
        ]


async def test_an_upstream_that_was_asked_and_has_none_is_said(folder: Path) -> None:
    async with at_desk(folder, missing_for="60s") as desk:
        assert (await desk.house.ask("/v2/library/a/manifests/1")).status == 404
        told = await desk.tells("explain", "a:1")
        said = await desk.says("explain", "a:1")
    assert told["missing"] is True
    assert "the upstream has none either" in said


async def test_a_reference_that_is_none_is_refused(folder: Path) -> None:
    async with at_desk(folder) as desk:
        assert "not a repository name" in await desk.refuses("explain", "A/../b")


def tag(**more: object) -> list[str]:
    facts = {"checked": 1000.0, "moved": 0.0, "fresh_until": 1300.0, "pending": None, **more}
    told = {
        "repository": "hub/a",
        "reference": "1",
        "upstream": "hub",
        "tag": facts,
        "images": [],
        "missing": False,
    }
    return [line.strip() for line in explain.lines(told, now=1060.0)]


def test_how_long_a_tag_is_believed_is_said() -> None:
    assert "fresh for another 4 min: nobody is asked until then" in tag()
    assert "fresh for ever" in tag(fresh_until=None)
    assert any(line.endswith("the next request asks what it means now") for line in tag(fresh_until=1000.0))


def test_a_tag_that_moved_upstream_is_said_to_have() -> None:
    assert "moved upstream to sha256:b, which is not here yet: the next request gets it" in tag(
        pending="sha256:b"
    )
