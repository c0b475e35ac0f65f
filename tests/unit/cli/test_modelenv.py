"""What a command's environment says of model APIs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from narrows.cli.modelenv import VARIABLES, apply, is_real_key, shell_variables, slot
from narrows.core.errors import ConfigError

GATEWAY = "http://127.0.0.1:8470"


def lease(provider: str, name: str = "", base: str = "") -> dict[str, Any]:
    name = name or provider
    return {
        "connection": name, "kind": "llm", "provider": provider, "api_key": f"nrw1.{name}", "expires": 1,
        "base_url": f"{GATEWAY}/llm/{name}{base}", "access_key_id": "NRWLX",
    }  # fmt: skip


ALL = [lease("anthropic"), lease("openai", base="/v1"), lease("gemini")]
REAL = "the-real-key-of-this-user"


def applied(leases: list[dict[str, Any]], program: str = "", *, endpoint: bool = True, **env: str) -> dict[str, str]:
    apply(env, leases, program, endpoint=endpoint)
    return env


def test_every_sdk_finds_its_key_and_base_url() -> None:
    env = applied(ALL)
    assert env["ANTHROPIC_BASE_URL"] == f"{GATEWAY}/llm/anthropic"
    assert env["ANTHROPIC_API_KEY"] == env["ANTHROPIC_AUTH_TOKEN"] == "nrw1.anthropic"
    assert env["OPENAI_BASE_URL"] == env["OPENAI_API_BASE"] == f"{GATEWAY}/llm/openai/v1"
    assert env["OPENAI_API_KEY"] == env["CODEX_API_KEY"] == "nrw1.openai"
    assert env["GOOGLE_GEMINI_BASE_URL"] == f"{GATEWAY}/llm/gemini"
    assert env["GEMINI_API_KEY"] == env["GOOGLE_API_KEY"] == "nrw1.gemini"
    assert env["CLAUDE_CODE_PROPAGATE_TRACEPARENT"] == "1"
    assert env["COPILOT_PROVIDER_TYPE"] == "openai"
    assert env["COPILOT_PROVIDER_BASE_URL"] == env["OPENAI_BASE_URL"]
    assert env["COPILOT_PROVIDER_API_KEY"] == "nrw1.openai"
    assert set(env) <= set(VARIABLES)


def test_a_provider_without_a_connection_is_not_spoken_of() -> None:
    env = applied([lease("anthropic")], OPENAI_BASE_URL="https://elsewhere.example")
    assert not any(name.startswith(("GOOGLE", "GEMINI")) or name == "OPENAI_API_KEY" for name in env)
    assert env["OPENAI_BASE_URL"] == "https://elsewhere.example"
    assert env["COPILOT_PROVIDER_TYPE"] == "anthropic"
    assert applied([{"kind": "aws", "connection": "prod"}], ANTHROPIC_API_KEY=REAL) == {"ANTHROPIC_API_KEY": REAL}


def test_the_type_that_the_user_chose_for_copilot_stays_if_the_session_has_it() -> None:
    assert applied(ALL, COPILOT_PROVIDER_TYPE="anthropic")["COPILOT_PROVIDER_API_KEY"] == "nrw1.anthropic"
    assert applied(ALL, COPILOT_PROVIDER_TYPE="azure")["COPILOT_PROVIDER_TYPE"] == "openai"


KEYS = """
    ANTHROPIC_API_KEY ANTHROPIC_AUTH_TOKEN CLAUDE_CODE_OAUTH_TOKEN OPENAI_API_KEY OPENAI_KEY AZURE_OPENAI_API_KEY
    CODEX_API_KEY CODEX_ACCESS_TOKEN GEMINI_API_KEY GEMINI_API_KEY_2 GOOGLE_API_KEY GOOGLE_GENERATIVE_AI_API_KEY
    COPILOT_PROVIDER_API_KEY COPILOT_PROVIDER_BEARER_TOKEN OPENROUTER_API_KEY GROQ_API_KEY MISTRAL_API_KEY XAI_API_KEY
    DEEPSEEK_API_KEY HF_TOKEN HUGGINGFACE_HUB_TOKEN TOGETHER_API_KEY COHERE_API_KEY anthropic_api_key
""".split()  # noqa: SIM905
OTHERS = """
    PATH GITHUB_TOKEN GH_TOKEN CURSOR_API_KEY STRIPE_API_KEY NPM_TOKEN OPENAI_ORG_ID OPENAI_BASE_URL ANTHROPIC_MODEL
    ANTHROPIC_CUSTOM_HEADERS GOOGLE_APPLICATION_CREDENTIALS GOOGLE_OAUTH_ACCESS_TOKEN COPILOT_GITHUB_TOKEN
    CLAUDE_CODE_USE_BEDROCK MAX_THINKING_TOKENS CLAUDE_CODE_MAX_OUTPUT_TOKENS
""".split()  # noqa: SIM905


def test_real_keys_of_all_providers_go_and_nothing_else() -> None:
    assert [name for name in KEYS if not is_real_key(name)] == []
    assert [name for name in OTHERS if is_real_key(name)] == []
    env = dict.fromkeys(KEYS, REAL) | dict.fromkeys(OTHERS, "kept")
    apply(env, [lease("anthropic")], "", endpoint=True)
    assert REAL not in env.values()
    assert {name for name in OTHERS if env.get(name) != "kept"} == set()


def test_without_the_endpoint_form_no_lease_goes_to_a_base_url_of_the_users() -> None:
    env = applied(ALL, endpoint=False, ANTHROPIC_BASE_URL="https://elsewhere.example", OPENAI_API_BASE="x")
    assert not any(name.endswith(("BASE_URL", "API_BASE")) for name in env)
    assert env["OPENAI_API_KEY"] == "nrw1.openai"
    assert "OPENCODE_CONFIG_CONTENT" not in applied(ALL, "opencode", endpoint=False)


def test_claude_code_gets_one_key_so_that_it_need_not_ask() -> None:
    env = applied(ALL, "claude", ANTHROPIC_API_KEY=REAL)
    assert env["ANTHROPIC_AUTH_TOKEN"] == "nrw1.anthropic" and "ANTHROPIC_API_KEY" not in env


def test_opencode_gets_a_configuration_over_its_users() -> None:
    assert "OPENCODE_CONFIG_CONTENT" not in applied(ALL, "claude")
    config = json.loads(applied(ALL, "opencode")["OPENCODE_CONFIG_CONTENT"])
    assert config["provider"]["anthropic"]["options"] == {
        "baseURL": f"{GATEWAY}/llm/anthropic/v1", "apiKey": "{env:ANTHROPIC_API_KEY}",
    }  # fmt: skip
    assert config["provider"]["openai"]["options"]["baseURL"] == f"{GATEWAY}/llm/openai/v1"
    assert config["provider"]["google"]["options"]["baseURL"] == f"{GATEWAY}/llm/gemini/v1beta"
    before = {
        "model": "anthropic/x",
        "provider": {"anthropic": {"name": "mine", "options": {"timeout": 5, "apiKey": "k"}}, "own": {"npm": "p"}},
    }
    merged = json.loads(
        applied([lease("anthropic")], "opencode", OPENCODE_CONFIG_CONTENT=json.dumps(before))["OPENCODE_CONFIG_CONTENT"]
    )
    assert merged["model"] == "anthropic/x" and merged["provider"]["own"] == {"npm": "p"}
    assert merged["provider"]["anthropic"]["name"] == "mine"
    assert merged["provider"]["anthropic"]["options"]["timeout"] == 5
    assert merged["provider"]["anthropic"]["options"]["apiKey"] == "{env:ANTHROPIC_API_KEY}"
    assert set(merged["provider"]) == {"anthropic", "own"}
    for bad in ("[1]", "{"):
        with pytest.raises(ConfigError, match="OPENCODE_CONFIG_CONTENT"):
            applied(ALL, "opencode", OPENCODE_CONFIG_CONTENT=bad)


def test_the_first_of_two_that_compete_is_the_default() -> None:
    env = applied([lease("openai-compatible", "groq"), lease("openai")])
    assert env["OPENAI_API_KEY"] == "nrw1.groq"
    assert slot("openai") == slot("openai-compatible") != slot("anthropic")


def test_what_a_lease_prints() -> None:
    assert shell_variables(lease("gemini")) == {
        "GOOGLE_GEMINI_BASE_URL": f"{GATEWAY}/llm/gemini", "GEMINI_API_KEY": "nrw1.gemini",
        "GOOGLE_API_KEY": "nrw1.gemini", "GOOGLE_GENERATIVE_AI_API_KEY": "nrw1.gemini",
    }  # fmt: skip
