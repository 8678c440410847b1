"""How an emulated provider can be told to fail: one frozen value, and the sticky ones by model.

A fault comes with the request (body field ``emulate``, in every dialect) or is set beforehand
(``POST /emulator/faults``). Pure state, no I/O. Entry points: :func:`fault_of`, :class:`StickyFaults`,
:class:`EmulatedFailure`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from serving.errors import GatewayError, InvalidRequest


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with one answer; the default is nothing.

    Parameters
    ----------
    status : int or None
        Refuse with this status, 400 to 599, in the envelope of the dialect.
    code : str or None
        Replaces the ``code`` of that envelope.
    retry_after_s : float or None
        Sent with it as the dialect says it: ``Retry-After``, or Gemini's ``retryDelay``.
    delay_s : float
        Wait before the head of the answer.
    event_delay_s : float
        Wait before every event of a stream.
    cut_after_events : int or None
        Drop the connection after so many events; an unstreamed body is dropped half-way.
    hang_after_events : int or None
        Fall silent after so many events.
    error_after_events : int or None
        Send an error event after so many events, and end.
    hang : bool
        Never answer.
    truncate : bool
        End cleanly, too early: the second half of the events is missing; an unstreamed body is half a JSON text.
    garbage : bool
        Answer 200 with what is no JSON.
    redirect : bool
        Answer 302.
    compressed : bool
        Claim a ``Content-Encoding`` nobody asked for.
    """

    status: int | None = None
    code: str | None = None
    retry_after_s: float | None = None
    delay_s: float = 0.0
    event_delay_s: float = 0.0
    cut_after_events: int | None = None
    hang_after_events: int | None = None
    error_after_events: int | None = None
    hang: bool = False
    truncate: bool = False
    garbage: bool = False
    redirect: bool = False
    compressed: bool = False


NO_FAULT = Fault()
_KINDS: Mapping[str, tuple[type, ...]] = {
    "int | None": (int,),
    "str | None": (str,),
    "float | None": (int, float),
    "float": (int, float),
    "bool": (bool,),
}
_FIELDS = {field.name: _KINDS[str(field.type)] for field in fields(Fault)}
#: Type and code that OpenAI's own errors carry, by status.
_TYPES: Mapping[int, tuple[str, str | None]] = {
    401: ("authentication_error", "invalid_api_key"),
    404: ("not_found_error", "model_not_found"),
    429: ("rate_limit_error", "rate_limit_exceeded"),
}


class EmulatedFailure(GatewayError):
    """The error of a fault: a status as a provider means it.

    Parameters
    ----------
    status : int
    code : str or None
        Replaces the usual one.
    retry_after_s : float or None
    """

    def __init__(self, status: int, code: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(f"emulated status {status}", retry_after_s=retry_after_s)
        default = ("server_error" if status >= 500 else "invalid_request_error", None)
        self.status = status
        self.type, usual = _TYPES.get(status, default)
        self.code = code or usual


def fault_of(asked: object, param: str = "emulate") -> Fault:
    """Read a fault from JSON.

    Raises
    ------
    InvalidRequest
        If it is no object, or a key or a type is not one of :class:`Fault`'s.
    """
    if asked is None:
        return NO_FAULT
    if not isinstance(asked, dict):
        raise InvalidRequest(f"{param} must be an object", param=param)
    for name, value in asked.items():
        kinds = _FIELDS.get(name)
        if kinds is None:
            raise InvalidRequest(f"{param}.{name} is not a fault; known: {', '.join(_FIELDS)}", param=f"{param}.{name}")
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise InvalidRequest(f"{param}.{name} must be {kinds[-1].__name__}", param=f"{param}.{name}")
    return Fault(**asked)


class StickyFaults:
    """Faults set in advance, by model ("*" is every model), for the next n requests or until lifted."""

    def __init__(self) -> None:
        self._faults: dict[str, tuple[Fault, int | None]] = {}

    def put(self, model: str, fault: Fault | None, times: int | None = None) -> None:
        """Set a fault for the next ``times`` requests (None: all of them), or lift it with None."""
        if fault is None:
            self._faults.pop(model, None)
        else:
            self._faults[model] = (fault, times)

    def take(self, model: str) -> Fault:
        """Return the fault for the next request to a model and count it down."""
        name = model if model in self._faults else "*"
        if name not in self._faults:
            return NO_FAULT
        fault, times = self._faults[name]
        if times is not None:
            if times <= 1:
                del self._faults[name]
            else:
                self._faults[name] = (fault, times - 1)
        return fault
