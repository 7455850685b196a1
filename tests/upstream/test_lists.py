"""Lists come whole, or as much of them as anybody needs, and only from where we ask."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import trio
from trio.testing import MockClock

from cacheproxy.core.digest import Digest
from cacheproxy.core.failures import Cause, UpstreamError
from cacheproxy.core.media import OCI_INDEX
from cacheproxy.upstream import lists
from tests.upstream.stage import scripted

DIGEST = Digest.of(b"")


class Pages:
    """Answers each request with the next of `replies`, the last one for ever."""

    def __init__(self, *replies: httpx.Response) -> None:
        self.replies = list(replies)
        self.urls: list[httpx.URL] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.urls.append(request.url)
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        return httpx.Response(reply.status_code, content=reply.content, headers=reply.headers)


def tags(*listed: str, link: str | None = None) -> httpx.Response:
    return httpx.Response(200, json={"name": "a/b", "tags": listed}, headers={"Link": link} if link else {})


async def list_tags(
    pages: Callable[[httpx.Request], httpx.Response], url: str = "https://r.example"
) -> list[str]:
    async with scripted(pages, url) as client:
        return await client.list_tags("a/b")


async def list_referrers(pages: Pages) -> list[dict[str, Any]] | None:
    async with scripted(pages) as client:
        return await client.referrers("a/b", DIGEST)


async def test_next_page_is_asked_with_the_query_of_the_link() -> None:
    pages = Pages(tags("a", link='</v2/a/b/tags/list?n=1&last=a%2B>; rel="next"'), tags("b"))
    assert await list_tags(pages) == ["a", "b"]
    assert [str(url) for url in pages.urls] == [
        "https://r.example/v2/a/b/tags/list?n=1000",
        "https://r.example/v2/a/b/tags/list?n=1&last=a%2B",
    ]


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example/v2/a/b/tags/list?last=a",
        "//evil.example/?last=a",
        "http://r.example/v2/a/b/tags/list?last=a",
        "https://u:p@evil.example:1/?last=a",
        "/v2/private/repo/tags/list?last=a",
        "?last=a",
    ],
)
async def test_link_never_leads_elsewhere(target: str) -> None:
    pages = Pages(tags("a", link=f'<{target}>; rel="next"'), tags("b"))
    assert await list_tags(pages) == ["a", "b"]
    assert str(pages.urls[1]) == "https://r.example/v2/a/b/tags/list?last=a"


@pytest.mark.parametrize(
    "link",
    [
        "nonsense",
        "</v2/>; rel=next",
        '<?a>; rel="prev"',
        "<https://[>; rel=next",
        "<?" + "a" * 3000 + ">; rel=next",
    ],
)
async def test_link_that_names_no_page_ends_the_list(link: str) -> None:
    pages = Pages(tags("a", link=link))
    assert await list_tags(pages) == ["a"]
    assert len(pages.urls) == 1


async def test_link_to_the_same_page_ends_the_list() -> None:
    pages = Pages(tags("a", link='<?last=a>; rel="next"'))
    assert await list_tags(pages) == ["a", "a"]
    assert len(pages.urls) == 2


async def test_endless_list_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "PAGES", 7)
    count = 0

    def endless(request: httpx.Request) -> httpx.Response:
        nonlocal count
        count += 1
        return tags(f"t{count}", link=f"<?last=t{count}>; rel=next")

    assert await list_tags(endless) == [f"t{n}" for n in range(1, 8)]


async def test_pages_that_drip_have_a_limit_together(autojump_clock: MockClock) -> None:
    pages = itertools.count()

    async def slow(_: httpx.Request) -> httpx.Response:
        await trio.sleep(20)
        return tags("t", link=f'</v2/a/b/tags/list?last={next(pages)}>; rel="next"')

    async with scripted(slow) as client:
        with pytest.raises(UpstreamError) as caught:
            await client.list_tags("a/b")
    assert caught.value.cause is Cause.TIMEOUT
    assert trio.current_time() == pytest.approx(lists.SECONDS, abs=1)


async def test_only_so_many_items_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "ITEMS", 5)
    pages = Pages(tags(*"abcdefgh", link="<?last=h>; rel=next"))
    assert await list_tags(pages) == list("abcde")


async def test_what_is_no_tag_is_left_out() -> None:
    assert await list_tags(Pages(tags("ok", "", "../x", "a b", "-x", "x" * 129, "v1\n"))) == ["ok"]


async def test_no_tags_may_be_null() -> None:
    assert await list_tags(Pages(httpx.Response(200, json={"name": "a/b", "tags": None}))) == []


@pytest.mark.parametrize(
    "reply",
    [
        httpx.Response(200, text="<html>"),
        httpx.Response(200, json=["a"]),
        httpx.Response(200, json={"tags": [1]}),
        httpx.Response(200, text="[" * 100_000),
        httpx.Response(200, content=b" " * (lists.LARGEST_PAGE + 1)),
    ],
    ids=["html", "array", "numbers", "deep", "large"],
)
async def test_what_is_no_list_of_tags_is_refused(reply: httpx.Response) -> None:
    async with scripted(Pages(reply)) as client:
        with pytest.raises(UpstreamError) as caught:
            await client.list_tags("a/b")
    assert caught.value.cause is Cause.PROTOCOL


# Referrers

ONE = {"mediaType": "application/x", "digest": DIGEST, "size": 2, "annotations": {"a": "b"}}


def index(*descriptors: object, media_type: str = OCI_INDEX, link: str = "") -> httpx.Response:
    body = {"schemaVersion": 2, "manifests": descriptors}
    return httpx.Response(200, json=body, headers={"Content-Type": media_type, "Link": link})


async def test_descriptors_come_as_they_are() -> None:
    pages = Pages(index(ONE, link="<?page=2>; rel=next"), index(ONE | {"size": 3}))
    assert await list_referrers(pages) == [ONE, ONE | {"size": 3}]
    assert pages.urls[0].path == f"/v2/a/b/referrers/{DIGEST}"


async def test_nobody_refers() -> None:
    assert await list_referrers(Pages(index())) == []


@pytest.mark.parametrize(
    "reply",
    [
        httpx.Response(404),
        httpx.Response(404, text="<html>" * 100_000),
        httpx.Response(400),
        httpx.Response(405),
        httpx.Response(501),
        httpx.Response(200, text="<html>", headers={"Content-Type": "text/html"}),
        httpx.Response(200, text="<html>", headers={"Content-Type": OCI_INDEX}),
        httpx.Response(200, json={}, headers={"Content-Type": OCI_INDEX}),
        httpx.Response(200, json={"manifests": ["x"]}, headers={"Content-Type": OCI_INDEX}),
    ],
)
async def test_anything_but_an_index_means_that_there_is_no_api(reply: httpx.Response) -> None:
    assert await list_referrers(Pages(reply)) is None


@pytest.mark.parametrize(
    ("status", "cause"), [(403, Cause.AUTH), (503, Cause.SERVER), (429, Cause.THROTTLED)]
)
async def test_failure_is_no_missing_api(status: int, cause: Cause, autojump_clock: object) -> None:
    async with scripted(Pages(httpx.Response(status))) as client:
        with pytest.raises(UpstreamError) as caught:
            await client.referrers("a/b", DIGEST)
    assert caught.value.cause is cause
