"""Content parts of Responses messages and tool outputs, both ways.

Entry points: :func:`read_content`, :func:`write_part`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

from serving import fields
from serving.dialects.conversation import Audio, File, Image, Part, Refusal, Text
from serving.dialects.losses import Losses

Content: TypeAlias = Text | Image | File | Audio | Refusal
#: How long OpenAI keeps what stands before a breakpoint, in the words of the neutral form.
_CACHE_TTLS = {"30m": "", "12h": "1h"}


def read_content(content: object, at: str, losses: Losses) -> Iterator[Content]:
    """Yield the parts of a string or of a list of parts; an empty string is no part."""
    if isinstance(content, str):
        if content:
            yield Text(content)
        return
    if not isinstance(content, list):
        raise fields.wrong(at, content, "a string or a list of parts")
    for i, part in enumerate(content):
        here = f"{at}[{i}]"
        if not isinstance(part, dict):
            raise fields.wrong(here, part, "an object")
        read = _READERS.get(str(part.get("type")))
        if read is None:
            raise losses.refuse(f"{here}.type", "parts of this type cannot be translated for this candidate")
        yield read(part, here, losses)


def write_part(part: Part, at: str, losses: Losses, *, is_assistant: bool = False) -> dict[str, object]:
    """Write one part of a message or of a tool's output."""
    if getattr(part, "cache_ttl", None) is not None:
        losses.dropped("cache_control")  # this dialect's providers cache by themselves, unasked
    match part:
        case Text():
            return {"type": "output_text" if is_assistant else "input_text", "text": part.text}
        case Refusal():
            return {"type": "refusal", "refusal": part.text}
        case Image():
            url = part.url if part.data is None else _uri(part.media_type or "image/png", part.data)
            # Some servers insist on a detail.
            return {"type": "input_image", "image_url": url, "detail": part.detail or "auto"}
        case Audio():
            return {"type": "input_audio", "input_audio": {"data": part.data, "format": part.format}}
        case File(text=str(text)):
            losses.changed(at)
            return {"type": "input_text", "text": f"{part.name}:\n{text}" if part.name else text}
        case File(url=str(url)):
            named = {} if part.name is None else {"filename": part.name}
            return {"type": "input_file", **named, "file_url": url}
        case File(data=str(data)):
            uri = _uri(part.media_type or "application/pdf", data)
            return {"type": "input_file", "filename": part.name or "document.pdf", "file_data": uri}
        case _:
            raise losses.refuse(at, "only text, images, sound and documents may stand here")


def _text(part: Mapping[str, object], at: str, losses: Losses) -> Text:
    if part.get("annotations"):
        losses.hint(f"{at}.annotations")
    return Text(fields.string(part, "text", at), _cache_ttl(part, at, losses))


def _refusal(part: Mapping[str, object], at: str, losses: Losses) -> Refusal:
    return Refusal(fields.string(part, "refusal", at))


def _image(part: Mapping[str, object], at: str, losses: Losses) -> Image:
    _refuse_id(part, at, losses)
    url = fields.string(part, "image_url", at)
    detail = fields.optional(part, "detail", str, "a string", f"{at}.")
    detail = None if detail == "auto" else detail
    ttl = _cache_ttl(part, at, losses)
    media_type, data = _data_of(url, f"{at}.image_url")
    return Image(media_type, data, None if data is not None else url, detail, ttl)


def _file(part: Mapping[str, object], at: str, losses: Losses) -> File:
    _refuse_id(part, at, losses)
    name = fields.optional(part, "filename", str, "a string", f"{at}.")
    ttl = _cache_ttl(part, at, losses)
    url = fields.optional(part, "file_url", str, "a string", f"{at}.")
    if url is not None:
        return File(url=url, name=name, cache_ttl=ttl)
    given = fields.string(part, "file_data", at)
    media_type, data = _data_of(given, f"{at}.file_data")
    if data is None:  # bare base64, as some clients send it
        media_type, data = "application/pdf", given
    return File(media_type, data, name=name, cache_ttl=ttl)


def _audio(part: Mapping[str, object], at: str, losses: Losses) -> Audio:
    audio = part.get("input_audio")
    if not isinstance(audio, dict):
        raise fields.wrong(f"{at}.input_audio", audio, "an object with data and format")
    return Audio(fields.string(audio, "format", f"{at}.input_audio"), fields.string(audio, "data", f"{at}.input_audio"))


_READERS: Mapping[str, Callable[[Mapping[str, object], str, Losses], Content]] = {
    "input_text": _text,
    "output_text": _text,
    "text": _text,
    "refusal": _refusal,
    "input_image": _image,
    "input_file": _file,
    "input_audio": _audio,
}


def _refuse_id(part: Mapping[str, object], at: str, losses: Losses) -> None:
    if part.get("file_id") is not None:
        raise losses.refuse(f"{at}.file_id", "a file kept at one provider cannot be read by another: send its data")


def _cache_ttl(part: Mapping[str, object], at: str, losses: Losses) -> str | None:
    mark = part.get("prompt_cache_breakpoint")
    if not isinstance(mark, dict):
        return None
    ttl = _CACHE_TTLS.get(str(mark.get("ttl", "30m")))
    if ttl is None or mark.get("ttl") == "12h":
        losses.changed(f"{at}.prompt_cache_breakpoint")
    return ttl or ""


def _data_of(url: str, at: str) -> tuple[str | None, str | None]:
    """Split a base64 ``data:`` URI into media type and data; (None, None) of any other address."""
    if not url.startswith("data:"):
        return None, None
    head, comma, data = url[5:].partition(",")
    if not comma or not head.endswith(";base64"):
        raise fields.wrong(at, url, "a data: URI in base64, or an address")
    return head.partition(";")[0] or None, data


def _uri(media_type: str, data: str) -> str:
    return f"data:{media_type};base64,{data}"
