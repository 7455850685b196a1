from __future__ import annotations

import re

from cacheproxy.edge.shared import request_ids


def test_request_ids_are_sixteen_hex_digits_and_differ() -> None:
    one, other = request_ids(), request_ids()
    ids = [one(), one(), other()]
    assert len(set(ids)) == 3
    assert all(re.fullmatch("[0-9a-f]{16}", text) for text in ids)


def test_request_ids_of_one_server_are_in_order() -> None:
    next_id = request_ids()
    ids = [next_id() for _ in range(300)]
    assert ids == sorted(ids)
