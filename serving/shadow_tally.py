"""What came of deciding in the shadow: how often the challenger agrees, and what it would save by its own predictions.

Both choices are priced by the challenger's predictions, the champion's too: compared between two bundles, a difference
in predicted tokens would look like a saving. Bounds hold at every look (confidence sequences,
:mod:`router.sequences`), each request counting by itself. Entry points: :class:`ShadowTally`, :class:`ShadowStatus`.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from math import isfinite

from router.sequences import LEAST_UNITS, TUNED_FOR_REQUESTS, half_width

#: One minus the confidence of the bounds.
ALPHA = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowStatus:
    """How a challenger does beside the champion, since both were loaded; of this process.

    Parameters
    ----------
    bundle, champion : str or None
        ``name@version``; None where there is no challenger to be asked.
    problem : str or None
        What is wrong with the challenger's directory.
    share : float
    n : int
        Decisions that both made.
    n_dropped, n_late, n_failed : int
        Those that the challenger was too busy for, those whose request was over before it came to them, and those that
        it could not make.
    agreement, agreement_low, agreement_high : float or None
        Share of decisions with the same choice, and its bounds at 95 %; None before there are enough.
    saving, saving_low, saving_high : float or None
        Part of the predicted cost that the challenger's choices would save (0.1 is 10 % less), and its bounds.
    quality_change : float or None
        Mean difference of predicted quality, the challenger's choice minus the champion's.
    """

    bundle: str | None
    champion: str
    problem: str | None = None
    share: float = 1.0
    n: int = 0
    n_dropped: int = 0
    n_late: int = 0
    n_failed: int = 0
    agreement: float | None = None
    agreement_low: float | None = None
    agreement_high: float | None = None
    saving: float | None = None
    saving_low: float | None = None
    saving_high: float | None = None
    quality_change: float | None = None


class ShadowTally:
    """Sums over the decisions of one pair of bundles; one thread adds, others read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.n_dropped = self._n_late = self._n_failed = 0
        self._n = self._n_agreed = self._n_priced = 0
        self._own_usd = self._saved_usd = self._quality = 0.0
        self._own_squares = self._saved_squares = self._products = 0.0

    def add(self, agrees: bool, own_usd: float, usd: float, quality_change: float) -> None:
        """Count one decision.

        Parameters
        ----------
        agrees : bool
        own_usd, usd : float
            Expected cost of the champion's choice and of the challenger's, both as the challenger predicts; NaN where
            unknown.
        quality_change : float
            Likewise.
        """
        with self._lock:
            self._n += 1
            self._n_agreed += agrees
            if isfinite(own_usd) and isfinite(usd) and isfinite(quality_change):
                saved_usd = own_usd - usd
                self._n_priced += 1
                self._own_usd += own_usd
                self._saved_usd += saved_usd
                self._quality += quality_change
                self._own_squares += own_usd * own_usd
                self._saved_squares += saved_usd * saved_usd
                self._products += own_usd * saved_usd

    def fail(self) -> None:
        """Count one decision that the challenger could not make."""
        with self._lock:
            self._n_failed += 1

    def miss(self) -> None:
        """Count one decision whose request was over before the challenger came to it."""
        with self._lock:
            self._n_late += 1

    def status(self, bundle: str | None, champion: str, problem: str | None, share: float) -> ShadowStatus:
        """Return what is known by now."""
        with self._lock:
            agreement = _bounded(*self._agreement(), self._n, least=0.0)
            saving = _bounded(*self._saving(), self._n_priced)
            return ShadowStatus(
                bundle=bundle,
                champion=champion,
                problem=problem,
                share=share,
                n=self._n,
                n_dropped=self.n_dropped,
                n_late=self._n_late,
                n_failed=self._n_failed,
                agreement=agreement[0],
                agreement_low=agreement[1],
                agreement_high=agreement[2],
                saving=saving[0],
                saving_low=saving[1],
                saving_high=saving[2],
                quality_change=self._quality / self._n_priced if self._n_priced else None,
            )

    def _agreement(self) -> tuple[float | None, float]:
        """Return the share and its variance; two more of either kind keep that above 0 (Agresti & Coull 1998)."""
        if not self._n:
            return None, 0.0
        guess = (self._n_agreed + 2) / (self._n + 4)
        return self._n_agreed / self._n, guess * (1 - guess) / self._n

    def _saving(self) -> tuple[float | None, float]:
        """Return Σ saved / Σ own cost, and its variance by the delta method: Σ (saved − ratio · own)² / (Σ own)²."""
        if not self._own_usd > 0:
            return None, 0.0
        ratio = self._saved_usd / self._own_usd
        squares = self._saved_squares - 2 * ratio * self._products + ratio * ratio * self._own_squares
        return ratio, max(squares, 0.0) / self._own_usd**2


def _bounded(
    value: float | None, variance: float, n: int, least: float | None = None
) -> tuple[float | None, float | None, float | None]:
    """Return an estimate with its bounds; without bounds while there are too few decisions."""
    if value is None or n < LEAST_UNITS:
        return value, None, None
    width = float(half_width(variance, float(n), ALPHA, TUNED_FOR_REQUESTS))
    if not width > 0:  # nothing has varied yet, which bounds nothing
        return value, None, None
    low, high = value - width, min(value + width, 1.0)
    return value, low if least is None else max(low, least), high
