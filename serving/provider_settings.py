"""The table of one provider in the settings, and what the directory of providers adds to it.

Entry point: :class:`ProviderSettings`.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field

from serving import tables
from serving.providers.directory import PROVIDERS, Provider
from serving.tables import about


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
        metadata=about(tables.url, "Its OpenAI-compatible root, up to and with /v1; a known provider has its own."),
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

    def known(self) -> Provider | None:
        """Return its row of the directory; one at another URL is what ``kind`` says and nothing by its name."""
        if self.emulated:
            return None
        return PROVIDERS.get(self.kind or ("" if self.base_url else self.name))

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
        elif not self.url():
            return [".base_url: missing; only an emulated provider and those that `turnout providers` lists need none"]
        elif known is not None and not self.base_url and known.placeholders:
            return [
                f".base_url: missing; {known.title} needs yours, of the form {known.chat} "
                f'(beside kind = "{known.name}")'
            ]
        return []
