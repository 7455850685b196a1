"""What a PostgreSQL is like for a daemon, found without changing anything in it: for doctor."""

from __future__ import annotations

import time
from dataclasses import dataclass

import psycopg

from cacheproxy.store.database import Tx
from cacheproxy.store.errors import DatabaseRefused, SchemaBehind
from cacheproxy.store.migrations import demand_current
from cacheproxy.store.postgres import broken_promises
from cacheproxy.store.postgres_connection import PostgresTx, connect, parameters, told

_LACKING = """
SELECT relname FROM pg_class
WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema()) AND relkind = 'r'
  AND NOT pg_has_role(relowner, 'USAGE')
ORDER BY relname
"""
"""Tables that another role owns. Who does not own a table cannot change it, and a new version may have to."""


@dataclass(frozen=True, slots=True)
class Condition:
    version: str
    broken: list[str]
    """Settings by which commits may be lost, each with what to do."""
    lacking: list[str]
    """Rights that are missing, in words."""
    schema: str
    """Why the schema is not this version's; "": it is."""
    usable: bool
    """Whether a daemon would take the schema, or bring it up to date."""
    ahead: float
    """Seconds that the server's clock is ahead of ours, to half a round trip."""


def examine(url: str) -> Condition:
    """Blocking. Raises DatabaseRefused when it cannot be asked."""
    try:
        with connect(parameters(url)) as connection:
            return _examined(PostgresTx(connection))
    except psycopg.Error as error:
        raise DatabaseRefused(f"PostgreSQL cannot be used: {told(error)}") from error


def _examined(tx: Tx) -> Condition:
    before = time.time()
    there = float(str(_value(tx, "SELECT extract(epoch FROM clock_timestamp())")))
    ahead = there - (before + time.time()) / 2
    version = str(_value(tx, "SELECT current_setting('server_version')"))
    return Condition(version, broken_promises(tx), _lacking(tx), *_schema(tx), ahead)


def _lacking(tx: Tx) -> list[str]:
    if _value(tx, "SELECT current_schema()") is None:
        return ["its search_path names no schema that it may use"]
    owned = [f"{row[0]} is another role's" for row in tx.all(_LACKING)]
    if not _value(tx, "SELECT has_schema_privilege(current_schema(), 'CREATE')"):
        owned.insert(0, "it may not make tables in its schema")
    return owned


def _schema(tx: Tx) -> tuple[str, bool]:
    if _value(tx, "SELECT to_regclass('migration')") is None:
        return "it is empty: the first daemon makes the tables", True
    try:
        demand_current(tx)
    except SchemaBehind as error:
        return str(error), True
    except DatabaseRefused as error:
        return str(error), False
    return "", True


def _value(tx: Tx, sql: str) -> object:
    row = tx.one(sql)
    return None if row is None else row[0]
