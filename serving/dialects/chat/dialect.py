"""The row of functions of OpenAI Chat Completions."""

from __future__ import annotations

from serving.dialects.chat.answer import error_event, read_answer, read_error, write_answer, write_error
from serving.dialects.chat.body import write_request
from serving.dialects.chat.request import read_request
from serving.dialects.chat.stream import ChatReader, ChatWriter
from serving.dialects.dialect import Dialect

CHAT = Dialect(
    name="chat",
    read_request=read_request,
    write_request=write_request,
    read_answer=read_answer,
    write_answer=write_answer,
    reader=ChatReader,
    writer=ChatWriter,
    write_error=write_error,
    error_event=error_event,
    read_error=read_error,
)
