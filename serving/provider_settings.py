"""The table of one provider in the settings, and what the directory of providers adds to it.

Entry points: :class:`ProviderSettings`, :meth:`ProviderSettings.ways`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field

from serving import tables
from serving.providers.directory import PROVIDERS
from serving.providers.provider import APIS, UNKNOWN, Provider, Way, placeholders_of
from serving.tables import about


def _apis(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or any(api not in APIS or value.count(api) > 1 for api in value):
        raise ValueError('a list of "chat", "responses", "messages" and "gemini", each once at most')
    return tuple(value)


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """``[[providers]]``: somebody who answers for candidates."""

    name: str = field(metadata=about(tables.name, "How deployments refer to it."))
    kind: str | None = field(
        default=None,
        metadata=about(tables.name, "Which one of `turnout providers` it is; absent: the one of this name, if any."),
    )
    base_url: str = field(
        default="",
        metadata=about(
            tables.url,
            "Its root: of an OpenAI-compatible API up to and with /v1, of others what stands before /v1/messages or "
            "/models; a known provider has its own.",
        ),
    )
    apis: tuple[str, ...] | None = field(
        default=None,
        metadata=about(
            _apis,
            "APIs it is called by, of chat, responses, messages and gemini, best first; absent: those a known provider "
            "serves well (at another URL: at one root), else chat.",
        ),
    )
    api_key_env: str | None = field(
        default=None,
        metadata=about(
            tables.variable,
            "Environment variable that holds its API key; absent: the known provider's usual one, else none.",
        ),
    )
    emulated: bool = field(
        default=False,
        metadata=about(tables.flag, "Answer from the built-in emulator: made-up text, labelled as such."),
    )

    region: str | None = field(
        default=None, metadata=about(tables.label, "Where it processes requests, such as eu; absent is unknown.")
    )
    data_policies: tuple[str, ...] = field(
        default=(), metadata=about(tables.labels, 'What it promises about data, such as ["zdr", "no_training"].')
    )

    def known(self) -> Provider | None:
        """Return its row of the directory; one at another URL is what ``kind`` says and nothing by its name."""
        if self.emulated:
            return None
        return PROVIDERS.get(self.kind or ("" if self.base_url else self.name))

    def ways(self, emulator_url: str | None = None) -> Mapping[str, Way]:
        """Return how it is called.

        Parameters
        ----------
        emulator_url : str or None
            Where the built-in emulator listens, up to and with ``/v1``; only an emulated provider needs it.

        Returns
        -------
        Mapping of str to Way
            By API, the preferred one first; empty for an emulated provider without an emulator.
        """
        if self.emulated:
            return _emulated(emulator_url, self.apis or APIS) if emulator_url else {}
        return (self.known() or UNKNOWN).ways(self.base_url, self.apis)

    def url(self) -> str:
        """Return its root; empty for an emulated one."""
        known = self.known()
        return self.base_url or (known.chat if known else "")

    def key_variable(self) -> str:
        """Return the variable of its key; empty where it takes none."""
        known = self.known()
        return (known.key_env if known else "") if self.api_key_env is None else self.api_key_env

    def contradictions(self) -> list[str]:
        """Say what single keys cannot, each as the rest of a line that begins with the table's path."""
        known = self.known()
        if self.emulated:
            if self.base_url or self.api_key_env or self.kind:
                return [": an emulated provider takes neither base_url nor api_key_env nor kind"]
        elif self.kind is not None and known is None:
            near = difflib.get_close_matches(self.kind, PROVIDERS, 1)
            hint = f"; the nearest is {near[0]!r}" if near else ""
            return [f".kind = {self.kind!r}: expected a name that `turnout providers` lists{hint}"]
        elif self.base_url:
            if unfilled := placeholders_of(self.base_url):
                return [f".base_url = {self.base_url!r}: expected your own words in the place of {_braced(unfilled)}"]
        elif known is None:
            return [".base_url: missing; only an emulated provider and those that `turnout providers` lists need none"]
        else:
            return self._contradictions_of(known)
        return []

    def _contradictions_of(self, known: Provider) -> list[str]:
        """Say what is wrong with a known provider at its usual place."""
        wanted = known.dialects if self.apis is None else self.apis
        if lacking := [api for api in wanted if api not in known.roots]:
            return [
                f".apis: {known.title} is not known to serve {', '.join(lacking)}; expected of "
                f"{', '.join(known.roots)}, or a base_url where it does"
            ]
        unfilled = [api for api in wanted if placeholders_of(known.roots[api])]
        # One root serves one API: two of them are two providers of the same kind.
        if unfilled and (self.apis is not None or len(unfilled) == len(wanted)):
            forms = {known.roots[api]: api for api in reversed(unfilled)}
            told = [
                root if api == known.dialects[0] else f'{root} with apis = ["{api}"]'
                for root, api in reversed(forms.items())
            ]
            return [
                f".base_url: missing; {known.title} needs yours, of the form {' or '.join(told)} "
                f'(beside kind = "{known.name}")'
            ]
        return []


def _emulated(url: str, apis: tuple[str, ...]) -> Mapping[str, Way]:
    """Return the ways to the emulator, which serves Gemini under another version than the rest."""
    host = url.removesuffix("/v1")
    ways = {**UNKNOWN.ways(url, APIS), **UNKNOWN.ways(f"{host}/v1beta", ("gemini",))}
    return {api: ways[api] for api in apis}


def _braced(words: tuple[str, ...]) -> str:
    return ", ".join(f"{{{word}}}" for word in dict.fromkeys(words))
