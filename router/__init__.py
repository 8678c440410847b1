"""Turnout's core: arrays in, decision out. Knows no network, no database, no clock.

>>> from router import Router
>>> decision = Router.load("models/default").route("What is 17 * 23?", "price")  # doctest: +SKIP
>>> decision.candidate, decision.reason  # doctest: +SKIP
"""

from router.bundle import Bundle
from router.decision import Counterfactual, Decision, Explanation, Forecast, Outlook
from router.domain import (
    Candidate,
    Capabilities,
    Constraints,
    Policy,
    Predictions,
    Price,
    Prompt,
    Shape,
    Speed,
)
from router.errors import (
    BundleCorrupt,
    BundleError,
    BundleMissing,
    BundleSchemaUnknown,
    BundleUnsafe,
    InvalidPolicy,
    NoEligibleCandidate,
    ParityFailed,
    RouterError,
    UnknownCandidate,
)
from router.routing import Router

__all__ = [
    "Bundle",
    "BundleCorrupt",
    "BundleError",
    "BundleMissing",
    "BundleSchemaUnknown",
    "BundleUnsafe",
    "Candidate",
    "Capabilities",
    "Constraints",
    "Counterfactual",
    "Decision",
    "Explanation",
    "Forecast",
    "InvalidPolicy",
    "NoEligibleCandidate",
    "Outlook",
    "ParityFailed",
    "Policy",
    "Predictions",
    "Price",
    "Prompt",
    "Router",
    "RouterError",
    "Shape",
    "Speed",
    "UnknownCandidate",
]
