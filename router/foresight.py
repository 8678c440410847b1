"""What a bundle says of one prompt, for those who look before they ask for a decision.

Made by :meth:`router.routing.Router.foresee`. Entry point: :class:`Foresight`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from router.bundle import Bundle
from router.domain import Floats


@dataclass(frozen=True, slots=True)
class Foresight:
    """What the bundle says of one prompt, before candidates are filtered, priced and ranked.

    ``given`` are the outputs of its graphs, ``task`` the most probable kind of task; None where it tells none apart.
    ``bundle`` is who says it: another bundle's router predicts for itself, so that a decision is one bundle's.
    """

    given: Mapping[str, Floats]
    task: str | None
    task_probability: float | None
    bundle: Bundle | None = field(default=None, repr=False, compare=False)
