from __future__ import annotations

from pathlib import Path

from cacheproxy.commands import status
from tests.commands.desk import at_desk


async def test_it_tells_how_upstreams_answer_and_what_clients_asked(folder: Path) -> None:
    async with at_desk(folder) as desk:
        await desk.pull(desk.house.image("library/a", b"layer" * 1000))
        told = await desk.tells("status")
        said = await desk.says("status")
    own, nowhere = told["condition"]["upstreams"]
    assert (own["upstream"], own["hosts"][0]["failing"]) == ("docker-hub", None)
    assert own["hosts"][0]["answered_ago"] < 20
    assert nowhere["hosts"][0]["answered_ago"] is None
    assert told["requests"]["docker-hub"]["miss"] >= 3
    assert told["condition"]["cached"] >= 5000
    assert said.splitlines()[0].startswith("up ")
    assert [line.split()[0] for line in said.splitlines()[1:]] == ["UPSTREAM", "docker-hub", "nowhere.test"]


async def test_an_upstream_that_only_fails_is_left_alone(folder: Path) -> None:
    async with at_desk(folder) as desk:
        image = desk.house.image("library/a", b"layer")
        await desk.house.registry.stop()
        for _ in range(3):
            await desk.house.ask(image.manifest_path())
        host = (await desk.tells("status"))["condition"]["upstreams"][0]["hosts"][0]
    assert (host["left_alone"], host["failing"], host["answered_ago"]) == (True, "connect", None)


def told(**more: object) -> dict[str, object]:
    condition = {
        "uptime": 7200,
        "cached": 1 << 30,
        "budget": 4 << 30,
        "free": 8 << 30,
        "total": 16 << 30,
        "upstreams": [],
        "fills": [],
        "sweep_stopped": "",
    }
    return {"condition": {**condition, **more}, "requests": {"hub": {"hit": 7}}, "damage": [], "webhooks": []}


def test_running_downloads_are_listed() -> None:
    fill = {"digest": "sha256:" + "a" * 64, "held": 512, "size": 2048}
    assert list(status.lines(told(fills=[fill])))[-2:] == [
        "1 download running:",
        "  sha256:aaaaaaaaaaaa  512 B of 2.0 KiB",
    ]


def test_a_sweep_that_stopped_is_told() -> None:
    assert list(status.lines(told(sweep_stopped="7 of 8 ...")))[-1] == "7 of 8 ..."


def test_the_share_of_the_budget_is_told() -> None:
    assert next(status.lines(told())) == (
        "up 2 h; 1.0 GiB of 4.0 GiB (25%) cached; 8.0 GiB of the disk's 16.0 GiB free"
    )


def test_a_store_without_an_end_has_no_room_to_tell_of() -> None:
    assert next(status.lines(told(free=None, total=None))) == "up 2 h; 1.0 GiB of 4.0 GiB (25%) cached"


def test_mirrors_have_lines_of_their_own() -> None:
    def host(name: str, **more: object) -> dict[str, object]:
        return {"host": name, "left_alone": False, "failing": None, "answered_ago": 5.0, **more}

    upstream = {"upstream": "hub", "hosts": [host("a"), host("b", left_alone=True, failing="dns")]}
    _, _, own, mirror = status.lines(told(upstreams=[upstream]))
    assert own.split() == ["hub", "ok", "5", "s", "ago", "7", "0", "0", "0", "0", "0"]
    assert mirror.split() == ["b", "left", "alone", "(dns)", "5", "s", "ago"]


def test_a_webhook_that_is_stuck_or_has_given_events_up_is_told() -> None:
    sink = {"sink": "ci", "configured": True, "waiting": 3, "oldest": 1.0, "dead": 0, "gone": False}
    stuck = {**sink, "failing": "answered 500", "stuck": True}
    well = {**sink, "failing": "", "stuck": False}
    said = list(status.lines({**told(), "webhooks": [stuck, well, {**well, "sink": "old", "dead": 2}]}))
    assert said[-2:] == [
        "webhook ci: stuck (answered 500); 3 wait, 0 were given up",
        "webhook old: ok; 3 wait, 2 were given up",
    ]
