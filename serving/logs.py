"""Logging as JSON lines with allow-listed, typed fields.

What is not in :data:`FIELDS` cannot be logged, so no prompt, header value or credential has a way in. Of foreign
records (uvicorn, asyncio) only harmless parts pass: where, how bad, the type of the exception and where it was
raised, never its text, which may quote a body or a URL. Entry points: :func:`configure`, :func:`event`,
:func:`in_background`.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import orjson

from serving.lines import LineWriter

Value = str | int | float | bool | None
#: Fields, or what makes them once their line is written.
Fields = Mapping[str, Value] | Callable[[], Mapping[str, Value]]
#: When (unix seconds), how bad, what happened, and its fields, not yet checked.
_Entry = tuple[float, str, str, Fields]

#: Every field an event may have, and its type. Names and numbers only; a new one is added here or nowhere.
FIELDS: Mapping[str, type] = {
    "id": str,
    "key": str,
    "method": str,
    "route": str,
    "status": int,
    "outcome": str,
    "code": str,
    "error": str,
    "at": str,
    "requested_model": str,
    "candidate": str,
    "deployment": str,
    "provider": str,
    "upstream_status": int,
    "phase": str,
    "policy": str,
    "binding": str,
    "scenario": str,
    "rule": str,
    "bundle": str,
    "propensity": float,
    "retention": str,
    "experiment": str,
    "arm": str,
    "signals": str,
    "api": str,
    "upstream_dialect": str,
    # Paths of request fields that a translation left out, as the answer's header names them.
    "lost": str,
    "is_usage_estimated": bool,
    "settings": str,
    "is_stream": bool,
    "is_emulated": bool,
    "input_tokens": int,
    "output_tokens": int,
    "cost_usd": float,
    "expected_cost_usd": float,
    "first_byte_s": float,
    "total_s": float,
    "decision_s": float,
    "start_s": float,
    "retry_after_s": float,
    "host": str,
    "port": int,
    "n_candidates": int,
    "n_keys": int,
    "n_dropped": int,
    "n_expired": int,
    "n_bytes": int,
    "n_in_flight": int,
    "n_shed": int,
    "lag_s": float,
    "version": str,
    # The text of a SettingsError or BundleError: about the operator's own files, never about a request.
    "problem": str,
}
#: Longest string that passes; nothing legitimate comes near it.
N_CHARACTERS = 300
_EVENTS = logging.getLogger("turnout")
#: What writes lines while the process serves; None writes each at once.
_writer: LineWriter[_Entry] | None = None
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
#: Foreign loggers whose message, without an exception, is a fixed sentence about the process itself.
_TRUSTED = ("uvicorn.error",)


def configure(level: str = "info", format: str = "json") -> None:
    """Send every log of the process to standard error.

    Parameters
    ----------
    level : {'debug', 'info', 'warning', 'error'}
        Least level shown.
    format : {'json', 'text'}
        One JSON object a line, or one readable line each.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines(is_json=format == "json"))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        foreign = logging.getLogger(name)
        foreign.handlers = []
        foreign.propagate = True
    # Nothing here prints threads, processes or tasks, and finding them out for each line is not free.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    # An access log would repeat query strings; requests are events of ours.
    logging.getLogger("uvicorn.access").setLevel(logging.CRITICAL)
    # "Started server process" and the like: said better by our own events.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)


@contextmanager
def in_background() -> Iterator[None]:
    """Write lines from a thread of their own while this lasts; at its end they are all written.

    For a process that serves: nobody waits for who reads standard error, and a line costs half. Call
    :func:`configure` before.
    """
    global _writer
    root = logging.getLogger()
    before = root.handlers
    lines = next(handler.formatter for handler in before if isinstance(handler.formatter, _Lines))
    writer = LineWriter[_Entry](
        sys.stderr.fileno(),
        lambda entry: lines.line(*entry),
        lambda n_dropped: (time.time(), "warning", "log_lines_dropped", {"n_dropped": n_dropped}),
    )
    writer.open()
    root.handlers, _writer = [_Handing(writer)], writer
    try:
        yield
    finally:
        root.handlers, _writer = before, None
        writer.close()


def event(name: str, fields: Fields | None = None, *, level: str = "info") -> None:
    """Log one event.

    Parameters
    ----------
    name : str
        What happened, in snake_case.
    fields : Mapping[str, str or int or float or bool or None] or callable
        Keys of :data:`FIELDS`; None values are left out; a key that is not allowed or a value of another type
        is withheld and only its key is named, under ``withheld``. A callable makes them when the line is
        written, if it is, perhaps on another thread: it must only read what no longer changes.
    level : {'debug', 'info', 'warning', 'error'}
        How bad.
    """
    number = _LEVELS[level]
    if not _EVENTS.isEnabledFor(number):
        return
    if _writer is not None:
        _writer.add((time.time(), level, name, fields or {}))
        return
    # Made by hand: Logger.log() would walk the stack to find a caller that is never shown.
    record = logging.LogRecord(_EVENTS.name, number, "", 0, name, None, None)
    record.fields = fields or {}
    _EVENTS.handle(record)


def failure(name: str, error: BaseException, fields: Mapping[str, Value] | None = None) -> None:
    """Log an unexpected exception: its type and where it was raised, never what it says."""
    event(name, {**(fields or {}), **_place_of(error, error.__traceback__)}, level="error")


def _allowed(fields: Mapping[str, Value]) -> dict[str, object]:
    allowed: dict[str, object] = {}
    withheld: list[str] = []
    for key, value in fields.items():
        if value is None:
            continue
        expected, kind = FIELDS.get(key), type(value)
        if kind is expected:
            allowed[key] = value[:N_CHARACTERS] if kind is str else value  # type: ignore[index]
        elif kind is int and expected is float:
            allowed[key] = float(value)
        else:
            withheld.append(key)
    if withheld:
        allowed["withheld"] = withheld
    return allowed


def _place_of(error: BaseException, traceback: TracebackType | None) -> dict[str, str]:
    """Return the type of an exception and the innermost line it came from."""
    place: dict[str, str] = {"error": type(error).__name__}
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is not None:
        code = traceback.tb_frame.f_code
        place["at"] = f"{Path(code.co_filename).name}:{traceback.tb_lineno} {code.co_name}"
    return place


class _Lines(logging.Formatter):
    """Writes our events and what may be said of foreign records."""

    def __init__(self, *, is_json: bool) -> None:
        super().__init__()
        self._is_json = is_json
        self._second, self._written = -1, ""

    def format(self, record: logging.LogRecord) -> str:
        return self.line(*_entry_of(record))

    def line(self, unix_s: float, level: str, name: str, fields: Fields) -> str:
        """Write one entry; always one thread's at a time."""
        now = self._time_of(unix_s)
        allowed = fields if isinstance(fields, _Harmless) else _allowed(fields() if callable(fields) else fields)
        if self._is_json:
            try:
                return orjson.dumps({"time": now, "level": level, "event": name, **allowed}).decode()
            except TypeError:  # half a surrogate pair, out of a file name
                return orjson.dumps({"time": now, "level": level, "event": name, "withheld": [*allowed]}).decode()
        # One line each: a value with a line break in it must not look like another event.
        said = " ".join(f"{key}={value}" for key, value in allowed.items())
        return f"{now} {level} {name} {said}".rstrip().replace("\r", "\\r").replace("\n", "\\n")

    def _time_of(self, unix_s: float) -> str:
        second = int(unix_s)
        if second != self._second:
            self._second, self._written = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._written}.{int(unix_s % 1 * 1000):03d}Z"


class _Harmless(dict[str, Value]):
    """What may be said of a foreign record; made here only, so not checked again."""


class _Handing(logging.Handler):
    """Hands what is logged elsewhere to the thread that writes."""

    def __init__(self, writer: LineWriter[_Entry]) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        self._writer.add(_entry_of(record))


def _entry_of(record: logging.LogRecord) -> _Entry:
    level = record.levelname.lower()
    fields = getattr(record, "fields", None)
    if record.name == _EVENTS.name and fields is not None:
        return record.created, level, str(record.msg), fields
    said = _Harmless(logger=record.name)
    if record.exc_info and record.exc_info[1] is not None:
        said.update(_place_of(record.exc_info[1], record.exc_info[2]))
    elif record.name in _TRUSTED:
        said["message"] = record.getMessage()[:N_CHARACTERS]
    else:
        said["at"] = f"{record.filename}:{record.lineno} {record.funcName}"
    return record.created, level, "library", said
