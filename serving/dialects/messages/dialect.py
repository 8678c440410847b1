"""The row of functions of Anthropic Messages."""

from __future__ import annotations

from serving.dialects.dialect import Dialect
from serving.dialects.messages.answer import read_answer, write_answer
from serving.dialects.messages.body import write_request
from serving.dialects.messages.errors import error_event, read_error, write_error
from serving.dialects.messages.request import read_request
from serving.dialects.messages.stream import MessagesReader, MessagesWriter

MESSAGES = Dialect(
    name="messages",
    read_request=read_request,
    write_request=write_request,
    read_answer=read_answer,
    write_answer=write_answer,
    reader=MessagesReader,
    writer=MessagesWriter,
    write_error=write_error,
    error_event=error_event,
    read_error=read_error,
    overloaded_status=529,
)
