"""The well-known public registries: an upstream that is one of them is one line of configuration."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Preset:
    """What has to be known of a registry to pull from it, where its name does not say it."""

    url: str
    token_hosts: tuple[str, ...] = ()
    """Where its token realm may be, besides the host of `url`."""
    library: bool = False
    """Repositories of one segment live under `library/`."""
    hides: tuple[int, ...] = ()
    """Statuses with which it answers who has no account for what does not exist, as for what is private."""


PRESETS: dict[str, Preset] = {
    "docker.io": Preset("https://registry-1.docker.io", ("auth.docker.io",), library=True, hides=(401,)),
    "ghcr.io": Preset("https://ghcr.io", hides=(401, 403)),
    "quay.io": Preset("https://quay.io", hides=(401,)),
    "registry.k8s.io": Preset("https://registry.k8s.io"),
    "public.ecr.aws": Preset("https://public.ecr.aws"),
    "mcr.microsoft.com": Preset("https://mcr.microsoft.com"),
    "registry.gitlab.com": Preset("https://registry.gitlab.com", ("gitlab.com",)),
    "gcr.io": Preset("https://gcr.io"),
    # The first challenge names nvcr.io; one for a token that has expired names authn.nvidia.com.
    "nvcr.io": Preset("https://nvcr.io", ("authn.nvidia.com",)),
    "cgr.dev": Preset("https://cgr.dev"),
}
"""By the name clients use."""

DEFAULT = "docker.io"
"""Which of them answers for bare names while no upstream is declared."""
