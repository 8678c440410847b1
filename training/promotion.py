"""Who becomes champion: the rule, whatever store keeps the versions.

A version is promoted if every one of its gates passed against the very champion it is to replace, and its bundle loads,
byte for byte the one that was judged; whatever else needs a reason in words. Who changed what, when and why is noted
before anything moves.
Entry points: :func:`promote`, :func:`rollback`, :func:`objection`.
"""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path

from router.errors import BundleError
from training.errors import NoSuchVersion, PromotionRefused
from training.gate_results import Verdict
from training.versions import CHALLENGER, CHAMPION, PREVIOUS, Change, Identity, Store, Version, check_identity


def promote(
    store: Store, wanted: str = CHALLENGER, *, approved_by: str, is_auto: bool = False, force: str | None = None
) -> Change:
    """Make a version the champion.

    Parameters
    ----------
    store : Store
    wanted : str, default='challenger'
        Alias or number.
    approved_by : str
        Who answers for it.
    is_auto : bool, default=False
        Nobody was asked; then every gate must have passed.
    force : str or None
        Why a gate that failed, was never judged, or was judged against another champion shall not count.

    Returns
    -------
    Change

    Raises
    ------
    PromotionRefused
        A gate failed, none was judged, they were judged against another champion, or it is the champion already.
    BundleError
        The bundle does not load.
    TrainingError
        The store fails, or holds other bytes than were judged.
    """
    version, aliases = store.version(wanted), store.aliases()
    if aliases.get(CHAMPION) == version.number:
        raise PromotionRefused(f"version {version.number} ({version.identity.bundle}) is the champion already")
    former = aliases.get(CHAMPION)
    verdict, before = store.verdict(version), _standing(store, former)
    if (problem := _objection(version, verdict, before)) and (is_auto or not force):
        raise PromotionRefused(problem)
    verify(store, version)
    change = Change(
        time=_now(),
        action="promote",
        version=version.number,
        bundle=version.identity.bundle,
        former=former,
        by=approved_by,
        is_auto=is_auto,
        reason=force,
        failed_gates=tuple(gate.name for gate in verdict.failed),
        is_stale=_staleness(version, verdict, before) is not None,
    )
    store.note(change)
    store.point(PREVIOUS, before)
    store.point(CHAMPION, version)
    if aliases.get(CHALLENGER) == version.number:
        store.point(CHALLENGER, None)
    return change


def rollback(store: Store, *, by: str, reason: str | None = None) -> Change:
    """Make the previous champion champion again; once, since then there is no previous one.

    Parameters
    ----------
    store : Store
    by : str
        Who does it.
    reason : str or None

    Returns
    -------
    Change

    Raises
    ------
    PromotionRefused
        There is no champion or no previous one.
    BundleError, TrainingError
        As :func:`promote`.
    """
    aliases = store.aliases()
    champion, previous = aliases.get(CHAMPION), aliases.get(PREVIOUS)
    # They are the same where a promotion was cut short between its two moves.
    if champion is None or previous is None or champion == previous:
        last = next(iter(store.history()[::-1]), None)
        was = f"; the last change was a {last.action} to {last.version} by {last.by} at {last.time}" if last else ""
        raise PromotionRefused(
            f"{store.where} has no previous champion to go back to{was}. Another version: turnout promote --version"
        )
    version = store.version(previous)
    verify(store, version)
    change = Change(
        time=_now(),
        action="rollback",
        version=version.number,
        bundle=version.identity.bundle,
        former=champion,
        by=by,
        reason=reason,
    )
    store.note(change)
    store.point(CHAMPION, version)
    store.point(PREVIOUS, None)
    return change


def objection(store: Store, version: Version) -> str | None:
    """Say what speaks against promoting a version today; None is nothing.

    Parameters
    ----------
    store : Store
    version : Version

    Returns
    -------
    str or None
    """
    return _objection(version, store.verdict(version), _standing(store, store.aliases().get(CHAMPION)))


def verify(store: Store, version: Version) -> None:
    """Fetch a version's bundle and load it; raises BundleError, or StoreDamaged where it is not the one judged."""
    with tempfile.TemporaryDirectory(prefix="turnout-") as scratch:
        folder = Path(scratch) / "bundle"
        store.fetch(version, folder)
        check_identity(folder, version)


def _objection(version: Version, verdict: Verdict, champion: Version | None) -> str | None:
    if verdict.failed:
        reasons = "; ".join(f"{gate.name}: {gate.reason or 'failed'}" for gate in verdict.failed)
        return f"{version.identity.bundle} failed {len(verdict.failed)} of {len(verdict.gates)} gates: {reasons}"
    if not verdict.gates:
        return f"no gate was judged for {version.identity.bundle}"
    return _staleness(version, verdict, champion)


def _staleness(version: Version, verdict: Verdict, champion: Version | None) -> str | None:
    """Say if gates were judged against another champion than this; where there is none, nobody is replaced."""
    if champion is None or not verdict.gates:
        return None
    own, now, against = version.identity.bundle, champion.identity, verdict.opponent
    if against is None:
        was = f"the gates of {own} do not say against which champion they were judged, and {now.bundle} is champion"
    elif Identity(against.bundle, against.manifest_sha256) != now:
        digests = f" (manifest {against.manifest_sha256[:12]}, now {now.manifest_sha256[:12]})"
        same_name = digests if against.bundle == now.bundle else ""
        was = f"{own} was judged against {against.bundle}, and {now.bundle} is champion now{same_name}"
    else:
        return None
    return f"{was}: judge it again with 'turnout gates', or retrain"


def _standing(store: Store, number: str | None) -> Version | None:
    """Return the version of a number; None where it is gone or damaged, so that a broken champion can be replaced."""
    try:
        return None if number is None else store.version(number)
    except (BundleError, NoSuchVersion):
        return None


def _now() -> str:
    # MLflow takes no plus sign in a key.
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
