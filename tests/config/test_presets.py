from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from cacheproxy.config.presets import DEFAULT, PRESETS
from cacheproxy.config.sections import Upstream


@pytest.mark.parametrize("registry", PRESETS)
def test_a_preset_makes_an_upstream_of_one_line(registry: str) -> None:
    upstream = Upstream.model_validate({"registry": registry})
    assert upstream.url == PRESETS[registry].url
    assert upstream.token_hosts == PRESETS[registry].token_hosts
    assert upstream.prefix == registry


@pytest.mark.parametrize("registry", PRESETS)
def test_no_preset_leaves_tls(registry: str) -> None:
    assert urlsplit(PRESETS[registry].url).scheme == "https"


def test_the_library_is_docker_hubs_alone() -> None:
    assert [registry for registry, preset in PRESETS.items() if preset.library] == ["docker.io"]


def test_the_default_is_one_of_them() -> None:
    assert DEFAULT in PRESETS
