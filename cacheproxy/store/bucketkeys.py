"""Credentials of an object store as an operator writes them, in the words of obstore."""

from __future__ import annotations

from collections.abc import Mapping
from configparser import ConfigParser, Error

KEYS: Mapping[str, Mapping[str, str]] = {
    "s3": {
        "aws_access_key_id": "access_key_id",
        "aws_secret_access_key": "secret_access_key",
        "aws_session_token": "session_token",
    },
    "gs": {"google_service_account_key": "service_account_key"},
    "az": {
        "azure_storage_account_name": "account_name",
        "azure_storage_account_key": "account_key",
        "azure_client_id": "client_id",
        "azure_client_secret": "client_secret",
        "azure_tenant_id": "tenant_id",
        "azure_storage_sas_key": "sas_key",
    },
}
"""By the scheme: the clouds' own names for what they want, and what obstore calls it."""


class BadKeys(ValueError):
    """The message says what is wrong, and repeats no value."""


def parse(scheme: str, text: str) -> dict[str, str]:
    """An ini file of one section, as the AWS command writes it; for Google also a service account's JSON.

    Raises BadKeys.
    """
    if scheme == "gs" and text.lstrip().startswith("{"):
        return {"service_account_key": text}
    parser = ConfigParser(interpolation=None, default_section="")
    try:
        parser.read_string(text)
    except Error as error:
        # Its message holds the line that it did not understand.
        raise BadKeys(f"is not an ini file ({type(error).__name__})") from None
    if len(parser.sections()) != 1:
        raise BadKeys("needs exactly one section, as [default]")
    known = KEYS[scheme]
    given = dict(parser.items(parser.sections()[0]))
    if not given or not given.keys() <= known.keys():
        raise BadKeys(f"may hold {', '.join(known)}, and nothing else")
    return {known[name]: value for name, value in given.items()}
