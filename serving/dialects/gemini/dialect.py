"""The row of the Gemini API. Entry point: :data:`GEMINI`."""

from __future__ import annotations

from serving.dialects.dialect import Dialect
from serving.dialects.gemini.answer import read_answer, read_error, write_answer, write_error
from serving.dialects.gemini.request import read_request, write_request
from serving.dialects.gemini.stream import Reader, Writer, error_event

GEMINI = Dialect(
    name="gemini",
    read_request=read_request,
    write_request=write_request,
    read_answer=read_answer,
    write_answer=write_answer,
    reader=Reader,
    writer=Writer,
    write_error=write_error,
    error_event=error_event,
    read_error=read_error,
)
