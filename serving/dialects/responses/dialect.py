"""The row of functions of OpenAI Responses."""

from __future__ import annotations

from serving.dialects.dialect import Dialect
from serving.dialects.responses.answer import error_event, read_answer, read_error, write_answer, write_error
from serving.dialects.responses.request import read_request, write_request
from serving.dialects.responses.stream import ResponsesReader
from serving.dialects.responses.writer import ResponsesWriter

RESPONSES = Dialect(
    name="responses",
    read_request=read_request,
    write_request=write_request,
    read_answer=read_answer,
    write_answer=write_answer,
    reader=ResponsesReader,
    writer=ResponsesWriter,
    write_error=write_error,
    error_event=error_event,
    read_error=read_error,
)
