"""The challenger: a second bundle over the same pool, which decides in the shadow of the champion.

Loaded with every check of the champion's. Whatever is wrong with it is logged and never keeps the champion from
serving; as long as a bad one lies there the last good one stays. Entry points: :class:`Challenger`,
:func:`challenger_of`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from router import Bundle, Candidate, Router
from router.bundle import load
from router.errors import RouterError
from serving import logs
from serving.bundle_folder import Fingerprint, bundle_folder, fingerprint, resolved
from serving.settings import Settings

#: Said where nothing lies in the directory of the settings: the rule, between promotions.
ABSENT = "there is no challenger"


@dataclass(frozen=True, slots=True)
class Challenger:
    """What is known of the directory that ``shadow.bundle`` names.

    Parameters
    ----------
    router : Router or None
        Of the last good bundle; None where there is none to be asked.
    fingerprint : tuple
        Of the directory when it was looked at.
    problem : str or None
        What is wrong with what lies there.
    """

    router: Router | None
    fingerprint: Fingerprint
    problem: str | None = None

    @property
    def bundle_id(self) -> str | None:
        """Return ``name@version``; None where there is none."""
        return None if self.router is None else self.router.bundle.manifest.id


def challenger_of(
    settings: Settings, candidates: Iterable[Candidate], champion: Bundle, before: Challenger | None = None
) -> Challenger | None:
    """Load the challenger of some settings.

    Parameters
    ----------
    settings : Settings
    candidates : iterable of Candidate
        The champion's pool, at its prices.
    champion : Bundle
        A challenger that is the same has nothing to say.
    before : Challenger or None
        Its bundle is taken over where the directory is as it was, and stays where a worse one came.

    Returns
    -------
    Challenger or None
        None where the settings name none.
    """
    directory = settings.shadow_directory()
    if directory is None:
        return None
    pool = tuple(candidates)
    before = before or Challenger(None, ())
    former = None if before.router is None else before.router.bundle
    seen: Fingerprint = ()
    try:
        folder = resolved(directory)
        seen = fingerprint(folder)
        if not seen and not folder.exists():
            return Challenger(None, seen, ABSENT)
        is_same = bool(seen) and before.fingerprint == seen
        bundle = former if is_same and former is not None else load(bundle_folder(folder))
        if bundle.manifest == champion.manifest:
            return Challenger(None, seen, "it is the champion")
        found = Challenger(Router(bundle, pool, settings.policies()), seen, before.problem if is_same else None)
    except (RouterError, OSError) as error:
        problem = str(error)
        logs.event(
            "shadow_refused",
            {"error": type(error).__name__, "problem": problem, "bundle": before.bundle_id},
            level="warning",
        )
        return Challenger(_router_of(former, pool, settings), seen, problem)
    if not is_same:
        logs.event("shadow_loaded", {"bundle": found.bundle_id})
    return found


def _router_of(bundle: Bundle | None, pool: tuple[Candidate, ...], settings: Settings) -> Router | None:
    """Return the router of the last good bundle, where it fits the present pool."""
    try:
        return None if bundle is None else Router(bundle, pool, settings.policies())
    except RouterError:
        return None
