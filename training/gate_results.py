"""What gates found of one bundle, as a file bound to the bytes they judged.

Entry points: :class:`Verdict`, :func:`results_of`, :func:`write_gates`, :func:`read_gates`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from math import isfinite

from training.errors import StoreDamaged

GATES_FILE = "gates.json"


@dataclass(frozen=True, slots=True)
class GateResult:
    """What one gate found.

    Parameters
    ----------
    name : str
    is_passed : bool
    measured, bound : float or None
        In the gate's own unit; None where it has none.
    reason : str
        In words.
    """

    name: str
    is_passed: bool
    measured: float | None = None
    bound: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Opponent:
    """Against whom, and on what, a bundle was judged.

    Parameters
    ----------
    bundle : str
        The champion of that time, ``name@version``.
    manifest_sha256 : str
        Of its manifest.
    holdout_sha256 : str
        Of the held-out rows; see :class:`training.contest.Contest`.
    """

    bundle: str
    manifest_sha256: str
    holdout_sha256: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What all gates found of one bundle, and against whom; no gates where none was judged.

    Parameters
    ----------
    gates : tuple of GateResult
    opponent : Opponent or None
        None where the gates do not say.
    """

    gates: tuple[GateResult, ...] = ()
    opponent: Opponent | None = None

    @property
    def failed(self) -> tuple[GateResult, ...]:
        """The gates that were not passed."""
        return tuple(gate for gate in self.gates if not gate.is_passed)


def write_gates(bundle: str, manifest_sha256: str, verdict: Verdict) -> bytes:
    """Write what gates found.

    Parameters
    ----------
    bundle : str
        ``name@version``.
    manifest_sha256 : str
        Of its manifest, which names the hashes of all its files.
    verdict : Verdict

    Returns
    -------
    bytes
    """
    document = {"bundle": bundle, "manifest_sha256": manifest_sha256, **asdict(verdict)}
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()


def read_gates(data: bytes, bundle: str, manifest_sha256: str) -> Verdict:
    """Read what :func:`write_gates` wrote.

    Raises
    ------
    StoreDamaged
        It cannot be read, or it judged other bytes than these.
    """
    try:
        document = json.loads(data)
        rows, about = list(document["gates"]), (document["bundle"], document["manifest_sha256"])
        told = document.get("opponent")
        opponent = None if told is None else Opponent(**{name: str(value) for name, value in told.items()})
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise StoreDamaged(
            f"{GATES_FILE} of {bundle} cannot be read: expected bundle, manifest_sha256, opponent, gates"
        ) from exc
    if about != (bundle, manifest_sha256):
        raise StoreDamaged(
            f"{GATES_FILE} judged {about[0]} with manifest {str(about[1])[:12]}, not {bundle} with "
            f"{manifest_sha256[:12]}"
        )
    return Verdict(results_of(rows), opponent)


def results_of(rows: Iterable[Mapping[str, object]]) -> tuple[GateResult, ...]:
    """Read gates from mappings with the fields of :class:`GateResult`; raises StoreDamaged naming what is wrong."""
    return tuple(_result_of(row) for row in rows)


def _result_of(row: Mapping[str, object]) -> GateResult:
    # What gates compute may come as numpy's scalars.
    plain = {key: value.item() if hasattr(value, "item") else value for key, value in row.items()}
    name, is_passed, reason = plain.get("name"), plain.get("is_passed"), plain.get("reason", "")
    if not isinstance(name, str) or not name:
        raise StoreDamaged(f"gate: name must be text, got {name!r}")
    # A string "false" would pass for true.
    if not isinstance(is_passed, bool):
        raise StoreDamaged(f"gate {name}: is_passed must be true or false, got {is_passed!r}")
    if not isinstance(reason, str):
        raise StoreDamaged(f"gate {name}: reason must be text, got {reason!r}")
    return GateResult(name, is_passed, _number(plain, "measured"), _number(plain, "bound"), reason)


def _number(row: Mapping[str, object], key: str) -> float | None:
    value = row.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise StoreDamaged(f"gate {row['name']}: {key} must be a number or null, got {value!r}")
    # JSON has no word for what is not finite.
    return float(value) if isfinite(value) else None
