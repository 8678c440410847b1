"""An exported decision log, read: the only reader of its layout.

``turnout log export`` writes it, one folder per table and UTC day::

    LOG/requests/day=2026-11-27/*.parquet   one row per request: serving's record
    LOG/feedback/day=2026-11-27/*.parquet   one row per request, key and source
    LOG/retained/day=2026-11-27/*.parquet   what was kept of the prompt, where retention allows it

DuckDB reads it in place, so a question that names few columns or few days reads only those. Which columns there are is
data (:data:`TABLES`); a column that an older log has not got is NULL in every row. Entry point: :class:`DecisionLog`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from training.errors import LogUnreadable

if TYPE_CHECKING:
    import duckdb
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Field:
    """One column of a table.

    Parameters
    ----------
    name : str
    kind : str
        DuckDB's type.
    is_required : bool
        A log without it is refused; without another column, that is NULL everywhere.
    """

    name: str
    kind: str
    is_required: bool = False


_OUTLOOK = (
    "STRUCT(candidate VARCHAR, excluded_by VARCHAR, quality DOUBLE, quality_low DOUBLE, quality_high DOUBLE, "
    "output_tokens DOUBLE, cost_usd DOUBLE)[]"
)


def _fields(kind: str, names: str) -> tuple[Field, ...]:
    return tuple(Field(name, kind) for name in names.split())


REQUESTS: tuple[Field, ...] = (
    Field("id", "VARCHAR", True),
    Field("time_unix_s", "DOUBLE", True),
    Field("key", "VARCHAR", True),
    *_fields("VARCHAR", "requested_model outcome candidate chosen deployment scenario rule api upstream_dialect"),
    *_fields("VARCHAR", "policy_kind policy_name policy_version binding bundle retention task signals losses attempts"),
    *_fields("VARCHAR", "reference experiment arm unit shadow_bundle shadow_candidate explorable"),
    *_fields("BIGINT", "status input_tokens output_tokens cache_read_tokens cache_write_tokens reasoning_tokens"),
    *_fields("DOUBLE", "policy_value propensity predicted_quality expected_cost_usd cost_usd first_byte_s total_s"),
    *_fields("DOUBLE", "reference_cost_usd arm_share shadow_quality shadow_cost_usd explore_usd"),
    *_fields("BOOLEAN", "is_stream is_usage_estimated is_explored is_emulated"),
    Field("outlook", _OUTLOOK),
)
"""A request: serving's record."""

FEEDBACK: tuple[Field, ...] = (
    Field("request_id", "VARCHAR", True),
    Field("key", "VARCHAR", True),
    Field("score", "DOUBLE", True),
    Field("time_unix_s", "DOUBLE", True),
    *_fields("VARCHAR", "source kind grader"),
    Field("tags", "VARCHAR[]"),
)
"""What somebody said of an answer, or what was seen of its reception; ``score`` in [0, 1]."""

RETAINED: tuple[Field, ...] = (
    Field("request_id", "VARCHAR", True),
    Field("time_unix_s", "DOUBLE", True),
    *_fields("VARCHAR", "level prompt encoder task"),
    Field("features", "FLOAT[]"),
    Field("task_probability", "DOUBLE"),
)
"""What was kept of a prompt: its text at level ``content``, its feature row at ``features``."""

TABLES: Mapping[str, tuple[Field, ...]] = {"requests": REQUESTS, "feedback": FEEDBACK, "retained": RETAINED}


class DecisionLog:
    """The three tables of an exported log. Nothing is read before it is asked for.

    Parameters
    ----------
    path : Path
        The folder that ``turnout log export --out`` named.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def __enter__(self) -> DecisionLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the files. Idempotent; the next question opens them again."""
        if connection := self.__dict__.pop("_connection", None):
            connection.close()

    def requests(self, columns: Sequence[str] | None = None, since_unix_s: float | None = None) -> pd.DataFrame:
        """Return requests by time.

        Parameters
        ----------
        columns : sequence of str, optional
            Of :data:`REQUESTS`, and ``day``; default: all. Few are many times quicker than all.
        since_unix_s : float, optional
            Earlier requests, and the days before, are not read.

        Returns
        -------
        pandas.DataFrame

        Raises
        ------
        LogUnreadable
            There is no log, no request in it, no such column, or a file cannot be read.
        """
        return self._table("requests", columns, since_unix_s)

    def feedback(self, columns: Sequence[str] | None = None, since_unix_s: float | None = None) -> pd.DataFrame:
        """Return feedback by time; see :meth:`requests`. A log without any has no rows."""
        return self._table("feedback", columns, since_unix_s)

    def retained(self, columns: Sequence[str] | None = None, since_unix_s: float | None = None) -> pd.DataFrame:
        """Return what was retained, by time; see :meth:`requests`. A log without any has no rows."""
        return self._table("retained", columns, since_unix_s)

    def query(self, sql: str, parameters: Sequence[object] = ()) -> pd.DataFrame:
        """Ask in SQL.

        Parameters
        ----------
        sql : str
            One query over the views ``requests``, ``feedback`` and ``retained``; each has a column ``day`` (a date)
            besides those of :data:`TABLES`.
        parameters : sequence, optional
            For the question marks in it.

        Returns
        -------
        pandas.DataFrame

        Raises
        ------
        LogUnreadable
            As :meth:`requests`; also what DuckDB finds wrong with the query.
        """
        import duckdb

        try:
            return self._connection.execute(sql, list(parameters)).df()
        except duckdb.Error as exc:
            raise LogUnreadable(f"{self.path}: {_words(exc)}") from exc

    def _table(self, name: str, columns: Sequence[str] | None, since_unix_s: float | None) -> pd.DataFrame:
        known = [*(field.name for field in TABLES[name]), "day"]
        for column in columns or ():
            if column not in known:
                near = difflib.get_close_matches(column, known, n=1, cutoff=0.0)[0]
                raise LogUnreadable(f"{name} has no column {column!r}; the nearest is {near!r}")
        picked = "*" if columns is None else ", ".join(f'"{column}"' for column in columns)
        where, parameters = "", []
        if since_unix_s is not None:
            where = "WHERE day >= ? AND time_unix_s >= ?"
            parameters = [datetime.fromtimestamp(since_unix_s, UTC).date(), since_unix_s]
        # By name too: rows of the same instant would come in any order.
        order = ", ".join(["time_unix_s", *(field.name for field in TABLES[name][:2])])
        return self.query(f"SELECT {picked} FROM {name} {where} ORDER BY {order}", parameters)

    @cached_property
    def _connection(self) -> duckdb.DuckDBPyConnection:
        import duckdb

        if not self.path.is_dir():
            raise LogUnreadable(f"{self.path}: there is no such folder; 'turnout log export --out' makes one")
        # Reading Parquet needs no extension, and nothing may be fetched behind a reader's back.
        connection = duckdb.connect(
            ":memory:", config={"autoinstall_known_extensions": False, "autoload_known_extensions": False}
        )
        try:
            for name, fields in TABLES.items():
                connection.execute(f"CREATE VIEW {name} AS {self._select(connection, name, fields)}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _select(self, connection: duckdb.DuckDBPyConnection, name: str, fields: tuple[Field, ...]) -> str:
        """Return the query that a view stands for: every known column with its type, then what else there is."""
        import duckdb

        # Listed here, since DuckDB would read brackets and stars in the path as patterns.
        files = sorted(str(path) for path in (self.path / name).glob("day=*/*.parquet") if path.name[0] not in "._")
        if not files:
            if name == "requests":
                raise LogUnreadable(
                    f"{self.path}: there is no request in it (requests/day=YYYY-MM-DD/*.parquet): expected what "
                    "'turnout log export' makes of a gateway that was asked something"
                )
            empty = ", ".join(f'NULL::{field.kind} AS "{field.name}"' for field in fields)
            return f"SELECT {empty}, NULL::DATE AS day WHERE false"
        listed = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
        source = (
            f"read_parquet([{listed}], hive_partitioning = true, hive_types = {{'day': DATE}}, union_by_name = true)"
        )
        try:
            found = {row[0]: row[1] for row in connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()}
        except duckdb.Error as exc:
            raise LogUnreadable(f"{self.path}: {name} cannot be read: {_words(exc)}") from exc
        missing = [field.name for field in fields if field.is_required and field.name not in found]
        if missing:
            raise LogUnreadable(f"{self.path}: {name} lacks the column {', '.join(missing)}; found {', '.join(found)}")
        columns = []
        for field in fields:
            value = f'"{field.name}"' if field.name in found else "NULL"
            # A cast that changes nothing would still keep DuckDB from skipping files by their statistics.
            same = found.get(field.name) == field.kind
            columns.append(value if same else f'CAST({value} AS {field.kind}) AS "{field.name}"')
        others = [f'"{column}"' for column in found if column not in {field.name for field in fields}]
        return f"SELECT {', '.join([*columns, *others])} FROM {source}"


def _words(error: Exception) -> str:
    """Return the first line; the others quote our own SQL."""
    return str(error).splitlines()[0]
