"""OpenAI's legacy completions, as a client API only: a prompt is a user's message, an answer is its text.

Never passed through: LLMs of today are served by Chat. Entry point: :data:`COMPLETIONS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import orjson

from router.pricing import Usage
from serving import fields
from serving.dialects.answer import Answer, Began, Delta, Event, Failed, Finished, Opened, UsageSeen
from serving.dialects.chat.answer import finish_of, write_usage
from serving.dialects.chat.dialect import CHAT
from serving.dialects.chat.request import read_settings
from serving.dialects.conversation import Conversation, Message, Text
from serving.dialects.dialect import Reply
from serving.dialects.losses import Losses

_READ = frozenset(
    {"model", "prompt", "stream", "max_tokens", "temperature", "top_p", "frequency_penalty", "presence_penalty", "seed",
     "stop", "user", "turnout", "n", "best_of", "echo", "logprobs", "suffix"}
)  # fmt: skip
_REFUSED = {
    "echo": "the prompt cannot be repeated by a chat model",
    "logprobs": "log probabilities are not available from this candidate",
    "suffix": "a chat model does not fill in the middle",
}


def read_request(body: Mapping[str, object], losses: Losses) -> Conversation:
    """Read a whole request; InvalidRequest names what a chat model cannot do."""
    for name, why in _REFUSED.items():
        if body.get(name):
            raise losses.refuse(name, why)
    for name in ("n", "best_of"):
        if (fields.positive(body, name) or 1) > 1:
            raise losses.refuse(name, "one answer at a time")
    for name, value in body.items():
        if name == "stream_options":
            losses.hint(name)
        elif name not in _READ and value is not None:
            losses.dropped(name)
    prompt = body.get("prompt")
    text = prompt[0] if isinstance(prompt, list) and prompt else prompt
    return Conversation(
        (Message("user", (Text(str(text)),)),), settings=read_settings(body), is_stream=body.get("stream") is True
    )


def write_answer(answer: Answer, reply: Reply) -> dict[str, object]:
    """Write a whole answer for a client."""
    text = "".join(part.text for part in answer.parts if isinstance(part, Text))
    written = _envelope(reply) | {"choices": [_choice(text, finish_of(answer.finished.reason, has_calls=False))]}
    usage = write_usage(answer.usage)
    return written if usage is None else {**written, "usage": usage}


class CompletionsWriter:
    """Neutral events in, chunks for a client out; only text has a place in them."""

    def __init__(self, reply: Reply) -> None:
        options = reply.request.get("stream_options")
        self._wants_usage = isinstance(options, dict) and options.get("include_usage") is True
        self._envelope = _envelope(reply)
        self._is_text = False
        self._usage = Usage()

    def write(self, event: Event) -> bytes:
        """Return the bytes of zero or more chunks."""
        match event:
            case Delta():
                return self._chunk([_choice(event.text, None)]) if self._is_text else b""
            case Opened():
                self._is_text = event.kind == "text"
            case Began():
                return self._chunk([_choice("", None)])
            case UsageSeen():
                self._usage = event.usage
            case Finished():
                said = self._chunk([_choice("", finish_of(event.reason, has_calls=False))])
                usage = write_usage(self._usage) if self._wants_usage else None
                if usage is not None:
                    said += self._chunk([], usage)
                return said + b"data: [DONE]\n\n"
            case Failed():
                error = {"message": event.message, "type": "api_error", "param": None, "code": event.code}
                return b"data: " + orjson.dumps({"error": error}) + b"\n\n"
        return b""

    def _chunk(self, choices: list[dict[str, object]], usage: dict[str, object] | None = None) -> bytes:
        return b"data: " + orjson.dumps({**self._envelope, "choices": choices, "usage": usage}) + b"\n\n"


def _envelope(reply: Reply) -> dict[str, object]:
    name = reply.id.partition("_")[2] or reply.id
    return {"id": f"cmpl-{name}", "object": "text_completion", "created": reply.created_unix_s, "model": reply.model}


def _choice(text: str, finish_reason: str | None) -> dict[str, object]:
    return {"text": text, "index": 0, "logprobs": None, "finish_reason": finish_reason}


#: Its errors are Chat's; a provider is never spoken to in it.
COMPLETIONS = replace(
    CHAT, name="completions", read_request=read_request, write_answer=write_answer, writer=CompletionsWriter
)
