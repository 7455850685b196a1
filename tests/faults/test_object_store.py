"""A whole daemon over an object store: SeaweedFS, as S3."""

from __future__ import annotations

import hashlib
import random
import re
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import obstore
import pytest
import trio

from cacheproxy import config, store
from cacheproxy.app import main
from cacheproxy.commands.daemon import Daemon
from cacheproxy.store.bucket import Bucket
from cacheproxy.store.errors import StoreUnreachable
from cacheproxy.wiring import CannotStart
from tests.azure import KEY, Azurite
from tests.faults.client import Address, Heard, ask
from tests.faults.house import House, Image, hosts
from tests.faults.remains import rows_of
from tests.google import ACCOUNT, Google
from tests.seaweed import BUCKET, SECRET_KEY, Seaweed

Server = Seaweed | Azurite | Google
WRONG_KEY = "d3Jvbmc="

SIZE = 5 << 20
LAYER = random.Random(4).randbytes(SIZE)
MIDDLE = SIZE // 2


class Cache:
    """A daemon, the upstream before it, and the bucket behind it."""

    def __init__(self, house: House, bucket: Bucket, address: Address) -> None:
        self.house = house
        self.bucket = bucket
        self._address = address

    async def ask(self, path: str, method: str = "GET", **headers: str) -> Heard:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await ask(self._address, path, method, named)

    def stored(self, digest: str) -> list[str]:
        """Keys of the digest's objects."""
        listed = [entry["path"] for page in obstore.list(self.bucket._store) for entry in page]
        return [path for path in listed if digest.partition(":")[2] in path]

    async def pull_and_keep(self, image: Image, digest: str) -> Heard:
        await self.ask(image.manifest_path())
        heard = await self.ask(image.blob_path(digest))
        with trio.fail_after(20):
            while self._location(digest) not in self.stored(digest):
                await trio.sleep(0.02)
        return heard

    def _location(self, digest: str) -> str:
        """Where the rows say that it is."""
        with rows_of(self.house.state) as database:
            rows = database.execute("SELECT location FROM blob WHERE digest = ?", (digest,)).fetchall()
        return str(rows[0][0])


def storage(server: Server, folder: Path, prefix: str, redirect: str = "") -> str:
    return server.storage(prefix, folder / "keys.ini") + f"redirect = [{redirect}]\n"


@asynccontextmanager
async def daemon(
    folder: Path, server: Server, redirect: str = "", cache: str = 'parallel = "never"'
) -> AsyncIterator[Cache]:
    bucket = server.connect()
    prefix = bucket.name.rpartition("/")[2]
    async with (
        hosts(folder, storage=storage(server, folder, prefix, redirect), cache=cache) as house,
        trio.open_nursery() as nursery,
    ):
        drain = trio.Event()
        bound = await nursery.start(main, config.load(house.file), drain)
        host, _, port = bound["listen"][0].rpartition(":")
        yield Cache(house, bucket, (host, int(port)))
        drain.set()


def fetch(url: str, headers: Mapping[str, str]) -> bytes:
    """As a client that follows a redirect."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.netloc, timeout=10)
    try:
        connection.request("GET", f"{parts.path}?{parts.query}", headers=dict(headers))
        return connection.getresponse().read()
    finally:
        connection.close()


async def test_blob_is_pulled_through_and_kept_in_the_bucket(folder: Path, object_server: Server) -> None:
    async with daemon(folder, object_server) as cache:
        image = cache.house.image("library/debian", LAYER)
        cold = await cache.pull_and_keep(image, image.layers[0])
        assert (cold.status, cold.body == LAYER) == (200, True)
        (key,) = cache.stored(image.layers[0])
        piece = cache.bucket.get(key, 0, SIZE)
        assert piece is not None
        assert "sha256:" + hashlib.sha256(piece.data).hexdigest() == image.layers[0]
        asked = cache.house.asked("blob")
        warm = await cache.ask(image.blob_path(image.layers[0]))
        assert (warm.status, warm.body == LAYER) == (200, True)
        assert cache.house.asked("blob") == asked


async def test_head_and_ranges_are_answered_as_from_a_disk(folder: Path, object_server: Server) -> None:
    async with daemon(folder, object_server) as cache:
        image = cache.house.image("library/debian", LAYER)
        path = image.blob_path(image.layers[0])
        await cache.pull_and_keep(image, image.layers[0])
        head = await cache.ask(path, "HEAD")
        assert (head.status, head.headers["content-length"]) == (200, str(SIZE))
        one = await cache.ask(path, range=f"bytes={MIDDLE}-{MIDDLE + 99}")
        assert (one.status, one.body) == (206, LAYER[MIDDLE : MIDDLE + 100])
        rest = await cache.ask(path, range=f"bytes={MIDDLE}-")
        assert (rest.status, rest.body == LAYER[MIDDLE:]) == (206, True)
        several = await cache.ask(path, range=f"bytes={MIDDLE}-{MIDDLE + 9},0-9")
        assert several.status == 206
        assert several.headers["content-type"].startswith("multipart/byteranges")
        assert LAYER[MIDDLE : MIDDLE + 10] in several.body
        assert LAYER[:10] in several.body


async def test_listed_clients_are_redirected_to_what_is_stored(folder: Path, object_server: Server) -> None:
    async with daemon(folder, object_server, '"127.0.0.0/8"') as cache:
        image = cache.house.image("library/debian", LAYER)
        path = image.blob_path(image.layers[0])
        cold = await cache.pull_and_keep(image, image.layers[0])
        assert cold.status == 200
        for span, body in ((None, LAYER), (f"bytes={MIDDLE}-", LAYER[MIDDLE:]), ("bytes=5-9", LAYER[5:10])):
            headers = {} if span is None else {"range": span}
            sent = await cache.ask(path, **headers)
            assert (sent.status, sent.body) == (307, b"")
            assert sent.headers["cache-control"] == "no-store"
            assert await trio.to_thread.run_sync(fetch, sent.headers["location"], headers) == body


async def test_what_the_store_cannot_answer_is_never_redirected(folder: Path, object_server: Server) -> None:
    async with daemon(folder, object_server, '"127.0.0.0/8"') as cache:
        image = cache.house.image("library/debian", LAYER)
        path = image.blob_path(image.layers[0])
        await cache.pull_and_keep(image, image.layers[0])
        assert [(await cache.ask(path)).status for _ in range(2)] == [307, 307]
        assert (await cache.ask(path, "HEAD")).status == 200
        assert (await cache.ask(path, range="bytes=0-9,100-109")).status == 206
        assert (await cache.ask(path, range=f"bytes={SIZE}-")).status == 416
        other = await cache.ask(path, range="bytes=0-9", if_range=f'"{image.layers[0]}"')
        assert (other.status, other.body) == (206, LAYER[:10])
        assert (await cache.ask(path, if_none_match=f'"{image.layers[0]}"')).status == 304


async def test_redirects_of_one_address_are_made_once(folder: Path, object_server: Server) -> None:
    async with daemon(folder, object_server, '"127.0.0.0/8"') as cache:
        image = cache.house.image("library/debian", LAYER)
        await cache.pull_and_keep(image, image.layers[0])
        first, second = [await cache.ask(image.blob_path(image.layers[0])) for _ in range(2)]
        assert {name: value for name, value in first.headers.items() if name != "date"} == {
            name: value for name, value in second.headers.items() if name != "date"
        }
        assert (first.status, second.status, second.body) == (307, 307, b"")


async def test_clients_that_are_not_listed_get_the_bytes(folder: Path, object_server: Server) -> None:
    async with daemon(folder, object_server, '"10.0.0.0/8"') as cache:
        image = cache.house.image("library/debian", LAYER)
        await cache.pull_and_keep(image, image.layers[0])
        warm = await cache.ask(image.blob_path(image.layers[0]))
        assert (warm.status, warm.body == LAYER) == (200, True)


@pytest.mark.parametrize("redirect", ["", '"127.0.0.0/8"'])
async def test_object_that_vanished_is_fetched_and_stored_again(
    folder: Path, object_server: Server, redirect: str
) -> None:
    async with daemon(folder, object_server, redirect) as cache:
        image = cache.house.image("library/debian", LAYER)
        await cache.pull_and_keep(image, image.layers[0])
        (key,) = cache.stored(image.layers[0])
        cache.bucket.delete(key)
        again = await cache.pull_and_keep(image, image.layers[0])
        assert (again.status, again.body == LAYER) == (200, True)
        (other,) = cache.stored(image.layers[0])
        assert other != key


async def test_budget_holds_for_a_bucket(folder: Path, object_server: Server) -> None:
    async with daemon(folder, object_server, cache=f'budget = "{2 * SIZE + (1 << 20)}B"') as cache:
        layers = [random.Random(seed).randbytes(SIZE) for seed in range(4)]
        image = cache.house.image("library/debian", *layers)
        for digest in image.layers:
            await cache.pull_and_keep(image, digest)
            with trio.fail_after(20):
                while sum(len(cache.stored(layer)) for layer in image.layers) > 2:
                    await trio.sleep(0.02)
        assert [len(cache.stored(layer)) for layer in image.layers] == [0, 0, 1, 1]
        again = await cache.pull_and_keep(image, image.layers[0])
        assert (again.status, again.body == layers[0]) == (200, True)


async def test_store_that_fails_while_running_is_gone_around(
    folder: Path, object_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise StoreUnreachable("down")

    async with daemon(folder, object_server) as cache:
        image = cache.house.image("library/debian", LAYER, b"a small one")
        await cache.pull_and_keep(image, image.layers[0])
        for name in ("get", "put", "size"):
            monkeypatch.setattr(Bucket, name, fails)
        for digest in image.layers:
            heard = await cache.ask(image.blob_path(digest))
            assert (heard.status, heard.body == image.blobs[digest]) == (200, True)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("seaweed", "s3://test-blobs/refused did not take probe/.*403 Forbidden SignatureDoesNotMatch"),
        pytest.param(
            "azurite",
            "az://test-blobs/refused did not take probe/.*403 Forbidden AuthorizationFailure",
            marks=pytest.mark.azurite,
        ),
        ("google", "gs://test-blobs/refused did not take probe/.*403 Forbidden AccessDenied"),
    ],
)
async def test_store_that_refuses_us_is_one_clear_line_and_no_daemon(
    folder: Path, request: pytest.FixtureRequest, kind: str, said: str
) -> None:
    server: Server = request.getfixturevalue(f"{kind}_server")
    async with hosts(folder, storage=storage(server, folder, "refused")) as house:
        ini = folder / "keys.ini"
        ini.write_text(
            ini.read_text().replace(SECRET_KEY, "another").replace(KEY, WRONG_KEY).replace(ACCOUNT, "x@y.z")
        )
        with pytest.raises((StoreUnreachable, ExceptionGroup)) as caught:
            await main(config.load(house.file), trio.Event())
        assert re.search(said, _line(caught.value))


async def test_missing_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(store, "objects")
    monkeypatch.setitem(sys.modules, "cacheproxy.store.objects", None)
    async with hosts(folder, storage=f'blobs = "s3://{BUCKET}"') as house:
        with pytest.raises(CannotStart, match=r"install cacheproxy\[objects\]"):
            await main(config.load(house.file), trio.Event())


@pytest.mark.parametrize(
    ("text", "said"), [("", "empty"), ("[default]\nhush = x", "what is there may hold aws_access_key_id")]
)
async def test_credentials_that_are_none_are_said(folder: Path, text: str, said: str) -> None:
    (folder / "s3.ini").write_text(text)
    objects = f'blobs = "s3://{BUCKET}"\n[storage.objects]\ncredentials = {{ file = "s3.ini" }}'
    async with hosts(folder, storage=objects) as house:
        with pytest.raises(CannotStart, match=f"^storage.objects.credentials: .*{said}") as caught:
            await main(config.load(house.file), trio.Event())
    assert "hush" not in str(caught.value)


def _line(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    return str(error)


async def test_an_object_that_rotted_is_found_by_a_scrub_and_fetched_anew(
    folder: Path, object_server: Server
) -> None:
    async with daemon(folder, object_server, cache='scrub = { rate = "1GiB" }\nparallel = "never"') as c:
        image = c.house.image("library/layered", LAYER)
        (layer,) = image.layers
        await c.pull_and_keep(image, layer)
        (rotten,) = c.stored(layer)
        obstore.put(c.bucket._store, rotten, LAYER[:-1] + b"x")
        commands = Daemon([c.house.state / "admin.sock"])
        await trio.to_thread.run_sync(lambda: commands.post("/scrub", references=[]))
        with trio.fail_after(20):
            while c._location(layer) in ("", rotten):
                await trio.sleep(0.05)
        told = await trio.to_thread.run_sync(commands.get, "/scrub")
        assert [(one["digest"], one["found"], one["kept"]) for one in told["damage"]] == [
            (layer, "mismatch", True)
        ]
        heard = await c.ask(image.blob_path(layer))
        assert heard.body == LAYER
        assert c.house.registry.origin.bytes_sent(layer) == 2 * SIZE
