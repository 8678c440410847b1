"""The errors of the router, one tree.

::

    RouterError
      x BundleError               the artefact cannot be trusted; the last good one stays
        + BundleMissing           no folder, no manifest, or a file it names is absent
        + BundleCorrupt           a hash, a size, a dimension or a weight is not what it must be
        + BundleSchemaUnknown     written by a newer or foreign program
        + BundleUnsafe            symlink, external data, custom operator, pickle, oversize
        + ParityFailed            the self-test gives other numbers than at export
      x NoEligibleCandidate       every candidate was filtered out; says by what
      x UnknownCandidate          a name that neither pool nor bundle knows
      x InvalidPolicy             a policy that cannot be: its kind or value
      x InvalidInference          a question to statistics that cannot be: its level, shares or counts
"""

from __future__ import annotations

from collections.abc import Mapping


class RouterError(Exception):
    """Anything the router refuses to do."""


class BundleError(RouterError):
    """A bundle that cannot be loaded or written."""


class BundleMissing(BundleError):
    """The folder, its manifest or a file the manifest names is absent."""


class BundleCorrupt(BundleError):
    """A hash, size, dimension or weight differs from what it must be."""


class BundleSchemaUnknown(BundleError):
    """The manifest follows a schema this version cannot read."""


class BundleUnsafe(BundleError):
    """The folder holds something a bundle may never hold."""


class ParityFailed(BundleError):
    """The loaded predictors do not reproduce the numbers stored at export."""


class UnknownCandidate(RouterError):
    """A candidate name that neither the pool nor the bundle knows."""


class InvalidPolicy(RouterError):
    """A policy whose kind or value cannot be."""


class InvalidInference(RouterError):
    """A question to statistics that cannot be: its level, shares, counts or data."""


class NoEligibleCandidate(RouterError):
    """Every candidate was filtered out before or after prediction.

    Parameters
    ----------
    excluded : Mapping[str, str]
        Candidate name to the filter that removed it.
    """

    def __init__(self, excluded: Mapping[str, str]) -> None:
        self.excluded = dict(excluded)
        reasons = "; ".join(f"{name}: {why}" for name, why in excluded.items()) or "the pool is empty"
        super().__init__(f"no eligible candidate ({reasons})")
