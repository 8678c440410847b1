r"""Where an answer says its result: after ``####``, in ``\boxed{…}``, or after the last "answer:" or "answer is"."""

from __future__ import annotations

import re

_SAID = re.compile(r"(?:####|\banswer\s*(?:is\s*:?|:|=))[ \t*_`\"']*([^\n]+)", re.IGNORECASE)
_BOXED = re.compile(r"\\boxed\s*\{")
_BRACE = re.compile(r"[{}]")
#: Of a longer answer the end is read: results stand there, and the time for it is bounded.
MAX_CHARACTERS = 20_000


def final_answer(text: str) -> str | None:
    """Return what an answer marks as its result.

    Parameters
    ----------
    text : str
        The whole answer.

    Returns
    -------
    str or None
        The last that is marked, without emphasis around it; None where nothing is marked.
    """
    text = text[-MAX_CHARACTERS:]
    boxed = _boxed(text)
    said = [(match.start(), match[1]) for match in _SAID.finditer(text)]
    found = max([*boxed, *said], default=None)
    if found is None:
        return None
    return found[1].strip().strip("*_`\"'").strip()


def _boxed(text: str) -> list[tuple[int, str]]:
    """Return the last box that is closed, where it begins and what is in it; in one pass, boxes in boxes or not."""
    begins = {match.end() - 1: match.start() for match in _BOXED.finditer(text)}
    waiting: list[int] = []
    last: tuple[int, int] | None = None
    for brace in _BRACE.finditer(text):
        if brace[0] == "{":
            waiting.append(brace.start())
        elif waiting and (opened := waiting.pop()) in begins:
            last = max(last or (opened, 0), (opened, brace.start()))
    return [] if last is None else [(begins[last[0]], text[last[0] + 1 : last[1]])]
