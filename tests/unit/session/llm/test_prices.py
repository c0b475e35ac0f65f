"""The price table: right names, right rows, and no cost where a price is not known."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from narrows.session.llm import prices

M = {"input": 1_000_000, "output": 1_000_000}


@pytest.mark.parametrize(
    ("provider", "model", "usage", "usd"),
    [
        ("anthropic", "claude-opus-4-5-20251101", M, 30),
        ("anthropic", "claude-opus-4-20250514", {"input": 1000, "output": 1000}, 0.09),
        ("anthropic", "claude-3-5-haiku-latest", {"input": 1000, "output": 0}, 0.0008),
        ("anthropic", "claude-haiku-5-5", {"input": 100_000, "output": 10}, 0.010005),
        ("anthropic", "claude-haiku-5-5", {"input": 100_001, "output": 0}, 0.0500005),
        ("anthropic", "claude-haiku-5-5", {"input": 1, "output": 0, "cache_read": 100_000}, 0.0050005),
        ("openai", "gpt-5-codex", {"input": 1000, "output": 100, "cache_read": 9000}, 0.003375),
        ("openai", "gpt-4.1-2025-04-14", {"input": 1000, "output": 0}, 0.002),
        ("gemini", "models/gemini-2.5-pro", {"input": 250_000, "output": 1000}, 0.64),
        (
            "anthropic",
            "claude-haiku-4-5",
            {"input": 0, "output": 0, "cache_write": 1000, "cache_write_1h": 400},
            0.00155,
        ),
    ],
)
def test_known(provider: str, model: str, usage: dict[str, Any], usd: float) -> None:
    assert prices.cost(provider, model, usage) == pytest.approx(usd)


@pytest.mark.parametrize(
    ("provider", "model", "usage"),
    [
        ("anthropic", "claude-opus-4-9", M),
        ("anthropic", "claude", M),
        ("anthropic", "", M),
        ("openai", "gpt-5-turbo", M),
        ("openai-compatible", "gpt-5", M),
        ("bedrock", "anthropic.claude-sonnet-4-5-20250929-v1:0", M),
        ("gemini", "gemini-2.5-flash-lite", M),
        ("openai", "o3", {"input": 1, "output": 1, "cache_read": 1}),
        ("anthropic", "claude-sonnet-4-5", {"input": 200_001, "output": 1}),
        ("anthropic", "claude-sonnet-4-5", {"input": None, "output": 1}),
        ("anthropic", "claude-sonnet-4-5", {}),
    ],
)
def test_unknown_is_null_never_a_guess(provider: str, model: str, usage: dict[str, Any]) -> None:
    assert prices.cost(provider, model, usage) is None


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "claude-sonnet-4-5"),
        ("arn:aws:bedrock:us-east-1:1:inference-profile/eu.anthropic.claude-opus-4-1-v1:0", "claude-opus-4-1"),
        ("claude-opus-4@20250514", "claude-opus-4"),
        ("Claude-Sonnet-4-6[1m]", "claude-sonnet-4-6"),
        ("openai/gpt-5.1-2025-11-13", "gpt-5.1"),
        ("gpt-5.1", "gpt-5.1"),
    ],
)
def test_names_without_prefix_date_and_version(given: str, name: str) -> None:
    assert prices.plain(given) == name


def test_the_longest_pattern_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[tuple[str, dict[str, Any]]] = [("m-*", {"input": 1}), ("m-mini*", {"input": 2}), ("*", {"input": 3})]
    monkeypatch.setattr(prices, "_rows", lambda provider: rows)
    assert [prices.price("p", name) for name in ("m-mini-2", "m-9", "n")] == [{"input": 2}, {"input": 1}, {"input": 3}]


def test_the_table_is_well_formed() -> None:
    table = prices._table()
    for provider in table["providers"].values():
        assert provider["source"].startswith("https://") and len(provider["as_of"]) == 10
        patterns = [pattern for row in provider["prices"] for pattern in row["models"]]
        assert len(patterns) == len(set(patterns))
        for row in provider["prices"]:
            assert row["models"] == [prices.plain(name) for name in row["models"]], row["models"]
            assert 0 < row["input"] < row["output"]
            assert row.get("source", "https://").startswith("https://")
            for rates in (row, row.get("long") or row):
                assert {"input", "output", "cache_read", "cache_write"} <= rates.keys()
                assert all(v is None or v > 0 for k, v in rates.items() if k.startswith("cache"))
    assert orjson.dumps(table)
