"""Client keys: who is calling. Only digests are held, and nothing here ever repeats what was shown.

A key is looked up by the whole of its SHA-256; its format is checked before anything is hashed. Authentication
fails closed: without a ring that says otherwise nobody is anonymous, and who is must come from this machine, not from
a web page that its browser shows. Entry points: :func:`new_key`, :class:`KeyRing`.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from serving.demand import NO_DEMAND, Demand
from serving.errors import NotLocal, Unauthenticated

#: From the first served to the first left out.
PRIORITIES = ("high", "normal", "batch")
PREFIX = "sk-turnout-"
N_SECRET_BYTES = 32
_FORMAT = re.compile(rb"sk-[A-Za-z0-9_-]{20,100}")
#: Where clients show keys.
_HEADERS = frozenset({b"authorization", b"x-api-key", b"api-key"})
#: Names that no foreign DNS server can point here, with any port; ``localhost`` never leaves the machine.
_LOOPBACK = rb"(?:127(?:\.[0-9]{1,3}){3}|\[::1\]|(?:[a-z0-9_-]+\.)*localhost)(?::[0-9]{1,5})?"
#: What the browser of a web page on this machine, or any other program, says of whom it speaks to and for whom.
_LOCAL = {
    b"host": re.compile(_LOOPBACK, re.IGNORECASE),
    b"origin": re.compile(rb"[a-z][a-z0-9+.-]*://" + _LOOPBACK, re.IGNORECASE),
}


@dataclass(frozen=True, slots=True)
class Key:
    """A configured key.

    Parameters
    ----------
    name : str
        Stands in records and logs.
    sha256 : str
        Hex digest of the secret, 64 characters.
    models : tuple of str
        Globs on what the key may ask for; empty allows all.
    project, team : str
        Whose it is, for rules; "" where nobody said.
    demand : Demand
        What every deployment that serves it must meet.
    priority : str
        The highest it may ask for.
    grades : tuple of str
        Globs on the names of keys on whose requests it may give feedback besides its own.
    retention : str or None
        What may be kept of its prompts: one of :data:`~serving.records.RETENTIONS`; None leaves it to the settings.
    is_admin : bool
        Whether it may change experiments.
    """

    name: str
    sha256: str
    models: tuple[str, ...] = ()
    project: str = ""
    team: str = ""
    demand: Demand = NO_DEMAND
    priority: str = "normal"
    grades: tuple[str, ...] = ()
    retention: str | None = None
    is_admin: bool = False

    def principal(self) -> Principal:
        """Return the caller that shows this key."""
        # "*" is no limit at all, and no limit is what costs nothing to check for each candidate of a request.
        models = () if "*" in self.models else tuple(self.models)
        return Principal(
            self.name,
            models,
            self.project,
            self.team,
            self.demand,
            self.priority,
            self.grades,
            self.retention,
            self.is_admin,
        )


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is calling, and what it may ask for; see :class:`Key`."""

    name: str
    models: tuple[str, ...] = ()
    project: str = ""
    team: str = ""
    demand: Demand = NO_DEMAND
    priority: str = "normal"
    grades: tuple[str, ...] = ()
    retention: str | None = None
    is_admin: bool = False

    def may_use(self, model: str) -> bool:
        """Tell whether this caller may ask for a candidate or alias."""
        return not self.models or any(fnmatchcase(model, pattern) for pattern in self.models)


ANONYMOUS = Principal("anonymous", priority="high", grades=("*",), is_admin=True)


def new_key() -> tuple[str, str]:
    """Make a key of 256 random bits.

    Returns
    -------
    secret, sha256 : str
        The secret, to be shown once, and its hex digest, to be kept.
    """
    secret = PREFIX + secrets.token_urlsafe(N_SECRET_BYTES)
    return secret, digest_of(secret)


def digest_of(secret: str) -> str:
    """Return the hex SHA-256 of a secret, as the settings hold it."""
    return hashlib.sha256(secret.encode()).hexdigest()


class KeyRing:
    """All keys of the gateway.

    Parameters
    ----------
    keys : Sequence[Key]
        Every client.
    allow_anonymous : bool, default=False
        With no keys at all everyone is :data:`ANONYMOUS`, whatever is shown (OpenAI clients always show
        something). For loopback only; with a single key configured it has no effect.
    """

    def __init__(self, keys: Sequence[Key], *, allow_anonymous: bool = False) -> None:
        self._principals = {bytes.fromhex(key.sha256): key.principal() for key in keys}
        self._is_open = allow_anonymous and not keys

    def named(self, name: str) -> Principal | None:
        """Return the caller whose key has a name; for commands, who need not show it."""
        return next((principal for principal in self._principals.values() if principal.name == name), None)

    def authenticate(self, headers: Iterable[tuple[bytes, bytes]]) -> Principal:
        """Find the caller; where several keys are shown, any valid one will do.

        Parameters
        ----------
        headers : Iterable[tuple[bytes, bytes]]
            Raw ASGI headers, names in lower case.

        Raises
        ------
        Unauthenticated
            If no key is shown or none is ours; which of the two is all that is said.
        NotLocal
            There are no keys, and ``Host`` or ``Origin`` names something other than this machine: a browser speaks
            for a web page, or was led here by that page's DNS server.
        """
        if self._is_open:
            for name, value in headers:
                if name in _LOCAL and not _LOCAL[name].fullmatch(value):
                    raise NotLocal(
                        f"without keys only this machine is served, and the {name.decode().title()} header names "
                        "another: use http://127.0.0.1 or http://localhost, or configure [[keys]]"
                    )
            return ANONYMOUS
        is_shown = False
        for name, value in headers:
            if name not in _HEADERS:
                continue
            is_shown = True
            if name == b"authorization":
                scheme, _, value = value.partition(b" ")
                if scheme.lower() != b"bearer":
                    continue
            value = value.strip()
            if _FORMAT.fullmatch(value) is None:
                continue
            principal = self._principals.get(hashlib.sha256(value).digest())
            if principal is not None:
                return principal
        raise Unauthenticated(
            "this key is not known here"
            if is_shown
            else "no key: send it as Authorization: Bearer KEY, x-api-key or api-key"
        )
