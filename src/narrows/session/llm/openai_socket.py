"""The Responses API over a WebSocket: one HTTP exchange that carries many questions and answers.

A client's message `response.create` is a request as it is posted otherwise; the server's messages are the events of a
stream. Answers follow the requests in their order, in each lane (`stream_id`) for itself; an answer that nobody asked
for goes on from another one (`response.steer`). Taken from what was recorded: frames in both directions, without times.
"""

from __future__ import annotations

from collections import defaultdict, deque
from typing import Any

from narrows.core.errors import ProtocolError
from narrows.core.values import Described
from narrows.session.llm import openai_responses
from narrows.session.llm.loose import num, obj, parse, txt
from narrows.session.llm.openai_stream import TERMINAL
from narrows.session.llm.told import Told
from narrows.wire.http1 import SWITCHING, RequestHead, RequestParser, ResponseHead, ResponseParser
from narrows.wire.websocket import Binary, Parser, Text, read_all
from narrows.wire.websocket_handshake import answered, opening

MESSAGE = 64 << 20
RESPONSES = 10_000
"""Responses of one connection that are read."""

_COUNTS = ("input", "output", "cache_read", "cache_write", "reasoning")


def is_socket(response: bytes) -> bool:
    """Whether a recorded response made a WebSocket of its connection."""
    return response.startswith(b"HTTP/1.1 101 ")


def describe(request: bytes, response: bytes, out: Described, *, cut: bool = False) -> None:
    """Fill `out` from the recorded bytes of both directions, heads first. `cut`: they are only the first ones.

    Items stand in the order of the questions and answers; usage is the sum; model and stop reason are the last ones.
    """
    out.llm |= {"stream": True, "stop_reason": "", "messages": 0, "tools": [], "usage": dict.fromkeys(_COUNTS)}
    names: dict[str, str] = {}
    for asked, told in exchanges(request, response, out.problems, cut=cut):
        part = Described()
        openai_responses.describe(asked, told, part)
        if asked is None:
            part.llm["messages"] = 0
        for item in part.items:
            if item.type == "tool_call":
                names[item.id] = item.name
            elif item.type == "tool_result":
                item.name = item.name or names.get(item.id, "")
        _merge(part, out)


def exchanges(request: bytes, response: bytes, problems: list[str], *, cut: bool = False) -> list[tuple[Any, Told]]:
    """(what was asked, what was told) for each response, in the order in which they began.

    What was asked is None for an answer that nobody asked for. A question without an answer has a `Told` that is cut.
    """
    sides = _sides(request, response, problems)
    if sides is None:
        return []
    (from_client, client), (from_server, server) = sides
    asked = _messages(from_client, client, "request", problems, cut)
    told = _messages(from_server, server, "response", problems, cut)
    return _paired(asked, told, problems)


def _sides(request: bytes, response: bytes, problems: list[str]) -> tuple[tuple[bytes, Parser], ...] | None:
    """Both directions' frames with their parsers, as the handshake agreed; None with a problem."""
    try:
        asking, telling = RequestParser(), ResponseParser()
        asking.feed(request[: request.find(b"\r\n\r\n") + 4])
        telling.expect(SWITCHING)
        telling.feed(response[: response.find(b"\r\n\r\n") + 4])
        asked, told = asking.next(), telling.next()
        if not isinstance(asked, RequestHead) or not isinstance(told, ResponseHead):
            problems.append("the WebSocket's handshake is not whole")
            return None
        agreed = answered(opening(asked.method, asked.headers), told.status, told.headers)
    except ProtocolError as error:
        problems.append(str(error))
        return None
    return (
        (request[len(asked.raw) :], Parser(masked=True, deflate=agreed.deflate, max_message=MESSAGE)),
        (response[len(told.raw) :], Parser(masked=False, deflate=agreed.deflate, max_message=MESSAGE)),
    )


def _messages(raw: bytes, parser: Parser, side: str, problems: list[str], cut: bool) -> list[dict[str, Any]]:
    """The JSON objects that the text messages of one direction are."""
    events, problem = read_all(raw, parser)
    if problem and not cut:
        problems.append(f"{side}: {problem}")
    messages = []
    unread = 0
    for event in events:
        try:
            message = obj(parse(event.text)) if isinstance(event, Text) else {}
        except ValueError:
            message = {}
        if message:
            messages.append(message)
        elif isinstance(event, Text | Binary):
            unread += 1
    if unread:
        problems.append(f"{side}: {unread} messages are not JSON objects")
    return messages


class _Lane:
    """The questions and answers of one `stream_id`."""

    def __init__(self) -> None:
        self.asked: deque[dict[str, Any]] = deque()
        self.open: Told | None = None

    def begin(self, response: dict[str, Any]) -> tuple[Any, Told]:
        """An answer begins: to the next question, unless it says that it goes on from another answer than that."""
        self.open = Told(status=200, streamed=True, cut=True)
        previous = response.get("previous_response_id")
        if not self.asked or (previous and previous != self.asked[0].get("previous_response_id")):
            return None, self.open
        return self.asked.popleft(), self.open


def _paired(asked: list[dict[str, Any]], told: list[dict[str, Any]], problems: list[str]) -> list[tuple[Any, Told]]:
    lanes: defaultdict[str, _Lane] = defaultdict(_Lane)
    pairs: list[tuple[Any, Told]] = []
    for message in asked:
        kind = message.get("type")
        if kind == "response.create":
            inner = obj(message.get("response"))
            lanes[txt(message.get("stream_id"))].asked.append(message | inner)
        elif kind == "response.steer":
            pairs.append((message, Told(status=200, streamed=True, events=[{"type": "response.completed"}])))
    for event in told:
        if len(pairs) >= RESPONSES:
            problems.append(f"response: only the first {RESPONSES} responses were read")
            return pairs
        kind = txt(event.get("type"))
        lane = lanes[txt(event.get("stream_id"))]
        if kind == "response.created" or (lane.open is None and (kind == "error" or "output_index" in event)):
            pairs.append(lane.begin(obj(event.get("response"))))
        if lane.open is None:
            continue  # of the connection, not of an answer: limits, acknowledgements
        lane.open.events.append(event)
        lane.open.names.append(kind)
        if kind in TERMINAL or kind == "error":
            lane.open.status = num(event.get("status")) or 200
            lane.open.cut = False
            lane.open = None
    pairs += [(question, Told(streamed=True, cut=True)) for lane in lanes.values() for question in lane.asked]
    return pairs


def _merge(part: Described, out: Described) -> None:
    out.items += part.items
    out.refs += part.refs
    out.problems += part.problems
    several = bool(out.model and part.model and out.model != part.model)
    out.model = part.model or out.model
    out.error_code, out.error_message = part.error_code or out.error_code, part.error_message or out.error_message
    total, usage = out.llm["usage"], part.llm["usage"]
    for name in _COUNTS:
        if usage[name] is not None:
            total[name] = (total[name] or 0) + usage[name]
    out.llm["messages"] += part.llm["messages"]
    out.llm["tools"] = part.llm["tools"] or out.llm["tools"]
    out.llm["stop_reason"] = part.llm["stop_reason"] or out.llm["stop_reason"]
    out.llm["priced_otherwise"] = several or out.llm.get("priced_otherwise", False) or part.llm["priced_otherwise"]
