"""The providers Turnout knows, one frozen row each: where they are, how they are told the key, what they cannot take.

A row is data, and a base URL only the default of ``providers[].base_url``. Which models a provider has and what they
cost is the price catalogue's business. What a row can say is in :mod:`serving.providers.provider` and
:mod:`serving.providers.quirks`. Entry point: :data:`PROVIDERS`.

The rows make this file long; there is nothing to hold in the head.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from serving.providers.provider import Provider, Way
from serving.providers.quirks import NO_QUIRKS, Quirks

__all__ = ["NO_QUIRKS", "PROVIDERS", "Provider", "Quirks", "Way"]

_CHAT = frozenset({"chat"})
#: Those that check every field of a message know OpenAI's own only.
_THOUGHTS = frozenset({"reasoning_content"})
#: Three steps, said of Kimi and GLM.
_LOW_HIGH_MAX = (("minimal", "low"), ("medium", "high"), ("xhigh", "max"))
_OPENAI = Quirks(limit_field="max_completion_tokens", withheld_of_messages=_THOUGHTS)
_NEW_LIMIT = Quirks(limit_field="max_completion_tokens")

# Whether a cancelled stream stops the bill follows OpenRouter's list of providers that support stream cancellation.
_ROWS = (
    Provider(
        "openai", "OpenAI", "https://api.openai.com/v1", "OPENAI_API_KEY", responses=True, quirks=_OPENAI,
        stops_billing=True,
    ),
    Provider(
        "azure", "Azure OpenAI", "https://{resource}.openai.azure.com/openai/v1", "AZURE_OPENAI_API_KEY",
        responses=True, messages="https://{resource}.services.ai.azure.com/anthropic", key_header="api-key",
        quirks=_OPENAI, stops_billing=True,
        note="The model is the name of your deployment. Messages is for Claude alone.",
    ),
    Provider(
        "anthropic", "Anthropic", "https://api.anthropic.com/v1", "ANTHROPIC_API_KEY",
        messages="https://api.anthropic.com", unfaithful=_CHAT, stops_billing=True,
        note="Its Chat API is meant for testing, by its own documentation.",
    ),
    Provider(
        "gemini", "Google Gemini", "https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY",
        gemini="https://generativelanguage.googleapis.com/v1beta", unfaithful=_CHAT, stops_billing=False,
        note="Its Chat API lacks what Gemini's own has.", catalogue="google",
    ),
    Provider(
        "vertex", "Google Vertex AI",
        "https://{location}-aiplatform.googleapis.com/v1/projects/{project}/locations/{location}/endpoints/openapi",
        "VERTEX_ACCESS_TOKEN",
        gemini="https://{location}-aiplatform.googleapis.com/v1/projects/{project}/locations/{location}"
        "/publishers/google",
        unfaithful=_CHAT, gemini_key_header="authorization", stops_billing=False,
        note="Takes an OAuth access token, which expires after an hour; nothing renews it yet. LLMs that are not "
        "Google's are behind its Chat API.",
    ),
    Provider(
        "bedrock", "Amazon Bedrock", "https://bedrock-runtime.{region}.amazonaws.com/openai/v1",
        "AWS_BEARER_TOKEN_BEDROCK", responses=True, messages="https://bedrock-mantle.{region}.api.aws/anthropic",
        messages_key_header="authorization", quirks=_NEW_LIMIT, stops_billing=False,
        note="With a Bedrock API key; requests are not signed. Messages is for Claude alone.", catalogue="aws",
    ),
    Provider(
        "xai", "xAI", "https://api.x.ai/v1", "XAI_API_KEY", responses=True,
        quirks=Quirks(
            withheld=frozenset({"frequency_penalty", "presence_penalty"}), limit_field="max_completion_tokens"
        ),
        stops_billing=True, note="Its count of output tokens leaves reasoning out.", catalogue="x-ai",
    ),
    Provider(
        "deepseek", "DeepSeek", "https://api.deepseek.com", "DEEPSEEK_API_KEY", responses=True,
        messages="https://api.deepseek.com/anthropic", quirks=Quirks(thinking="type"), stops_billing=True,
    ),
    Provider(
        "moonshot", "Moonshot AI (Kimi)", "https://api.moonshot.ai/v1", "MOONSHOT_API_KEY", responses=True,
        messages="https://api.moonshot.ai/anthropic", messages_key_header="authorization",
        # Kimi's sampling is fixed: any other value is refused.
        quirks=Quirks(
            withheld=frozenset({"frequency_penalty", "presence_penalty", "temperature", "top_p"}),
            limit_field="max_completion_tokens", thinking="type", efforts=_LOW_HIGH_MAX,
        ),
        note="In China: api.moonshot.cn.", catalogue="moonshotai",
    ),
    Provider(
        "zai", "Z.ai (GLM)", "https://api.z.ai/api/paas/v4", "ZAI_API_KEY", messages="https://api.z.ai/api/anthropic",
        messages_key_header="authorization", quirks=Quirks(thinking="type", efforts=_LOW_HIGH_MAX),
        note="Coding plan: https://api.z.ai/api/coding/paas/v4; in China: https://open.bigmodel.cn/api/paas/v4.",
    ),
    Provider(
        "qwen", "Alibaba Cloud (Qwen)", "https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "DASHSCOPE_API_KEY",
        responses=True, messages="https://dashscope-intl.aliyuncs.com/apps/anthropic",
        quirks=Quirks(thinking="enable"), stops_billing=False,
        note="Keys are bound to a region; newer workspaces have a host of their own.",
    ),
    Provider(
        "minimax", "MiniMax", "https://api.minimax.io/v1", "MINIMAX_API_KEY", responses=True,
        messages="https://api.minimax.io/anthropic", messages_key_header="authorization", stops_billing=False,
        note="In China: api.minimaxi.com.",
    ),
    Provider(
        "mistral", "Mistral AI", "https://api.mistral.ai/v1", "MISTRAL_API_KEY", stops_billing=False,
        # It answers 422 to every field it does not know.
        quirks=Quirks(
            withheld=frozenset(
                {"logit_bias", "logprobs", "prompt_cache_key", "safety_identifier", "service_tier", "store",
                 "stream_options", "top_logprobs", "user", "verbosity"}
            ),
            withheld_of_messages=_THOUGHTS,
            renamed=(("seed", "random_seed"), ("max_completion_tokens", "max_tokens")),
            efforts=(("minimal", "none"), ("low", "none"), ("medium", "high"), ("xhigh", "high"), ("max", "high")),
        ),
    ),
    Provider(
        "groq", "Groq", "https://api.groq.com/openai/v1", "GROQ_API_KEY", responses=True, stops_billing=False,
        quirks=Quirks(
            withheld=frozenset({"logit_bias", "logprobs", "top_logprobs"}),
            withheld_of_messages=_THOUGHTS | {"name"}, limit_field="max_completion_tokens",
        ),
    ),
    Provider("together", "Together AI", "https://api.together.ai/v1", "TOGETHER_API_KEY", stops_billing=True),
    Provider(
        "fireworks", "Fireworks AI", "https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY", responses=True,
        messages="https://api.fireworks.ai/inference", messages_key_header="authorization", stops_billing=True,
    ),
    Provider(
        "openrouter", "OpenRouter", "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY", responses=True,
        messages="https://openrouter.ai/api", messages_key_header="authorization", quirks=_NEW_LIMIT,
        note="Whether a cancelled stream is billed depends on who answers.",
    ),
    Provider(
        "cerebras", "Cerebras", "https://api.cerebras.ai/v1", "CEREBRAS_API_KEY",
        quirks=Quirks(
            withheld=frozenset(
                {"frequency_penalty", "logit_bias", "parallel_tool_calls", "presence_penalty", "service_tier"}
            ),
            withheld_of_messages=_THOUGHTS, limit_field="max_completion_tokens",
        ),
    ),
    Provider(
        "cohere", "Cohere", "https://api.cohere.ai/compatibility/v1", "COHERE_API_KEY", stops_billing=True,
        # It answers 422 to every field it does not know.
        quirks=Quirks(
            withheld=frozenset(
                {"logit_bias", "metadata", "parallel_tool_calls", "prediction", "service_tier", "store",
                 "top_logprobs"}
            ),
            withheld_of_messages=_THOUGHTS, withheld_of_tools=frozenset({"strict"}),
        ),
    ),
    Provider("deepinfra", "DeepInfra", "https://api.deepinfra.com/v1/openai", "DEEPINFRA_API_KEY", stops_billing=True),
    Provider("nvidia", "NVIDIA (Nemotron)", "https://integrate.api.nvidia.com/v1", "NVIDIA_API_KEY"),
    Provider(
        "huggingface", "Hugging Face", "https://router.huggingface.co/v1", "HF_TOKEN", responses=True,
        stops_billing=False, note="A model may name who serves it: MODEL:PROVIDER.",
    ),
    Provider(
        "perplexity", "Perplexity", "https://api.perplexity.ai", "PERPLEXITY_API_KEY", stops_billing=False,
        note="It has no tools: set tools = false on its candidates.",
    ),
    Provider("sambanova", "SambaNova", "https://api.sambanova.ai/v1", "SAMBANOVA_API_KEY", stops_billing=False),
    Provider(
        "xiaomi", "Xiaomi MiMo", "https://api.xiaomimimo.com/v1", "XIAOMI_API_KEY",
        messages="https://api.xiaomimimo.com/anthropic", messages_key_header="authorization",
        quirks=Quirks(limit_field="max_completion_tokens", thinking="type"),
    ),
    Provider(
        "nebius", "Nebius Token Factory", "https://api.tokenfactory.nebius.com/v1", "NEBIUS_API_KEY",
        stops_billing=False,
    ),
    Provider(
        "novita", "Novita AI", "https://api.novita.ai/openai", "NOVITA_API_KEY",
        messages="https://api.novita.ai/anthropic", messages_key_header="authorization", stops_billing=True,
        note="Messages is for some of its LLMs: its documentation lists them. Else set apis = [\"chat\"].",
    ),
    Provider("siliconflow", "SiliconFlow", "https://api.siliconflow.com/v1", "SILICONFLOW_API_KEY"),
    Provider("hyperbolic", "Hyperbolic", "https://api.hyperbolic.xyz/v1", "HYPERBOLIC_API_KEY", stops_billing=True),
    Provider("baseten", "Baseten", "https://inference.baseten.co/v1", "BASETEN_API_KEY"),
    Provider(
        "volcengine", "Volcengine Ark", "https://ark.cn-beijing.volces.com/api/v3", "ARK_API_KEY", responses=True
    ),
    Provider("stepfun", "StepFun", "https://api.stepfun.com/v1", "STEPFUN_API_KEY"),
    Provider(
        "meta", "Meta", "https://api.meta.ai/v1", "META_API_KEY", responses=True, quirks=_NEW_LIMIT,
        note="The older Llama API: https://api.llama.com/compat/v1.",
    ),
    Provider(
        "cloudflare", "Cloudflare Workers AI", "https://api.cloudflare.com/client/v4/accounts/{account}/ai/v1",
        "CLOUDFLARE_API_TOKEN", stops_billing=True,
    ),
    Provider(
        "databricks", "Databricks", "https://{host}/ai-gateway/mlflow/v1", "DATABRICKS_TOKEN",
        messages="https://{host}/serving-endpoints/anthropic", messages_key_header="authorization",
        note="Messages is for Claude alone.",
    ),
    Provider(
        "vercel", "Vercel AI Gateway", "https://ai-gateway.vercel.sh/v1", "AI_GATEWAY_API_KEY", responses=True,
        messages="https://ai-gateway.vercel.sh", messages_key_header="authorization",
    ),
    Provider(
        "vllm", "vLLM", "http://localhost:8000/v1", "", responses=True, messages="http://localhost:8000",
        messages_key_header="authorization", stops_billing=True,
    ),
    Provider(
        "ollama", "Ollama", "http://localhost:11434/v1", "", responses=True, messages="http://localhost:11434",
        messages_key_header="authorization", stops_billing=True,
        note="Ollama's cloud: https://ollama.com/v1, with api_key_env.",
    ),
    Provider(
        "llamacpp", "llama.cpp server", "http://localhost:8080/v1", "", responses=True,
        messages="http://localhost:8080", messages_key_header="authorization", stops_billing=True,
        note="8080 is also where Turnout listens by default.",
    ),
    Provider(
        "lmstudio", "LM Studio", "http://localhost:1234/v1", "", responses=True, messages="http://localhost:1234",
        messages_key_header="authorization", stops_billing=True,
    ),
)  # fmt: skip

#: By name, in the order they are listed.
PROVIDERS: Mapping[str, Provider] = MappingProxyType({row.name: row for row in _ROWS})
