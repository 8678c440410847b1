"""Messages ⇄ ``contents`` and ``systemInstruction``.

Gemini wants turns that alternate, and one ``functionResponse`` for each ``functionCall`` of the turn before, in the
same order. Opaque state stands on parts: the signature of a text is read as reasoning without words right before it,
and written back the same way. Entry points: :func:`write_contents`, :func:`read_contents`.
"""

from __future__ import annotations

import base64
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeAlias

import orjson

from serving.dialects.arguments import arguments_object
from serving.dialects.conversation import (
    Audio,
    File,
    Image,
    Message,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
)
from serving.dialects.gemini.orphans import Turn, orphans_told
from serving.dialects.losses import Losses
from serving.errors import InvalidRequest
from serving.fields import optional, string, wrong

#: Google's documented word for a call whose signature is another model's, or lost.
BYPASS = "skip_thought_signature_validator"
_FETCHED = ("gs://", "https://generativelanguage.googleapis.com/", "https://www.youtube.com/", "https://youtu.be/")
_INLINE = ("application/pdf", "text/", "image/", "audio/", "video/")
_AUDIO_FORMATS = {"mpeg": "mp3", "x-wav": "wav", "wave": "wav"}
#: A conversation has to begin with the user.
_OPENING = "(The conversation begins.)"
#: Names in a response that say what the rest of it is.
_MEANT = {"result", "output", "error"}
_NO_RESULT = "The tool gave no result."

Json: TypeAlias = dict[str, object]


def write_contents(messages: Sequence[Message], is_signed: bool, losses: Losses) -> tuple[list[Json], list[Json]]:
    """Write the messages for Gemini.

    Parameters
    ----------
    messages : sequence of Message
    is_signed : bool
        Whether the model (Gemini 3 or later) asks for signatures, and takes media inside results.
    losses : Losses

    Returns
    -------
    tuple of (list of dict, list of dict)
        The parts of ``systemInstruction``, and ``contents``.

    Raises
    ------
    InvalidRequest
        Something cannot be said to Gemini.
    """
    n_leading = next((i for i, message in enumerate(messages) if message.role != "system"), len(messages))
    system: list[Json] = [
        {"text": part.text}
        for message in messages[:n_leading]
        for part in message.parts
        if isinstance(part, Text) and part.text
    ]
    contents = _contents(orphans_told(_turns(messages[n_leading:], losses), losses), is_signed, losses)
    if not contents:
        losses.changed("messages[].role")
        return [], [{"role": "user", "parts": system}] if system else []
    if contents[0]["role"] == "model":
        losses.changed("messages")
        contents.insert(0, {"role": "user", "parts": [{"text": _OPENING}]})
    return system, contents


def read_contents(body: Mapping[str, object]) -> tuple[Message, ...]:
    """Read ``systemInstruction`` and ``contents``; calls without an id get one from their place."""
    messages: list[Message] = []
    instruction = optional(body, "systemInstruction", dict, "an object") or {}
    if instruction:
        texts = tuple(Text(string(part, "text", at)) for part, at in _parts(instruction, "systemInstruction"))
        messages.append(Message("system", texts))
    contents = body.get("contents")
    if not isinstance(contents, list) or not contents:
        raise wrong("contents", contents, "a list of at least one content")
    calls = _Calls()
    for i, content in enumerate(contents):
        at = f"contents[{i}]"
        if not isinstance(content, dict):
            raise wrong(at, content, "an object")
        role = content.get("role", "user")
        if role not in ("user", "model"):
            raise wrong(f"{at}.role", None if role is None else "", "user or model")
        parts = [part for raw, place in _parts(content, at) for part in _read_part(raw, place, calls)]
        messages.append(Message("user" if role == "user" else "assistant", tuple(parts)))
    return tuple(messages)


def signed(part: Json, state: str | None) -> Json:
    """Put a signature on a part, if there is one."""
    return part if state is None else {**part, "thoughtSignature": state}


def _turns(messages: Iterable[Message], losses: Losses) -> list[Turn]:
    turns: list[Turn] = []
    for message in messages:
        parts: Sequence[Part] = message.parts
        if message.role == "system":
            losses.changed("messages[].role")
            parts = [Text(f"<system>\n{part.text}\n</system>") for part in parts if isinstance(part, Text)]
        role: Literal["user", "model"] = "model" if message.role == "assistant" else "user"
        if turns and turns[-1][0] == role:
            turns[-1][1].extend(parts)
        else:
            turns.append((role, list(parts)))
    return turns


def _contents(turns: Sequence[Turn], is_signed: bool, losses: Losses) -> list[Json]:
    results: dict[str, deque[ToolResult]] = {}
    for _, parts in turns:
        for part in parts:
            if isinstance(part, ToolResult):
                results.setdefault(part.call_id, deque()).append(part)
    contents: list[Json] = []
    calls: list[ToolCall] = []
    for at, (role, parts) in enumerate(turns):
        if role == "model":
            calls = [part for part in parts if isinstance(part, ToolCall)]
            written = _model_parts(parts, is_signed and at > _current(turns), losses)
        else:
            written = _responses(calls, results, is_signed, losses)
            others = (part for part in parts if not isinstance(part, ToolResult))
            written += [_user_part(part, losses) for part in others if not isinstance(part, Text) or part.text]
            calls = []
        if not written:
            continue
        if contents and contents[-1]["role"] == role:
            written = [*_list(contents.pop()["parts"]), *written]
        contents.append({"role": role, "parts": written})
    return contents


def _current(turns: Sequence[Turn]) -> int:
    """Return where the user last spoke; words that merely follow a result belong to the turn of its call."""
    spoke = [
        at
        for at, (role, parts) in enumerate(turns)
        if role == "user" and not any(isinstance(part, ToolResult) for part in parts)
    ]
    return spoke[-1] if spoke else -1


def _model_parts(parts: Iterable[Part], needs_state: bool, losses: Losses) -> list[Json]:
    written: list[Json] = []
    state: str | None = None
    for part in parts:
        if isinstance(part, Text | Refusal):
            if part.text:
                written.append(signed({"text": part.text}, state))
                state = None
            continue
        if state is not None:
            written.append(signed({"text": ""}, state))
            state = None
        if isinstance(part, Reasoning):
            state = part.state
            if part.text:
                losses.hint("messages[].reasoning_content")
        elif isinstance(part, ToolCall):
            assert not part.is_custom and part.namespace is None, "custom tools and namespaces are emulated"
            arguments = arguments_object(part.arguments)
            if arguments is None:
                losses.changed("messages[].tool_calls")
                arguments = {"_raw": part.arguments}
            call: Json = {"functionCall": {"id": part.id, "name": part.name, "args": arguments}}
            written.append(signed(call, part.state or (BYPASS if needs_state else None)))
            # Of calls made at once only the first is signed.
            needs_state = False
        else:
            written.append(_user_part(part, losses))
    return written if state is None else [*written, signed({"text": ""}, state)]


def _responses(
    calls: Iterable[ToolCall], results: Mapping[str, deque[ToolResult]], is_signed: bool, losses: Losses
) -> list[Json]:
    responses: list[Json] = []
    following: list[Json] = []
    for call in calls:
        if waiting := results.get(call.id):
            result = waiting.popleft()
        else:
            losses.changed("messages[].tool_calls")
            result = ToolResult(call.id, (Text(_NO_RESULT),), is_error=True)
        words = [part.text for part in result.parts if isinstance(part, Text | File) and part.text is not None]
        media = [_user_part(part, losses) for part in result.parts if not _is_words(part)]
        response: Json = {"id": call.id, "name": call.name, "response": _response("\n".join(words), result.is_error)}
        if media and is_signed:
            response["parts"] = media
        elif media:
            losses.emulated("messages[].content")
            following += media
        responses.append({"functionResponse": response})
    return [*responses, *following]


def _response(text: str, is_error: bool) -> Json:
    if is_error:
        return {"error": text}
    value = arguments_object(text) if text.strip() else None
    # Some names have a meaning of Gemini's own there, whatever the tool meant by them.
    return {"result": text} if value is None or value.keys() & _MEANT else value


def _user_part(part: Part, losses: Losses) -> Json:
    match part:
        case Text() | Refusal():
            return {"text": part.text}
        case Audio():
            return _inline(f"audio/{part.format}", part.data)
        case Image():
            if part.detail not in (None, "auto"):
                losses.hint("messages[].content[].detail")
            if part.url is None:
                return _inline(part.media_type or "image/png", part.data or "")
            return _linked(part.url, part.media_type, losses)
        case File():
            return _file(part, losses)
        case _:
            raise losses.refuse("messages[].role", "only an assistant message can hold a call or reasoning")


def _file(part: File, losses: Losses) -> Json:
    if part.name is not None:
        losses.hint("messages[].content[].filename")
    if part.text is not None:
        return _inline("text/plain", base64.b64encode(part.text.encode()).decode())
    media_type = part.media_type or "application/pdf"
    if part.url is not None:
        return _linked(part.url, media_type, losses)
    if not media_type.startswith(_INLINE):
        raise losses.refuse("messages[].content", "this model reads PDF, text, images, audio and video only")
    return _inline(media_type, part.data or "")


def _inline(media_type: str, data: str) -> Json:
    return {"inlineData": {"mimeType": media_type, "data": data}}


def _linked(url: str, media_type: str | None, losses: Losses) -> Json:
    if not url.startswith(_FETCHED):
        raise losses.refuse("messages[].content", "this model fetches no such URL; give the data itself, in base64")
    typed: Json = {} if media_type is None else {"mimeType": media_type}
    return {"fileData": {"fileUri": url, **typed}}


def _is_words(part: Part) -> bool:
    return isinstance(part, Text) or (isinstance(part, File) and part.text is not None)


def _list(value: object) -> list[Json]:
    assert isinstance(value, list)
    return value


class _Calls:
    """The calls of a body in their order, so that results find theirs: by id, else by name."""

    def __init__(self) -> None:
        self._n = 0
        self._waiting: list[tuple[str, str]] = []

    def called(self, given: str | None, name: str) -> str:
        self._n += 1
        call_id = given or f"call_{self._n}"
        self._waiting.append((call_id, name))
        return call_id

    def answered(self, given: str | None, name: str, at: str) -> str:
        by_id = [call for call in self._waiting if call[0] == given]
        by_name = [call for call in self._waiting if call[1] == name]
        if not (fitting := by_id or by_name):
            raise InvalidRequest(f"{at} answers no call that stands before it", param=at)
        self._waiting.remove(fitting[0])
        return fitting[0][0]


def _parts(content: Mapping[str, object], at: str) -> list[tuple[Json, str]]:
    parts = content.get("parts")
    if not isinstance(parts, list):
        raise wrong(f"{at}.parts", parts, "a list of parts")
    for i, part in enumerate(parts):
        if not isinstance(part, dict):
            raise wrong(f"{at}.parts[{i}]", part, "an object")
    return [(part, f"{at}.parts[{i}]") for i, part in enumerate(parts)]


def _read_part(part: Json, at: str, calls: _Calls) -> list[Part]:
    state = optional(part, "thoughtSignature", str, "a string", f"{at}.")
    if state == BYPASS:
        state = None
    if (call := optional(part, "functionCall", dict, "an object", f"{at}.")) is not None:
        return [_read_call(call, f"{at}.functionCall", state, calls)]
    if (response := optional(part, "functionResponse", dict, "an object", f"{at}.")) is not None:
        return [_read_response(response, f"{at}.functionResponse", calls)]
    if "inlineData" in part or "fileData" in part:
        return [_read_media(part, at)]
    text = string(part, "text", at)
    if part.get("thought") is True:
        return [Reasoning(text, is_summary=bool(text), state=state)]
    if state is not None:
        return [Reasoning(state=state), *([Text(text)] if text else [])]
    return [Text(text)]


def _read_call(call: Json, at: str, state: str | None, calls: _Calls) -> ToolCall:
    name = string(call, "name", at)
    arguments = optional(call, "args", dict, "an object", f"{at}.") or {}
    call_id = calls.called(optional(call, "id", str, "a string", f"{at}."), name)
    return ToolCall(call_id, name, _json(arguments, at), state=state)


def _read_response(response: Json, at: str, calls: _Calls) -> ToolResult:
    name = string(response, "name", at)
    call_id = calls.answered(optional(response, "id", str, "a string", f"{at}."), name, at)
    value = response.get("response")
    if not isinstance(value, dict):
        raise wrong(f"{at}.response", value, "an object")
    key, only = next(iter(value.items())) if len(value) == 1 else ("", None)
    is_plain = key in ("result", "error", "output") and isinstance(only, str)
    text = only if is_plain and isinstance(only, str) else _json(value, at)
    media = _parts(response, at) if "parts" in response else []
    read = [_read_media(raw, place) for raw, place in media]
    parts = (Text(text), *(part for part in read if not isinstance(part, Audio)))
    return ToolResult(call_id, parts, is_error=key == "error")


def _read_media(part: Json, at: str) -> Image | File | Audio:
    if (linked := optional(part, "fileData", dict, "an object", f"{at}.")) is not None:
        media_type = optional(linked, "mimeType", str, "a string", f"{at}.fileData.")
        url = string(linked, "fileUri", f"{at}.fileData")
        is_image = media_type is None or media_type.startswith("image/")
        return Image(media_type, url=url) if is_image else File(media_type, url=url)
    inline = part.get("inlineData")
    if not isinstance(inline, dict):
        raise wrong(f"{at}.inlineData", inline, "an object")
    media_type = string(inline, "mimeType", f"{at}.inlineData")
    data = string(inline, "data", f"{at}.inlineData")
    kind, _, form = media_type.partition("/")
    if kind == "image":
        return Image(media_type, data)
    return Audio(_AUDIO_FORMATS.get(form, form), data) if kind == "audio" else File(media_type, data)


def _json(value: Json, at: str) -> str:
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        # The reader of JSON goes deeper than the writer.
        raise InvalidRequest(f"{at} nests objects or lists too deeply", param=at) from None
