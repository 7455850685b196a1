from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.core.webhooks import BadSecret, Pace, Verdict, headers, judge, parse_secrets

SECRET = "whsec_" + base64.b64encode(b"k" * 24).decode()


def test_the_signature_is_that_of_the_specifications_example() -> None:
    # Standard Webhooks, "Signature scheme": id.timestamp.payload, HMAC-SHA256, in base64.
    (key,) = parse_secrets("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    told = dict(headers("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}', (key,)))
    assert told == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_with_two_secrets_there_are_two_signatures() -> None:
    other = "whsec_" + base64.b64encode(b"n" * 32).decode()
    keys = parse_secrets(f"{SECRET}\n{other}\n")
    told = dict(headers("id", 5, b"body", keys))
    assert told["webhook-signature"].split(" ") == [
        "v1," + base64.b64encode(hmac.digest(key, b"id.5.body", hashlib.sha256)).decode() for key in keys
    ]


def test_without_a_secret_nothing_is_signed() -> None:
    assert dict(headers("id", 5, b"", ())) == {"webhook-id": "id", "webhook-timestamp": "5"}


@pytest.mark.parametrize(
    "text",
    ["", "  \n", "secret", base64.b64encode(b"k" * 24).decode(), "whsec_", "whsec_????", "whsec_a2s="],
)
def test_what_is_no_secret_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(BadSecret) as refused:
        parse_secrets(text)
    for word in text.split():
        assert word not in str(refused.value).replace('"whsec_"', "").replace("whsec_;", "")


@pytest.mark.parametrize(
    ("status", "shape", "verdict"),
    [
        (200, "cloudevents", Verdict.TAKEN),
        (204, "ecr", Verdict.TAKEN),
        (302, "distribution", Verdict.TAKEN),
        (302, "cloudevents", Verdict.AWAY),
        (400, "cloudevents", Verdict.REFUSED),
        (422, "cloudevents", Verdict.REFUSED),
        (401, "cloudevents", Verdict.AWAY),
        (404, "cloudevents", Verdict.AWAY),
        (429, "cloudevents", Verdict.AWAY),
        (500, "cloudevents", Verdict.AWAY),
        (410, "distribution", Verdict.GONE),
    ],
)
def test_what_an_answer_says(status: int, shape: str, verdict: Verdict) -> None:
    assert judge(status, shape) is verdict


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_pauses_grow_and_stay_within_their_bounds(failures: int, chance: float) -> None:
    pace = Pace(1.0, 600.0)
    pause = pace.pause(failures, chance)
    assert 0.5 <= pause <= 600.0
    assert pace.pause(failures + 1, chance) >= pause
