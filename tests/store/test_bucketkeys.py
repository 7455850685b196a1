from __future__ import annotations

import pytest

from cacheproxy.store.bucketkeys import BadKeys, parse

AWS = "[default]\naws_access_key_id = AKIA1\naws_secret_access_key = a%b=c\n"


def test_file_of_the_aws_command_is_read() -> None:
    assert parse("s3", AWS) == {"access_key_id": "AKIA1", "secret_access_key": "a%b=c"}


def test_keys_of_azure_are_read() -> None:
    text = "[any]\nazure_storage_account_name = us\nazure_storage_account_key = k=="
    assert parse("az", text) == {"account_name": "us", "account_key": "k=="}


def test_json_of_a_google_service_account_is_taken_whole() -> None:
    text = '{"type": "service_account"}'
    assert parse("gs", text) == {"service_account_key": text}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "exactly one section"),
        (AWS + "[other]\naws_access_key_id = x", "exactly one section"),
        ("aws_access_key_id = hush", "not an ini file"),
        ("[default]\nhush", "not an ini file"),
        ("[default]\nsecret = hush", "may hold aws_access_key_id, aws_secret_access_key, aws_session_token"),
        ("[default]\n", "may hold"),
    ],
)
def test_what_is_wrong_is_said_without_the_secret(text: str, said: str) -> None:
    with pytest.raises(BadKeys, match=said) as caught:
        parse("s3", text)
    assert "hush" not in str(caught.value)
