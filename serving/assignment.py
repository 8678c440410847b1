"""Who comes to which arm of an experiment: a pure function of who it is and of the experiment's salt.

So it is the same on every replica and after every restart, and nothing has to be remembered of anybody. The digest that
decides is the one that is recorded: keyed by the salt, which only the running experiment's row holds, it tells nobody
whom it stands for once the salt is forgotten. Entry points: :func:`digest_of`, :func:`place_of`, :func:`user_of`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b

N_SALT_BYTES = 32
#: Half of the digest decides; 2^-64 is as near to a share as anybody needs.
_N_DECIDING = 16
_SPAN = 2.0**64


def digest_of(salt: bytes, experiment: str, unit: Sequence[bytes]) -> str:
    """Return what is recorded of a unit.

    Parameters
    ----------
    salt : bytes
        At most 64.
    experiment : str
        Its name.
    unit : sequence of bytes
        What names the unit: what kind it is of, then its parts, which may hold anything.

    Returns
    -------
    str
        32 hexadecimal digits.
    """
    digest = blake2b(digest_size=16, key=salt)
    for part in (experiment.encode(), *unit):
        digest.update(b"%d:" % len(part))  # no two lists of parts are written alike
        digest.update(part)
    return digest.hexdigest()


def place_of(digest: str, shares: Sequence[float]) -> int:
    """Return the number of the arm that a digest comes to.

    Parameters
    ----------
    digest : str
        As :func:`digest_of` made it.
    shares : sequence of float
        Of the arms, in the order of the definition, with sum 1; changing them moves units.

    Returns
    -------
    int
        In [0, number of shares).
    """
    point = int(digest[:_N_DECIDING], 16) / _SPAN
    reached = 0.0
    for i, share in enumerate(shares):
        reached += share
        if point < reached:
            return i
    return len(shares) - 1  # the shares' sum was rounded down


def user_of(body: Mapping[str, object]) -> str | None:
    """Return whom a request says it is for, by ``user``, ``metadata.user_id`` or ``safety_identifier``, or None."""
    metadata = body.get("metadata")
    told = (
        body.get("user"),
        metadata.get("user_id") if isinstance(metadata, dict) else None,
        body.get("safety_identifier"),
    )
    return next((who for who in told if isinstance(who, str) and who), None)
