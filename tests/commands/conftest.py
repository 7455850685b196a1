from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog

from tests.faults.conftest import folder

__all__ = ["folder"]


@pytest.fixture(autouse=True)
def unlogged() -> Iterator[None]:
    """The daemon of this process must not write into what the command prints."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.reset_defaults()
