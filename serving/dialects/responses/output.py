"""Output items of Responses, both ways: what the model made.

Consecutive words are parts of one message item; everything else is an item of its own. Entry points:
:func:`items_of`, :func:`read_output`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from serving.dialects.answer import Answer, Citation
from serving.dialects.conversation import Part, Reasoning, Refusal, Text, ToolCall
from serving.dialects.responses.items import read_reasoning
from serving.dialects.responses.marks import marked


class Ids:
    """The ids of one answer's items: told by what they are and where they stand, from the id of the answer."""

    __slots__ = ("_name",)

    def __init__(self, reply_id: str) -> None:
        self._name = reply_id.partition("_")[2] or reply_id

    @property
    def response(self) -> str:
        """Of the answer itself."""
        return f"resp_{self._name}"

    def message(self, i: int) -> str:
        """Of a message at place ``i`` of the output."""
        return f"msg_{self._name}_{i}"

    def reasoning(self, i: int) -> str:
        """Of thoughts there."""
        return f"rs_{self._name}_{i}"

    def call(self, i: int, *, is_custom: bool) -> str:
        """Of a call there."""
        return f"{'ctc' if is_custom else 'fc'}_{self._name}_{i}"


def items_of(answer: Answer, ids: Ids, last_status: str) -> list[dict[str, object]]:
    """Write the output items of an answer; ``last_status`` is of a message that stands last."""
    items: list[dict[str, object]] = []
    content: list[dict[str, object]] = []

    def close_message(status: str) -> None:
        if content:
            items.append(message_item(ids.message(len(items)), list(content), status))
            content.clear()

    for i, part in enumerate(parts_with_explanation(answer)):
        if isinstance(part, Text):
            content.append(text_part(part.text, [citation for at, citation in answer.citations if at == i]))
        elif isinstance(part, Refusal):
            content.append(refusal_part(part.text))
        else:
            close_message("completed")
            items.extend(_items_of(part, len(items), ids))
    close_message(last_status)
    return items


def parts_with_explanation(answer: Answer) -> Sequence[Part]:
    """Return the parts, and as a refusal at their end why the provider filtered, where it says so."""
    finished = answer.finished
    if finished.reason == "filtered" and finished.explanation:
        return (*answer.parts, Refusal(finished.explanation))
    return answer.parts


def message_item(item_id: str, content: list[dict[str, object]], status: str) -> dict[str, object]:
    """Write a message of the assistant."""
    return {"id": item_id, "type": "message", "status": status, "role": "assistant", "content": content}


def text_part(text: str, citations: Sequence[Citation] = ()) -> dict[str, object]:
    """Write words."""
    annotations = [annotation_of(citation) for citation in citations]
    return {"type": "output_text", "text": text, "annotations": annotations, "logprobs": []}


def refusal_part(text: str) -> dict[str, object]:
    """Write words of refusal."""
    return {"type": "refusal", "refusal": text}


def annotation_of(citation: Citation) -> dict[str, object]:
    """Write one citation; all its fields are demanded."""
    return {
        "type": "url_citation",
        "url": citation.url,
        "title": citation.title or citation.url,
        "start_index": citation.start or 0,
        "end_index": citation.end or 0,
    }


def reasoning_item(item_id: str, text: str, *, is_summary: bool, state: str | None) -> dict[str, object]:
    """Write thoughts; the state is marked already."""
    item: dict[str, object] = {"id": item_id, "type": "reasoning", "summary": []}
    if text and is_summary:
        item["summary"] = [{"type": "summary_text", "text": text}]
    elif text:
        item["content"] = [{"type": "reasoning_text", "text": text}]
    return item if state is None else {**item, "encrypted_content": state}


def call_item(
    item_id: str, call_id: str, name: str, arguments: str, *, is_custom: bool, namespace: str | None, status: str
) -> dict[str, object]:
    """Write a call of one of the client's tools."""
    item: dict[str, object] = {"id": item_id, "type": "custom_tool_call" if is_custom else "function_call"}
    item |= {"status": status, "call_id": call_id, "name": name}
    if namespace is not None:
        item["namespace"] = namespace
    return {**item, "input" if is_custom else "arguments": arguments}


def _items_of(part: Part, i: int, ids: Ids) -> Iterator[dict[str, object]]:
    match part:
        case Reasoning():
            state = None if part.state is None else marked(part.state, is_redacted=part.is_redacted)
            yield reasoning_item(ids.reasoning(i), part.text, is_summary=part.is_summary, state=state)
        case ToolCall():
            yield call_item(
                ids.call(i, is_custom=part.is_custom),
                part.id,
                part.name,
                part.arguments or ("" if part.is_custom else "{}"),
                is_custom=part.is_custom,
                namespace=part.namespace,
                status="completed",
            )
            if part.state is not None:
                state = marked(part.state, call_id=part.id)
                yield reasoning_item(ids.reasoning(i + 1), "", is_summary=False, state=state)
        case _:
            raise AssertionError(f"no answer holds {type(part).__name__}")


def read_output(output: Sequence[object], response_id: str) -> list[tuple[Part, tuple[Citation, ...]]]:
    """Read the parts of an answer with the sources of each; an item of an unknown type is no part of it."""
    found: list[tuple[Part, tuple[Citation, ...]]] = []
    seen: set[str] = set()
    for i, item in enumerate(output):
        if not isinstance(item, dict):
            continue
        kind = item.get("type")
        if kind == "message":
            found.extend(read_content(item))
        elif kind == "reasoning":
            found.extend((part, ()) for part in read_reasoning(item))
        elif kind in tuple(CALLS):
            found.append((read_call(item, call_id_of(item, seen, response_id, i)), ()))
    return found


#: The type of a call's item, and the field of what it is called with.
CALLS = {"function_call": "arguments", "custom_tool_call": "input"}


def read_content(item: Mapping[str, object]) -> Iterator[tuple[Part, tuple[Citation, ...]]]:
    """Yield the words of a message item; tolerant, since it is a provider's."""
    content = item.get("content")
    if isinstance(content, str):
        yield Text(content), ()
    for part in content if isinstance(content, list) else ():
        if not isinstance(part, dict):
            continue
        if part.get("type") == "refusal":
            yield Refusal(_string(part, "refusal")), ()
        elif part.get("type") in ("output_text", "text") and isinstance(part.get("text"), str):
            yield Text(part["text"]), citations_of(part)


def citations_of(part: Mapping[str, object]) -> tuple[Citation, ...]:
    """Read the addresses among the annotations of a part."""
    annotations = part.get("annotations")
    listed = annotations if isinstance(annotations, list) else []
    return tuple(found for found in map(citation_of, listed) if found is not None)


def citation_of(annotation: object) -> Citation | None:
    """Read one annotation; None where it is of no address."""
    url = annotation.get("url") if isinstance(annotation, dict) else None
    if not isinstance(annotation, dict) or not isinstance(url, str):
        return None
    title, start, end = annotation.get("title"), annotation.get("start_index"), annotation.get("end_index")
    return Citation(
        url,
        title if isinstance(title, str) else None,
        start if isinstance(start, int) else None,
        end if isinstance(end, int) else None,
    )


def read_call(item: Mapping[str, object], call_id: str) -> ToolCall:
    """Read a call's item."""
    kind = str(item.get("type"))
    namespace = _string(item, "namespace") or None
    name = _string(item, "name") or "unnamed"
    return ToolCall(call_id, name, _string(item, CALLS[kind]), kind == "custom_tool_call", namespace)


def call_id_of(item: Mapping[str, object], seen: set[str], response_id: str, i: int) -> str:
    """Return what results refer to: the provider's own, or one made up where it gave none or gave it twice."""
    given = _string(item, "call_id") or _string(item, "id")
    call_id = given
    while not call_id or call_id in seen:
        call_id, i = f"call_{response_id}_{i}", i + 1
    seen.add(call_id)
    return call_id


def _string(item: Mapping[str, object], key: str) -> str:
    value = item.get(key)
    return value if isinstance(value, str) else ""
