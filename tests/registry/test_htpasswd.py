from __future__ import annotations

import pytest

from cacheproxy.registry.htpasswd import parse

HASH = "$2y$05$" + "a" * 53


def test_names_and_hashes_are_read() -> None:
    text = f"alice:{HASH}\n\n# people\nbob.b:{HASH}\r\n"
    assert parse(text) == {"alice": HASH.encode(), "bob.b": HASH.encode()}


@pytest.mark.parametrize(
    "line",
    [
        "alice",
        "alice:secret",
        "alice:$apr1$abcdefgh$" + "a" * 22,
        "alice:{SHA}" + "a" * 28,
        f"al ice:{HASH}",
        f":{HASH}",
        "alice:$2y$31$" + "a" * 53,
        "alice:$2y$03$" + "a" * 53,
        f"alice:{HASH}a",
    ],
)
def test_what_is_no_bcrypt_hash_is_refused_by_its_line_and_not_repeated(line: str) -> None:
    with pytest.raises(ValueError, match="line 2") as refused:
        parse(f"bob:{HASH}\n{line}\n")
    assert "alice" not in str(refused.value)
    assert "$2y" not in str(refused.value)


def test_a_name_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="line 2 has a name that is there already"):
        parse(f"alice:{HASH}\nalice:{HASH}\n")
