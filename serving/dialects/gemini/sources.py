"""Where words of an answer come from: ``groundingMetadata`` ⇄ citations.

Gemini counts offsets in bytes of one part; citations count characters. Entry points: :func:`read_sources`,
:func:`write_sources`, :func:`in_characters`, :func:`in_bytes`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from serving.dialects.answer import Citation

Json: TypeAlias = dict[str, object]


def read_sources(candidate: Mapping[str, object]) -> list[tuple[int | None, Citation]]:
    """Read the web pages a candidate names.

    Parameters
    ----------
    candidate : Mapping

    Returns
    -------
    list of (int or None, Citation)
        The index of the part it is a source of (None where the provider does not say), and the source, its offsets in
        bytes.
    """
    metadata = candidate.get("groundingMetadata")
    if not isinstance(metadata, dict):
        return []
    chunks, supports = metadata.get("groundingChunks"), metadata.get("groundingSupports")
    pages = [_page(chunk) for chunk in chunks] if isinstance(chunks, list) else []
    found: list[tuple[int | None, Citation]] = []
    for support in supports if isinstance(supports, list) else ():
        segment = support.get("segment") if isinstance(support, dict) else None
        indices = support.get("groundingChunkIndices") if isinstance(support, dict) else None
        if not isinstance(segment, dict) or not isinstance(indices, list):
            continue
        part, start, end = (_count(segment, key) for key in ("partIndex", "startIndex", "endIndex"))
        for i in indices:
            page = pages[i] if isinstance(i, int) and 0 <= i < len(pages) else None
            if page is not None:
                found.append((part or 0, Citation(page.url, page.title, (start or 0) if end else None, end)))
    return found or [(None, page) for page in pages if page is not None]


def write_sources(sources: Sequence[tuple[int, Citation]]) -> Json:
    """Write ``groundingMetadata``: index of a part, and a source of it, its offsets in bytes."""
    chunks: list[Json] = []
    supports: list[Json] = []
    for i, (part, citation) in enumerate(sources):
        titled: Json = {} if citation.title is None else {"title": citation.title}
        chunks.append({"web": {"uri": citation.url, **titled}})
        segment: Json = {"partIndex": part}
        if citation.end is not None:
            segment |= {"startIndex": citation.start or 0, "endIndex": citation.end}
        supports.append({"segment": segment, "groundingChunkIndices": [i]})
    return {"groundingChunks": chunks, "groundingSupports": supports}


def in_characters(citation: Citation, text: str) -> Citation:
    """Turn offsets in bytes, as Gemini counts, into offsets in characters."""
    if citation.end is None:
        return citation
    words = text.encode()
    start, end = (len(words[:at].decode(errors="ignore")) for at in (citation.start or 0, citation.end))
    return Citation(citation.url, citation.title, start, end)


def in_bytes(citation: Citation, text: str) -> Citation:
    """Turn offsets in characters into offsets in bytes, as Gemini counts."""
    if citation.end is None:
        return citation
    start, end = (len(text[:at].encode()) for at in (citation.start or 0, citation.end))
    return Citation(citation.url, citation.title, start, end)


def _page(chunk: object) -> Citation | None:
    web = chunk.get("web") if isinstance(chunk, dict) else None
    if not isinstance(web, dict) or not isinstance(url := web.get("uri"), str) or not url:
        return None
    title = web.get("title")
    return Citation(url, title if isinstance(title, str) else None)


def _count(segment: Mapping[str, object], key: str) -> int | None:
    value = segment.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
