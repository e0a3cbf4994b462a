"""Rows of models out of statements of our own: for what every lease and every batch of judgments asks, Django takes longer to
put a statement together than the database takes to answer it."""

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from django.db import DEFAULT_DB_ALIAS, connection
from django.db.models import JSONField, Model
from psycopg import Cursor

M = TypeVar("M", bound=Model)


class Columns(Generic[M]):
    """All columns of a model for a SELECT, `sql`, and the model made of what comes back."""

    def __init__(self, model: type[M], table: str = "") -> None:
        """`table` is what the statement calls the model's table."""
        self.model = model
        fields = model._meta.concrete_fields
        self.names = [field.attname for field in fields]
        at = table or model._meta.db_table
        # psycopg reads json; jsonb comes as text, since Django reads that itself.
        self.sql = ", ".join(f'{at}."{each.column}"{"::json" * isinstance(each, JSONField)}' for each in fields)

    def read(self, row: Sequence[Any], start: int = 0) -> M:
        """The row whose columns begin at `start`, as if Django had fetched it."""
        return self.model.from_db(DEFAULT_DB_ALIAS, self.names, row[start : start + len(self.names)])

    def __len__(self) -> int:
        return len(self.names)


def fetch(statement: str, values: Sequence[Any] | dict[str, Any]) -> list[Any]:
    """All rows of the statement."""
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return list(cursor.fetchall())


def fetch_prepared(statement: str, values: Sequence[Any]) -> list[Any]:
    """All rows of a statement that the server keeps for the connection, parsed and planned, once it came a few times; the plan is
    one for all values (`plan_cache_mode` in the settings), so these name the rows by keys. Arrays need their type: `%s::bigint[]`."""
    with _prepared_cursor() as cursor:
        cursor.execute(statement, values)
        return list(cursor.fetchall())


def is_there(statement: str, values: Sequence[Any]) -> bool:
    """Whether the statement has a row. Django takes several times as long to ask as the database to answer."""
    return bool(fetch_prepared(f"SELECT EXISTS ({statement})", values)[0][0])


def execute_prepared(statement: str, values: Sequence[Any]) -> None:
    """As `fetch_prepared`, of a statement that gives no rows. Many rows go in as one text, `json_to_recordset(%s::json)`: an array
    for each column takes psycopg many times as long, value by value."""
    with _prepared_cursor() as cursor:
        cursor.execute(statement, values)


def _prepared_cursor() -> Any:
    connection.ensure_connection()
    with connection.wrap_database_errors:
        # Django's own cursors put values into the text, which is another each time.
        raw: Any = Cursor(connection.connection)
    return connection.make_debug_cursor(raw) if connection.queries_logged else connection.make_cursor(raw)
