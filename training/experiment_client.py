"""Experiments of a running gateway, over HTTP: begun, looked at, promoted. Entry point: :class:`Experiments`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from training.errors import GatewayRefused

_TIMEOUT_S, _NOTHING_THERE = 30.0, "nothing is served at this path"


class Experiments:
    """The experiments of one gateway.

    Parameters
    ----------
    url : str
        Of the gateway, such as ``http://127.0.0.1:8080``.
    key : str, optional
        One with ``admin = true``; without keys, the gateway takes who is on its own machine.
    """

    def __init__(self, url: str, key: str | None = None) -> None:
        self._url = url.rstrip("/")
        self._headers = {} if key is None else {"authorization": f"Bearer {key}"}

    def create(self, definition: Mapping[str, object]) -> Mapping[str, Any]:
        """Begin an experiment; returns the gateway's view of it; raises GatewayRefused."""
        return self._ask("POST", "", definition)

    def status(self, name: str) -> Mapping[str, Any]:
        """Return an experiment and its figures now; raises GatewayRefused."""
        return self._ask("GET", "/" + quote(name, safe=""))

    def promote(self, name: str, arm: str, *, is_forced: bool = False) -> Mapping[str, Any]:
        """Give everything that an experiment acts on to one arm; raises GatewayRefused."""
        body: dict[str, object] = {"arm": arm, **({"force": True} if is_forced else {})}
        return self._ask("POST", f"/{quote(name, safe='')}/promote", body)

    def _ask(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Mapping[str, Any]:
        import httpx

        where = f"{self._url}/v1/experiments{path}"
        try:
            # A proxy of the environment must not see the key of a gateway inside.
            with httpx.Client(timeout=_TIMEOUT_S, trust_env=False) as client:
                answer = client.request(method, where, json=body, headers=self._headers)
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise GatewayRefused(
                f"no gateway answers at {self._url} ({type(exc).__name__}): start one with `turnout serve`, or say "
                "with --url where it is"
            ) from exc
        try:
            said = answer.json()
        except ValueError:
            said = None
        if answer.is_success and isinstance(said, dict):
            return said
        error = said.get("error") if isinstance(said, dict) else None
        words = error.get("message") if isinstance(error, dict) else None
        # Who is no admin is not told that there are experiments.
        if answer.status_code == 401 or (answer.status_code == 404 and words == _NOTHING_THERE):
            raise GatewayRefused(
                f"the gateway at {self._url} asks for a key with admin = true: name the variable that holds it: "
                "--key-env"
            )
        raise GatewayRefused(f"{where}: {answer.status_code}: {words or 'no experiments are served here'}")
