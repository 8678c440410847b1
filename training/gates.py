"""The gates a challenger must pass before it may serve; each is a row of :data:`GATES`.

Two kinds of rule, since a holdout is finite. On the whole the challenger must be *shown to be not worse*: the upper
end of the interval of its loss stays below the bound. By slice, candidate and preset, where rows are few, it must *not
be shown to be worse*: it is refused when the lower end exceeds the bound, at a confidence that holds for all slices
together, so that an honest challenger passes however many there are, and a damaged slice is caught as soon as its rows
can tell. The confidence is spent where the two bundles differ (:func:`training.difference.shares`), and a slice is
asked twice: of the error as such, and of that of the differences between candidates, which routing lives on. Entry
point: :func:`judge`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import isfinite

import numpy as np

from router.bundle import Bundle
from training.contest import Contest
from training.difference import shares
from training.gate_results import GateResult
from training.retrain_settings import GateSettings

Gate = Callable[[Contest, GateSettings], Iterator[GateResult]]


def judge(contest: Contest, settings: GateSettings) -> tuple[GateResult, ...]:
    """Put a challenger through every gate.

    Parameters
    ----------
    contest : Contest
    settings : GateSettings

    Returns
    -------
    tuple of GateResult
        ``reason`` says what was found, whether it passed or not.
    """
    return tuple(result for gate in GATES for result in gate(contest, settings))


def _holdout(contest: Contest, settings: GateSettings) -> Iterator[GateResult]:
    n = len(contest.old.tasks)
    yield _at_least("holdout", n, settings.min_prompts, f"{n:,} prompts held out")
    found = contest.overlap
    yield _at_most("holdout repeated", found.n_same, 0, f"{found.n_same:,} held-out prompts are also taught")
    share = found.n_near / max(found.n_holdout, 1)
    yield _at_most("holdout nearly repeated", share, settings.near_share, f"{found.n_near:,} are nearly taught")


def _known_names(contest: Contest, settings: GateSettings) -> Iterator[GateResult]:
    missing = contest.missing
    lost = f"the challenger does not know {', '.join(missing)}" if missing else "it knows every candidate"
    yield _at_most("candidates", len(missing), 0, lost)
    gone = contest.missing_presets
    lost = f"the challenger has no preset {', '.join(gone)}" if gone else "it has every preset"
    yield _at_most("presets", len(gone), 0, lost)


def _loss(contest: Contest, settings: GateSettings) -> Iterator[GateResult]:
    found = contest.loss(contest.rows_in(None))
    words = f"squared error {found.value:+.4f}, at most {found.high:+.4f}, over {found.n_groups:,} groups"
    # Not to know is not to have shown.
    high = found.high if isfinite(found.high) else float("inf")
    yield GateResult("loss", high <= settings.loss, high, settings.loss, words)


def _loss_by_slice(contest: Contest, settings: GateSettings) -> Iterator[GateResult]:
    parts = {name: contest.rows_in(name) for name in contest.slice_names}
    moved = [(contest.moved(kept), contest.moved_order(kept)) for kept in parts.values()]
    each = shares([value for pair in moved for value in pair])
    for (name, kept), of_level, of_order in zip(parts.items(), each[::2], each[1::2], strict=True):
        level, order = contest.loss(kept, share=of_level), contest.order(kept, of_order)
        words = (
            f"squared error {level.value:+.4f}, at least {level.low:+.4f}; of candidates' differences "
            f"{order.value:+.4f}, at least {order.low:+.4f}; {level.n_groups:,} groups"
        )
        low = max((found.low for found in (level, order) if isfinite(found.low)), default=float("nan"))
        yield _not_shown(f"loss in {name}", low, settings.slice_loss, words)


def _loss_by_candidate(contest: Contest, settings: GateSettings) -> Iterator[GateResult]:
    every = contest.rows_in(None)
    each = shares([contest.moved(every, column) for column in range(len(contest.old.candidates))])
    for column, name in enumerate(contest.old.candidates):
        found = contest.loss(every, column, each[column])
        words = f"squared error {found.value:+.4f}, at least {found.low:+.4f}, over {found.n_groups:,} groups"
        yield _not_shown(f"loss of {name}", found.low, settings.candidate_loss, words)


def _utility(contest: Contest, settings: GateSettings) -> Iterator[GateResult]:
    presets, every = contest.presets(), contest.rows_in(None)
    if not contest.compares:
        for preset in presets:
            found = contest.voted_utility_loss(preset, 1 / len(presets))
            words = f"quality {0 - found.value:+.4f} net of cost, at most {0 - found.low:+.4f}, by votes"
            if not isfinite(found.low):
                words = "not measured: too few held-out answers that these presets would have chosen"
            yield _not_shown(f"utility at {preset}", found.low, settings.utility, words)
        return
    parts = {name: contest.rows_in(name) for name in contest.slice_names}
    of_preset = shares([contest.n_moved(preset, every) for preset in presets])
    of_slice = shares([contest.n_moved(preset, kept) for preset in presets for kept in parts.values()])
    for i, preset in enumerate(presets):
        found = contest.utility_loss(preset, every, of_preset[i])
        words = f"quality {0 - found.value:+.4f} net of cost, at most {0 - found.low:+.4f}, {found.n_groups:,} groups"
        yield _not_shown(f"utility at {preset}", found.low, settings.utility, words)
        own = of_slice[i * len(parts) : (i + 1) * len(parts)]
        each = [
            (contest.utility_loss(preset, kept, share), name)
            for (name, kept), share in zip(parts.items(), own, strict=True)
        ]
        if each:
            found, name = max(each, key=lambda one: one[0].low if isfinite(one[0].low) else -np.inf)
            words = f"{name}: {0 - found.value:+.4f}, at most {0 - found.low:+.4f}, {found.n_groups:,} groups"
            yield _not_shown(f"utility at {preset}, worst slice", found.low, settings.slice_utility, words)


def _calibration(contest: Contest, settings: GateSettings) -> Iterator[GateResult]:
    (old, _), (new, floor) = contest.ece(contest.old), contest.ece(contest.new)
    bound = max(old, floor) + settings.ece
    words = f"calibration error {new:.3f}; champion {old:.3f}, calibrated {floor:.3f}"
    yield _at_most("calibration", new, bound, words)


def _certificates(contest: Contest, settings: GateSettings) -> Iterator[GateResult]:
    theirs = contest.challenger.manifest.certificates
    for preset, certificate in contest.champion.manifest.certificates.items():
        if certificate.abstained:
            continue
        own = theirs.get(preset)
        if own is None or own.abstained:
            words = f"the champion's promise ({certificate.sentence()}) could not be certified again"
        elif own.goal != certificate.goal or _weaker(own.level, certificate.level, certificate.goal):
            words = f"promises {own.goal} {own.level:g}; the champion {certificate.goal} {certificate.level:g}"
        elif own.confidence < certificate.confidence:
            words = f"confidence {own.confidence:g}; the champion {certificate.confidence:g}"
        elif not _as_good(contest, own.anchor, certificate.anchor, settings.utility):
            words = f"promises against {own.anchor}, not known to be as good as {certificate.anchor}, the champion's"
        else:
            yield GateResult(f"certificate {preset}", True, own.level, certificate.level, own.sentence())
            continue
        yield GateResult(
            f"certificate {preset}",
            not settings.certificates,
            None if own is None else own.level,
            certificate.level,
            words,
        )


def _as_good(contest: Contest, anchor: str, other: str, bound: float) -> bool:
    """Say whether an anchor is not shown to be worse than another: a promise against a poor one promises little."""
    if anchor == other:
        return True
    lost = contest.quality_lost(anchor, other)
    return lost is not None and lost.low <= bound


def _weaker(own: float, other: float, goal: str) -> bool:
    return own > other if goal == "fall_below" else own < other


def _speed_and_size(contest: Contest, settings: GateSettings) -> Iterator[GateResult]:
    ratio = contest.time_ratio
    yield _at_most("decision time", ratio, settings.latency, f"{ratio:.2f} times the champion's")
    own, other = (_n_bytes(bundle) / 1e6 for bundle in (contest.challenger, contest.champion))
    bound = max(settings.size * other, settings.size_mb)
    yield _at_most("size", own, bound, f"{own:.1f} MB; champion {other:.1f} MB")


def _n_bytes(bundle: Bundle) -> int:
    return sum(entry.n_bytes for entry in bundle.manifest.files.values())


GATES: tuple[Gate, ...] = (
    _holdout,
    _known_names,
    _loss,
    _loss_by_slice,
    _loss_by_candidate,
    _utility,
    _calibration,
    _certificates,
    _speed_and_size,
)
"""In the order of the table; each yields one row or several."""


def _at_most(name: str, measured: float, bound: float, words: str) -> GateResult:
    return GateResult(name, bool(measured <= bound), float(measured), float(bound), words)


def _at_least(name: str, measured: float, bound: float, words: str) -> GateResult:
    return GateResult(name, bool(measured >= bound), float(measured), float(bound), words)


def _not_shown(name: str, low: float, bound: float, words: str) -> GateResult:
    """Refuse where even the lower end of the interval exceeds the bound; too few rows for an interval show nothing."""
    return GateResult(
        name, not (np.isfinite(low) and low > bound), float(low) if np.isfinite(low) else None, bound, words
    )
