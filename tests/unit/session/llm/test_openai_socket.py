"""A WebSocket's recorded bytes become questions and answers, in their order and lanes."""

from __future__ import annotations

import json
import zlib
from typing import Any

import pytest
from tests.kit.modelcalls import short

from narrows.core.values import Described
from narrows.session.llm import openai_socket
from narrows.wire import websocket as ws

KEY = b"\x01\x02\x03\x04"
REQUEST = (
    b"GET /v1/responses HTTP/1.1\r\nHost: gw.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer *****\r\n"
    b"sec-websocket-extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
)
ANSWER = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
PACKED = ANSWER[:-2] + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
USAGE = {"input_tokens": 10, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 4}}


def asks(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "response.create", "model": "gpt-5", "input": text} | more


def says(name: str, text: str, lane: str = "", **more: Any) -> list[dict[str, Any]]:
    item = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}
    begun = {"id": name, "status": "in_progress", "model": "gpt-5", "output": []} | more
    whole = begun | {"status": "completed", "output": [item], "usage": USAGE}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": whole},
    ]
    return [event | {"stream_id": lane} if lane else event for event in events]


def recorded(client: list[Any], server: list[Any]) -> tuple[bytes, bytes]:
    sent = b"".join(ws.frame(ws.TEXT, json.dumps(message).encode(), KEY) for message in client)
    told = b"".join(ws.frame(ws.TEXT, json.dumps(message).encode()) for message in server)
    return REQUEST + sent, ANSWER + told


def described(request: bytes, response: bytes, **more: Any) -> Described:
    out = Described()
    openai_socket.describe(request, response, out, **more)
    return out


def test_several_questions_on_one_connection() -> None:
    second = asks("and their sizes?", previous_response_id="resp_1", tools=[{"type": "function", "name": "sh"}])
    limits = {"type": "codex.rate_limits", "rate_limits": {}}
    request, response = recorded(
        [asks("which buckets?"), second],
        [limits, *says("resp_1", "Two."), limits, *says("resp_2", "Small.", previous_response_id="resp_1")],
    )
    assert openai_socket.is_socket(response)
    out = described(request, response)
    assert short(out.items) == [
        ("prompt", "", "which buckets?"),
        ("answer", "", "Two."),
        ("prompt", "", "and their sizes?"),
        ("answer", "", "Small."),
    ]
    assert [ref for ref in out.refs if ref[0] in ("message", "previous")] == [
        ("message", "resp_1"),
        ("previous", "resp_1"),
        ("message", "resp_2"),
    ]
    assert out.llm["usage"] == {"input": 12, "output": 4, "cache_read": 8, "cache_write": None, "reasoning": None}
    assert (out.llm["stop_reason"], out.llm["messages"], out.llm["tools"]) == ("completed", 2, ["sh"])
    assert out.model == "gpt-5"
    assert out.problems == []


def test_lanes_are_answered_each_for_itself() -> None:
    one, two = says("resp_1", "One.", "a"), says("resp_2", "Two.", "b")
    request, response = recorded(
        [asks("first?", stream_id="a"), asks("second?", stream_id="b")],
        [two[0], one[0], one[1], two[1], two[2], one[2]],
    )
    pairs = openai_socket.exchanges(request, response, [])
    assert [(asked["input"], told.events[-1]["response"]["id"]) for asked, told in pairs] == [
        ("second?", "resp_2"),
        ("first?", "resp_1"),
    ]
    assert not any(told.cut for _, told in pairs)


def test_a_successor_that_nobody_asked_for() -> None:
    steer = {"type": "response.steer", "previous_response_id": "resp_1", "input": "rather the sizes"}
    request, response = recorded(
        [asks("which?"), steer, asks("more?", previous_response_id="resp_2")],
        [
            *says("resp_1", "Two."),
            *says("resp_2", "Small.", previous_response_id="resp_1"),
            *says("resp_3", "No.", previous_response_id="resp_2"),
        ],
    )
    out = described(request, response)
    assert [item.text for item in out.items if item.type == "answer"] == ["Two.", "Small.", "No."]
    assert [item.text for item in out.items if item.type == "prompt"] == ["rather the sizes", "which?", "more?"]
    assert out.problems == []


def test_results_get_the_name_of_the_tool_that_was_called() -> None:
    call = {"type": "function_call", "call_id": "call_1", "name": "exec_command", "arguments": "{}"}
    first = says("resp_1", "I will look.")
    first[2]["response"]["output"].append(call)
    result = {"type": "function_call_output", "call_id": "call_1", "output": "a"}
    second = {"type": "response.create", "input": [result], "previous_response_id": "resp_1"}
    request, response = recorded([asks("?"), second], [*first, *says("resp_2", "Done.", previous_response_id="resp_1")])
    assert ("tool_result", "exec_command", "a") in short(described(request, response).items)


def test_an_error_answers_the_question_that_it_refuses() -> None:
    refused = {"type": "error", "status": 400, "error": {"code": "previous_response_not_found", "message": "Gone."}}
    request, response = recorded([asks("one?"), asks("two?")], [refused, *says("resp_2", "Yes.")])
    out = described(request, response)
    assert short(out.items) == [("prompt", "", "one?"), ("prompt", "", "two?"), ("answer", "", "Yes.")]
    assert out.error_code == "previous_response_not_found"


@pytest.mark.parametrize("keep", [0, 3, 40, 400])
def test_a_connection_that_broke(keep: int) -> None:
    request, response = recorded([asks("which?")], says("resp_1", "Two."))
    out = described(request, response[: len(ANSWER) + keep])
    assert ("prompt", "", "which?") in short(out.items)
    assert "response: the stream ended before the answer did" in out.problems
    out = described(request[:-3], response[: len(ANSWER) + keep], cut=True)
    assert not any("ended within" in problem for problem in out.problems)


def test_compressed_frames() -> None:
    squeeze = zlib.compressobj(wbits=-15)

    def packed(message: Any) -> bytes:
        raw = squeeze.compress(json.dumps(message).encode()) + squeeze.flush(zlib.Z_SYNC_FLUSH)
        return ws.frame(ws.TEXT, raw[:-4], compressed=True)

    request, _ = recorded([asks("which?")], [])
    response = PACKED + b"".join(map(packed, says("resp_1", "Two.")))
    assert short(described(request, response).items) == [("prompt", "", "which?"), ("answer", "", "Two.")]


@pytest.mark.parametrize(
    ("request_", "response", "word"),
    [
        (REQUEST, ANSWER.replace(b"s3pP", b"xxxx"), "Accept"),
        (REQUEST.replace(b"Upgrade: websocket\r\n", b""), ANSWER, "Upgrade"),
        (b"", ANSWER, "not whole"),
        (REQUEST, b"HTTP/1.1 101 ", "not whole"),
        (REQUEST, ANSWER + b"\xc1\x00", "reserved bit"),
        (REQUEST, ANSWER + ws.frame(ws.TEXT, b"[1]"), "1 messages are not JSON objects"),
        (REQUEST, ANSWER + ws.frame(ws.BINARY, b"\x00"), "1 messages are not JSON objects"),
    ],
)
def test_what_is_none_is_told(request_: bytes, response: bytes, word: str) -> None:
    out = described(request_, response)
    assert any(word in problem for problem in out.problems)
    assert out.items == []
