"""The one form of a text that encoders read, whatever it came wrapped in.

A client that quotes a question, wraps it in JSON, ends its lines with carriage returns or writes ``(a)`` for ``A.``
asks the same question; without this a third of the decisions changed (benchmarks/robustness.py). Only what scoring
reads is rewritten, never what a provider is sent. Entry point: :func:`canonical`.
"""

from __future__ import annotations

import json
import re

_LEAST_OPTIONS = 2
_LONGEST_WRAPPED = 1 << 20  # characters; JSON beyond this is data, not a wrapped question
_MOST_FIELDS = 8
_QUOTED = re.compile(r"^[ \t]*>[ \t]?", re.MULTILINE)
# Begins with the space, not with what stands before it, so that the search goes from space to space.
_SPACES = re.compile(r"[ \t](?<=\S[ \t])[ \t]+(?=\S)")
#: ``A.``, ``(A)``, ``[a]``, ``a)``, ``**A:**`` and their like at the start of a line.
_OPTION = re.compile(r"^[ \t]*(?:[-*][ \t]+)?\*{0,2}[(\[]?([A-Ja-j])[)\].:]{1,2}\*{0,2}[ \t]+(?=\S)", re.MULTILINE)
#: Without one of these there is no second option.
_SECOND_MARKS = tuple(letter + end for letter in "Bb" for end in ")].:")


def canonical(text: str) -> str:
    """Unwrap a text and write its marks one way.

    In this order: a JSON object or string gives way to the texts in it; carriage returns, a byte order mark, spaces at
    line ends and doubled spaces within a line go (indentation stays: it is code); a text quoted line by line loses its
    ``>``; the marks of a multiple-choice question's options become ``A.``, ``B.`` and so on.

    Parameters
    ----------
    text : str

    Returns
    -------
    str
        Canonical text comes back as it is.
    """
    text = _unwrapped(text)
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = text.lstrip("\ufeff")
    if text.lstrip()[:1] == ">" and all(line.lstrip()[:1] in (">", "") for line in text.split("\n")):
        text = _QUOTED.sub("", text)
    if " \n" in text or "\t\n" in text or text[-1:] in (" ", "\t"):
        text = "\n".join([line.rstrip(" \t") for line in text.split("\n")])
    if "  " in text or "\t" in text:
        text = _SPACES.sub(" ", text)
    return _with_plain_options(text)


def _unwrapped(text: str) -> str:
    """Return the strings of a JSON object whose values are all plain, or a JSON string; else the text."""
    bare = text.strip()
    if not ((bare[:1] == "{" and bare[-1:] == "}") or (len(bare) > 1 and bare[0] == bare[-1] == '"')):
        return text
    if len(bare) > _LONGEST_WRAPPED:
        return text
    try:
        value = json.loads(bare)
    except (ValueError, RecursionError):
        return text
    if isinstance(value, str):
        return value
    if len(value) > _MOST_FIELDS or any(isinstance(part, dict | list) for part in value.values()):
        return text
    return "\n".join(part for part in value.values() if isinstance(part, str)) or text


def _with_plain_options(text: str) -> str:
    """Write option marks one way, where they follow one another from A on."""
    # Hardly any text has these, and looking at every line costs ten times as much.
    if not any(mark in text for mark in _SECOND_MARKS):
        return text
    found = list(_OPTION.finditer(text))
    letters = [match[1].upper() for match in found]
    if len(found) < _LEAST_OPTIONS or "A" not in letters or "B" not in letters:
        return text
    return _OPTION.sub(lambda match: f"{match[1].upper()}. ", text)
