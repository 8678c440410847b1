"""The table of one candidate in the settings, and of the ways to reach it.

Entry point: :class:`CandidateSettings`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from router.domain import Capabilities, Price
from serving import tables
from serving.provider_settings import ProviderSettings
from serving.tables import about


@dataclass(frozen=True, slots=True)
class DeploymentSettings:
    """``[[candidates.deployments]]``: one way to reach a candidate."""

    provider: str = field(metadata=about(tables.name, "Name of a provider above."))
    model: str = field(metadata=about(tables.text, "The provider's own name for the candidate."))
    region: str | None = field(
        default=None, metadata=about(tables.label, "Where it processes requests; absent: as its provider says.")
    )
    data_policies: tuple[str, ...] | None = field(
        default=None, metadata=about(tables.labels, "What is promised about data; absent: as its provider says.")
    )

    def conditions(self, provider: ProviderSettings) -> tuple[str, frozenset[str]]:
        """Return its region, "" where unknown, and its data policies."""
        policies = provider.data_policies if self.data_policies is None else self.data_policies
        return self.region or provider.region or "", frozenset(policies)


@dataclass(frozen=True, slots=True)
class CandidateSettings:
    """``[[candidates]]``: an LLM the router may choose."""

    name: str = field(metadata=about(tables.name, "What clients, decisions and the bundle call it."))
    deployments: tuple[DeploymentSettings, ...] = field(
        metadata={"rows": DeploymentSettings, "help": "Ways to reach it; at least one."}
    )
    like: str | None = field(
        default=None,
        metadata=about(tables.name, "Bundle candidate whose predictions it borrows; shown in every decision."),
    )
    parameters: Mapping[str, object] = field(
        default_factory=dict, metadata=about(tables.parameters, "Request fields it is always called with.")
    )
    failover: tuple[str, ...] = field(
        default=(),
        metadata=about(
            tables.names,
            "Candidates that stand in for it, in this order, where a caller asks for it by name and it fails; auto has "
            "its ranking.",
        ),
    )
    embeddings: bool = field(
        default=False,
        metadata=about(tables.flag, "Embeds text for /v1/embeddings instead of answering; auto never chooses it."),
    )
    tools: bool = field(default=True, metadata=about(tables.flag, "Accepts tools."))
    vision: bool = field(default=False, metadata=about(tables.flag, "Accepts images."))
    json_schema: bool = field(default=True, metadata=about(tables.flag, "Accepts a JSON schema as response format."))
    context_window_tokens: int | None = field(
        default=None,
        metadata=about(tables.count(1), "Longest input and output together; absent excludes nothing.", "tokens"),
    )
    max_output_tokens: int | None = field(
        default=None, metadata=about(tables.count(1), "Longest output; absent excludes nothing.", "tokens")
    )
    input_usd_per_mtok: float | None = field(
        default=None,
        metadata=about(tables.number(0), "Price of input; absent asks genai-prices, else unknown (null).", "USD/Mtok"),
    )
    output_usd_per_mtok: float | None = field(
        default=None,
        metadata=about(tables.number(0), "Price of output; given together with the input price.", "USD/Mtok"),
    )
    cache_read_usd_per_mtok: float | None = field(
        default=None, metadata=about(tables.number(0), "Price of cached input.", "USD/Mtok")
    )
    cache_write_usd_per_mtok: float | None = field(
        default=None, metadata=about(tables.number(0), "Price of writing input to the cache.", "USD/Mtok")
    )
    cache_write_1h_usd_per_mtok: float | None = field(
        default=None,
        metadata=about(tables.number(0), "Price of writing it for an hour; absent: that of other writing.", "USD/Mtok"),
    )

    def price(self) -> Price | None:
        """Return the price stated in the file, or None where it states none."""
        if self.input_usd_per_mtok is None or self.output_usd_per_mtok is None:
            return None
        return Price(
            self.input_usd_per_mtok,
            self.output_usd_per_mtok,
            self.cache_read_usd_per_mtok,
            self.cache_write_usd_per_mtok,
            self.cache_write_1h_usd_per_mtok,
        )

    def capabilities(self) -> Capabilities:
        """Return what the candidate can do, in the router's words."""
        return Capabilities(
            self.tools, self.vision, self.json_schema, self.context_window_tokens, self.max_output_tokens
        )
