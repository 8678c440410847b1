"""The four dialects, by name. Entry point: :data:`DIALECTS`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from serving.dialects.chat.dialect import CHAT
from serving.dialects.dialect import Dialect
from serving.dialects.gemini.dialect import GEMINI
from serving.dialects.messages.dialect import MESSAGES
from serving.dialects.responses.dialect import RESPONSES

DIALECTS: Mapping[str, Dialect] = MappingProxyType(
    {dialect.name: dialect for dialect in (CHAT, RESPONSES, MESSAGES, GEMINI)}
)
