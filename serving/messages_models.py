"""``GET /v1/models`` in the shape of Anthropic's API. Pure.

Entry points: :func:`messages_models`, :func:`messages_model`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from serving.errors import InvalidRequest
from serving.state import State

MAX_PAGE = 1000


@dataclass(frozen=True, slots=True)
class MessagesModel:
    """One name that ``model`` accepts; unknown limits are null."""

    id: str
    display_name: str
    created_at: str
    max_input_tokens: int | None
    max_tokens: int | None
    type: str = "model"


@dataclass(frozen=True, slots=True)
class MessagesModels:
    """One page of them."""

    data: list[MessagesModel]
    has_more: bool
    first_id: str | None
    last_id: str | None


def messages_model(state: State, name: str) -> MessagesModel:
    """Describe one name."""
    meant = state.meant(name)
    known = None if meant in state.aliases else state.candidate(meant).capabilities
    return MessagesModel(
        name,
        name,
        datetime.fromtimestamp(int(state.loaded_unix_s), UTC).isoformat().replace("+00:00", "Z"),
        known.context_window_tokens if known else None,
        known.max_output_tokens if known else None,
    )


def messages_models(state: State, names: Sequence[str], limit: int, after_id: str, before_id: str) -> MessagesModels:
    """List a page of names.

    Parameters
    ----------
    state : State
    names : sequence of str
        All of them, in order.
    limit : int
        Most on the page, from 1 to 1000.
    after_id, before_id : str
        Names the page begins after, or ends before; at most one, else "".

    Raises
    ------
    InvalidRequest
        The page cannot be.
    """
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidRequest(f"limit must be a whole number from 1 to {MAX_PAGE}", param="limit")
    for param, name in (("after_id", after_id), ("before_id", before_id)):
        if name and name not in names:
            raise InvalidRequest(f"{param} must be a name of the list", param=param)
    if after_id:
        rest = names[names.index(after_id) + 1 :]
        page, has_more = rest[:limit], len(rest) > limit
    elif before_id:
        rest = names[: names.index(before_id)]
        page, has_more = rest[-limit:], len(rest) > limit
    else:
        page, has_more = names[:limit], len(names) > limit
    return MessagesModels(
        [messages_model(state, name) for name in page], has_more, page[0] if page else None, page[-1] if page else None
    )
