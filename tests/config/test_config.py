from __future__ import annotations

import json
import math
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from cacheproxy.config import Access, Cache, Config, ConfigError, Log, Server, Storage, Upstream, load
from cacheproxy.config.files import Problem
from cacheproxy.config.messages import key_names
from cacheproxy.config.presets import PRESETS
from cacheproxy.core.failures import Cause

HERE: Mapping[str, str] = {}
"""The environment of a shell: no service manager has set anything."""


def written(folder: Path, text: str) -> Path:
    path = folder / "cacheproxy.toml"
    path.write_text(text)
    return path


def loaded(folder: Path, text: str, environment: Mapping[str, str] = HERE) -> Config:
    return load(written(folder, text), environment)


def problems(folder: Path, text: str) -> list[str]:
    """What is said of `text`, each as "line: key: what"."""
    path = written(folder, text)
    with pytest.raises(ConfigError) as failure:
        load(path, HERE)
    return [str(problem).removeprefix(f"{path}:") for problem in failure.value.problems]


def test_without_a_file_everything_has_its_default() -> None:
    config = load(None, HERE)
    assert config.server.listen == ("127.0.0.1:5000",)
    assert config.server.metrics == "127.0.0.1:5001"
    assert config.server.trusted_proxies == ()
    assert config.server.own_hosts == frozenset()
    assert (config.log.format, config.log.level, config.log.requests) == ("auto", "info", True)
    assert config.cache.budget.of(1000) == 500
    assert config.cache.min_free.of(1000) == 50
    assert config.cache.finish_fill == 0.5
    assert config.cache.parallel is not None
    assert (config.cache.parallel.size, config.cache.parallel.ranges) == (64 << 20, 4)


def test_an_empty_file_is_the_same_as_none(tmp_path: Path) -> None:
    config, default = loaded(tmp_path, ""), load(None, HERE)
    assert [upstream.registry for upstream in config.upstreams] == list(PRESETS)
    assert (config.server, config.log, config.storage) == (default.server, default.log, default.storage)


def test_docker_hub_alone_is_the_default_upstream_of_the_presets() -> None:
    assert [upstream.registry for upstream in load(None, HERE).upstreams if upstream.default] == ["docker.io"]


def test_anonymous_pulls_are_for_this_host_until_others_are_named(tmp_path: Path) -> None:
    (this_host,) = load(None, HERE).access.anonymous_pull
    assert this_host.networks == (ip_network("127.0.0.0/8"), ip_network("::1"))
    assert this_host.repositories.matches("docker.io/library/alpine")
    assert loaded(tmp_path, "[access]\nanonymous_pull = []").access.anonymous_pull == ()


def test_with_one_upstream_declared_the_presets_are_gone(tmp_path: Path) -> None:
    (upstream,) = loaded(tmp_path, '[[upstream]]\nregistry = "quay.io"').upstreams
    assert (upstream.registry, upstream.url, upstream.prefix) == ("quay.io", "https://quay.io", "quay.io")
    assert not upstream.default


def test_docker_hub_in_one_line(tmp_path: Path) -> None:
    (hub,) = loaded(tmp_path, '[[upstream]]\nregistry = "docker.io"').upstreams
    assert hub.url == "https://registry-1.docker.io"
    assert hub.token_hosts == ("auth.docker.io",)
    assert hub.library


def test_what_is_written_beats_the_preset(tmp_path: Path) -> None:
    (hub,) = loaded(
        tmp_path, '[[upstream]]\nregistry = "docker.io"\nurl = "http://LOCALHOST:5005/"'
    ).upstreams
    assert hub.url == "http://localhost:5005"
    assert hub.token_hosts == ()
    assert hub.library


def test_any_other_registry_is_three_lines(tmp_path: Path) -> None:
    text = '[[upstream]]\nregistry = "registry.corp.example:5000"\nurl = "https://registry.corp.example:5000"'
    (upstream,) = loaded(tmp_path, text).upstreams
    assert upstream.prefix == "registry.corp.example:5000"
    assert upstream.token_hosts == ()
    assert not upstream.library


def test_every_key_of_an_upstream(tmp_path: Path) -> None:
    for name in ("ca.pem", "us.crt", "us.key"):
        (tmp_path / name).touch()
    (upstream,) = loaded(
        tmp_path,
        """
        [[upstream]]
        registry = "r.example"
        url = "https://r.example"
        prefix = "mirror/r"
        default = true
        hosts = ["R.cache.example", "cache.example:8080"]
        mirrors = ["https://r2.example", "http://10.0.0.1:5000"]
        token_hosts = ["login.example"]
        connections = 3
        credentials = { username = "us", password = { command = ["pass", "r"] } }
        ca = "ca.pem"
        client_certificate = { certificate = "us.crt", key = { file = "us.key" } }
        proxy = "http://proxy.example:3128"
        allow_addresses = ["10.0.0.0/8", "fd00::1"]
        fresh = [{ tags = ["v*", "!v0"], for = "24h" }, { tags = "pinned", for = "forever" }]
        stale_if_error = { for = "1h", causes = ["429", "dns"] }
        missing_for = "5s"
        keep = "90d"
        """,
    ).upstreams
    assert upstream.prefix == "mirror/r"
    assert upstream.hosts == ("r.cache.example", "cache.example:8080")
    assert upstream.mirrors == ("https://r2.example", "http://10.0.0.1:5000")
    assert upstream.token_hosts == ("login.example",)
    assert upstream.connections == 3
    assert upstream.credentials is not None
    assert upstream.credentials.username == "us"
    assert upstream.credentials.password is not None
    assert upstream.credentials.password.command == ("pass", "r")
    assert upstream.ca == tmp_path / "ca.pem"
    assert upstream.client_certificate is not None
    assert upstream.client_certificate.certificate == tmp_path / "us.crt"
    assert upstream.client_certificate.key is not None
    assert upstream.client_certificate.key.file == tmp_path / "us.key"
    assert upstream.proxy == "http://proxy.example:3128"
    assert upstream.allow_addresses == (ip_network("10.0.0.0/8"), ip_network("fd00::1"))
    assert [rule.seconds for rule in upstream.fresh] == [86400, math.inf]
    assert [upstream.fresh[0].tags.matches(tag) for tag in ("v1", "v0", "latest")] == [True, False, False]
    assert upstream.stale_if_error.seconds == 3600
    assert upstream.stale_if_error.causes == {Cause.THROTTLED, Cause.DNS}
    assert upstream.missing_for == 5
    assert upstream.keep == 90 * 86400


@pytest.mark.parametrize(
    "credentials",
    [
        '{ username = "us", password = { file = "cacheproxy.toml" } }',
        '{ username = "us", password = { credential = "docker-hub" } }',
        '{ docker_config = "cacheproxy.toml" }',
        '{ helper = "docker-credential-ecr-login" }',
    ],
)
def test_each_form_of_credentials_is_taken(tmp_path: Path, credentials: str) -> None:
    text = f'[[upstream]]\nregistry = "quay.io"\ncredentials = {credentials}'
    assert loaded(tmp_path, text).upstreams[0].credentials is not None


def test_state_is_where_the_service_manager_says(tmp_path: Path) -> None:
    environment = {"STATE_DIRECTORY": "/var/lib/cacheproxy:/var/lib/other"}
    storage = loaded(tmp_path, "", environment).storage
    assert storage.state == Path("/var/lib/cacheproxy")
    assert storage.database == Path("/var/lib/cacheproxy/cacheproxy.db")
    assert storage.blobs == Path("/var/lib/cacheproxy/blobs")


def test_state_without_a_service_manager_is_in_the_working_folder(tmp_path: Path) -> None:
    assert loaded(tmp_path, "").storage.state == Path("var")


def test_a_relative_state_starts_at_the_file_and_the_rest_at_state(tmp_path: Path) -> None:
    text = '[storage]\nstate = "data"\ndatabase = "rows.db"\nblobs = "/srv/blobs"'
    storage = loaded(tmp_path, text, {"STATE_DIRECTORY": "/elsewhere"}).storage
    assert storage.state == tmp_path / "data"
    assert storage.database == tmp_path / "data/rows.db"
    assert storage.blobs == Path("/srv/blobs")


def test_fills_can_be_told_to_never_go_on_and_never_be_parallel(tmp_path: Path) -> None:
    cache = loaded(tmp_path, '[cache]\nfinish_fill = "never"\nparallel = "never"').cache
    assert cache.finish_fill == math.inf
    assert cache.parallel is None


def test_the_scrub_has_a_pace_and_an_age_or_is_off(tmp_path: Path) -> None:
    default = loaded(tmp_path, "").cache.scrub
    assert default is not None
    assert (default.every, default.rate, default.buckets) == (30 * 86400, 16 << 20, False)
    assert loaded(tmp_path, '[cache]\nscrub = "never"').cache.scrub is None


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://us@db/rows",
        "postgres://us@one,two:5433/rows?sslmode=verify-full&passfile=/run/pg",
        "postgresql://us:@/rows?host=%2Frun%2Fpostgresql",
        "postgresql://?service=rows",
    ],
)
def test_database_may_be_a_postgresql(tmp_path: Path, url: str) -> None:
    assert loaded(tmp_path, f"[storage]\ndatabase = '{url}'").storage.database == url


def test_amounts_are_bytes_or_shares(tmp_path: Path) -> None:
    cache = loaded(tmp_path, '[cache]\nbudget = "1GiB"\nmin_free = "10%"\nfinish_fill = "0%"').cache
    assert cache.budget.of(5) == 1 << 30
    assert cache.min_free.of(50) == 5
    assert cache.finish_fill == 0


def test_our_own_host_is_known_from_the_external_url(tmp_path: Path) -> None:
    server = loaded(tmp_path, '[server]\nexternal_url = "https://Cache.example:8443/"').server
    assert server.external_url == "https://cache.example:8443"
    assert server.own_hosts == {"cache.example:8443"}


def test_all_errors_are_told_at_once_each_with_its_line(tmp_path: Path) -> None:
    text = """
        [server]
        listen = ["127.0.0.1:5000", "everywhere"]
        workers = 2

        [cache]
        budgett = "1GiB"

        [[upstream]]
        registry = "quay.io"

        [[upstream]]
        registry = "r.example"
        connections = 0
        fresh = [
          { tags = "latest" },
          { tags = "*", for = 60 },
        ]

        [nonsense]
        """
    assert [line.split(": ")[:2] for line in problems(tmp_path, text)] == [
        ["3", "server.listen[1]"],
        ["4", "server.workers"],
        ["7", "cache.budgett"],
        ["12", "upstream[1].url"],
        ["14", "upstream[1].connections"],
        ["16", "upstream[1].fresh[0].for"],
        ["17", "upstream[1].fresh[1].for"],
        ["20", "nonsense"],
    ]


def test_conflicts_are_told_together_with_other_errors(tmp_path: Path) -> None:
    text = """[log]
level = "loud"
[[upstream]]
registry = "quay.io"
[[upstream]]
registry = "quay.io"
"""
    first, second = problems(tmp_path, text)
    assert first == "2: log.level: must be 'debug', 'info', 'warning' or 'error'"
    assert second.startswith('5: upstream[1].prefix: "quay.io" is declared at ')
    assert "cacheproxy.toml:3 already" in second


def test_an_access_key_is_one_accounts(tmp_path: Path) -> None:
    (tmp_path / "s").touch()
    table = (
        '[[account]]\nname = "{}"\nsecret = {{ file = "s" }}\n'
        'access_key = "AKIA{}"\nsecret_key = {{ file = "s" }}\n'
    )
    tables = [
        table.format("one", "1" * 16),
        table.format("two", "2" * 16),
        table.format("AKIA" + "1" * 16, "1" * 16),
    ]
    (told,) = problems(tmp_path, "".join(tables))
    assert told.startswith('14: account[2].access_key: "AKIA1111111111111111" is declared at ')


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[cache]\nbudge = 1", '2: cache.budge: is not a key; did you mean "budget"?'),
        ("[sever]", '1: sever: is not a key; did you mean "server"?'),
        (
            "[cache]\nparallel = { form = '1MiB' }",
            '2: cache.parallel.form: is not a key; did you mean "from"?',
        ),
        (
            "[log]\nxyz = 1",
            "2: log.xyz: is not a key; here can be: format, level, requests",
        ),
        ("server = 1", "1: server: must be a table: { ... }"),
        (
            "[cache]\nscrub = { rate = '0B' }",
            '2: cache.scrub.rate: must be at least "1KiB", a second; scrub = "never" turns it off',
        ),
        (
            "[cache]\nscrub = { every = 'forever' }",
            '2: cache.scrub.every: must end; write a duration, as "60s"',
        ),
        ("[cache]\nparallel = 4", "2: cache.parallel: must be a table: { ... }"),
        ("[cache]\nparallel = { ranges = 1 }", "2: cache.parallel.ranges: must be at least 2"),
        ("[upstream]\nregistry = 'quay.io'", "1: upstream: must be an array of tables; write [[upstream]]"),
        ("upstream = [1]", "1: upstream[0]: must be a table: { ... }"),
        ("[log]\nrequests = 'no'", "2: log.requests: must be true or false"),
        ("[server]\nlisten = []", "2: server.listen: must not be empty; take the line out for the default"),
        ("[server]\nlisten = '127.0.0.1:1'", "2: server.listen: must be a list: [...]"),
        ("[server]\nworkers = '1'", "2: server.workers: must be a whole number"),
        ("[server]\nworkers = 2", "2: server.workers: 2 workers are not built yet; leave it at 1"),
        (
            "[storage]\nblobs = 'ftp://bucket/x'",
            "2: storage.blobs: ftp:// is no store of blobs; write a path, or s3, gs, az and ://",
        ),
        (
            "[storage]\nblobs = 's3://'",
            '2: storage.blobs: names no bucket; write it as "s3://bucket/prefix"',
        ),
        (
            "[storage]\nblobs = 's3://bucket/../x'",
            "2: storage.blobs: has a prefix that is none; write plain segments, or leave it out",
        ),
        (
            "[storage]\nblobs = 'gs://bucket'\n[storage.objects]\nregion = 'eu'",
            "1: storage: objects.region means something to s3:// only; take it out",
        ),
        (
            "[traces]\nsample = 0.1",
            '2: traces.sample: must be a share in quotes, as "50%"',
        ),
        (
            "[storage.objects]\nendpoint = 's3.corp.example'",
            "2: storage.objects.endpoint: is not a URL of this kind; begin it with https:// or http://",
        ),
        (
            "[storage]\ndatabase = 'mysql://us:secret@db/x'",
            '2: storage.database: mysql:// is no database here; write a path or "postgresql://..."',
        ),
        (
            "[storage]\ndatabase = 'postgresql://us:secret@db/x'",
            "2: storage.database: no password belongs here; write it into a file",
        ),
        (
            "[storage]\ndatabase = 'postgres://us@db/x?password=secret'",
            "2: storage.database: no password belongs here; write it into a file",
        ),
        (
            "[storage]\ndatabase = 'postgresql://[us:secret@db/x'",
            "2: storage.database: is not a URL; write postgresql://user@host/database",
        ),
        (
            "[[upstream]]\nregistry = 'r.example'",
            "1: upstream[0].url: is missing; no registry is known by this name, so its address is needed",
        ),
        (
            "[[upstream]]\nregistry = 'quay.io'\nmissing_for = 'forever'",
            '3: upstream[0].missing_for: must end; write a duration, as "60s"',
        ),
        (
            "[[upstream]]\nregistry = 'quay.io'\nstale_if_error = { causes = ['404'] }",
            "3: upstream[0].stale_if_error.causes: must be a list of causes: ",
        ),
        (
            "[access]\nanonymous_pull = [{ repositories = '**' }]",
            "2: access.anonymous_pull[0].networks: is missing",
        ),
    ],
)
def test_an_error_says_what_is_wrong_and_what_to_do(tmp_path: Path, text: str, said: str) -> None:
    (problem,) = problems(tmp_path, text)
    assert problem.startswith(said)


@pytest.mark.parametrize(
    ("credentials", "said"),
    [
        ("{ username = 'us' }", ": username and password go together; add the other one"),
        ("{ password = { credential = 'a' } }", ": username and password go together; add the other one"),
        ("{}", ": needs exactly one of username with password, docker_config, and helper"),
        ("{ helper = 'a', docker_config = 'cacheproxy.toml' }", ": needs exactly one of username"),
        ("{ helper = 'a b' }", ".helper: holds characters that no name of this kind has"),
        (
            "{ username = 'us', password = {} }",
            ".password: needs exactly one of file, credential and command",
        ),
        (
            "{ username = 'us', password = { file = 'cacheproxy.toml', credential = 'a' } }",
            ".password: needs exactly one of file, credential and command",
        ),
    ],
)
def test_credentials_have_exactly_one_form(tmp_path: Path, credentials: str, said: str) -> None:
    (problem,) = problems(tmp_path, f"[[upstream]]\nregistry = 'quay.io'\ncredentials = {credentials}")
    assert problem.startswith(f"3: upstream[0].credentials{said}")


def test_a_password_in_the_file_is_refused_and_not_repeated(tmp_path: Path) -> None:
    text = "[[upstream]]\nregistry = 'quay.io'\ncredentials = { username = 'us', password = 'hunter2' }"
    (problem,) = problems(tmp_path, text)
    assert problem == (
        "3: upstream[0].credentials.password: must be where the secret is: "
        '{ file = "..." }, { credential = "..." } or { command = ["...", "..."] }'
    )


scalars = st.one_of(
    st.booleans(),
    st.integers(-5, 5),
    st.floats(),
    st.sampled_from(
        ["", "1h", "5%", "forever", "never", "a.io", "https://a.io", "127.0.0.1:1", "10.0.0.0/8", "**"]
    ),
    st.text(st.sampled_from("a/.:*!%-1\u00e9\n"), max_size=6),
)
names = st.sampled_from(["file", "for", "tags", "causes", "from", "username", "networks", "x"])
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=5,
)


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return str(value) if isinstance(value, float) else json.dumps(value)


MODELS: list[type[BaseModel]] = [Server, Log, Storage, Cache, Access, Upstream]


@given(
    st.sampled_from(MODELS).flatmap(
        lambda model: st.tuples(
            st.just(model.__name__.lower()),
            st.dictionaries(st.sampled_from(key_names(model)), anything, max_size=4),
        )
    )
)
def test_whatever_is_written_is_taken_or_refused_with_a_line(table: tuple[str, dict[str, Any]]) -> None:
    name, keys = table
    header = "[[upstream]]" if name == "upstream" else f"[{name}]"
    with TemporaryDirectory() as folder:
        path = written(
            Path(folder), "\n".join([header, *(f"{key} = {toml(value)}" for key, value in keys.items())])
        )
        found: tuple[Problem, ...] = ()
        try:
            load(path, HERE)
        except ConfigError as error:
            found = error.problems
    assert all(1 <= problem.place.line <= len(keys) + 1 for problem in found)
    assert all(problem.key.startswith(name) and problem.text for problem in found)


def test_a_registry_that_is_wrong_is_told_once(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, "[[upstream]]\nregistry = 'https://r.example'\nurl = 'https://r.example'")
    assert problem.startswith("2: upstream[0].registry: is the name clients use, without https://")


def test_a_configuration_cannot_be_changed() -> None:
    config = load(None, HERE)
    with pytest.raises(ValueError, match="frozen"):
        setattr(config.server, "metrics", "x")  # noqa: B010  # the type checker knows, the caller may not
