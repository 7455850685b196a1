"""What hypothesis makes of the specification's grammars, written apart from the code under test."""

from __future__ import annotations

from hypothesis import strategies as st

from cacheproxy.core.digest import Digest

ALNUM = "abcdefghijklmnopqrstuvwxyz0123456789"
WORD = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"

words = st.text(ALNUM, min_size=1, max_size=6)
joints = st.sampled_from([".", "_", "__", "-", "--", "---"])


@st.composite
def components(draw: st.DrawFn) -> str:
    parts = draw(st.lists(st.tuples(joints, words), max_size=3))
    return draw(words) + "".join(joint + word for joint, word in parts)


repositories = st.lists(components(), min_size=1, max_size=5).map("/".join)
ports = st.integers(1, 65535)
requested = st.one_of(
    repositories,
    st.builds(lambda host, port, rest: f"{host}:{port}/{rest}", components(), ports, repositories),
)
tags = st.builds(lambda first, rest: first + rest, st.sampled_from(WORD), st.text(WORD + ".-", max_size=127))
digests = st.one_of(
    st.binary(min_size=32, max_size=32).map(lambda raw: Digest.parse(f"sha256:{raw.hex()}")),
    st.binary(min_size=64, max_size=64).map(lambda raw: Digest.parse(f"sha512:{raw.hex()}")),
)
