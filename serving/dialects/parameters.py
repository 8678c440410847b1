"""A candidate's own request fields, written in Chat's terms, in the terms of another dialect.

``parameters = {reasoning_effort = "low"}`` means the same whichever dialect the candidate is spoken to in. What Chat
does not know is the operator's own word and is sent as it stands. Entry point: :func:`parameters_in`.
"""

from __future__ import annotations

from collections.abc import Mapping

from serving.dialects.chat.request import read_settings
from serving.dialects.conversation import Conversation, Message, Settings, Text
from serving.dialects.losses import Losses
from serving.dialects.registry import DIALECTS

_CHATS_OWN = frozenset(
    {"max_completion_tokens", "max_tokens", "temperature", "top_p", "top_k", "frequency_penalty", "presence_penalty",
     "seed", "stop", "reasoning_effort", "parallel_tool_calls", "service_tier", "user", "safety_identifier",
     "verbosity", "prompt_cache_key"}
)  # fmt: skip


def parameters_in(dialect: str, parameters: Mapping[str, object], model: str) -> dict[str, object]:
    """Return a candidate's fields in a dialect.

    Parameters
    ----------
    dialect : str
    parameters : Mapping
        As the settings have them.
    model : str
        The provider's name for the candidate, by which some dialects choose how to ask for thought.
    """
    if dialect == "chat" or not parameters:
        return dict(parameters)
    known = {name: value for name, value in parameters.items() if name in _CHATS_OWN}
    said = _written(dialect, read_settings(known), model)
    unsaid = _written(dialect, Settings(), model)
    changed = {name: value for name, value in said.items() if unsaid.get(name) != value}
    return changed | {name: value for name, value in parameters.items() if name not in _CHATS_OWN}


def _written(dialect: str, settings: Settings, model: str) -> dict[str, object]:
    spoken = Conversation((Message("user", (Text("."),)),), settings=settings)
    return DIALECTS[dialect].write_request(spoken, model, Losses())
