"""What an opaque state belongs to, where Responses has but one place for all: ``reasoning.encrypted_content``.

::

    STATE                 of the thoughts in whose item it stands
    STATE#redacted        of thoughts that were redacted (Anthropic)
    STATE#call:CALL_ID    of a tool call (Gemini); the item holds nothing else and follows the call's

Clients keep the string as it is, though not always the item's id. No provider's state holds a ``#``. Entry points:
:func:`marked`, :func:`unmarked`.
"""

from __future__ import annotations

_REDACTED = "#redacted"
_CALL = "#call:"


def marked(state: str, *, is_redacted: bool = False, call_id: str | None = None) -> str:
    """Return a state that says what it belongs to."""
    if call_id is not None:
        return f"{state}{_CALL}{call_id}"
    return f"{state}{_REDACTED}" if is_redacted else state


def unmarked(marked_state: str) -> tuple[str, bool, str | None]:
    """Return the state, whether it is of redacted thoughts, and the id of the call it is of, if any."""
    state, mark, call_id = marked_state.partition(_CALL)
    if mark:
        return state, False, call_id
    state = marked_state.removesuffix(_REDACTED)
    return state, state != marked_state, None
