"""Which repository a request means: all ways of asking end in one canonical name, "<prefix>/<path>".

The first rule that matches decides, and no refusal falls through to the next one:

1. `?ns=` names a declared registry: that upstream, of several for one registry the first declared. A leading
   registry name or prefix in the path is taken off; it has to mean the same upstream. An `ns` that is neither
   declared nor our own host is refused: what follows would be another registry's image.
2. The Host is one of an upstream's own.
3. The first path segment is a declared registry.
4. The longest configured prefix: an upstream's, or a virtual one, for several places (`Virtual`).
5. A hosted repository of that name, which is for the caller to find out (`Bare`).
6. The default upstream, for bare names.

Refused there: a first segment that looks like a host (it has "." or ":", or is "localhost") and is not
declared. `/v2/evil.example/x` asks for another registry, and must not become the default upstream's
`evil.example/x`. A registry or a prefix with nothing after it names no repository and is refused too.

Only upstreams in the table come out, whatever a client sends. Docker Hub goes by three names and keeps its
own images under `library/`, which people leave out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from cacheproxy.core.errors import OCIError
from cacheproxy.core.name import parse_repository

ALIASES: Mapping[str, str] = {"index.docker.io": "docker.io", "registry-1.docker.io": "docker.io"}


class Via(StrEnum):
    """How a request named its upstream."""

    NS = "ns"
    """The query: `?ns=docker.io`."""
    HOST = "host"
    """A Host of the upstream's own."""
    REGISTRY = "registry"
    """The first path segment: `/v2/docker.io/...`."""
    PREFIX = "prefix"
    """A configured prefix: `/v2/docker-hub/...`."""
    BARE = "bare"
    """Not at all: the default upstream."""


@dataclass(frozen=True, slots=True)
class UpstreamRoute:
    registry: str
    """What clients call it: a host, with a port where it has one."""
    prefix: str
    """Of the canonical names of its repositories; may have several segments."""
    hosts: tuple[str, ...] = ()
    """Requests with one of these as Host are for it. Without a port any port will do."""
    library: bool = False
    """Names of one segment are short for `library/<name>`."""
    default: bool = False
    by_caller: bool = False
    """Each caller's own right upstream counts: only at the upstream's own `hosts` do callers say who they are
    there."""


@dataclass(frozen=True, slots=True)
class Target:
    upstream: str
    """The prefix."""
    repository: str
    """The canonical name, "<prefix>/<remote>"."""
    remote: str
    """What the upstream calls it."""
    via: Via
    namespace: str | None
    """To be echoed as OCI-Namespace (distribution-spec, "Registry Proxying")."""


@dataclass(frozen=True, slots=True)
class Bare:
    """A name that names no upstream: of a hosted repository, or meant for the default upstream."""

    name: str
    """Canonical, if there is such a hosted repository."""
    default: Target | None
    """What it means if there is none."""


@dataclass(frozen=True, slots=True)
class VirtualRoute:
    prefix: str
    members: tuple[str, ...]
    """Prefixes of upstreams; all others are beginnings of names of hosted repositories, and come first."""
    push: str | None = None
    """One of these others."""


@dataclass(frozen=True, slots=True)
class Virtual:
    """A name that is looked for in several places."""

    name: str
    """Canonical, as no repository's is."""
    hosted: tuple[str, ...]
    """By canonical name, in order."""
    cached: tuple[Target, ...]
    push: str | None
    """Where a push goes, one of `hosted`; None: nowhere."""

    @property
    def places(self) -> tuple[str, ...]:
        """Canonical names, in order."""
        return (*self.hosted, *(target.repository for target in self.cached))


Meaning = Target | Bare | Virtual


class Routes:
    """Where two upstreams share a registry, a prefix or a host, the one declared first has it."""

    def __init__(
        self,
        upstreams: Iterable[UpstreamRoute],
        own_hosts: Iterable[str] = (),
        virtuals: Iterable[VirtualRoute] = (),
    ) -> None:
        declared = tuple(upstreams)
        self._registries = _first((route.registry.lower(), route) for route in declared)
        self._prefixes = _first((route.prefix, route) for route in declared)
        self._hosts = _first((host.lower(), route) for route in declared for host in route.hosts)
        self._default = next((route for route in declared if route.default), None)
        self._by_caller = {route.prefix: route for route in declared if route.by_caller}
        self._virtuals = tuple(virtuals)
        self._own_hosts = frozenset(host.lower() for host in own_hosts)

    def resolve(self, name: str, ns: str | None, host: str) -> Target:
        """As `meaning`, for whoever may see all, where no repository is hosted.

        Raises OCIError, NAME_UNKNOWN also without default.
        """
        meant = self._meaning(name, ns, host)
        if isinstance(meant, Target):
            return meant
        if isinstance(meant, Virtual):
            raise _unknown(name, f"{name} is virtual: name one of {', '.join(meant.places)}")
        if meant.default is None:
            raise _unknown(name, "no upstream is declared for it, and none is the default")
        return meant.default

    def virtual(self, name: str) -> Virtual | None:
        """What the name stands for, if that is several places."""
        meant = self._meaning(name, None, "")
        return meant if isinstance(meant, Virtual) else None

    def meaning(self, name: str, ns: str | None, host: str) -> Meaning:
        """What a request for `name`, with this `ns` (None: without) and this Host, means.

        Raises OCIError NAME_UNKNOWN (404), or NAME_INVALID (400) where an upstream is named and what it is
        asked for cannot be a repository's name (a segment with a port). DENIED where the caller's own right
        counts, and nothing said of it could be believed.
        """
        meant = self._meaning(name, ns, host)
        if isinstance(meant, Target) and self.by_caller(host) != meant.upstream:
            self._only_at_home(meant)
        return meant

    def by_caller(self, host: str) -> str | None:
        """The prefix of the upstream whose own host this is, if the caller's right there counts."""
        route = self._by_host(host.lower())
        return None if route is None or not route.by_caller else route.prefix

    def _only_at_home(self, meant: Target) -> None:
        route = self._by_caller.get(meant.upstream)
        if route is not None:
            where = " or ".join(route.hosts)
            said = f"{route.prefix} is for whom {route.registry} lets read it: ask at {where}"
            raise OCIError("DENIED", said, detail={"name": meant.repository, "hosts": list(route.hosts)})

    def _meaning(self, name: str, ns: str | None, host: str) -> Meaning:
        host = host.lower()
        if ns is not None and not self._means_us(ns.lower(), host):
            return self._by_ns(name, ns)
        by_host = self._by_host(host)
        if by_host is not None:
            return _target(by_host, name, Via.HOST)
        via, route, rest = self._lead(name)
        if route is not None:
            return _target(route, rest, via)
        return self._virtual(name) or self._bare(name)

    def _means_us(self, ns: str, host: str) -> bool:
        """Our own name, configured or as the client sees us, says nothing. A registry's is never ours."""
        return (ns == host or ns in self._own_hosts) and self._registry(ns) is None

    def _by_ns(self, name: str, ns: str) -> Target:
        route = self._registry(ns.lower())
        if route is None:
            raise _unknown(name, f"the registry {ns[:255]!a} is not declared here")
        _, leading, rest = self._lead(name)
        if self._virtual(name) is not None:
            raise _unknown(name, f"ns is {ns}, but the path begins with what means several places")
        if leading is None:
            return _target(route, name, Via.NS, ns)
        if leading is not route:
            raise _unknown(name, f"ns is {ns}, but the path begins with what means {leading.prefix}")
        return _target(route, rest, Via.NS, ns)

    def _by_host(self, host: str) -> UpstreamRoute | None:
        return self._hosts.get(host) or self._hosts.get(_without_port(host))

    def _registry(self, registry: str) -> UpstreamRoute | None:
        return self._registries.get(ALIASES.get(registry, registry))

    def _lead(self, name: str) -> tuple[Via, UpstreamRoute | None, str]:
        """The upstream that the beginning of the path names, and what follows it."""
        first, _, rest = name.partition("/")
        route = self._registry(first)
        if route is not None:
            return Via.REGISTRY, route, rest
        head, rest = name, ""
        while head:
            if head in self._prefixes:
                return Via.PREFIX, self._prefixes[head], rest
            head, _, tail = head.rpartition("/")
            rest = f"{tail}/{rest}" if rest else tail
        return Via.BARE, None, name

    def _virtual(self, name: str) -> Virtual | None:
        found = next((each for each in self._virtuals if name.startswith(f"{each.prefix}/")), None)
        if found is None:
            return None
        rest = name.removeprefix(f"{found.prefix}/")
        ours = [member for member in found.members if member not in self._prefixes]
        upstreams = [self._prefixes[member] for member in found.members if member in self._prefixes]
        return Virtual(
            parse_repository(name),
            tuple(parse_repository(f"{member}/{rest}") for member in ours),
            tuple(_target(route, rest, Via.PREFIX) for route in upstreams),
            None if found.push is None else f"{found.push}/{rest}",
        )

    def _bare(self, name: str) -> Bare:
        first = name.partition("/")[0]
        if first == "localhost" or "." in first or ":" in first:
            raise _unknown(name, f"the registry {first} is not declared here")
        default = None if self._default is None else _target(self._default, name, Via.BARE)
        return Bare(parse_repository(name), default)


def _target(route: UpstreamRoute, remote: str, via: Via, namespace: str | None = None) -> Target:
    if not remote:
        raise _unknown(route.prefix, f"the name ends with {route.registry}: the repository is missing")
    if route.library and "/" not in remote:
        remote = f"library/{remote}"
    return Target(route.prefix, f"{route.prefix}/{parse_repository(remote)}", remote, via, namespace)


def _first(pairs: Iterable[tuple[str, UpstreamRoute]]) -> dict[str, UpstreamRoute]:
    table: dict[str, UpstreamRoute] = {}
    for key, route in pairs:
        table.setdefault(key, route)
    return table


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


def _unknown(name: str, why: str) -> OCIError:
    return OCIError("NAME_UNKNOWN", why, detail={"name": name})
