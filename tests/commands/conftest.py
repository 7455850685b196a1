from __future__ import annotations

from tests.faults.conftest import folder

__all__ = ["folder"]
