"""A lease for a process: which process, by whose word, and the lease's public name."""

from __future__ import annotations

import base64
import json
from typing import Any

from narrows.core.values import Described, StoredExchange
from narrows.session.agents.describe import AgentDescriber

TREE: list[dict[str, Any]] = [
    {
        "pid": 912,
        "start": 88123,
        "ppid": 900,
        "argv": ["aws", "s3", "rm", "s3://a b"],
        "cwd": "/w",
        "exe": "/usr/bin/aws",
    },
    {"pid": 900, "start": 88100, "ppid": 800, "argv": ["bash", "-c", "aws s3 rm 's3://a b'"], "cwd": "/w", "exe": "/b"},
]
GIVEN = {"access_key_id": "NRWA123", "secret_access_key": "***", "session_token": "***", "connection": "demo",
         "region": "eu-west-1", "expires": 1795596539}  # fmt: skip


def described(facts: dict[str, object], headers: str = "", answer: object = GIVEN, status: int = 200) -> Described:
    body = b'{"connection":"demo"}'
    head = f"POST /_narrows/leases HTTP/1.1\r\nHost: gw\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode()
    raw = json.dumps(answer).encode()
    response = f"HTTP/1.1 {status} X\r\nContent-Length: {len(raw)}\r\n\r\n".encode() + raw
    facts = {"service": "narrows", "operation": "lease.issued", **facts}
    return AgentDescriber()(
        StoredExchange(b"e" * 16, b"s" * 16, "agent.event", head + body, response, request_facts=facts)
    )


def test_the_kernels_word() -> None:
    out = described({"process": TREE, "process_from": "kernel"})
    (item,) = out.items
    assert (item.type, item.id, item.name) == ("process", "912:88123", "/usr/bin/aws")
    assert item.text.splitlines() == ["aws s3 rm 's3://a b'", "bash -c 'aws s3 rm '\"'\"'s3://a b'\"'\"''"]
    assert item.data["from"] == "kernel" and item.data["tree"] == TREE
    assert out.refs == [("lease", "NRWA123"), ("process", "912:88123"), ("process", "900:88100")]
    assert out.parameters == {"connection": "demo", "region": "eu-west-1", "expires": 1795596539}


def test_the_callers_word() -> None:
    header = base64.urlsafe_b64encode(json.dumps(TREE).encode()).decode().rstrip("=")
    out = described({}, f"X-Narrows-Process: {header}\r\n")
    assert out.items[0].data["from"] == "client" and ("process", "900:88100") in out.refs


def test_masked_or_broken_headers_and_facts() -> None:
    for headers in ("X-Narrows-Process: ****\r\n", "X-Narrows-Process: \xff\r\n", ""):
        assert described({}, headers).items[0].type == "notice"
    every: tuple[Any, ...] = (3, [3], [{}], [{"pid": {}, "argv": 3}], [{"argv": ["\ud800"]}])
    for process in every:
        json.dumps([item.text for item in described({"process": process}).items]).encode()


def test_a_refusal() -> None:
    error = {"error": {"code": "not_in_session", "what": "No lease was issued", "why": "it has none", "hint": ""}}
    out = described({"process": TREE}, answer=error, status=403)
    assert (out.error_code, out.error_message) == ("not_in_session", "No lease was issued: it has none")
    assert [ref for ref in out.refs if ref[0] == "lease"] == []
