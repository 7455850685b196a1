"""Which repository a request means: each way of asking, right and wrong, is a row."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.core.errors import OCIError
from cacheproxy.core.routing import Bare, Routes, Target, UpstreamRoute, Via, Virtual, VirtualRoute
from tests.core.names import repositories, requested

HUB = UpstreamRoute("docker.io", "docker-hub", hosts=("hub.cache.example",), library=True, default=True)
HUB_PAID = UpstreamRoute("docker.io", "docker-hub/paid", hosts=("paid.cache.example",), library=True)
GHCR = UpstreamRoute("ghcr.io", "ghcr.io")
QUAY = UpstreamRoute("quay.io", "mirror/quay", hosts=("quay.cache.example:8443", "quay.local"))
LOCAL = UpstreamRoute("localhost:5001", "local")
GCR = UpstreamRoute("gcr.io", "gcr.io")
DECLARED = (HUB, HUB_PAID, GHCR, QUAY, LOCAL, GCR)

ROUTES = Routes(DECLARED, own_hosts={"cache.example", "cache.example:5000"})
CLOSED = Routes([GHCR])
HERE = "cache.example:5000"

RIGHT = [
    # 1. ns
    ("library/alpine", "docker.io", HERE, "docker-hub", "library/alpine", Via.NS),
    ("alpine", "docker.io", HERE, "docker-hub", "library/alpine", Via.NS),
    ("org/app", "docker.io", HERE, "docker-hub", "org/app", Via.NS),
    ("org/app", "Docker.IO", HERE, "docker-hub", "org/app", Via.NS),
    ("org/app", "index.docker.io", HERE, "docker-hub", "org/app", Via.NS),
    ("org/app", "registry-1.docker.io", HERE, "docker-hub", "org/app", Via.NS),
    ("app", "ghcr.io", HERE, "ghcr.io", "app", Via.NS),
    ("a/b/c", "ghcr.io", HERE, "ghcr.io", "a/b/c", Via.NS),
    ("a/b", "localhost:5001", HERE, "local", "a/b", Via.NS),
    # ... whatever the Host is
    ("a/b", "ghcr.io", "hub.cache.example", "ghcr.io", "a/b", Via.NS),
    # ... also where that is the registry's own name: somebody's DNS sends its clients to us
    ("a/b", "ghcr.io", "ghcr.io", "ghcr.io", "a/b", Via.NS),
    ("a/b", "localhost:5001", "LOCALHOST:5001", "local", "a/b", Via.NS),
    # ... with a registry's name or a prefix in front, which has to mean the same
    ("docker.io/library/alpine", "docker.io", HERE, "docker-hub", "library/alpine", Via.NS),
    ("docker.io/alpine", "docker.io", HERE, "docker-hub", "library/alpine", Via.NS),
    ("index.docker.io/org/app", "docker.io", HERE, "docker-hub", "org/app", Via.NS),
    ("docker-hub/org/app", "docker.io", HERE, "docker-hub", "org/app", Via.NS),
    ("docker-hub/alpine", "docker.io", HERE, "docker-hub", "library/alpine", Via.NS),
    ("mirror/quay/org/app", "quay.io", HERE, "mirror/quay", "org/app", Via.NS),
    ("localhost:5001/a", "localhost:5001", HERE, "local", "a", Via.NS),
    # ... of which only one is taken off
    ("docker-hub/docker-hub/app", "docker.io", HERE, "docker-hub", "docker-hub/app", Via.NS),
    # ... and what only begins like one stays
    ("mirror/other/app", "quay.io", HERE, "mirror/quay", "mirror/other/app", Via.NS),
    ("docker-hubble/app", "docker.io", HERE, "docker-hub", "docker-hubble/app", Via.NS),
    ("example.com/project/app", "gcr.io", HERE, "gcr.io", "example.com/project/app", Via.NS),
    # ... our own host as ns says nothing
    ("docker-hub/org/app", "cache.example:5000", "10.0.0.1", "docker-hub", "org/app", Via.PREFIX),
    ("org/app", "Cache.Example", "10.0.0.1", "docker-hub", "org/app", Via.BARE),
    ("a/b", "cache.example", "quay.local", "mirror/quay", "a/b", Via.HOST),
    # ... and so does whatever name the client has for us
    ("docker-hub/org/app", "cache:5000", "Cache:5000", "docker-hub", "org/app", Via.PREFIX),
    ("org/app", "hub.cache.example", "hub.cache.example", "docker-hub", "org/app", Via.HOST),
    # 2. Host
    ("org/app", None, "hub.cache.example", "docker-hub", "org/app", Via.HOST),
    ("alpine", None, "hub.cache.example", "docker-hub", "library/alpine", Via.HOST),
    ("alpine", None, "HUB.Cache.Example:5000", "docker-hub", "library/alpine", Via.HOST),
    ("org/app", None, "paid.cache.example", "docker-hub/paid", "org/app", Via.HOST),
    ("org/app", None, "quay.cache.example:8443", "mirror/quay", "org/app", Via.HOST),
    ("org/app", None, "quay.local:5000", "mirror/quay", "org/app", Via.HOST),
    ("ghcr.io/a/b", None, "quay.local", "mirror/quay", "ghcr.io/a/b", Via.HOST),
    ("docker-hub/a", None, "quay.local", "mirror/quay", "docker-hub/a", Via.HOST),
    # ... another port is another host where one is configured
    ("org/app", None, "quay.cache.example:9", "docker-hub", "org/app", Via.BARE),
    # 3. a registry in the path
    ("docker.io/library/alpine", None, HERE, "docker-hub", "library/alpine", Via.REGISTRY),
    ("docker.io/alpine", None, HERE, "docker-hub", "library/alpine", Via.REGISTRY),
    ("index.docker.io/alpine", None, HERE, "docker-hub", "library/alpine", Via.REGISTRY),
    ("registry-1.docker.io/org/app", None, HERE, "docker-hub", "org/app", Via.REGISTRY),
    ("ghcr.io/a/b", None, HERE, "ghcr.io", "a/b", Via.REGISTRY),
    ("quay.io/app", None, HERE, "mirror/quay", "app", Via.REGISTRY),
    ("localhost:5001/a/b", None, HERE, "local", "a/b", Via.REGISTRY),
    ("ghcr.io/evil.example/x", None, HERE, "ghcr.io", "evil.example/x", Via.REGISTRY),
    # 4. a prefix, of which the longest wins
    ("docker-hub/library/alpine", None, HERE, "docker-hub", "library/alpine", Via.PREFIX),
    ("docker-hub/alpine", None, HERE, "docker-hub", "library/alpine", Via.PREFIX),
    ("docker-hub/paid/alpine", None, HERE, "docker-hub/paid", "library/alpine", Via.PREFIX),
    ("docker-hub/paid/org/app", None, HERE, "docker-hub/paid", "org/app", Via.PREFIX),
    ("docker-hub/paidup/app", None, HERE, "docker-hub", "paidup/app", Via.PREFIX),
    ("mirror/quay/app", None, HERE, "mirror/quay", "app", Via.PREFIX),
    ("mirror/quay/a/b/c", None, HERE, "mirror/quay", "a/b/c", Via.PREFIX),
    ("local/app", None, HERE, "local", "app", Via.PREFIX),
    # 5. bare
    ("library/alpine", None, HERE, "docker-hub", "library/alpine", Via.BARE),
    ("alpine", None, HERE, "docker-hub", "library/alpine", Via.BARE),
    ("org/app", None, HERE, "docker-hub", "org/app", Via.BARE),
    ("org/my.app", None, "", "docker-hub", "org/my.app", Via.BARE),
    ("mirror/app", None, HERE, "docker-hub", "mirror/app", Via.BARE),
    ("a/ghcr.io/b", None, HERE, "docker-hub", "a/ghcr.io/b", Via.BARE),
]

WRONG = [
    # An ns that is not declared ends it, however good the rest is.
    ("library/alpine", "evil.example", HERE),
    ("library/alpine", "", HERE),
    ("library/alpine", "docker.io:443", HERE),
    ("library/alpine", "localhost", HERE),
    ("library/alpine", "localhost:5002", HERE),
    ("library/alpine", "docker.io.evil.example", HERE),
    ("library/alpine", "docker-hub", HERE),
    ("docker-hub/library/alpine", "evil.example", HERE),
    ("docker.io/library/alpine", "evil.example", HERE),
    ("org/app", "evil.example", "hub.cache.example"),
    ("org/app", "hub.cache.example", "cache.example"),
    # A name in front that means another upstream than ns.
    ("ghcr.io/a/b", "docker.io", HERE),
    ("docker.io/library/alpine", "ghcr.io", HERE),
    ("docker-hub/library/alpine", "ghcr.io", HERE),
    ("mirror/quay/app", "docker.io", HERE),
    ("localhost:5001/a", "docker.io", HERE),
    ("docker-hub/paid/app", "docker.io", HERE),
    # A host in the path that is not declared never becomes the default upstream's image.
    ("evil.example/x", None, HERE),
    ("evil.example/library/alpine", None, HERE),
    ("evil.example:5000/x", None, HERE),
    ("docker.io:443/library/alpine", None, HERE),
    ("localhost/x", None, HERE),
    ("localhost:5000/x", None, HERE),
    ("registry:80/x", None, HERE),
    ("sub.docker.io/library/alpine", None, HERE),
    ("evil.example", None, HERE),
    ("cache.example/library/alpine", None, HERE),
    # A registry or a prefix with nothing after it.
    ("docker.io", None, HERE),
    ("docker-hub", None, HERE),
    ("docker-hub/paid", None, HERE),
    ("mirror/quay", None, HERE),
    ("docker.io", "docker.io", HERE),
    ("docker-hub", "docker.io", HERE),
]


def meaning(routes: Routes, name: str, ns: str | None = None, host: str = HERE) -> tuple[str, str, str, Via]:
    target = routes.resolve(name, ns, host)
    return target.upstream, target.remote, target.repository, target.via


@pytest.mark.parametrize(("name", "ns", "host", "upstream", "remote", "via"), RIGHT)
def test_a_request_means(name: str, ns: str | None, host: str, upstream: str, remote: str, via: Via) -> None:
    assert meaning(ROUTES, name, ns, host) == (upstream, remote, f"{upstream}/{remote}", via)


@pytest.mark.parametrize(("name", "ns", "host"), WRONG)
def test_a_request_is_refused(name: str, ns: str | None, host: str) -> None:
    with pytest.raises(OCIError) as caught:
        ROUTES.resolve(name, ns, host)
    assert (caught.value.status, caught.value.code) == (404, "NAME_UNKNOWN")


@pytest.mark.parametrize("name", ["alpine", "library/alpine", "docker.io/library/alpine", "ghcr/a"])
def test_without_a_default_a_bare_name_is_refused(name: str) -> None:
    with pytest.raises(OCIError) as caught:
        CLOSED.resolve(name, None, HERE)
    assert caught.value.code == "NAME_UNKNOWN"


def test_a_named_upstream_needs_no_default() -> None:
    assert meaning(CLOSED, "ghcr.io/a/b") == ("ghcr.io", "a/b", "ghcr.io/a/b", Via.REGISTRY)


def test_a_port_within_a_named_upstreams_repository_is_no_name() -> None:
    with pytest.raises(OCIError) as caught:
        ROUTES.resolve("evil.example:5000/x", "ghcr.io", HERE)
    assert (caught.value.status, caught.value.code) == (400, "NAME_INVALID")


def test_a_prefix_may_be_spelt_as_an_alias_of_docker_hub() -> None:
    routes = Routes([UpstreamRoute("docker.io", "docker.io", library=True)])
    assert meaning(routes, "index.docker.io/alpine") == (
        "docker.io",
        "library/alpine",
        "docker.io/library/alpine",
        Via.REGISTRY,
    )


def test_docker_hub_that_is_not_declared_is_not_reached_by_an_alias() -> None:
    with pytest.raises(OCIError):
        CLOSED.resolve("index.docker.io/library/alpine", None, HERE)


def test_the_first_of_several_rules_for_a_registry_has_its_name() -> None:
    routes = Routes([HUB_PAID, HUB])
    assert meaning(routes, "docker.io/org/app")[0] == "docker-hub/paid"
    assert meaning(routes, "org/app", "docker.io")[0] == "docker-hub/paid"


@pytest.mark.parametrize(
    ("name", "ns", "host", "namespace"),
    [
        ("a/b", "ghcr.io", HERE, "ghcr.io"),
        ("a/b", "GHCR.io", HERE, "GHCR.io"),
        ("a/b", "localhost:5001", HERE, "localhost:5001"),
        ("a/b", "cache.example", HERE, None),
        ("a/b", None, HERE, None),
        ("a/b", None, "hub.cache.example", None),
        ("ghcr.io/a/b", None, HERE, None),
    ],
)
def test_the_ns_that_decided_is_echoed(name: str, ns: str | None, host: str, namespace: str | None) -> None:
    assert ROUTES.resolve(name, ns, host).namespace == namespace


def resolved(name: str, ns: str | None, host: str) -> Target | None:
    try:
        return ROUTES.resolve(name, ns, host)
    except OCIError:
        return None


hosts = st.one_of(
    st.just(HERE), st.sampled_from([host for route in DECLARED for host in route.hosts]), st.text()
)
spaces = st.one_of(
    st.none(),
    st.sampled_from(["docker.io", "ghcr.io", "index.docker.io", "evil.example", "cache.example"]),
    st.text(),
)
leads = st.sampled_from(
    ["", "docker.io/", "docker-hub/", "docker-hub/paid/", "evil.example/", "mirror/quay/", "a:1/"]
)
PREFIXES = {route.prefix for route in DECLARED}


@given(st.one_of(requested, st.builds(str.__add__, leads, repositories)), spaces, hosts)
def test_only_declared_upstreams_come_out(name: str, ns: str | None, host: str) -> None:
    target = resolved(name, ns, host)
    if target is not None:
        assert target.upstream in PREFIXES
        assert target.repository == f"{target.upstream}/{target.remote}"


@given(repositories)
def test_all_ways_of_asking_end_in_one_repository(name: str) -> None:
    """Where each is understood: a name may itself begin like a prefix or a host."""
    ways = [
        resolved(name, "docker.io", HERE),
        resolved(name, None, "hub.cache.example"),
        resolved(f"docker.io/{name}", None, HERE),
        resolved(f"docker.io/{name}", "docker.io", HERE),
        resolved(f"docker-hub/{name}", None, HERE),
        resolved(f"docker-hub/{name}", "docker.io", HERE),
        resolved(name, None, HERE),
    ]
    assert len({target.repository for target in ways if target is not None}) == 1
    assert None not in ways[:6]


@given(repositories)
def test_a_canonical_name_means_itself(name: str) -> None:
    target = ROUTES.resolve(f"mirror/quay/{name}", None, HERE)
    assert target.repository == f"mirror/quay/{name}"


def test_a_bare_name_may_be_a_hosted_repositorys() -> None:
    bare = Routes([HUB]).meaning("team/app", None, "here")
    assert isinstance(bare, Bare)
    assert bare.name == "team/app"
    assert bare.default == Routes([HUB]).resolve("team/app", None, "here")


def test_a_bare_name_means_nothing_else_without_a_default() -> None:
    assert Routes([]).meaning("team/app", None, "here") == Bare("team/app", None)


HOME = UpstreamRoute("corp.example", "corp", hosts=("corp.cache", "corp.cache:8443"), by_caller=True)
AT_HOME = Routes([HUB, HOME])


@pytest.mark.parametrize(
    ("name", "ns", "host"),
    [
        ("corp/team/app", None, HERE),
        ("corp.example/team/app", None, HERE),
        ("team/app", "corp.example", HERE),
        ("team/app", "corp.example", "hub.cache.example"),
    ],
)
def test_where_the_callers_own_right_counts_only_the_own_host_leads_there(
    name: str, ns: str | None, host: str
) -> None:
    with pytest.raises(OCIError) as caught:
        AT_HOME.meaning(name, ns, host)
    assert caught.value.code == "DENIED"
    assert "corp.cache or corp.cache:8443" in caught.value.message
    assert AT_HOME.resolve(name, ns, host).repository == "corp/team/app"  # an operator sees all


@pytest.mark.parametrize("host", ["corp.cache", "Corp.Cache:5000", "corp.cache:8443"])
def test_at_the_own_host_it_is_meant_however_it_is_called(host: str) -> None:
    assert AT_HOME.by_caller(host) == "corp"
    for name, ns in (
        ("team/app", None),
        ("team/app", "corp.example"),
        ("corp.example/team/app", "corp.example"),
    ):
        meant = AT_HOME.meaning(name, ns, host)
        assert isinstance(meant, Target)
        assert meant.repository == "corp/team/app"


@pytest.mark.parametrize("host", [HERE, "hub.cache.example", "", "corp.cache.example"])
def test_no_other_host_is_one_where_the_callers_right_counts(host: str) -> None:
    assert AT_HOME.by_caller(host) is None


THROUGH = Routes(
    DECLARED,
    virtuals=[
        VirtualRoute("all", ("platform", "team/sub", "docker-hub", "ghcr.io"), "platform"),
        VirtualRoute("m/only", ("ghcr.io",)),
    ],
)


def test_a_virtual_name_stands_for_its_members_in_order() -> None:
    meant = THROUGH.meaning("all/alpine", None, HERE)
    assert isinstance(meant, Virtual)
    assert meant.places == (
        "platform/alpine",
        "team/sub/alpine",
        "docker-hub/library/alpine",
        "ghcr.io/alpine",
    )
    assert meant.push == "platform/alpine"
    other = THROUGH.meaning("m/only/a/b", None, HERE)
    assert isinstance(other, Virtual)
    assert (other.places, other.push) == (("ghcr.io/a/b",), None)


@pytest.mark.parametrize("name", ["all", "allover/x", "m/x", "platform/x"])
def test_what_only_begins_like_a_virtual_prefix_is_none(name: str) -> None:
    assert isinstance(THROUGH.meaning(name, None, HERE), Bare)


def test_a_virtual_name_is_no_registrys_and_no_one_repositorys() -> None:
    with pytest.raises(OCIError, match="several places"):
        THROUGH.meaning("all/alpine", "docker.io", HERE)
    with pytest.raises(OCIError, match="name one of platform/alpine, "):
        THROUGH.resolve("all/alpine", None, HERE)


def test_at_an_upstreams_own_host_nothing_is_virtual() -> None:
    assert isinstance(THROUGH.meaning("all/alpine", None, "hub.cache.example"), Target)
