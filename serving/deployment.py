"""One way to reach a candidate, ready to be called: a line for each dialect its provider serves.

Holds the only copies of provider credentials; a repr leaves them out. Entry points: :class:`Deployment`,
:class:`Line`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from serving.providers.quirks import Quirks

#: Dialect of the client -> which of a provider's to translate into, best first. Its own always comes first; then what
#: keeps most: Responses and Messages carry reasoning from turn to turn, and every provider's Chat is well-trodden.
_PREFERENCE: Mapping[str, tuple[str, ...]] = {
    "chat": ("chat", "responses", "messages", "gemini"),
    "completions": ("chat", "messages", "gemini", "responses"),
    "responses": ("responses", "chat", "messages", "gemini"),
    "messages": ("messages", "responses", "chat", "gemini"),
}


@dataclass(frozen=True, slots=True)
class Line:
    """One dialect at one provider.

    Parameters
    ----------
    dialect : str
    url, stream_url : str
        Where whole and streamed answers are asked for.
    headers : Mapping
        What every request carries; holds the credential.
    parameters : Mapping
        The candidate's own fields, in this dialect.
    embeddings_url, count_url : str
        Where the same root embeds and counts tokens; empty where it does not.
    """

    dialect: str
    url: str
    stream_url: str
    headers: Mapping[str, str] = field(repr=False)
    parameters: Mapping[str, object] = field(default_factory=dict)
    embeddings_url: str = ""
    count_url: str = ""


@dataclass(frozen=True, slots=True)
class Deployment:
    """One way to reach a candidate.

    Parameters
    ----------
    lines : Mapping of str to Line
        By dialect; at least one.
    kind : str
        Which row of the directory the provider is; "" where none is known.
    region : str
        Where it processes requests; "" where that is unknown.
    data_policies : frozenset of str
        What is promised about data there.
    marks : tuple
        Response headers that say who answered.
    """

    name: str
    candidate: str
    provider: str
    model: str
    is_emulated: bool
    quirks: Quirks
    lines: Mapping[str, Line]
    marks: tuple[tuple[bytes, bytes], ...] = ()
    kind: str = ""
    region: str = ""
    data_policies: frozenset[str] = frozenset()

    def maker(self, dialect: str) -> str:
        """Return whose the opaque reasoning state is that this deployment makes.

        The provider's; of Gemini the model's too, since it refuses the signatures of its other models.
        """
        return f"{self.provider}/{self.model}" if dialect == "gemini" else self.provider

    def line_for(self, dialect: str) -> Line:
        """Return the line that serves a client of this dialect best."""
        for name in _PREFERENCE[dialect]:
            line = self.lines.get(name)
            if line is not None:
                return line
        raise AssertionError("settings give every deployment a line")


def line_of(dialect: str, root: str, model: str, headers: Mapping[str, str], parameters: Mapping[str, object]) -> Line:
    """Make a line from the root of a provider's API.

    Parameters
    ----------
    dialect : str
    root : str
        Without a slash at its end; see :meth:`serving.providers.directory.Provider.ways`.
    model : str
        The provider's name for the candidate: a part of Gemini's paths.
    headers, parameters : Mapping
    """
    if dialect == "chat":
        url = f"{root}/chat/completions"
        return Line(dialect, url, url, headers, parameters, embeddings_url=f"{root}/embeddings")
    if dialect == "responses":
        url = f"{root}/responses"
        return Line(dialect, url, url, headers, parameters)
    if dialect == "messages":
        url = f"{root}/v1/messages"
        return Line(dialect, url, url, headers, parameters, count_url=f"{url}/count_tokens")
    at = f"{root}/models/{quote(model, safe='')}"
    return Line(
        dialect,
        f"{at}:generateContent",
        f"{at}:streamGenerateContent?alt=sse",
        headers,
        parameters,
        embeddings_url=f"{at}:batchEmbedContents",
        count_url=f"{at}:countTokens",
    )
