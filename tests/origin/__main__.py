"""The origin as a process. It prints one JSON line, its URL and images, when it is ready."""

from __future__ import annotations

import json
import signal
from functools import partial

import click
import trio

from tests.origin.control import add_pattern_image
from tests.origin.server import Origin

_UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def size(text: str) -> int:
    """Bytes of "64KiB", "50MiB", "1GiB", or plain bytes."""
    factor = _UNITS.get(text[-3:])
    return int(text) if factor is None else int(float(text[:-3]) * factor)


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=0, help="0: any free one.")
@click.option(
    "--rate", type=size, help="Bytes a second of a blob's body, per connection (default: no limit)."
)
@click.option("--latency", default=0.0, help="Seconds before each answer.")
@click.option("--ranges/--no-ranges", default=True)
@click.option("--blob-size", type=size, help="One layer of this size as library/image:latest.")
@click.option("--image", "images", multiple=True, help="REPOSITORY:TAG=SIZE[,SIZE...]; may be repeated.")
@click.option("--seed", default="0", help="Other seeds make other bytes.")
def main(
    host: str,
    port: int,
    rate: int | None,
    latency: float,
    ranges: bool,
    blob_size: int | None,
    images: tuple[str, ...],
    seed: str,
) -> None:
    """A scripted registry on loopback. GET /_seen, POST /_reset, /_set, /_image steer it. Ends on SIGTERM."""
    origin = Origin()
    origin.rate, origin.latency, origin.ranges = rate, latency, ranges
    wanted = list(images)
    if blob_size is not None:
        wanted.append(f"library/image:latest={blob_size}")
    made = [_make(origin, spec, seed) for spec in wanted]
    trio.run(_serve, origin, host, port, made)


def _make(origin: Origin, spec: str, seed: str) -> dict[str, object]:
    name, _, sizes = spec.partition("=")
    repository, _, tag = name.rpartition(":")
    layers = [size(one) for one in sizes.split(",")]
    return add_pattern_image(origin, repository, tag, layers, f"{seed}/{name}")


async def _serve(origin: Origin, host: str, port: int, images: list[dict[str, object]]) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            url = await nursery.start(partial(origin.serve, host, port))
            click.echo(json.dumps({"url": url, "images": images}))
            await anext(aiter(signals))
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    main()
