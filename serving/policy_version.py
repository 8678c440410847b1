"""The version of what decides: a digest of the settings that a decision depends on, besides bundle and pool status.

Two records with the same bundle and version were decided by the same rules, on whatever replica. Who may ask (keys)
and how answers are fetched (providers, limits of time) are no part of it; nor is the order of a file where it means
nothing. Pure. Entry point: :func:`policy_version`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass, replace

import orjson

from router import Candidate, Policy
from serving.deployment import Deployment
from serving.settings import Settings

N_DIGITS = 12


def policy_version(
    settings: Settings,
    candidates: Iterable[Candidate],
    deployments: Iterable[Deployment],
    presets: Mapping[str, Policy],
) -> str:
    """Return the version of what decides.

    Parameters
    ----------
    settings : Settings
    candidates : iterable of Candidate
        With the prices they are decided by.
    deployments : iterable of Deployment
        Of each it counts where it is and what it promises.
    presets : Mapping of str to Policy
        Of the bundle and the file.

    Returns
    -------
    str
        12 hex digits.
    """
    parts = (
        # What a translation may lose and what savings are measured against decide nothing.
        replace(settings.routing, losses="warn", reference=None),
        # Of aliases that are globs the first one counts.
        list(settings.aliases.items()),
        {name: replace(scenario, description="") for name, scenario in settings.scenarios.items()},
        settings.rules,
        presets,
        {one.name: one for one in candidates},
        {row.name: row.failover for row in settings.candidates},
        {(one.candidate, one.region, one.data_policies) for one in deployments},
    )
    return hashlib.sha256(orjson.dumps(_plain(parts), option=orjson.OPT_SORT_KEYS)).hexdigest()[:N_DIGITS]


def _plain(value: object) -> object:
    """Make a value JSON can hold, the same for equal values."""
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((_plain(item) for item in value), key=orjson.dumps)
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
