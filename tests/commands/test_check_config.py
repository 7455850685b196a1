"""check-config with what the files hold, and beside the running daemon; the rest is in tests/test_cli.py."""

from __future__ import annotations

import json
from pathlib import Path

import trio
from click.testing import CliRunner, Result

from cacheproxy import cli
from tests.commands.desk import at_desk


async def check(*words: str | Path) -> Result:
    arguments = ["check-config", *map(str, words)]
    return await trio.to_thread.run_sync(lambda: CliRunner().invoke(cli.main, arguments))


async def test_what_is_wrong_with_a_named_file_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "tls.crt").write_text("nonsense")
    (tmp_path / "c.toml").write_text('server.tls.certificate = "tls.crt"')
    result = await check(tmp_path / "c.toml")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        f"server.tls: {tmp_path}/tls.crt: holds no certificate in PEM",
        "1 problem.",
    ]
    assert result.stdout.startswith(f"{tmp_path}/c.toml: reads well; what it names does not\n")


async def test_programs_are_told_the_same(tmp_path: Path) -> None:
    (tmp_path / "tls.crt").write_text("nonsense")
    file, other = tmp_path / "c.toml", tmp_path / "other.toml"
    file.write_text('server.tls.certificate = "tls.crt"')
    other.write_text("")
    result = await check(file, "--json")
    assert (result.exit_code, result.stderr) == (1, "")
    problem = f"server.tls: {tmp_path}/tls.crt: holds no certificate in PEM"
    assert json.loads(result.stdout) == {"file": str(file), "problems": [problem], "warnings": []}
    told = json.loads((await check(file, "--against", other, "--json")).stdout)
    assert [(change["live"], "server.tls" in change["text"]) for change in told["changes"]] == [(True, True)]


async def test_what_a_reload_would_change_in_the_running_daemon(folder: Path) -> None:
    async with at_desk(folder) as desk:
        file = desk.house.file
        assert (await check(file, "--running")).stdout.splitlines() == [
            f"the daemon would read {file}",
            "nothing changes",
        ]
        text = file.read_text().replace("[cache]\n", '[cache]\nbudget = "1GiB"\n')
        file.write_text(f'{text}[storage.objects]\nregion = "eu"\n')
        assert (await check(file, "--running")).stdout.splitlines() == [
            f"the daemon would read {file}",
            "with a reload (SIGHUP):",
            '  ~ cache.budget = "1GiB"  (was "50%")',
            "with a restart only:",
            '  ~ storage.objects.region = "eu"  (was "")',
        ]
        told = json.loads((await check(file, "--running", "--json")).stdout)
        assert sorted(change["live"] for change in told["changes"]) == [False, True]
        assert (await check(file, "--running")).exit_code == 0  # and nothing was changed by asking


async def test_what_a_reload_would_refuse_is_told_by_the_daemon(folder: Path) -> None:
    async with at_desk(folder) as desk:
        file, other = desk.house.file, folder / "other.toml"
        other.write_text(file.read_text())
        (folder / "tls.crt").write_text("nonsense")
        file.write_text(
            other.read_text().replace("[server]\n", '[server]\ntls = { certificate = "tls.crt" }\n')
        )
        result = await check(other, "--running")
    assert result.exit_code == 1
    assert result.stdout == f"the daemon would read {file}, and stay as it is:\n"
    assert result.stderr.startswith(f"server.tls: {folder}/tls.crt: holds no certificate in PEM\n")


async def test_without_a_daemon_there_is_nothing_to_compare_with(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('storage.state = "state"')
    result = await check(tmp_path / "c.toml", "--running")
    assert result.exit_code == 1
    assert "no daemon answers at" in result.stderr


async def test_what_would_hide_hosted_repositories_is_a_problem(folder: Path) -> None:
    async with at_desk(folder) as desk:
        await desk.says("repository", "create", "team/app")
        file = desk.house.file
        virtual = '[[virtual]]\nprefix = "team"\nmembers = ["platform"]\n'
        file.write_text(file.read_text() + virtual)
        result = await check(file, "--running")
    assert result.exit_code == 1
    assert "would hide what is hosted: team/app" in result.output
