from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")
"""Half of these tests' time would be waiting for a disk that they do not ask about."""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """For all state of one test."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else tmp_path) as made:
        yield Path(made)
