"""What of a request the router reads: the human request, not the harness around it.

Coding agents wrap a short human sentence in reminders, environment listings and tool results; scoring those would
route on the harness. :func:`read` takes the last human turn, removes what harnesses add, and keeps of everything
else only a summary of shape. It reads text and counts; it never rewrites what is sent to a provider.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from router.domain import Prompt, Shape

#: Elements that harnesses put into user turns: Claude Code, Codex, Cline, Cursor (seen November 2026).
HARNESS_TAGS = (
    "system-reminder",
    "local-command-caveat",
    "local-command-stdout",
    "local-command-stderr",
    "command-name",
    "command-message",
    "command-args",
    "bash-stdout",
    "bash-stderr",
    "task-notification",
    "ide_opened_file",
    "ide_selection",
    "environment_context",
    "environment_details",
    "user_instructions",
    "codex_internal_context",
    "turn_aborted",
    "mode_notice",
    "file_content",
    "additional_data",
)
_OPENING = re.compile(f"<({'|'.join(HARNESS_TAGS)})(?=[> \\n\\t/])")  # <system-reminders> is another element
#: Wrappers whose content is the human's own.
_WRAPPER = re.compile("</?(?:task|feedback|user_query|user_message|user_input|user_command)(?: [^<>]{0,200})?>")
#: Codex sends a project's AGENTS.md as if the human said it, in a turn of its own; more harness elements may follow.
_AGENTS_FILE, _AGENTS_FILE_BEGIN, _AGENTS_FILE_END = "# AGENTS.md instructions", "<INSTRUCTIONS>", "</INSTRUCTIONS>"
#: Before this, editors list what is open; the human's words come after it.
_REQUEST_MARK = "## My request for Codex:"
_TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
_IMAGE_PARTS = frozenset({"image_url", "input_image", "image"})
#: Of a long text encoders read the head and the tail, with a mark between: the instruction at the start and the
#: question at the end both count, and the time is bounded.
HEAD_CHARACTERS = 6_000
TAIL_CHARACTERS = 2_000
_CUT = "\n…\n"
_ATTACHMENT_PARTS = frozenset({"input_audio", "file", "input_file", "document"})
#: What a provider reads of one image, roughly: high detail, about a thousand tokens of four characters.
IMAGE_CHARACTERS = 4_000
#: The same for audio and files, whose real size nothing but the provider knows: a page of text.
ATTACHMENT_CHARACTERS = 4_000


def read(
    messages: Sequence[Mapping[str, object]],
    *,
    n_extra_characters: int = 0,
    n_tools: int = 0,
    needs_json_schema: bool = False,
    max_output_tokens: int | None = None,
    n_choices: int = 1,
) -> Prompt:
    """Find the human request in a conversation and summarise the rest.

    Parameters
    ----------
    messages : sequence of mapping
        Each with ``role`` and ``content`` (a string, or parts with ``type`` and ``text``), oldest first.
    n_extra_characters : int
        Characters the provider will read besides the messages (tool schemas).
    n_tools, needs_json_schema, max_output_tokens, n_choices
        Copied into the shape.

    Returns
    -------
    Prompt
        Its text is the last user turn that still says something once harness elements and tool results are
        removed; else the last text of any role; else "".
    """
    n_characters = n_extra_characters
    has_images = False
    text = fallback = ""
    for message in reversed(messages):
        texts, n_images, n_others = _parts(message.get("content"))
        n_characters += sum(map(len, texts)) + n_images * IMAGE_CHARACTERS + n_others * ATTACHMENT_CHARACTERS
        n_characters += _length_of(message.get("tool_calls")) + _length_of(message.get("function_call"))
        has_images = has_images or n_images > 0
        if message.get("role") == "user" and not text:
            text = human(texts)
        fallback = fallback or "\n".join(texts)
    shape = Shape(n_characters, len(messages), n_tools, has_images, needs_json_schema, max_output_tokens, n_choices)
    return Prompt(text or fallback, shape)


def clip(text: str) -> str:
    """Return the part of a text that encoders read: all of it, or its head and its tail; idempotent."""
    if len(text) <= HEAD_CHARACTERS + TAIL_CHARACTERS:
        return text
    return text[:HEAD_CHARACTERS] + _CUT + text[-TAIL_CHARACTERS:]


def human(texts: Sequence[str]) -> str:
    """Join the blocks of one user turn without what harnesses added."""
    kept = (_without_harness(text) for text in texts)
    return "\n".join(text for text in kept if text)


def human_of(content: object) -> tuple[str, bool]:
    """Return what a human said in the content of one user turn, and whether something other than text is in it."""
    texts, n_images, n_others = _parts(content)
    return human(texts), bool(n_images or n_others)


def _parts(content: object) -> tuple[list[str], int, int]:
    """Return the texts, the number of images and the number of other attachments of one message's content."""
    if isinstance(content, str):
        return [content], 0, 0
    texts: list[str] = []
    n_images = n_others = 0
    for part in content if isinstance(content, list) else ():
        if not isinstance(part, Mapping):
            continue
        kind = part.get("type")
        if not isinstance(kind, str):
            continue
        if kind in _TEXT_PARTS and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind in _IMAGE_PARTS:
            n_images += 1
        elif kind in _ATTACHMENT_PARTS:
            n_others += 1
    return texts, n_images, n_others


def _length_of(value: object) -> int:
    """Count the characters of all strings in a JSON value: what a provider reads of calls made earlier."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_length_of, value.values()))
    return sum(map(_length_of, value)) if isinstance(value, list) else 0


def _without_harness(text: str) -> str:
    if "<" in text:
        text = _without_elements(_without_agents_file(text))
        text = _WRAPPER.sub("", text)
    if _REQUEST_MARK in text:
        text = text.rpartition(_REQUEST_MARK)[2]
    return text.strip()


def _without_agents_file(text: str) -> str:
    """Remove an AGENTS.md: one line of heading, blanks, the instructions. No pattern: blanks made one backtrack."""
    if not text.startswith(_AGENTS_FILE):
        return text
    heading, begin, rest = text.partition(_AGENTS_FILE_BEGIN)
    if not begin or "\n" in heading.rstrip():
        return text
    return rest.partition(_AGENTS_FILE_END)[2]


def _without_elements(text: str) -> str:
    """Remove every harness element, ``<tag …>…</tag>``; one never closed is the human's own and stays.

    Linear however many openings are left unclosed: a tag that closes nowhere further on is not looked for again.
    """
    kept: list[str] = []
    unclosed: set[str] = set()
    position = 0  # up to here everything is kept or removed
    opening = _OPENING.search(text)
    while opening is not None:
        tag = opening[1]
        end = -1 if tag in unclosed else text.find(f"</{tag}>", opening.end())
        if end < 0:
            unclosed.add(tag)
            opening = _OPENING.search(text, opening.end())
            continue
        kept.append(text[position : opening.start()])
        position = end + len(tag) + 3
        opening = _OPENING.search(text, position)
    return "".join((*kept, text[position:])) if position else text
