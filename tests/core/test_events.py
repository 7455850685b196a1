from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.core import events
from cacheproxy.core.digest import Digest
from cacheproxy.core.events import WORDS, By, Event, Kind

texts = st.text(max_size=40)
some = st.builds(
    Event,
    kind=st.sampled_from(Kind),
    repository=texts,
    at=st.floats(0, 4e9),
    digest=texts,
    media_type=texts,
    artifact_type=texts,
    size=st.integers(0, 1 << 50),
    tag=texts,
    before=texts,
    source=texts,
    upstream=texts,
    by=st.none() | st.builds(By, texts, texts, texts, texts, texts, texts),
)


@given(some)
def test_an_event_is_read_as_it_was_written(event: Event) -> None:
    assert events.decode(events.encode(event)) == event


def test_a_digest_is_written_as_its_text() -> None:
    digest = Digest.of(b"layer")
    event = Event(Kind.BLOB_PUSHED, "team/app", 1.0, digest)
    assert events.decode(events.encode(event)) == event


def test_what_an_event_does_not_say_takes_no_room() -> None:
    assert events.encode(Event(Kind.REPOSITORY_CREATED, "team/app", 1.0)) == (
        '{"kind":"repository.created","repository":"team/app","at":1.0}'
    )


def test_each_kind_has_one_word_in_the_configuration() -> None:
    assert sorted(kind for kinds in WORDS.values() for kind in kinds) == sorted(Kind)
