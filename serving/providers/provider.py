"""One provider: which APIs it serves, at which roots, and in which header each is told the key.

Nothing here does I/O. Entry points: :class:`Provider`, :meth:`Provider.ways`, :class:`Way`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from serving.providers.quirks import NO_QUIRKS, Quirks

#: Every API there is: the names of :mod:`serving.dialects`, as ``providers[].apis`` says them.
APIS = ("chat", "responses", "messages", "gemini")
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Way:
    """One API of one provider.

    Parameters
    ----------
    dialect : {'chat', 'responses', 'messages', 'gemini'}
    root : str
        What stands before ``/chat/completions``, ``/responses``, ``/v1/messages`` or
        ``/models/MODEL:generateContent``; no slash at its end.
    key_header : str
        Header of the key; ``authorization`` carries it as a bearer token.
    headers : Mapping of str to str
        What else every request carries; versions are the dialect's business, not the provider's.
    """

    dialect: str
    root: str
    key_header: str
    headers: Mapping[str, str] = field(default_factory=lambda: _NO_HEADERS, hash=False)

    def credential(self, key: str) -> dict[str, str]:
        """Return the header that carries a key."""
        return {self.key_header: f"Bearer {key}" if self.key_header == "authorization" else key}


@dataclass(frozen=True, slots=True)
class Provider:
    """One row of the directory. In roots, words in braces are the operator's to fill in.

    Parameters
    ----------
    name : str
        What ``providers[].name`` or ``providers[].kind`` says.
    title : str
    chat : str
        Root of its OpenAI-compatible API, without ``/chat/completions``.
    key_env : str
        Variable its documentation keeps the key in; empty where a key is not needed.
    responses : bool
        Whether the same root also serves OpenAI Responses.
    messages : str
        Root of its Anthropic-compatible API, without ``/v1/messages``; empty where it has none.
    gemini : str
        Root of its Gemini API, without ``/models``; empty where it has none.
    unfaithful : frozenset of str
        APIs it serves, but by its own documentation with less than another of its APIs: they are used only where the
        operator names them.
    key_header, messages_key_header, gemini_key_header : str
        Header of the key for Chat and Responses, for Messages, and for Gemini; ``authorization`` carries it as a
        bearer token.
    quirks : Quirks
        Of its Chat.
    stops_billing : bool or None
        Whether closing the connection of a stream ends generation and its bill; None is unknown.
    note : str
        What an operator should know.
    catalogue : str
        Its name in the price catalogue; empty where that is ``name``, or where the catalogue does not know it.
    """

    name: str
    title: str
    chat: str
    key_env: str
    responses: bool = False
    messages: str = ""
    gemini: str = ""
    unfaithful: frozenset[str] = frozenset()
    key_header: str = "authorization"
    messages_key_header: str = "x-api-key"
    gemini_key_header: str = "x-goog-api-key"
    quirks: Quirks = field(default=NO_QUIRKS)
    stops_billing: bool | None = None
    note: str = ""
    catalogue: str = ""

    @property
    def roots(self) -> Mapping[str, str]:
        """Return the root of every API it serves, placeholders and all."""
        roots = {
            "chat": self.chat,
            "responses": self.chat if self.responses else "",
            "messages": self.messages,
            "gemini": self.gemini,
        }
        return {api: root for api, root in roots.items() if root}

    @property
    def dialects(self) -> tuple[str, ...]:
        """Return the APIs it serves faithfully."""
        return tuple(api for api in self.roots if api not in self.unfaithful)

    @property
    def placeholders(self) -> tuple[str, ...]:
        """Return the words that only the operator knows, of the root that is used by default."""
        return placeholders_of(self.roots[self.dialects[0]])

    def ways(self, base_url: str | None = None, apis: Iterable[str] | None = None) -> Mapping[str, Way]:
        """Return how it can be called.

        Parameters
        ----------
        base_url : str or None
            The operator's own root; None or empty is the provider's usual place, of which roots with placeholders are
            left out.
        apis : iterable of str or None
            The APIs to use, most preferred first. None at the usual place is all that it serves faithfully. None at
            another place is of those the first and what shares its root: OpenAI's own has Responses beside its Chat,
            vLLM Messages too, while nothing is known of where a proxy of DeepSeek would have them.

        Returns
        -------
        Mapping of str to Way
            By API, in the order of ``apis``; empty where nothing can be called yet.
        """
        if base_url:
            roots = dict.fromkeys(APIS, base_url) | {"messages": base_url.removesuffix("/v1")}
            home = self.roots[self.dialects[0]].removesuffix("/v1")
            usual = tuple(api for api in self.dialects if self.roots[api].removesuffix("/v1") == home)
        else:
            roots = {api: root for api, root in self.roots.items() if not placeholders_of(root)}
            usual = self.dialects
        wanted = usual if apis is None else apis
        return {api: Way(api, roots[api], self._header_of(api)) for api in wanted if api in roots}

    def _header_of(self, api: str) -> str:
        return {"messages": self.messages_key_header, "gemini": self.gemini_key_header}.get(api, self.key_header)


#: Stands for whoever is at a URL of which nothing is known but the URL.
UNKNOWN = Provider("unknown", "Unknown", "{url}", "")


def placeholders_of(root: str) -> tuple[str, ...]:
    """Return the words of a root that are still to be filled in."""
    return tuple(_PLACEHOLDER.findall(root))
