"""The table of codes and the body that clients read."""

from __future__ import annotations

import json
import re

import pytest

from cacheproxy.core.errors import CODES, OCIError

# distribution-spec, "Error Codes", and what clients know besides.
SPECIFIED = {
    "BLOB_UNKNOWN": 404,
    "BLOB_UPLOAD_INVALID": 400,
    "BLOB_UPLOAD_UNKNOWN": 404,
    "DIGEST_INVALID": 400,
    "MANIFEST_BLOB_UNKNOWN": 404,
    "MANIFEST_INVALID": 400,
    "MANIFEST_UNKNOWN": 404,
    "NAME_INVALID": 400,
    "NAME_UNKNOWN": 404,
    "SIZE_INVALID": 400,
    "UNAUTHORIZED": 401,
    "DENIED": 403,
    "UNSUPPORTED": 405,
    "TOOMANYREQUESTS": 429,
    "UNAVAILABLE": 503,
    "PAGINATION_NUMBER_INVALID": 400,
}


@pytest.mark.parametrize(("code", "status"), SPECIFIED.items())
def test_a_code_has_its_status(code: str, status: int) -> None:
    assert OCIError(code).status == status


@pytest.mark.parametrize("code", CODES)
def test_each_row_is_an_identifier_an_error_status_and_a_text(code: str) -> None:
    assert re.fullmatch("[A-Z_]+", code)
    assert 400 <= CODES[code].status < 600
    assert CODES[code].text


def test_the_body_is_the_specified_envelope_with_the_requests_id() -> None:
    error = OCIError("NAME_UNKNOWN", "no such place", detail={"name": "a/b"})
    assert json.loads(error.body("4f2a")) == {
        "errors": [
            {
                "code": "NAME_UNKNOWN",
                "message": "no such place",
                "detail": {"name": "a/b", "request": "4f2a"},
            }
        ]
    }


def test_an_error_without_detail_still_names_the_request() -> None:
    assert json.loads(OCIError("DENIED").body("1"))["errors"][0]["detail"] == {"request": "1"}


def test_an_error_without_message_takes_the_codes_text() -> None:
    assert OCIError("DENIED").message == CODES["DENIED"].text


def test_the_status_can_be_another_than_the_codes() -> None:
    assert OCIError("UNAVAILABLE", "slow", status=504).status == 504


def test_the_body_of_one_error_does_not_change_its_detail() -> None:
    detail = {"a": 1}
    OCIError("DENIED", detail=detail).body("1")
    assert detail == {"a": 1}


def test_an_unknown_code_is_a_fault_of_ours() -> None:
    with pytest.raises(KeyError):
        OCIError("NO_SUCH_CODE")
