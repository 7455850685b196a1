"""Credentials come from where they are kept, for the server they belong to, and are shown to nobody else."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from cacheproxy.upstream import credentials
from cacheproxy.upstream.credentials import (
    BELIEVED_SECONDS,
    DOCKER_HUB,
    KEPT_SECONDS,
    Account,
    Credentials,
    CredentialsFailed,
    look_up,
    read_secret,
    server_name,
)
from cacheproxy.upstream.settings import (
    CommandSecret,
    CredentialSecret,
    DockerConfig,
    FileSecret,
    FixedLogin,
    LoginHelper,
)

Program = Callable[[str, str], Path]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Puts a shell script on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def write(name: str, script: str) -> Path:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    return write


def helper_script(log: Path) -> str:
    """Answers for any server with its name as the user, and notes each call."""
    answer = r"""printf '{"ServerURL":"%s","Username":"user of %s","Secret":"s3cret"}' "$server" "$server" """
    return f'server=$(cat); echo "$1 $server" >> {log}; {answer}'


def docker_config(tmp_path: Path, config: object) -> DockerConfig:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    return DockerConfig(path)


def basic(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_password_is_not_shown() -> None:
    assert "hunter2" not in repr(Credentials("u", "hunter2"))
    assert Credentials("u", "p:w").basic == "Basic " + basic("u:p:w")


@pytest.mark.parametrize(
    ("registry", "host", "server"),
    [
        ("docker.io", "registry-1.docker.io", DOCKER_HUB),
        ("docker.io", "mirror.example", "mirror.example"),
        ("ghcr.io", "ghcr.io", "ghcr.io"),
        ("corp", "registry.corp.example:5000", "registry.corp.example:5000"),
    ],
)
def test_servers_are_called_what_docker_calls_them(registry: str, host: str, server: str) -> None:
    assert server_name(registry, host) == server


# Secrets


async def test_file_is_read_without_its_line_end(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b" p w \r\n")
    assert await read_secret(FileSecret(path)) == " p w "


async def test_credential_is_read_from_the_directory_of_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hub").write_text("x")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert await read_secret(CredentialSecret("hub")) == "x"
    with pytest.raises(CredentialsFailed, match="not the name of a file"):
        await read_secret(CredentialSecret("../hub"))


async def test_credential_without_a_service_manager_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(CredentialsFailed, match="CREDENTIALS_DIRECTORY"):
        await read_secret(CredentialSecret("hub"))


async def test_command_prints_the_secret(program: Program) -> None:
    script = program("vault", 'echo "from $1"')
    assert await read_secret(CommandSecret((str(script), "hub"))) == "from hub"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo s3cret; echo why >&2; exit 3", "exit status 3: why"),
        ("true", "empty"),
        ("printf '\\377'", "not UTF-8"),
    ],
)
async def test_command_that_fails_is_named_and_its_output_is_not(
    program: Program, script: str, message: str
) -> None:
    with pytest.raises(CredentialsFailed, match=message) as caught:
        await read_secret(CommandSecret((str(program("vault", script)),)))
    assert "s3cret" not in str(caught.value)


async def test_command_that_hangs_is_killed(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "COMMAND_SECONDS", 0.2)
    script = program("vault", "trap '' TERM; exec sleep 60")
    with trio.fail_after(30), pytest.raises(CredentialsFailed, match="no answer"):
        await read_secret(CommandSecret((str(script),)))


async def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    for secret in (FileSecret(tmp_path / "no"), CommandSecret((str(tmp_path / "no"),))):
        with pytest.raises(CredentialsFailed, match=r"/no: No such file"):
            await read_secret(secret)


async def test_file_of_any_size_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "big"
    with path.open("wb") as file:
        file.truncate(credentials.LARGEST_FILE + 1)
    with pytest.raises(CredentialsFailed, match="larger"):
        await read_secret(FileSecret(path))


# Helpers


async def test_helper_is_asked_for_the_server(program: Program, tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = program("docker-credential-x", helper_script(log))
    found = await look_up(LoginHelper(str(script)), "host:5000")
    assert found == Credentials("user of host:5000", "s3cret")
    assert log.read_text() == "get host:5000\n"


async def test_helper_without_credentials_means_none(program: Program) -> None:
    script = program("h", "echo 'credentials not found in native keychain'; exit 1")
    assert await look_up(LoginHelper(str(script)), "host") is None


@pytest.mark.parametrize(
    "script", ["echo no; exit 1", "echo no", 'echo \'{"Username":1,"Secret":"s3cret"}\'']
)
async def test_helper_that_fails_is_no_helper_without_credentials(program: Program, script: str) -> None:
    with pytest.raises(CredentialsFailed) as caught:
        await look_up(LoginHelper(str(program("h", script))), "host")
    assert "s3cret" not in str(caught.value)


async def test_token_user_means_an_identity_token() -> None:
    assert Credentials("<token>", "t").identity_token == "t"
    assert Credentials("user", "t").identity_token is None


# docker's configuration


@pytest.mark.parametrize(
    ("server", "key"),
    [
        ("host:5000", "host:5000"),
        ("host:5000", "https://host:5000"),
        ("host:5000", "https://host:5000/v1/"),
        (DOCKER_HUB, DOCKER_HUB),
        (DOCKER_HUB, "docker.io"),
    ],
)
async def test_auths_are_found_however_docker_wrote_the_host(tmp_path: Path, server: str, key: str) -> None:
    source = docker_config(
        tmp_path, {"auths": {"other": {"auth": basic("no:no")}, key: {"auth": basic("u:p:w")}}}
    )
    assert await look_up(source, server) == Credentials("u", "p:w")


@pytest.mark.parametrize("server", ["host", "host:5001", "sub.host:5000", "index.docker.io.evil"])
async def test_auths_of_another_host_are_not_ours(tmp_path: Path, server: str) -> None:
    login = {"auth": basic("u:p")}
    source = docker_config(tmp_path, {"auths": {"host:5000": login, DOCKER_HUB: login}})
    assert await look_up(source, server) is None


@pytest.mark.parametrize(
    ("login", "expected"),
    [
        ({"username": "u", "password": "p"}, Credentials("u", "p")),
        ({"auth": basic("u:p"), "identitytoken": "t"}, Credentials("<token>", "t")),
        ({}, None),
    ],
)
async def test_auths_are_of_three_kinds(
    tmp_path: Path, login: dict[str, str], expected: Credentials | None
) -> None:
    assert await look_up(docker_config(tmp_path, {"auths": {"host": login}}), "host") == expected


async def test_helper_of_the_server_comes_before_the_store_and_the_store_before_auths(
    tmp_path: Path, program: Program
) -> None:
    for name in ("own", "store"):
        program(f"docker-credential-{name}", f'cat >/dev/null; echo \'{{"Username":"{name}","Secret":"s"}}\'')
    auths = {name: {"auth": basic("file:s")} for name in ("one", "two")}
    config = {"auths": auths, "credsStore": "store", "credHelpers": {"one": "own"}}
    source = docker_config(tmp_path, config)
    assert [await look_up(source, server) for server in ("one", "two")] == [
        Credentials("own", "s"),
        Credentials("store", "s"),
    ]


async def test_auths_help_out_where_the_store_has_nothing(tmp_path: Path, program: Program) -> None:
    program("docker-credential-store", "echo credentials not found in native keychain; exit 1")
    config = {"credsStore": "store", "auths": {"host": {"auth": basic("u:p")}}}
    assert await look_up(docker_config(tmp_path, config), "host") == Credentials("u", "p")


@pytest.mark.parametrize(
    "config",
    [
        [],
        {"auths": {"host": {"auth": "s3cret"}}},
        {"auths": {"host": {"auth": basic("s3cret")}}},
        {"auths": {"host": {"auth": ["s3cret"]}}},
        {"credHelpers": {"host": "../../bin/sh"}},
    ],
)
async def test_damaged_configuration_is_named_and_not_quoted(tmp_path: Path, config: object) -> None:
    with pytest.raises(CredentialsFailed, match=r"config\.json") as caught:
        await look_up(docker_config(tmp_path, config), "host")
    assert "s3cret" not in str(caught.value)


# Keeping


@pytest.fixture
def password(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text("old")
    return path


def put(path: Path, text: str) -> None:
    path.write_text(text)


async def current(account: Account) -> str:
    found = await account.current()
    assert found is not None
    return found.password


async def test_credentials_are_kept_then_read_again(password: Path, mock_clock: MockClock) -> None:
    account = Account(FixedLogin("u", FileSecret(password)), "host")
    assert await current(account) == "old"
    put(password, "new")
    mock_clock.jump(KEPT_SECONDS - 1)
    assert await current(account) == "old"
    mock_clock.jump(1)
    assert await current(account) == "new"


async def test_refused_credentials_are_read_again(password: Path, mock_clock: MockClock) -> None:
    account = Account(FixedLogin("u", FileSecret(password)), "host")
    old = await account.current()
    assert old is not None
    put(password, "new")
    mock_clock.jump(BELIEVED_SECONDS)
    account.doubt(old)
    assert await current(account) == "new"
    account.doubt(old)
    put(password, "newer")
    assert await current(account) == "new", "what was refused is not what is kept now"


async def test_credentials_read_just_now_are_believed_a_little_longer(
    password: Path, mock_clock: MockClock
) -> None:
    account = Account(FixedLogin("u", FileSecret(password)), "host")
    old = await account.current()
    assert old is not None
    put(password, "new")
    account.doubt(old)
    assert await current(account) == "old"
    mock_clock.jump(BELIEVED_SECONDS)
    assert await current(account) == "new"


async def test_source_is_read_once_for_all_who_ask_at_once(program: Program, tmp_path: Path) -> None:
    log = tmp_path / "log"
    account = Account(LoginHelper(str(program("h", helper_script(log)))), "host")
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(account.current)
    assert log.read_text() == "get host\n"


async def test_failure_is_kept_for_a_moment_only(tmp_path: Path, mock_clock: MockClock) -> None:
    path = tmp_path / "late"
    account = Account(FixedLogin("u", FileSecret(path)), "host")
    with pytest.raises(CredentialsFailed):
        await account.current()
    put(path, "here")
    with pytest.raises(CredentialsFailed):
        await account.current()
    mock_clock.jump(BELIEVED_SECONDS)
    assert await current(account) == "here"


async def test_account_without_a_source_has_no_credentials() -> None:
    assert await Account(None, "host").current() is None
