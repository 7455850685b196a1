from __future__ import annotations

import errno
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cacheproxy import __version__, app, cli
from cacheproxy.config import Config
from cacheproxy.edge.listeners import ListenError
from cacheproxy.store.errors import DatabaseRefused


@pytest.fixture(autouse=True)
def no_default_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """This machine's own configuration is not the tests' business."""
    monkeypatch.setattr(cli, "DEFAULT_FILE", tmp_path / "etc.toml")
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments], catch_exceptions=False)


def serving(monkeypatch: pytest.MonkeyPatch, run: Callable[[Config], None]) -> None:
    monkeypatch.setattr(app, "run", run)


def python(*arguments: str) -> str:
    """What it prints, in a process of its own."""
    argv = [sys.executable, *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30).stdout


def test_check_config_says_what_a_file_changes_and_what_that_takes(tmp_path: Path) -> None:
    old, new = tmp_path / "old.toml", tmp_path / "new.toml"
    old.write_text("")
    new.write_text('server.listen = ["127.0.0.1:80"]\ncache.budget = "1GiB"')
    assert invoke("check-config", new, "--against", old).output.splitlines() == [
        "with a reload (SIGHUP):",
        '  ~ cache.budget = "1GiB"  (was "50%")',
        "with a restart only:",
        '  ~ server.listen = ["127.0.0.1:80"]  (was ["127.0.0.1:5000"])',
    ]
    assert invoke("check-config", old, "--against", old).output == "nothing changes\n"
    new.write_text("nonsense")
    assert invoke("check-config", new, "--against", old).exit_code == 1


def test_check_config_says_what_a_file_means(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text(
        """
        [server]
        listen = ["0.0.0.0:80", "unix:/run/x"]
        [[upstream]]
        registry = "docker.io"
        prefix = "hub"
        default = true
        [[upstream]]
        registry = "r.example"
        url = "http://r.example"
        hosts = ["r.cache.example"]
        """
    )
    result = invoke("check-config", file)
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        f"{file}: OK",
        "clients connect to 0.0.0.0:80, unix:/run/x; metrics at 127.0.0.1:5001",
        "state in var; blobs in var/blobs",
        "upstreams:",
        "  docker.io  https://registry-1.docker.io  /v2/docker.io/, /v2/hub/, bare names",
        "  r.example  http://r.example  /v2/r.example/, r.cache.example",
    ]


def test_check_config_says_everything_that_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("[log]\nlevel = 1\n[cash]\n")
    result = invoke("check-config", file)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        f"{file}:2: log.level: must be 'debug', 'info', 'warning' or 'error'",
        f'{file}:3: cash: is not a key; did you mean "cache"?',
        "2 problems in the configuration.",
    ]


def test_check_config_needs_no_file() -> None:
    result = invoke("check-config")
    assert result.exit_code == 0
    assert result.output.startswith("no configuration file: defaults: OK\n")
    assert result.output.count("\n  ") == 10


def test_the_system_wide_file_is_read_when_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "etc.toml").write_text('[server]\nmetrics = "127.0.0.1:9"')
    result = invoke("check-config")
    assert f"{tmp_path}/etc.toml: OK" in result.output
    assert "metrics at 127.0.0.1:9" in result.output


def test_a_named_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    result = invoke("check-config", tmp_path / "missing.toml")
    assert result.exit_code == 1
    assert "missing.toml:1: cannot be read: No such file or directory" in result.stderr


def test_serve_runs_the_daemon_with_the_configuration(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "c.toml").write_text('[server]\nlisten = ["127.0.0.1:9"]')
    served: list[Config] = []
    serving(monkeypatch, served.append)
    assert invoke("serve", "--config", tmp_path / "c.toml").exit_code == 0
    assert [config.server.listen for config in served] == [("127.0.0.1:9",)]


def test_serve_does_not_start_with_a_wrong_configuration(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "c.toml").write_text("nonsense")
    serving(monkeypatch, lambda config: pytest.fail("it was started"))
    result = invoke("serve", "--config", tmp_path / "c.toml")
    assert result.exit_code == 1
    assert "c.toml:1: is not TOML" in result.stderr


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (ListenError("127.0.0.1:80: Permission denied"), "cacheproxy: 127.0.0.1:80: Permission denied\n"),
        (DatabaseRefused("made by a later version"), "cacheproxy: made by a later version\n"),
        (
            ExceptionGroup("", [ExceptionGroup("", [OSError(errno.EROFS, "Read-only", "/x")])]),
            "cacheproxy: /x: Read-only\n",
        ),
    ],
)
def test_what_a_person_can_mend_is_one_line(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, said: str
) -> None:
    def run(config: Config) -> None:
        raise failure

    serving(monkeypatch, run)
    result = invoke("serve")
    assert result.exit_code == 1
    assert result.stderr == said


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(config: Config) -> None:
        raise ExceptionGroup("", [ZeroDivisionError(), OSError()])

    serving(monkeypatch, run)
    with pytest.raises(ExceptionGroup) as raised:
        invoke("serve")
    assert raised.value.subgroup(ZeroDivisionError) is not None


def test_the_version_is_the_packages() -> None:
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
    assert project["project"]["version"] == __version__
    assert invoke("--version").output == f"cacheproxy, version {__version__}\n"


def test_the_module_is_the_command() -> None:
    assert "check-config" in python("-m", "cacheproxy", "--help")


def test_checking_a_configuration_needs_no_network_stack() -> None:
    program = (
        "import sys; from cacheproxy.cli import main; from cacheproxy import config; config.load(None, {});"
        "print(sorted({'httpx', 'trio', 'apsw', 'h11'} & sys.modules.keys()))"
    )
    assert python("-c", program) == "[]\n"
