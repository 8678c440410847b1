"""What is measured, one row each, and what was asked of it.

Entry points: :data:`CASES`, :data:`BARE`.
"""

from __future__ import annotations

from dataclasses import dataclass

PASS_THROUGH, TRANSLATED, STREAMING = 2.5, 4.0, 2.0
AGENT_MS = 5.0
#: Tokens of a streamed answer, each an event: two lengths, to tell what an event costs from what a request does.
SHORT, LONG = 50, 200


@dataclass(frozen=True, slots=True)
class Case:
    """One row.

    Parameters
    ----------
    client : str
        The API of the client, or "agent": a long Messages request.
    upstream : str
        What the provider speaks.
    server : str
        "gateway", "bare" or "litellm".
    n_tokens : int
        Of the question.
    n_streamed : int
        Tokens of the streamed answer; 0 is unstreamed.
    budget : float
        What was asked: times the bare pass-through of the same round, a request or (streaming) an event; for an
        agent's request milliseconds.
    share : float
        Of the requests of a round that the others get: some are long.
    """

    client: str
    upstream: str
    server: str = "gateway"
    n_tokens: int = 512
    n_streamed: int = 0
    budget: float = 0.0
    share: float = 1.0

    @property
    def name(self) -> str:
        """Name it for people."""
        way = f"{self.client} → {self.upstream}"
        kind = f", stream of {self.n_streamed}" if self.n_streamed else f", {self.n_tokens}"
        return f"{self.server}: {way}{'' if self.client == 'agent' else kind}"

    @property
    def is_translated(self) -> bool:
        """Whether the provider speaks another dialect."""
        return self.upstream != ("messages" if self.client == "agent" else self.client)


def _stream(client: str, upstream: str, server: str = "gateway") -> list[Case]:
    budget = STREAMING if server == "gateway" else 0.0
    return [Case(client, upstream, server, 128, n, budget, share=0.1) for n in (SHORT, LONG)]


WHOLE_CASES = [
    Case("chat", "chat", "bare", 64),
    Case("chat", "chat", "bare"),
    Case("chat", "chat", n_tokens=64, budget=PASS_THROUGH),
    Case("chat", "chat", budget=PASS_THROUGH),
    Case("messages", "messages", budget=PASS_THROUGH),
    Case("responses", "responses", budget=PASS_THROUGH),
    Case("messages", "chat", budget=TRANSLATED),
    Case("chat", "messages", budget=TRANSLATED),
    Case("responses", "chat", budget=TRANSLATED),
    Case("messages", "gemini", budget=TRANSLATED),
    Case("chat", "responses", budget=TRANSLATED),
    Case("agent", "messages", n_tokens=40, budget=AGENT_MS, share=0.2),
    Case("agent", "chat", n_tokens=40, budget=AGENT_MS, share=0.2),
]
STREAM_CASES = [
    *_stream("chat", "chat", "bare"),
    *_stream("chat", "chat"),
    *_stream("messages", "messages"),
    *_stream("messages", "chat"),
    *_stream("responses", "chat"),
]
LITELLM = Case("chat", "chat", "litellm", share=0.2)


def bare_of(case: Case) -> Case:
    """Return what a case is compared with: the bare pass-through of Chat, of the same size where there is one."""
    n_tokens = case.n_tokens if case.n_streamed or case.n_tokens == 64 else 512
    return Case("chat", "chat", "bare", n_tokens, case.n_streamed, share=0.1 if case.n_streamed else 1.0)
