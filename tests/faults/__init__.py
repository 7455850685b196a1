"""The whole daemon before a scripted upstream that fails: what clients hear, and that it passes."""

import pytest

pytest.register_assert_rewrite("tests.faults.house", "tests.faults.remains")
