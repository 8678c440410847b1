"""Where a request may be processed and under which data policies: demands add up, and what is unknown meets none.

Regions and policies are free words of the settings, such as ``eu`` or ``zdr``. A key, a scenario and a request may each
demand some; together they are only ever stricter. Pure. Entry point: :class:`Demand`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

WORD = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
EXPECTED = 'a list of lower-case words, such as ["eu"]'


@dataclass(frozen=True, slots=True)
class Demand:
    """What a deployment must be known to meet.

    Parameters
    ----------
    regions : frozenset of str or None
        It must be in one of these; None leaves the region open, an empty set is met by nobody.
    data_policies : frozenset of str
        It must promise all of these.
    """

    regions: frozenset[str] | None = None
    data_policies: frozenset[str] = frozenset()

    @classmethod
    def of(cls, regions: Iterable[str] = (), data_policies: Iterable[str] = ()) -> Demand:
        """Make one of two lists; an empty one demands nothing."""
        made = cls(frozenset(regions) or None, frozenset(data_policies))
        return NO_DEMAND if made == NO_DEMAND else made

    def also(self, other: Demand) -> Demand:
        """Return the demand that is met by what meets both."""
        if other is NO_DEMAND:
            return self
        if self is NO_DEMAND:
            return other
        both = [regions for regions in (self.regions, other.regions) if regions is not None]
        return Demand(
            frozenset.intersection(*both) if both else None,
            self.data_policies | other.data_policies,
        )

    def unmet_by(self, region: str, data_policies: frozenset[str]) -> str | None:
        """Return the filter that a deployment does not pass, ``region`` or ``data_policy``, or None."""
        if self.regions is not None and region not in self.regions:
            return "region"
        return None if self.data_policies <= data_policies else "data_policy"

    def said(self) -> str:
        """Write it for a header: ``regions=eu,us; data_policies=zdr``; empty where nothing is demanded."""
        parts = [] if self.regions is None else [f"regions={','.join(sorted(self.regions)) or 'none'}"]
        parts += [f"data_policies={','.join(sorted(self.data_policies))}"] if self.data_policies else []
        return "; ".join(parts)


#: The one demand for nothing: compared by identity where every request comes by.
NO_DEMAND = Demand()
