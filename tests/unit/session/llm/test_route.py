"""What a path says of a call to a model API."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from narrows.session.llm.outbound import without_key
from narrows.session.llm.route import ANTHROPIC, CHAT, GEMINI, RESPONSES, route


@pytest.mark.parametrize(
    ("path", "operation", "protocol"),
    [
        ("/v1/messages?beta=true", "messages", ANTHROPIC),
        ("//v1/messages", "messages", ANTHROPIC),
        ("/v1/messages/count_tokens?beta=true", "count_tokens", ANTHROPIC),
        ("/v1/messages/batches", "batches", ""),
        ("/v1/chat/completions", "chat.completions", CHAT),
        ("/openai/v1/chat/completions", "chat.completions", CHAT),
        ("/v1/completions", "completions", ""),
        ("/v1/responses", "responses", RESPONSES),
        ("/responses/", "responses", RESPONSES),
        ("/v1/responses/resp_0a1b2c/input_items", "input_items", ""),
        ("/v1/responses/resp_0a1b2c", "responses", ""),
        ("/v1beta/models/gemini-2.5-pro:generateContent", "generateContent", GEMINI),
        ("/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse", "streamGenerateContent", GEMINI),
        ("/v1internal:streamGenerateContent", "streamGenerateContent", GEMINI),
        ("/v1beta/models/g:countTokens", "countTokens", GEMINI),
        ("/v1/models?limit=1000", "models", ""),
        ("/v1/models/claude-sonnet-4-5", "models", ""),
        ("/v1beta/models", "models", ""),
        ("/v1/embeddings", "embeddings", ""),
        ("/v1/files/file-9X4B", "files", ""),
        ("/v1/analytics/codex/turn-costs", "turn-costs", ""),
        ("/", "head", ""),
        ("/v1/X:Y:Z", "Z", GEMINI),
    ],
)
def test_the_operation_is_the_apis_own_word(path: str, operation: str, protocol: str) -> None:
    assert route(b"HEAD", path.encode()) == (operation, protocol)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_any_path_has_a_printable_operation(path: bytes) -> None:
    found = route(b"GET", b"/" + path)
    assert found.operation and found.operation.isascii() and found.operation.isprintable()
    assert len(found.operation) <= 64


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([b"a=1", b"alt=sse", b"", b"keys=2", b"b=%6bey", b"KEY=x"])), st.integers(0, 6))
def test_a_query_keeps_all_but_the_key(others: list[bytes], at: int) -> None:
    parts = [*others[:at], b"key=nrw1.a.b", *others[at:]]
    left = b"&".join(others)
    assert without_key(b"/p?" + b"&".join(parts)) == (b"/p?" + left if others else b"/p")
    assert without_key(b"/p?" + left) == b"/p?" + left
