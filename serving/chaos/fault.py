"""What a fault proxy does to an answer: one frozen value, and the chances of several. Pure.

Entry points: :class:`ProxyFault`, :class:`Weather`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProxyFault:
    """What goes wrong with one answer; the default is nothing.

    Parameters
    ----------
    latency_s : float
        Wait before anything is done about the request.
    drip_bytes : int or None
        Send the answer so many bytes at a time.
    drip_every_s : float
        Pause between two drips.
    reset_after_bytes : int or None
        Reset the connection (RST) after so many bytes of the answer; 0 as soon as the request has arrived, without
        asking the provider.
    cut_after_events : int or None
        End the connection before event k (from 0) of those that hold ``mark``.
    mark : bytes
        Which events ``cut_after_events`` counts; empty counts all.
    is_reset : bool
        Let ``cut_after_events`` reset the connection instead of closing it.
    is_half_open : bool
        Close the sending side and answer nothing, but go on reading.
    is_black_hole : bool
        Read the request and never answer.
    status : int or None
        Answer in the provider's place: this status, ``content_type`` and ``body``.
    retry_after_s : float or None
        Goes with ``status`` as ``Retry-After``.
    content_type : str
        Goes with ``status``.
    body : bytes
        Goes with ``status``.
    comments_every_s : float or None
        Answer with a stream of comments that never ends.
    """

    latency_s: float = 0.0
    drip_bytes: int | None = None
    drip_every_s: float = 0.05
    reset_after_bytes: int | None = None
    cut_after_events: int | None = None
    mark: bytes = b""
    is_reset: bool = False
    is_half_open: bool = False
    is_black_hole: bool = False
    status: int | None = None
    retry_after_s: float | None = None
    content_type: str = "application/json"
    body: bytes = b'{"error":{"message":"made up by a fault proxy","type":"server_error","code":null}}'
    comments_every_s: float | None = None


CLEAR = ProxyFault()
RESET = ProxyFault(reset_after_bytes=0)
BLACK_HOLE = ProxyFault(is_black_hole=True)


@dataclass(frozen=True, slots=True)
class Weather:
    """Which fault strikes a request.

    Parameters
    ----------
    storms : tuple of (float, ProxyFault)
        Shares in [0, 1], together 1 at most.
    otherwise : ProxyFault
        What the rest gets.
    """

    storms: tuple[tuple[float, ProxyFault], ...] = ()
    otherwise: ProxyFault = CLEAR

    def draw(self, rng: random.Random) -> ProxyFault:
        """Return the fault of the next request."""
        if not self.storms:
            return self.otherwise
        left = rng.random()
        for share, fault in self.storms:
            left -= share
            if left < 0:
                return fault
        return self.otherwise


def always(fault: ProxyFault) -> Weather:
    """Return the weather in which every request is struck."""
    return Weather(otherwise=fault)
