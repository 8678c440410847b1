"""What exploring may still cost today: one account for each scenario, and one for the rest.

Only what an explored answer cost more than the policy's own choice was expected to counts, never what one cost less.
Before the call the most that it is thought to cost is reserved, and replaced by what it did cost once that is known; so
reserved and spent together stay within the cap, but for answers that turn out longer than nine in ten. In memory, of
this process: each replica has caps of its own. Days are those of UTC. Entry point: :class:`ExplorationBudget`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

DAY_S = 86_400


@dataclass(slots=True)
class Spending:
    """One account of one day."""

    spent_usd: float = 0.0
    reserved_usd: float = 0.0
    n_explored: int = 0
    n_open: int = 0


class Reservation:
    """Money set aside for one explored request; :meth:`settle` says what became of it.

    Parameters
    ----------
    account : Spending
    reserved_usd : float
        The most that it is thought to cost beyond the policy's own choice.
    own_usd : float
        What the policy's own choice was expected to cost.
    """

    __slots__ = ("_account", "_own_usd", "_reserved_usd", "extra_usd")

    def __init__(self, account: Spending, reserved_usd: float, own_usd: float) -> None:
        self._account = account
        self._reserved_usd = reserved_usd
        self._own_usd = own_usd
        #: What it cost more, once that is known.
        self.extra_usd: float | None = None
        account.reserved_usd += reserved_usd
        account.n_open += 1
        account.n_explored += 1

    def settle(self, cost_usd: float | None) -> None:
        """Put what was spent in the place of what was reserved; what is unknown stays as it was thought."""
        account = self._account
        account.n_open -= 1
        # Sums of many differences drift; where nothing is open, nothing is reserved.
        account.reserved_usd = account.reserved_usd - self._reserved_usd if account.n_open else 0.0
        if cost_usd is not None:
            self.extra_usd = max(0.0, cost_usd - self._own_usd)
        account.spent_usd += self._reserved_usd if self.extra_usd is None else self.extra_usd


class ExplorationBudget:
    """The accounts of today; fails closed where it is not known what they have spent."""

    def __init__(self) -> None:
        self._day = -1
        self._accounts: dict[str, Spending] = {}
        self._is_closed = False
        #: Whether what was spent today before this process began is taken over.
        self.is_restored = False

    def left_usd(self, account: str, max_usd: float, at_unix_s: float) -> float:
        """Return what is left of a day's cap, at least 0.

        Parameters
        ----------
        account : str
            A scenario's name; "" for requests without one.
        max_usd : float
        at_unix_s : float
            A time of the day.
        """
        spending = self._of(account, at_unix_s)
        if self._is_closed:
            return 0.0
        return max(0.0, max_usd - spending.spent_usd - spending.reserved_usd)

    def reserve(self, account: str, most_usd: float, own_usd: float, at_unix_s: float) -> Reservation:
        """Set money aside for one request; see :class:`Reservation`."""
        return Reservation(self._of(account, at_unix_s), most_usd, own_usd)

    def restore(self, spent_usd: Mapping[str, float] | None, at_unix_s: float) -> None:
        """Take over what was spent today before this process began; of None, unknown, nothing is left today."""
        self.is_restored = True
        if spent_usd is None:
            self._of("", at_unix_s)
            self._is_closed = True
            return
        for account, usd in spent_usd.items():
            self._of(account, at_unix_s).spent_usd += usd

    def status(self, account: str, at_unix_s: float) -> Spending:
        """Return how an account stands; not to be changed."""
        return self._of(account, at_unix_s)

    def _of(self, account: str, at_unix_s: float) -> Spending:
        day = int(at_unix_s // DAY_S)
        # A clock that is set back does not refill yesterday's purse.
        if day > self._day:
            self._day, self._accounts, self._is_closed = day, {}, False
        return self._accounts.setdefault(account, Spending())
