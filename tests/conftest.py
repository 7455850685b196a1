"""The end-to-end tests need programs that `make e2e` installs: they run only when their folder is named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.seaweed import Seaweed, seaweed

END_TO_END = Path(__file__).parent / "e2e"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if collection_path != END_TO_END:
        return None
    named = (
        Path(config.invocation_params.dir, argument.partition("::")[0]).resolve() for argument in config.args
    )
    return None if any(path.is_relative_to(END_TO_END) for path in named) else True


@pytest.fixture(scope="session")
def seaweed_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """An object store, started when first asked for."""
    with seaweed(tmp_path_factory.mktemp("seaweed")) as server:
        yield server
