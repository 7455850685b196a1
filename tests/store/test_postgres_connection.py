from __future__ import annotations

import psycopg
import pytest

from cacheproxy.store.errors import Conflict, DatabaseRefused, StoreBusy, StoreFull, StoreSuspect
from cacheproxy.store.postgres_connection import meaning, parameters, translate


@pytest.mark.parametrize(
    ("sql", "translated"),
    [
        ("SELECT :a, :long_name", "SELECT %(a)s, %(long_name)s"),
        ("VALUES ('sha256:none', :digest)", "VALUES ('sha256:none', %(digest)s)"),
        ("SELECT '50%', :n", "SELECT '50%%', %(n)s"),
        ("SELECT ':it''s', :n", "SELECT ':it''s', %(n)s"),
        ("SELECT 5 % 3", "SELECT 5 %% 3"),
    ],
)
def test_parameters_are_translated_outside_of_quotes(sql: str, translated: str) -> None:
    assert translate(sql) == translated


@pytest.mark.parametrize(
    ("state", "ours"),
    [
        ("23503", Conflict),  # foreign_key_violation
        ("23505", Conflict),  # unique_violation
        ("23514", Conflict),  # check_violation
        ("53100", StoreFull),  # disk_full
        ("58030", StoreSuspect),  # io_error
        ("XX001", StoreSuspect),  # data_corrupted
        ("53300", StoreBusy),  # too_many_connections
        ("55P03", StoreBusy),  # lock_not_available
        ("57014", StoreBusy),  # query_canceled
        ("57P01", StoreBusy),  # admin_shutdown
        ("08006", StoreBusy),  # connection_failure
        ("25006", StoreBusy),  # read_only_sql_transaction
        ("42501", StoreBusy),  # insufficient_privilege
    ],
)
def test_failures_are_told_in_our_words(state: str, ours: type[Exception]) -> None:
    error = psycopg.errors.lookup(state)("what\n\tthe server said")
    assert type(meaning(error)) is ours
    assert "what the server said" in str(meaning(error))


def test_fault_of_a_text_stays_what_it_is() -> None:
    error = psycopg.errors.SyntaxError("SELEKT")
    assert meaning(error) is error


def test_url_wins_over_our_own_parameters() -> None:
    given = parameters("postgresql://us@db,standby/rows?target_session_attrs=any&passfile=/run/pg")
    assert (given["host"], given["user"], given["dbname"]) == ("db,standby", "us", "rows")
    assert (given["target_session_attrs"], given["passfile"]) == ("any", "/run/pg")
    assert given["connect_timeout"] == 5


def test_url_that_libpq_does_not_understand_is_not_repeated() -> None:
    with pytest.raises(DatabaseRefused) as raised:
        parameters("postgresql://us:secret@db/rows?passwort=secret")
    assert "secret" not in str(raised.value)
