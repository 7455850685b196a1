from __future__ import annotations

from tests.virtual import clock as clock
