"""Certify a finished bundle on labelled rows: what ``turnout certify`` does.

The bundle stays as it is but for its manifest, which gains the certificate and its preset, and its card. Entry point:
:func:`promise`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np

from router.bundle import load, write
from router.certificate import Certificate
from routing_data import OutcomeTable
from training.certify import Goal, certify
from training.errors import NotEnoughData
from training.measure import best_single, rows_of, usable


def promise(directory: Path, table: OutcomeTable, goal: Goal) -> tuple[Certificate, str]:
    """Certify and write the certificate into the bundle.

    Parameters
    ----------
    directory : Path
        The bundle.
    table : OutcomeTable
        Of data the bundle was trained on, the rows held out are used.
    goal : Goal

    Returns
    -------
    certificate : Certificate
    rows : str
        Which rows were used, in words.

    Raises
    ------
    NotEnoughData
        No usable row, or fewer than two candidates.
    router.errors.BundleError
        The bundle cannot be loaded.
    """
    bundle = load(directory)
    table, used, _ = usable(bundle, table)
    rows = rows_of(bundle, table)
    measured = cast(list[str], bundle.manifest.metrics.get("points_of") or list(bundle.manifest.names))
    pool = np.flatnonzero([name in measured for name in rows.candidates])
    rows = rows.columns(pool)
    if len(pool) < 2 or not rows.complete.any():
        raise NotEnoughData("no row has quality and cost of at least two candidates of the bundle's pool")
    price = {column.name: column.reference_price for column in bundle.manifest.candidates}
    certificate, policy = certify(rows, goal, best_single(bundle, rows), [price[name] for name in rows.candidates])

    manifest = bundle.manifest
    others = [c.to_json() for preset, c in manifest.certificates.items() if preset != certificate.preset]
    document: Mapping[str, object] = {"certificates": [*others, certificate.to_json()]}
    manifest = replace(manifest, presets={**manifest.presets, certificate.preset: policy}, certificate=document)
    files = {name: (directory / name).read_bytes() for name in manifest.files}
    write(directory, manifest, files, overwrite=True)
    return certificate, used
