"""A cap on spending that holds while many calls are under way: each reserves its worst cost before it starts."""

from __future__ import annotations

import asyncio


class Budget:
    """What may be spent, was spent and is reserved, in USD.

    At every moment ``spent_usd + reserved_usd <= max_usd``, unless a call costs more than its worst; see
    ``overrun_usd``.

    Parameters
    ----------
    max_usd : float
        At least 0.
    spent_usd : float
        Before.

    Attributes
    ----------
    is_reached : bool
        A call was not started because of it.
    overrun_usd : float
        By how much calls exceeded what they had reserved, in sum: a provider that does not keep the limit on output.
    """

    def __init__(self, max_usd: float, spent_usd: float = 0.0) -> None:
        self.max_usd = max_usd
        self.spent_usd = spent_usd
        self.reserved_usd = 0.0
        self.is_reached = False
        self.overrun_usd = 0.0
        self._changed = asyncio.Condition()

    async def reserve(self, usd: float) -> bool:
        """Set something aside, once what is under way leaves room for it.

        Parameters
        ----------
        usd : float
            The worst cost of a call, at least 0.

        Returns
        -------
        bool
            False where there can be no room any more; from then on for every call, so that a table that ends early is
            one of whole prompts.
        """
        async with self._changed:
            while not self.is_reached:
                if self.spent_usd + self.reserved_usd + usd <= self.max_usd:
                    self.reserved_usd += usd
                    return True
                # Zero reserved up to rounding: nothing will be given back.
                if self.spent_usd + usd > self.max_usd or self.reserved_usd <= 1e-12:
                    self.is_reached = True
                    self._changed.notify_all()
                    break
                await self._changed.wait()
            return False

    async def settle(self, reserved_usd: float, counted_usd: float) -> None:
        """Give a reservation back, and count what the call cost."""
        async with self._changed:
            self.reserved_usd = max(0.0, self.reserved_usd - reserved_usd)
            self.spent_usd += counted_usd
            self.overrun_usd += max(0.0, counted_usd - reserved_usd)
            self._changed.notify_all()
