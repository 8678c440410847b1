"""Which language a prompt is written in, for rules that name ``languages``; the only importer of py3langid.

The model takes a second and 120 MB to load, so it is loaded only where some rule asks, once a process, beside the event
loop. A call takes 0.1 to 0.2 ms. The model tells 140 languages apart; with all of them short Russian reads as Bulgarian
and short Spanish as Aragonese, so it is kept to widespread ones and those that the rules name. Never to the latter
alone: Danish would be the nearest of German and French. Too short or uncertain a text has no known language.

Entry points: :func:`detector`, :func:`unknown_among`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import copy
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

#: What is read of a text; more changes nothing but the time.
MAX_CHARACTERS = 1_000
#: The least probability of the best: "Say hello." has 0.39 and is unknown, whole sentences have 0.7 and more.
LEAST_PROBABILITY = 0.55
_WIDESPREAD = (
    *("ar", "bg", "bn", "ca", "cs", "da", "de", "el", "en", "es", "et", "fa", "fi", "fr", "gu", "he", "hi", "hr", "hu"),
    *("id", "it", "ja", "kn", "ko", "lt", "lv", "ml", "mr", "ms", "nl", "no", "pl", "pt", "ro", "ru", "sk", "sl", "sq"),
    *("sr", "sv", "sw", "ta", "te", "th", "tl", "tr", "uk", "ur", "vi", "zh"),
)


def detector(named: Iterable[str]) -> Callable[[str], str | None]:
    """Make what tells the language of a text.

    Parameters
    ----------
    named : iterable of str
        ISO 639-1 codes that matter besides the widespread ones.

    Returns
    -------
    callable (text) -> str or None
        An ISO 639-1 code; None where the text is too short or could be several.

    Raises
    ------
    ValueError
        A code that the model does not know; see :func:`unknown_among`.
    """
    return _detector(frozenset((*_WIDESPREAD, *named)))


def unknown_among(codes: Iterable[str]) -> list[str]:
    """Return the codes that the model does not know."""
    known = set(_model().labels)
    return [code for code in codes if code not in known]


@lru_cache(maxsize=4)
def _detector(languages: frozenset[str]) -> Callable[[str], str | None]:
    model = copy(_model())  # shares the large tables; only the choice of languages is its own
    model.set_languages(sorted(languages))

    def language_of(text: str) -> str | None:
        language, probability = model.classify(text[:MAX_CHARACTERS])
        return language if probability >= LEAST_PROBABILITY else None

    return language_of


@lru_cache(maxsize=1)
def _model() -> LanguageIdentifier:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
