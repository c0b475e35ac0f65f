"""What a command's environment says of model APIs: leases and base URLs in, real keys out (P3).

Pure. Which SDK and which agent reads which variable is the vendors' own documentation's word; each provider's variables
are set only where the session has a connection to it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from narrows.core.errors import ConfigError

_VENDORS = (
    "AI21", "ALIBABA", "ANTHROPIC", "ANYSCALE", "AZURE_AI", "AZURE_OPENAI", "CEREBRAS", "CLAUDE", "CODEX", "COHERE",
    "COPILOT_PROVIDER", "DASHSCOPE", "DEEPINFRA", "DEEPSEEK", "FIREWORKS", "FIREWORKS_AI", "GEMINI",
    "GROK", "GROQ", "HF", "HUGGINGFACE", "HUGGING_FACE", "LITELLM", "MISTRAL", "MOONSHOT", "NVIDIA", "OPENAI",
    "OPENROUTER", "PERPLEXITY", "PERPLEXITYAI", "REPLICATE", "SAMBANOVA", "TOGETHER", "TOGETHERAI", "TOGETHER_AI",
    "VOYAGE", "WATSONX", "XAI", "ZAI", "ZHIPUAI",
)  # fmt: skip
_KEY = re.compile(
    rf"(?:{'|'.join(_VENDORS)})(?:_[A-Z0-9]+)*?"
    r"_(?:API_?KEYS?|KEY|AUTH_TOKEN|OAUTH_TOKEN|ACCESS_TOKEN|API_TOKEN|BEARER_TOKEN|HUB_TOKEN|TOKEN)(?:_[0-9]+)?"
    r"|GOOGLE(?:_[A-Z0-9]+)*?_API_?KEYS?(?:_[0-9]+)?"  # Google's tokens are for its whole cloud
)

_SLOTS = {"anthropic": "anthropic", "openai": "openai", "openai-compatible": "openai", "gemini": "gemini"}
"""Which set of variables a provider's connection fills: OpenAI and what speaks its API share one."""

_KEYS = {
    "anthropic": ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"),
    "openai": ("OPENAI_API_KEY", "CODEX_API_KEY"),
    "gemini": ("GEMINI_API_KEY", "GOOGLE_API_KEY", "GOOGLE_GENERATIVE_AI_API_KEY"),
}
_URLS = {
    "anthropic": ("ANTHROPIC_BASE_URL",),
    "openai": ("OPENAI_BASE_URL", "OPENAI_API_BASE"),
    "gemini": ("GOOGLE_GEMINI_BASE_URL",),
}
_COPILOT = {"openai": "openai", "anthropic": "anthropic"}
"""The types of provider that Copilot's command line knows, first the one that is taken where both are there."""

VARIABLES = (
    *(name for slot in _KEYS for name in (*_KEYS[slot], *_URLS[slot])),
    "COPILOT_PROVIDER_TYPE", "COPILOT_PROVIDER_BASE_URL", "COPILOT_PROVIDER_API_KEY", "OPENCODE_CONFIG_CONTENT",
    "CLAUDE_CODE_PROPAGATE_TRACEPARENT",
)  # fmt: skip
"""Every variable that `apply` may set."""


def slot(provider: str) -> str:
    """Which of the sets of variables the provider's connection fills: two of the same exclude each other."""
    return _SLOTS.get(provider, provider)


def is_real_key(name: str) -> bool:
    """Whether a variable of that name holds a model provider's key: a provider's name, then `_API_KEY`, `_TOKEN` or
    their like at the end."""
    return _KEY.fullmatch(name.upper()) is not None


def apply(env: dict[str, str], leases: Sequence[Mapping[str, Any]], program: str, *, endpoint: bool) -> None:
    """Put a session's leases of model APIs into `env`, in place; `program` is the name of the command that will run.

    Where there is none, `env` stays as it is: the session's models are not the gateway's business. Else every real key
    that `is_real_key` knows is taken out first, of all providers. Without `endpoint` no base URL is set, and one that
    led elsewhere is taken out, for the lease would go there. Raises ConfigError for an OPENCODE_CONFIG_CONTENT that is
    no JSON object.
    """
    found: dict[str, Mapping[str, Any]] = {}
    for lease in leases:
        if lease.get("kind") == "llm":
            found.setdefault(slot(str(lease["provider"])), lease)
    if not found:
        return
    for name in [name for name in env if is_real_key(name)]:
        del env[name]
    for which, lease in found.items():
        for name in _URLS.get(which, ()):
            env.pop(name, None)
            if endpoint:
                env[name] = str(lease["base_url"])
        for name in _KEYS.get(which, ()):
            env[name] = str(lease["api_key"])
    if "anthropic" in found:
        env["CLAUDE_CODE_PROPAGATE_TRACEPARENT"] = "1"
        if program == "claude":
            del env["ANTHROPIC_API_KEY"]  # with both, Claude Code warns of a conflict, and asks before it uses a key
    if endpoint:
        _copilot(env, found)
        if program == "opencode":
            env["OPENCODE_CONFIG_CONTENT"] = _opencode(env.get("OPENCODE_CONFIG_CONTENT", ""), found)


def _copilot(env: dict[str, str], found: Mapping[str, Mapping[str, Any]]) -> None:
    """Copilot's own provider settings: the type that is set already where the session has it, else the first."""
    offered = [kind for kind in _COPILOT if kind in found]
    if not offered:
        return
    kind = env.get("COPILOT_PROVIDER_TYPE", "")
    kind = kind if kind in offered else offered[0]
    env["COPILOT_PROVIDER_TYPE"] = kind
    env["COPILOT_PROVIDER_BASE_URL"] = str(found[kind]["base_url"])
    env["COPILOT_PROVIDER_API_KEY"] = str(found[kind]["api_key"])


def _opencode(before: str, found: Mapping[str, Mapping[str, Any]]) -> str:
    """opencode's configuration with the providers' base URLs and keys, over what it said before.

    Its base URLs have the version in them, and the keys are named by their variables, not written out.
    """
    try:
        config = json.loads(before) if before.strip() else {}
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise ConfigError(
            "The command was not started",
            "OPENCODE_CONFIG_CONTENT is no JSON object, so that nothing can be added to it",
            "mend or unset it",
        )
    names = {"anthropic": ("anthropic", "/v1"), "openai": ("openai", ""), "gemini": ("google", "/v1beta")}
    providers = config["provider"] if isinstance(config.get("provider"), dict) else {}
    for which, (name, version) in names.items():
        if which not in found:
            continue
        known: Any = providers.get(name)
        known = known if isinstance(known, dict) else {}
        options = known["options"] if isinstance(known.get("options"), dict) else {}
        key = _KEYS[which][0]
        ours = {"baseURL": str(found[which]["base_url"]) + version, "apiKey": f"{{env:{key}}}"}
        providers[name] = {**known, "options": {**options, **ours}}
    return json.dumps({**config, "provider": providers})


def shell_variables(lease: Mapping[str, Any]) -> dict[str, str]:
    """The variables of one lease, as `narrows lease` prints them."""
    which = slot(str(lease["provider"]))
    named = {name: str(lease["base_url"]) for name in _URLS.get(which, ())}
    return named | {name: str(lease["api_key"]) for name in _KEYS.get(which, ())}
