"""The layout of an exported log: which columns a table has, and how rows of the database become columns of Arrow.

Tables are data (:data:`TABLES`). Numbers and names are the database's own; ``outlook``, ``features`` and ``tags``,
which it holds as JSON, bytes and words with commas, become lists. Entry points: :data:`TABLES`, :func:`schema_of`,
:func:`batch_of`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import numpy as np
import orjson

from serving.records import RequestRecord

if TYPE_CHECKING:
    import pyarrow as pa

#: What the rows of an outlook hold, in their order.
_OUTLOOK = ("candidate", "excluded_by", "quality", "quality_low", "quality_high", "output_tokens", "cost_usd")


@dataclass(frozen=True, slots=True)
class ExportedTable:
    """One table of the log.

    Parameters
    ----------
    name : str
        Its folder in the log.
    source : str
        The table of the database.
    columns : Mapping of str to str
        Column to kind: text, integer, real, flag, outlook, features or words.
    changing : tuple of str
        What else of a row may change besides its time; a sum over a day of it shows that.
    """

    name: str
    source: str
    columns: Mapping[str, str]
    changing: tuple[str, ...] = ()


def _kind(column: str, hint: object) -> str:
    """Return how a field of the record is exported: by its type, so that no new field can be forgotten here."""
    if column == "outlook":
        return "outlook"
    (python,) = set(get_args(hint) or (hint,)) - {type(None)}
    return _KINDS[python]


_KINDS: Mapping[object, str] = {str: "text", bool: "flag", int: "integer", float: "real"}
TABLES = (
    ExportedTable(
        "requests", "request", {column: _kind(column, hint) for column, hint in get_type_hints(RequestRecord).items()}
    ),
    ExportedTable(
        "feedback",
        "feedback",
        {
            **dict.fromkeys(("request_id", "key", "source", "kind"), "text"),
            "score": "real",
            "grader": "text",
            "tags": "words",
            "time_unix_s": "real",
        },
        changing=("score", "length(kind)", "length(grader)", "length(tags)"),
    ),
    ExportedTable(
        "retained",
        "retained",
        {
            "request_id": "text",
            "time_unix_s": "real",
            "level": "text",
            "prompt": "text",
            "features": "features",
            "encoder": "text",
            "task": "text",
            "task_probability": "real",
        },
    ),
)


def schema_of(table: ExportedTable) -> pa.Schema:
    """Return the Arrow schema of a table."""
    import pyarrow as pa

    kinds = {
        "text": pa.string(),
        "integer": pa.int64(),
        "real": pa.float64(),
        "flag": pa.bool_(),
        "outlook": pa.list_(_outlook_type()),
        "features": pa.list_(pa.float32()),
        "words": pa.list_(pa.string()),
    }
    return pa.schema([(column, kinds[kind]) for column, kind in table.columns.items()])


def batch_of(table: ExportedTable, schema: pa.Schema, rows: Sequence[tuple[Any, ...]]) -> pa.RecordBatch:
    """Make columns of some rows of the database, at least one."""
    import pyarrow as pa

    columns = zip(*rows, strict=True)
    arrays = [
        _MAKERS[kind](values) if kind in _MAKERS else pa.array(values, schema.field(name).type)
        for (name, kind), values in zip(table.columns.items(), columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _outlook_type() -> pa.DataType:
    import pyarrow as pa

    return pa.struct([(name, pa.string() if name in _OUTLOOK[:2] else pa.float64()) for name in _OUTLOOK])


def _flags(values: Sequence[int | None]) -> pa.Array:
    import pyarrow as pa

    return pa.array(values, pa.int8()).cast(pa.bool_())


def _outlooks(values: Sequence[str | None]) -> pa.Array:
    """Make lists of structs, of all rows at once: one list a request would take several times as long."""
    import pyarrow as pa

    lists = orjson.loads(f"[{','.join(value or 'null' for value in values)}]")
    rows = list(chain.from_iterable(one for one in lists if one))
    fields = zip(*rows, strict=True) if rows else [()] * len(_OUTLOOK)
    kind = _outlook_type()
    structs = pa.StructArray.from_arrays(
        [pa.array(column, kind.field(i).type) for i, column in enumerate(fields)], fields=list(kind)
    )
    return _lists(structs, [None if one is None else len(one) for one in lists])


def _features(values: Sequence[bytes | None]) -> pa.Array:
    import pyarrow as pa

    numbers = np.frombuffer(b"".join(value or b"" for value in values), "<f2").astype(np.float32)
    return _lists(pa.array(numbers), [None if value is None else len(value) // 2 for value in values])


def _words(values: Sequence[str | None]) -> pa.Array:
    import pyarrow as pa

    return pa.array([value.split(",") if value else [] for value in values], pa.list_(pa.string()))


def _lists(items: pa.Array, lengths: Sequence[int | None]) -> pa.Array:
    """Cut items into lists; None is no list, which is not an empty one."""
    import pyarrow as pa

    ends = np.cumsum([0, *(length or 0 for length in lengths)])
    is_null = np.array([length is None for length in lengths])
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), items, mask=pa.array(is_null))


_MAKERS: Mapping[str, Callable[[Sequence[Any]], pa.Array]] = {
    "flag": _flags,
    "outlook": _outlooks,
    "features": _features,
    "words": _words,
}
