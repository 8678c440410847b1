"""The providers Turnout knows, one frozen row each: where they are, how they are told the key, what they cannot take.

A row is data. Nothing here does I/O, and a base URL is only the default of ``providers[].base_url``. Which models a
provider has and what they cost is the price catalogue's business. What is withheld is what its documentation or users'
reports say is answered with an error; a field that is merely ignored passes. Entry points: :data:`PROVIDERS`,
:class:`Provider`, :meth:`Quirks.apply`.

The rows make this file long; there is nothing to hold in the head.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

_PLACEHOLDER = re.compile(r"\{([a-z]+)\}")


@dataclass(frozen=True, slots=True)
class Quirks:
    """What a provider's Chat Completions cannot take as OpenAI's does.

    Parameters
    ----------
    withheld : frozenset of str
        Top-level fields that would be refused.
    withheld_of_messages : frozenset of str
        Fields of each message that would be refused.
    renamed : tuple of (str, str)
        OpenAI's field and the provider's own name of it.
    """

    withheld: frozenset[str] = frozenset()
    withheld_of_messages: frozenset[str] = frozenset()
    renamed: tuple[tuple[str, str], ...] = ()

    def apply(self, body: dict[str, object]) -> tuple[str, ...]:
        """Change a request body in place.

        Parameters
        ----------
        body : dict
            Its values are left alone: they may belong to the client's request.

        Returns
        -------
        tuple of str
            The fields that were taken out, as ``field`` or ``messages[].field``, in a fixed order.
        """
        lost = sorted(self.withheld & body.keys())
        for name in lost:
            del body[name]
        for usual, own in self.renamed:
            if usual in body:
                value = body.pop(usual)
                body.setdefault(own, value)
        messages = body.get("messages")
        if self.withheld_of_messages and isinstance(messages, list):
            found = sorted({n for m in messages if isinstance(m, dict) for n in self.withheld_of_messages & m.keys()})
            if found:
                body["messages"] = [
                    {k: v for k, v in m.items() if k not in self.withheld_of_messages} if isinstance(m, dict) else m
                    for m in messages
                ]
                lost += [f"messages[].{name}" for name in found]
        return tuple(lost)


NO_QUIRKS = Quirks()


@dataclass(frozen=True, slots=True)
class Provider:
    """One row.

    Parameters
    ----------
    name : str
        What ``providers[].name`` or ``providers[].kind`` says.
    title : str
    chat : str
        Root of its OpenAI-compatible API, without ``/chat/completions``; words in braces are the operator's to fill in.
    key_env : str
        Variable its documentation keeps the key in; empty where a key is not needed.
    responses : bool
        Whether the same root also serves OpenAI Responses.
    messages : str
        Root of its Anthropic-compatible API, without ``/v1/messages``; empty where it has none.
    gemini : str
        Root of its Gemini API; empty where it has none.
    key_header : str
        Header of the key; ``authorization`` carries it as a bearer token.
    quirks : Quirks
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
    key_header: str = "authorization"
    quirks: Quirks = field(default=NO_QUIRKS)
    stops_billing: bool | None = None
    note: str = ""
    catalogue: str = ""

    @property
    def placeholders(self) -> tuple[str, ...]:
        """Return the words of the chat root that only the operator knows."""
        return tuple(_PLACEHOLDER.findall(self.chat))

    @property
    def dialects(self) -> tuple[str, ...]:
        """Return the APIs it serves itself: of ``chat``, ``responses``, ``messages``, ``gemini``."""
        served = {"chat": self.chat, "responses": self.responses, "messages": self.messages, "gemini": self.gemini}
        return tuple(name for name, root in served.items() if root)

    def credential(self, key: str) -> dict[str, str]:
        """Return the header that carries a key."""
        return {self.key_header: f"Bearer {key}" if self.key_header == "authorization" else key}


# Whether a cancelled stream stops the bill follows OpenRouter's list of providers that support stream cancellation.
_ROWS = (
    Provider(
        "openai", "OpenAI", "https://api.openai.com/v1", "OPENAI_API_KEY", responses=True, stops_billing=True
    ),
    Provider(
        "azure", "Azure OpenAI", "https://{resource}.openai.azure.com/openai/v1", "AZURE_OPENAI_API_KEY",
        responses=True, messages="https://{resource}.services.ai.azure.com/anthropic", key_header="api-key",
        stops_billing=True, note="The model is the name of your deployment.",
    ),
    Provider(
        "anthropic", "Anthropic", "https://api.anthropic.com/v1", "ANTHROPIC_API_KEY",
        messages="https://api.anthropic.com", stops_billing=True,
        note="Its Chat API is meant for testing, by its own documentation.",
    ),
    Provider(
        "gemini", "Google Gemini", "https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY",
        gemini="https://generativelanguage.googleapis.com/v1beta", stops_billing=False, catalogue="google",
    ),
    Provider(
        "vertex", "Google Vertex AI",
        "https://{location}-aiplatform.googleapis.com/v1/projects/{project}/locations/{location}/endpoints/openapi",
        "VERTEX_ACCESS_TOKEN", stops_billing=False,
        note="Takes an OAuth access token, which expires after an hour; nothing renews it yet.",
    ),
    Provider(
        "bedrock", "Amazon Bedrock", "https://bedrock-runtime.{region}.amazonaws.com/openai/v1",
        "AWS_BEARER_TOKEN_BEDROCK", responses=True, messages="https://bedrock-mantle.{region}.api.aws/anthropic",
        stops_billing=False, note="With a Bedrock API key; requests are not signed.", catalogue="aws",
    ),
    Provider(
        "xai", "xAI", "https://api.x.ai/v1", "XAI_API_KEY", responses=True, stops_billing=True,
        note="Its count of output tokens leaves reasoning out.", catalogue="x-ai",
    ),
    Provider(
        "deepseek", "DeepSeek", "https://api.deepseek.com", "DEEPSEEK_API_KEY", responses=True,
        messages="https://api.deepseek.com/anthropic", stops_billing=True,
    ),
    Provider(
        "moonshot", "Moonshot AI (Kimi)", "https://api.moonshot.ai/v1", "MOONSHOT_API_KEY", responses=True,
        messages="https://api.moonshot.ai/anthropic", note="In China: api.moonshot.cn.", catalogue="moonshotai",
    ),
    Provider(
        "zai", "Z.ai (GLM)", "https://api.z.ai/api/paas/v4", "ZAI_API_KEY", messages="https://api.z.ai/api/anthropic",
        note="Coding plan: https://api.z.ai/api/coding/paas/v4; in China: https://open.bigmodel.cn/api/paas/v4.",
    ),
    Provider(
        "qwen", "Alibaba Cloud (Qwen)", "https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "DASHSCOPE_API_KEY",
        stops_billing=False, note="Keys are bound to a region; newer workspaces have a host of their own.",
    ),
    Provider(
        "minimax", "MiniMax", "https://api.minimax.io/v1", "MINIMAX_API_KEY", responses=True,
        messages="https://api.minimax.io/anthropic", stops_billing=False, note="In China: api.minimaxi.com.",
    ),
    Provider(
        "mistral", "Mistral AI", "https://api.mistral.ai/v1", "MISTRAL_API_KEY", stops_billing=False,
        # It answers 422 to every field it does not know.
        quirks=Quirks(
            withheld=frozenset(
                {"logit_bias", "logprobs", "prompt_cache_key", "safety_identifier", "service_tier", "store",
                 "stream_options", "top_logprobs", "user", "verbosity"}
            ),
            renamed=(("seed", "random_seed"), ("max_completion_tokens", "max_tokens")),
        ),
    ),
    Provider(
        "groq", "Groq", "https://api.groq.com/openai/v1", "GROQ_API_KEY", responses=True, stops_billing=False,
        quirks=Quirks(
            withheld=frozenset({"logit_bias", "logprobs", "top_logprobs"}), withheld_of_messages=frozenset({"name"})
        ),
    ),
    Provider("together", "Together AI", "https://api.together.ai/v1", "TOGETHER_API_KEY", stops_billing=True),
    Provider(
        "fireworks", "Fireworks AI", "https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY", stops_billing=True
    ),
    Provider(
        "openrouter", "OpenRouter", "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY", responses=True,
        messages="https://openrouter.ai/api", note="Whether a cancelled stream is billed depends on who answers.",
    ),
    Provider(
        "cerebras", "Cerebras", "https://api.cerebras.ai/v1", "CEREBRAS_API_KEY",
        quirks=Quirks(
            withheld=frozenset(
                {"frequency_penalty", "logit_bias", "parallel_tool_calls", "presence_penalty", "service_tier"}
            )
        ),
    ),
    Provider(
        "cohere", "Cohere", "https://api.cohere.ai/compatibility/v1", "COHERE_API_KEY", stops_billing=True
    ),
    Provider("deepinfra", "DeepInfra", "https://api.deepinfra.com/v1/openai", "DEEPINFRA_API_KEY", stops_billing=True),
    Provider("nvidia", "NVIDIA (Nemotron)", "https://integrate.api.nvidia.com/v1", "NVIDIA_API_KEY"),
    Provider(
        "huggingface", "Hugging Face", "https://router.huggingface.co/v1", "HF_TOKEN", stops_billing=False,
        note="A model may name who serves it: MODEL:PROVIDER.",
    ),
    Provider(
        "perplexity", "Perplexity", "https://api.perplexity.ai", "PERPLEXITY_API_KEY", stops_billing=False,
        note="It has no tools: set tools = false on its candidates.",
    ),
    Provider("sambanova", "SambaNova", "https://api.sambanova.ai/v1", "SAMBANOVA_API_KEY", stops_billing=False),
    Provider("xiaomi", "Xiaomi MiMo", "https://api.xiaomimimo.com/v1", "XIAOMI_API_KEY"),
    Provider(
        "nebius", "Nebius Token Factory", "https://api.tokenfactory.nebius.com/v1", "NEBIUS_API_KEY",
        stops_billing=False,
    ),
    Provider("novita", "Novita AI", "https://api.novita.ai/openai", "NOVITA_API_KEY", stops_billing=True),
    Provider("siliconflow", "SiliconFlow", "https://api.siliconflow.com/v1", "SILICONFLOW_API_KEY"),
    Provider("hyperbolic", "Hyperbolic", "https://api.hyperbolic.xyz/v1", "HYPERBOLIC_API_KEY", stops_billing=True),
    Provider("baseten", "Baseten", "https://inference.baseten.co/v1", "BASETEN_API_KEY"),
    Provider("volcengine", "Volcengine Ark", "https://ark.cn-beijing.volces.com/api/v3", "ARK_API_KEY"),
    Provider("stepfun", "StepFun", "https://api.stepfun.com/v1", "STEPFUN_API_KEY"),
    Provider(
        "meta", "Meta", "https://api.meta.ai/v1", "META_API_KEY", responses=True,
        note="The older Llama API: https://api.llama.com/compat/v1.",
    ),
    Provider(
        "cloudflare", "Cloudflare Workers AI", "https://api.cloudflare.com/client/v4/accounts/{account}/ai/v1",
        "CLOUDFLARE_API_TOKEN", stops_billing=True,
    ),
    Provider("databricks", "Databricks", "https://{host}/ai-gateway/mlflow/v1", "DATABRICKS_TOKEN"),
    Provider("vercel", "Vercel AI Gateway", "https://ai-gateway.vercel.sh/v1", "AI_GATEWAY_API_KEY"),
    Provider(
        "vllm", "vLLM", "http://localhost:8000/v1", "", responses=True, messages="http://localhost:8000",
        stops_billing=True,
    ),
    Provider(
        "ollama", "Ollama", "http://localhost:11434/v1", "", responses=True, messages="http://localhost:11434",
        stops_billing=True, note="Ollama's cloud: https://ollama.com/v1, with api_key_env.",
    ),
    Provider(
        "llamacpp", "llama.cpp server", "http://localhost:8080/v1", "", responses=True,
        messages="http://localhost:8080", stops_billing=True, note="8080 is also where Turnout listens by default.",
    ),
    Provider(
        "lmstudio", "LM Studio", "http://localhost:1234/v1", "", responses=True, messages="http://localhost:1234",
        stops_billing=True,
    ),
)  # fmt: skip

#: By name, in the order they are listed.
PROVIDERS: Mapping[str, Provider] = MappingProxyType({row.name: row for row in _ROWS})
