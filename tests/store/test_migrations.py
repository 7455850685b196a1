from __future__ import annotations

from collections.abc import Iterator
from string import Template

import apsw
import pytest

from cacheproxy.store.connection import SQLiteTx
from cacheproxy.store.errors import DatabaseRefused
from cacheproxy.store.migrations import MIGRATIONS, Migration, migrate
from cacheproxy.store.sqlite import DIALECT

ONE = Migration(1, ("CREATE TABLE a (x $integer) $table",))
TWO = Migration(2, ("CREATE TABLE b (x $integer) $table", "INSERT INTO b VALUES (7)"))


@pytest.fixture
def tx() -> Iterator[SQLiteTx]:
    connection = apsw.Connection(":memory:")
    yield SQLiteTx(connection)
    connection.close()


def test_steps_run_once_and_in_order(tx: SQLiteTx) -> None:
    migrate(tx, DIALECT, (ONE,))
    migrate(tx, DIALECT, (ONE, TWO))
    migrate(tx, DIALECT, (ONE, TWO))
    assert tx.all("SELECT x FROM b") == [(7,)]
    assert tx.all("SELECT number FROM migration ORDER BY number") == [(1,), (2,)]


def test_database_ahead_of_this_version_is_refused(tx: SQLiteTx) -> None:
    migrate(tx, DIALECT, (ONE, TWO))
    with pytest.raises(DatabaseRefused, match="schema 2, and this version knows 1"):
        migrate(tx, DIALECT, (ONE,))


def test_step_that_was_changed_is_refused(tx: SQLiteTx) -> None:
    migrate(tx, DIALECT, (ONE,))
    changed = Migration(1, ("CREATE TABLE a (x $integer, y $integer) $table",))
    with pytest.raises(DatabaseRefused, match="step 1"):
        migrate(tx, DIALECT, (changed, TWO))
    assert tx.all("SELECT name FROM sqlite_schema WHERE name = 'b'") == []


def test_steps_are_numbered_from_one_without_gaps() -> None:
    assert [step.number for step in MIGRATIONS] == list(range(1, len(MIGRATIONS) + 1))


@pytest.mark.parametrize("step", MIGRATIONS, ids=lambda step: str(step.number))
def test_texts_need_only_the_words_that_a_dialect_has(step: Migration) -> None:
    for statement in step.statements:
        Template(statement).substitute(DIALECT)
        assert "%" not in statement
        assert "::" not in statement


def test_schema_has_no_column_of_a_loose_type(tx: SQLiteTx) -> None:
    """STRICT: a row that somebody planted has the types its table says."""
    migrate(tx, DIALECT)
    tables = tx.all(
        "SELECT name, strict FROM pragma_table_list WHERE schema = 'main' AND name NOT LIKE 'sqlite_%'"
    )
    assert tables
    assert all(strict for _, strict in tables)
