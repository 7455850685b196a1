"""The end-to-end tests need programs that `make e2e` installs: they run only when their folder is named."""

from __future__ import annotations

from pathlib import Path

import pytest

END_TO_END = Path(__file__).parent / "e2e"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if collection_path != END_TO_END:
        return None
    named = (
        Path(config.invocation_params.dir, argument.partition("::")[0]).resolve() for argument in config.args
    )
    return None if any(path.is_relative_to(END_TO_END) for path in named) else True
