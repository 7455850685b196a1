from __future__ import annotations

from cacheproxy.api.ready import Key, ReadyAnswers
from cacheproxy.edge.message import Ready

KEY: Key = (False, "GET", "cache.example", "/v2/a/manifests/latest")
ANSWER = Ready(b"HTTP/1.1 200 OK\r\n", b"body", "hit", "hub")


def other(n: int) -> Key:
    return (False, "GET", "cache.example", f"/v2/a/manifests/{n}")


def test_an_answer_is_given_until_its_time() -> None:
    answers = ReadyAnswers()
    answers.put(KEY, ANSWER, "hub/a", since=0, until=10, era=0)
    assert answers.get(KEY, 9.9) == (ANSWER, "hub/a")


def test_an_answer_is_forgotten_at_its_time() -> None:
    answers = ReadyAnswers()
    answers.put(KEY, ANSWER, "hub/a", since=0, until=10, era=0)
    assert answers.get(KEY, 10) is None
    assert answers.get(KEY, 0) is None


def test_a_redirect_is_another_answer() -> None:
    answers = ReadyAnswers()
    answers.put(KEY, ANSWER, "hub/a", since=0, until=10, era=0)
    assert answers.get((True, *KEY[1:]), 0) is None


def test_the_least_recently_used_goes_first() -> None:
    answers = ReadyAnswers(capacity=3000)
    for n in range(3):
        answers.put(other(n), Ready(b"", bytes(400), "hit", "hub"), "hub/a", since=0, until=10, era=0)
    answers.get(other(0), 0)
    answers.put(other(3), Ready(b"", bytes(400), "hit", "hub"), "hub/a", since=0, until=10, era=0)
    assert [answers.get(other(n), 0) is not None for n in range(4)] == [True, False, True, True]


def test_a_clock_that_was_set_back_ends_the_answer() -> None:
    """It would be good for the time that passes again, too."""
    answers = ReadyAnswers()
    answers.put(KEY, ANSWER, "hub/a", since=5, until=10, era=0)
    assert answers.get(KEY, 4) is None


def test_a_long_host_is_weighed() -> None:
    answers = ReadyAnswers(capacity=20_000)
    keys: list[Key] = [(False, "GET", f"{n}.{'x' * 4000}", "/v2/") for n in range(20)]
    for key in keys:
        answers.put(key, ANSWER, "hub/a", since=0, until=10, era=0)
    assert sum(answers.get(key, 0) is not None for key in keys) <= 5


def test_putting_again_counts_once() -> None:
    answers = ReadyAnswers(capacity=3000)
    for _ in range(100):
        answers.put(KEY, ANSWER, "hub/a", since=0, until=10, era=0)
    assert answers.get(KEY, 0) == (ANSWER, "hub/a")


def test_cleared_answers_are_gone() -> None:
    answers = ReadyAnswers()
    answers.put(KEY, ANSWER, "hub/a", since=0, until=10, era=0)
    answers.clear()
    assert answers.get(KEY, 0) is None


def test_an_answer_made_of_what_changed_meanwhile_is_not_kept() -> None:
    answers = ReadyAnswers()
    era = answers.era
    answers.clear()
    answers.put(KEY, ANSWER, "hub/a", since=0, until=10, era=era)
    assert answers.get(KEY, 0) is None
    answers.put(KEY, ANSWER, "hub/a", since=0, until=10, era=answers.era)
    assert answers.get(KEY, 0) == (ANSWER, "hub/a")


def test_nothing_is_kept_while_changes_may_be_missed() -> None:
    answers = ReadyAnswers()
    answers.put(KEY, ANSWER, "hub/a", since=0, until=10, era=answers.era)
    answers.distrust()
    assert answers.get(KEY, 0) is None
    answers.put(KEY, ANSWER, "hub/a", since=0, until=10, era=answers.era)
    assert answers.get(KEY, 0) is None
    answers.trust()
    assert answers.get(KEY, 0) is None
    answers.put(KEY, ANSWER, "hub/a", since=0, until=10, era=answers.era)
    assert answers.get(KEY, 0) == (ANSWER, "hub/a")
