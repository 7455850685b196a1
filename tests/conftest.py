"""What needs programs that `make e2e` installs, or minutes, runs only when its folder is named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.azure import Azurite, azurite
from tests.google import Google, google
from tests.seaweed import Seaweed, seaweed

ASKED_FOR = tuple(Path(__file__).parent / name for name in ("e2e", "crash"))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if collection_path not in ASKED_FOR:
        return None
    named = (
        Path(config.invocation_params.dir, argument.partition("::")[0]).resolve() for argument in config.args
    )
    return None if any(path.is_relative_to(collection_path) for path in named) else True


@pytest.fixture(scope="session")
def seaweed_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """An object store, started when first asked for."""
    with seaweed(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture(scope="session")
def azurite_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    """Likewise. Who uses it has the mark `azurite`: it needs node."""
    with azurite(tmp_path_factory.mktemp("azurite")) as server:
        yield server


@pytest.fixture(scope="session")
def google_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Google]:
    """Google's checks before a SeaweedFS."""
    with google(tmp_path_factory.mktemp("google")) as server:
        yield server


@pytest.fixture(params=["seaweed", pytest.param("azurite", marks=pytest.mark.azurite), "google"])
def object_server(request: pytest.FixtureRequest) -> Seaweed | Azurite | Google:
    """Each kind of object store in turn."""
    server: Seaweed | Azurite | Google = request.getfixturevalue(f"{request.param}_server")
    return server
