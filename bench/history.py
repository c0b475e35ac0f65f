"""What a resent history costs at rest: a model session of many turns, recorded, sealed, read back.

An agent sends its system text, its tools and everything said so far with every request, so that a session's wire bytes
grow with the square of its turns. The session here has the form that Claude Code's requests have: a compact body with
messages before system and tools, `cache_control` marks that move on with the last message, answers as server-sent
events, each event a frame of its own, as the gateway records it when it passes each one on at once. What is said is
real text: the standard library's source as files that were read, its language reference as prose, random signatures.

The new text is what the conversation is: system, tools, and each message once. It is set against the size of all the
session's parts. `PYTHONPATH=src python bench/history.py [TURNS]` prints the figures as JSON.
"""

from __future__ import annotations

import base64
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import zstandard

from narrows.core.ids import text, uuid7
from narrows.record import partfile
from narrows.record.log.frame import Chain, Flag, Kind
from narrows.record.log.leaf import Sealed
from narrows.record.log.note import SigningKey
from narrows.record.reader import iter_raw
from narrows.record.sealer import Sealer
from narrows.record.segment import file_name, segment_meta

TURNS = 300
ORIGIN = "narrows/bench"
START_NS = 1_795_600_000_000_000_000
PIECE = 1 << 20
"""A body up to this long is one frame; longer ones come in pieces of the network's sizes."""
NIL = bytes(16)


class Texts:
    """Real text that never repeats: code and prose, taken from one end to the other."""

    def __init__(self) -> None:
        library = Path(random.__file__).parent
        files = sorted(library.glob("*.py"), key=lambda path: sha256(path.name.encode()).digest())
        self._code = "".join(path.read_text("utf-8", "replace") for path in files)
        self._prose = (library / "pydoc_data/topics.py").read_text("utf-8", "replace").replace("\\n", "\n")
        self._at = {"code": 0, "prose": 0}

    def take(self, kind: str, size: int) -> str:
        """The next `size` characters."""
        source = self._code if kind == "code" else self._prose
        at = self._at[kind]
        if at + size > len(source):
            at = 0
        self._at[kind] = at + size
        return source[at : at + size]


class Conversation:
    """The bodies of a session's requests and answers, one turn after another."""

    def __init__(self, seed: int = 7) -> None:
        self._chance = random.Random(seed)
        self._texts = Texts()
        self._messages: list[dict[str, Any]] = []
        self._system = [
            {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.197; cc_entrypoint=cli;"},
            {"type": "text", "text": self._texts.take("prose", 14_000), "cache_control": {"type": "ephemeral"}},
        ]
        self._tools = [
            {
                "name": f"Tool{number}",
                "description": self._texts.take("prose", 2_600),
                "input_schema": {"type": "object", "properties": {"file_path": {"type": "string"}}},
            }
            for number in range(20)
        ]
        self.new = [_compact(self._system) + _compact(self._tools)]
        """What is new in each turn, in its wire form and without the marks that move."""

    def request(self, turn: int) -> bytes:
        """The next request's body."""
        if turn:
            added = [self._answer, self._result(turn)]
        else:
            added = [{"role": "user", "content": [{"type": "text", "text": self._texts.take("prose", 600)}]}]
        self._messages += added
        self.new.append(b"".join(map(_compact, added)))
        marked = [self._marked(number) for number in range(len(self._messages))]
        body = {
            "model": "claude-sonnet-4-5-20250929",
            "messages": marked,
            "system": self._system,
            "tools": self._tools,
            "metadata": {"user_id": "user_3f0c_account__session_5c9f6bd2-3c0b-4b5e-9d36-2f1b0f6e1a11"},
            "max_tokens": 32000,
            "thinking": {"budget_tokens": 31999, "type": "enabled"},
            "stream": True,
        }
        return _compact(body)

    def _marked(self, number: int) -> dict[str, Any]:
        message = self._messages[number]
        if number not in (len(self._messages) - 1, len(self._messages) - 3):
            return message
        *content, last = message["content"]
        return {**message, "content": [*content, {**last, "cache_control": {"type": "ephemeral"}}]}

    def _result(self, turn: int) -> dict[str, Any]:
        size = self._chance.randrange(500, 6500)
        return {
            "role": "user",
            "content": [{"tool_use_id": self._tool, "type": "tool_result", "content": self._texts.take("code", size)}],
        }

    def answer(self, turn: int) -> list[bytes]:
        """The events of the answer to the last request."""
        chance, texts = self._chance, self._texts
        thinking, said = texts.take("prose", chance.randrange(100, 500)), texts.take("prose", chance.randrange(50, 600))
        signature = base64.b64encode(chance.randbytes(300)).decode()
        self._tool = f"toolu_01{chance.getrandbits(128):032x}"[:30]
        command = {"command": texts.take("code", chance.randrange(40, 400)), "description": "Look at it"}
        self._answer = {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": thinking, "signature": signature},
                {"type": "text", "text": said},
                {"type": "tool_use", "id": self._tool, "name": "Bash", "input": command},
            ],
        }
        usage = {"input_tokens": 4, "cache_read_input_tokens": 20_000 + 900 * turn, "output_tokens": 1}
        start = {"id": f"msg_01{turn:020d}", "type": "message", "role": "assistant", "content": [], "usage": usage}
        return [
            _event("message_start", message=start),
            *self._block(0, {"type": "thinking"}, "thinking_delta", "thinking", thinking),
            _event("content_block_delta", index=0, delta={"type": "signature_delta", "signature": signature}),
            *self._block(1, {"type": "text", "text": ""}, "text_delta", "text", said),
            *self._block(
                2,
                {"type": "tool_use", "id": self._tool, "name": "Bash", "input": {}},
                "input_json_delta",
                "partial_json",
                json.dumps(command),
            ),
            _event("message_delta", delta={"stop_reason": "tool_use"}, usage={"output_tokens": 300 + turn}),
            _event("message_stop"),
        ]

    def _block(self, index: int, block: dict[str, Any], kind: str, key: str, value: str) -> Iterator[bytes]:
        yield _event("content_block_start", index=index, content_block=block)
        at = 0
        while at < len(value):
            size = self._chance.randrange(4, 40)
            yield _event("content_block_delta", index=index, delta={"type": kind, key: value[at : at + size]})
            at += size
        yield _event("content_block_stop", index=index)


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _event(name: str, **fields: object) -> bytes:
    data = b"event: %b\ndata: %b\n\n" % (name.encode(), _compact({"type": name, **fields}))
    return b"%x\r\n%b\r\n" % (len(data), data)


class Clock:
    """A clock that moves only when told."""

    now = START_NS

    def wall_ns(self) -> int:
        """Unix nanoseconds."""
        return self.now

    def mono_ns(self) -> int:
        """The same."""
        return self.now


@dataclass
class Recording:
    """A data directory with one writer, written as the recorder writes it, and a sealer beside it."""

    data: Path
    clock: Clock = field(default_factory=Clock)
    sealed: list[Sealed] = field(default_factory=list)
    chain: Chain = field(default_factory=Chain)
    chance: random.Random = field(default_factory=lambda: random.Random(11))
    raw: int = 0

    def __post_init__(self) -> None:
        self.session = self.ident()
        self._path = self.data / "wal/w1" / file_name(0)
        self._path.parent.mkdir(parents=True)
        self.frame(Kind.SEGMENT, 0, NIL, NIL, segment_meta("w1", 0, "0", 0, self.chain.running))
        self.frame(Kind.SESSION_OPEN, 0, self.session, NIL, b'{"principal":"alice","agent":"claude-code"}')

    def ident(self) -> bytes:
        """The next id."""
        return uuid7(self.clock.now, self.chance.randbytes(10))

    def sealer(self) -> Sealer:
        """The sealer."""
        key = SigningKey(ORIGIN, bytes(range(32)))
        return Sealer(self.data, ORIGIN, key, self.clock, on_sealed=self.sealed.extend)

    def frame(
        self, kind: int, flags: int, session: bytes, exchange: bytes, meta: bytes = b"", data: bytes = b""
    ) -> None:
        """Append a frame."""
        self.clock.now += self.chance.randrange(50_000, 30_000_000)
        wall, mono = self.clock.now, self.clock.now - START_NS + 991_337
        raw = self.chain.encode_whole(kind, flags, session, exchange, wall, mono, meta, data)
        self.raw += len(raw)
        with self._path.open("ab") as file:
            file.write(raw)

    def call(self, facts: dict[str, object], head: bytes, body: bytes, answer: list[bytes]) -> bytes:
        """One exchange; its request's bytes."""
        exchange, session = self.ident(), self.session
        pieces = self._pieces(head, body)
        for number, piece in enumerate(pieces):
            flags = (Flag.BEGIN if not number else 0) | (Flag.END if number == len(pieces) - 1 else 0)
            self.frame(Kind.REQUEST, flags, session, exchange, _compact(facts) if not number else b"", piece)
        sent = {"host": facts["host"], "port": 443, "tls": "TLSv1.3", "address": "160.79.104.10"}
        self.frame(Kind.SENT, 0, session, exchange, _compact(sent), head)
        told = {"outcome": "complete", "status": 200, "first_byte_ns": 812_000_000 + self.chance.randrange(10**8)}
        for number, piece in enumerate(answer):
            last = number == len(answer) - 1
            flags, meta = (Flag.END | Flag.FINAL, _compact(told)) if last else (0, b"")
            self.frame(Kind.RESPONSE, flags, session, exchange, meta, piece)
        return head + body

    def _pieces(self, head: bytes, body: bytes) -> list[bytes]:
        if len(body) <= PIECE:
            return [head + body]
        pieces, at = [head], 0
        while at < len(body):
            size = self.chance.choice((16_384, 49_152, 65_536, 131_072, 262_144)) - self.chance.randrange(900)
            pieces.append(body[at : at + size])
            at += size
        return pieces

    def stored(self) -> int:
        """Bytes of the session's parts."""
        directory = self.data / partfile.SESSIONS / text(self.session)
        return sum(path.stat().st_size for path in directory.iterdir())


FACTS: dict[str, object] = {
    "kind": "llm.message", "connection": "anthropic", "principal": "alice", "principal_kind": "user", "issuer": "local",
    "groups": ["developers"], "agent": "claude-code", "agent_version": "2.1.197", "lease": "NRWL2F6HYQ3V7K5N",
    "client": "127.0.0.1:49810", "form": "endpoint", "scheme": "https", "host": "api.anthropic.com", "method": "POST",
    "target": "/v1/messages?beta=true", "service": "anthropic", "operation": "messages", "action": "llm:messages",
    "protocol": "anthropic-messages", "decision": "allow", "reason": "builtin", "policies": ["allow-all"],
    "policy_version": "b1946ac92492d2347c6235b4d2611184", "durability": "strict",
}  # fmt: skip


def _head(size: int, request: bytes) -> bytes:
    return (
        b"POST /llm/anthropic/v1/messages?beta=true HTTP/1.1\r\nHost: 127.0.0.1:8023\r\nAccept: application/json\r\n"
        b"User-Agent: claude-cli/2.1.197 (external, cli)\r\nx-api-key: ********************************\r\n"
        b"anthropic-version: 2023-06-01\r\nanthropic-beta: claude-code-20250219,interleaved-thinking-2025-05-14\r\n"
        b"x-app: cli\r\nX-Stainless-Lang: js\r\nX-Stainless-Runtime: node\r\nx-client-request-id: %b\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (request.hex().encode(), size)
    )


def _answer_head(request: bytes) -> bytes:
    return (
        b"HTTP/1.1 200 OK\r\nDate: Tue, 24 Nov 2026 20:00:00 GMT\r\nContent-Type: text/event-stream\r\n"
        b"Transfer-Encoding: chunked\r\nCache-Control: no-cache\r\nrequest-id: req_%b\r\n"
        b"anthropic-ratelimit-requests-remaining: 3999\r\nserver: cloudflare\r\n\r\n" % request.hex().encode()
    )


@dataclass
class Written:
    """What `write_session` recorded."""

    requests: list[bytes] = field(default_factory=list)
    """SHA-256 of each request."""
    new: bytes = b""
    answers: int = 0
    seal_cpu_s: float = 0.0


def write_session(recording: Recording, sealer: Sealer, turns: int) -> Written:
    """Record and seal a session turn by turn, as it happens."""
    talk, written = Conversation(), Written()
    for turn in range(turns):
        body, request = talk.request(turn), recording.chance.randbytes(16)
        answer = [_answer_head(request), *talk.answer(turn), b"0\r\n\r\n"]
        sent = recording.call(FACTS, _head(len(body), request), body, answer)
        written.requests.append(sha256(sent).digest())
        written.answers += sum(map(len, answer))
        began = time.process_time()
        sealer.step()
        written.seal_cpu_s += time.process_time() - began
    written.new = b"".join(talk.new)
    return written


def finish(recording: Recording) -> float:
    """Make the parts final; CPU seconds."""
    recording.frame(Kind.SESSION_CLOSE, 0, recording.session, NIL, b'{"why":"closed"}')
    began = time.process_time()
    with recording.sealer() as sealer:
        sealer.drain()
    return time.process_time() - began


def bytes_read(path: Path = Path("/proc/self/io")) -> int:
    """Bytes that this process has read so far, from disk or the kernel's cache."""
    return int(path.read_text().split()[1])


def measure(here: Path, turns: int = TURNS) -> dict[str, Any]:
    """Write, seal and read a session below `here`; the figures, for the JSON object that is printed."""
    recording = Recording(here / "history")
    with recording.sealer() as sealer:
        written = write_session(recording, sealer, turns)
        sealer.drain()
    growing = recording.stored()
    finish_cpu_s = finish(recording)
    stored = recording.stored()
    exchanges = [record for record in recording.sealed if record.type == "exchange"]
    partfile.forget()
    before, began = bytes_read(), time.perf_counter()
    last = b"".join(iter_raw(recording.data, exchanges[-1].place, "request"))
    read_ms, read = (time.perf_counter() - began) * 1e3, bytes_read() - before
    if [sha256(last).digest()] != written.requests[-1:]:
        raise AssertionError("the last request came back as other bytes")
    small = len(zstandard.ZstdCompressor(level=3).compress(written.new))
    return {
        "turns": turns,
        "raw_bytes": recording.raw,
        "new_text_bytes": len(written.new),
        "new_text_zstd_bytes": small,
        "answers_bytes": written.answers,
        "stored_bytes": stored,
        "stored_growing_bytes": growing,
        "stored_to_new_text": round(stored / len(written.new), 3),
        "stored_to_new_text_zstd": round(stored / small, 2),
        "raw_to_stored": round(recording.raw / stored, 1),
        "seal_mb_per_cpu_s": round(recording.raw / written.seal_cpu_s / 1e6, 1),
        "finish_mb_per_cpu_s": round(recording.raw / finish_cpu_s / 1e6, 1),
        "last_request_bytes": len(last),
        "last_request_read_ms": round(read_ms, 1),
        "last_request_read_bytes": read,
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        print(json.dumps(measure(Path(directory), int(sys.argv[1]) if len(sys.argv) > 1 else TURNS)))
