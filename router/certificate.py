"""What a bundle promises of a policy, with which confidence, and for whom.

Made by :mod:`training.certify` from labelled rows that taught nothing; kept in the manifest; said with every decision
under its preset, or why it does not hold there. Entry point: :class:`Certificate`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

from router.domain import Candidate, Price, PriceTier
from router.errors import BundleCorrupt

#: Prices this near each other are the same price.
_NEARLY = 1e-3
NOT_COVERED = (
    "prompts unlike those it was measured on",
    "another pool of candidates, other prices, or requests some candidate may not answer",
    "answers graded otherwise than the labels were",
)


@dataclass(frozen=True, slots=True)
class Certificate:
    """One promise of one preset.

    Parameters
    ----------
    preset : str
        The preset it is about.
    goal : {'fall_below', 'keep', 'quality'}
        At most ``level`` of requests fall below the anchor; mean quality is at least ``level`` times the anchor's; mean
        quality is at least ``level``.
    level : float
    confidence : float in (0, 1)
        1 − δ: over draws of the labelled rows, how often such a certificate is right.
    anchor : str
    candidates : tuple of str
    prices : tuple of (Price or None)
        Of the candidates; with others the policy would choose otherwise.
    method : str
    n_labels : int
        Independent labelled prompts it rests on.
    abstained : bool
        Nothing bolder than the anchor itself could be certified; the preset always chooses the anchor.
    measured, bound : float or None
        The loss (or quality) on those rows, and its bound at this confidence; None where abstained.
    saving : mapping of str to float
        ``value``, ``low`` and ``high``: cost saved against the anchor on those rows, with a 95 % interval.
    labels_needed : int or None
        Where abstained: about how many would have been enough; None where no number would.
    slices : tuple of mapping
        Per kind of task: ``task``, ``n``, ``measured``, ``bound``, each at its own confidence, not all at once.
    """

    preset: str
    goal: str
    level: float
    confidence: float
    anchor: str
    candidates: tuple[str, ...]
    prices: tuple[Price | None, ...]
    method: str
    n_labels: int
    abstained: bool
    measured: float | None
    bound: float | None
    saving: Mapping[str, float]
    labels_needed: int | None = None
    slices: tuple[Mapping[str, object], ...] = ()

    def sentence(self) -> str:
        """Return the promise in words."""
        promise = {
            "fall_below": f"at most {self.level:.1%} of requests fall below {self.anchor}",
            "keep": f"mean quality is at least {self.level:.1%} of that of {self.anchor}",
            "quality": f"mean quality is at least {self.level:.3f}",
        }[self.goal]
        said = f"{promise}, with confidence {self.confidence:.0%} from {self.n_labels:,} labelled prompts"
        # Always choosing the anchor keeps "fall_below" and a share of its own quality of at most 1, nothing else.
        if self.abstained and (self.goal == "quality" or (self.goal == "keep" and self.level > 1)):
            return f"not certified: {promise}; {self.anchor} is chosen always"
        return f"{said} ({self.anchor} is chosen always)" if self.abstained else said

    def void_for(self, pool: Sequence[Candidate]) -> str | None:
        """Say why it does not hold for a pool; None where it does."""
        given = {candidate.name: candidate.price for candidate in pool}
        if set(given) != set(self.candidates):
            odd = sorted(set(given) ^ set(self.candidates))
            return f"the pool differs from the certified one in {', '.join(odd)}"
        changed = [n for n, price in zip(self.candidates, self.prices, strict=True) if not _same(price, given[n])]
        return f"the prices of {', '.join(changed)} changed since" if changed else None

    def to_json(self) -> dict[str, object]:
        """Return it as JSON can hold it."""
        return {**asdict(self), "promise": self.sentence(), "does_not_cover": list(NOT_COVERED)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Certificate:
        """Read one; raises BundleCorrupt."""
        try:
            prices = tuple(None if p is None else _price(p) for p in document["prices"])
            fields = {name: document[name] for name in cls.__slots__}
        except (KeyError, TypeError) as exc:
            raise BundleCorrupt(f"manifest.json certificate: not one this program reads: {exc!r}") from exc
        return cls(
            **{
                **fields,
                "candidates": tuple(document["candidates"]),
                "prices": prices,
                "slices": tuple(document["slices"]),
            }
        )


def certificates_of(document: Mapping[str, object] | None) -> dict[str, Certificate]:
    """Return the certificates of a manifest by preset; raises BundleCorrupt."""
    if document is None:
        return {}
    listed = document.get("certificates")
    if not isinstance(listed, list):
        raise BundleCorrupt(f"manifest.json certificate: certificates must be a list, got {listed!r}")
    found = [Certificate.from_json(cast(Mapping[str, Any], entry)) for entry in listed]
    return {certificate.preset: certificate for certificate in found}


def _price(document: Mapping[str, Any]) -> Price:
    fields = {**document}
    tiers = [PriceTier(tier["above_input_tokens"], _price(tier["price"])) for tier in fields.pop("tiers", ())]
    return Price(**fields, tiers=tuple(tiers))


def _same(a: Price | None, b: Price | None) -> bool:
    if a is None or b is None:
        return a is b
    mine, theirs = (a.input_usd_per_mtok, a.output_usd_per_mtok), (b.input_usd_per_mtok, b.output_usd_per_mtok)
    return all(abs(x - y) <= _NEARLY * max(x, y) for x, y in zip(mine, theirs, strict=True))
