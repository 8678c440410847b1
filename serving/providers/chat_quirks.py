"""Fit a Chat Completions body that the gateway wrote itself to one provider: its names for limit, thought and effort.

A client of the Chat dialect has chosen its own words and keeps them; see :meth:`serving.providers.quirks.Quirks.apply`.
Entry point: :func:`fit`.
"""

from __future__ import annotations

from serving.dialects.losses import Losses
from serving.providers.quirks import Quirks


def fit(quirks: Quirks, body: dict[str, object], losses: Losses) -> None:
    """Change a body in place, and report what the provider cannot take.

    Parameters
    ----------
    quirks : Quirks
    body : dict
        As :func:`serving.dialects.chat.body.write_request` made it.
    losses : Losses
    """
    limit = body.pop("max_completion_tokens", None)
    if limit is not None:
        body[quirks.limit_field] = limit
    _fit_effort(quirks, body, losses)
    if quirks.thinking == "effort":
        # Only those that think by switch want their thoughts back; to others they are an unknown field.
        _drop_thoughts(body, losses)
    for field in quirks.apply(body):
        losses.dropped(field)


def _fit_effort(quirks: Quirks, body: dict[str, object], losses: Losses) -> None:
    effort = body.pop("reasoning_effort", None)
    if not isinstance(effort, str):
        return
    own = dict(quirks.efforts).get(effort, effort)
    if quirks.thinking == "effort":
        body["reasoning_effort"] = own
    elif quirks.thinking == "type":
        body["thinking"] = {"type": "disabled" if effort == "none" else "enabled"}
        if effort != "none":
            body["reasoning_effort"] = own
    else:
        body["enable_thinking"] = effort != "none"
        if effort != "none":
            losses.changed("reasoning_effort")
    if own != effort:
        losses.changed("reasoning_effort")


def _drop_thoughts(body: dict[str, object], losses: Losses) -> None:
    messages = body.get("messages")
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, dict) and message.pop("reasoning_content", None) is not None:
            losses.hint("reasoning")
