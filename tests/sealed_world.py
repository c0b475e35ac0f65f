"""A small recording for tests: writers that make real segments, a clock that stands still unless told."""

from __future__ import annotations

import json
from pathlib import Path

from narrows.core.ids import uuid7
from narrows.record.log.frame import Chain, Flag, Kind
from narrows.record.log.leaf import Sealed
from narrows.record.log.note import SigningKey
from narrows.record.sealer import Sealer
from narrows.record.segment import file_name, segment_meta
from narrows.record.store.files import FileStore
from narrows.record.verify import Report, verify_all

NIL = bytes(16)
ORIGIN = "narrows/test"
KEY = SigningKey(ORIGIN, bytes(range(32)))
VKEY = KEY.verifier.vkey
START_NS = 1_790_000_000_000_000_000


class StillClock:
    """Wall and monotonic time that move only when told, in ns."""

    def __init__(self) -> None:
        self.now = START_NS

    def wall_ns(self) -> int:
        return self.now

    def mono_ns(self) -> int:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += int(seconds * 1e9)


def ident(number: int) -> bytes:
    """A UUIDv7 that is the same in every run."""
    return uuid7(START_NS + number * 1_000_000, number.to_bytes(10, "big"))


class Writer:
    """A writer's segments, as the recorder makes them."""

    def __init__(self, data: Path, name: str) -> None:
        self.name = name
        self.directory = data / "wal" / name
        self.directory.mkdir(parents=True)
        self.chain = Chain()
        self.time = START_NS
        self.number = -1
        self.roll()

    def roll(self) -> None:
        """Go on in a new segment."""
        self.number += 1
        meta = segment_meta(self.name, self.number, "0", 0, self.chain.running)
        self.frame(Kind.SEGMENT, 0, NIL, NIL, meta)

    def frame(
        self, kind: int, flags: int, session: bytes, exchange: bytes, meta: bytes = b"", data: bytes = b""
    ) -> None:
        """Append one frame."""
        self.time += 1000
        raw = self.chain.encode_whole(kind, flags, session, exchange, self.time, self.time, meta, data)
        with (self.directory / file_name(self.number)).open("ab") as file:
            file.write(raw)

    def open(self, session: bytes) -> None:
        self.frame(Kind.SESSION_OPEN, 0, session, NIL, b'{"principal":"alice"}')

    def close_session(self, session: bytes) -> None:
        self.frame(Kind.SESSION_CLOSE, 0, session, NIL, b'{"why":"closed"}')

    def begin(
        self, session: bytes, exchange: bytes, data: bytes = b"GET / HTTP/1.1\r\n\r\n", **told: object
    ) -> None:
        facts = {
            "kind": "aws.call",
            "decision": "allow",
            "policy_version": "p1",
            "durability": "strict",
        } | told
        meta = json.dumps(facts).encode()
        self.frame(Kind.REQUEST, Flag.BEGIN | Flag.END, session, exchange, meta, data)

    def more(self, session: bytes, exchange: bytes, data: bytes) -> None:
        self.frame(Kind.RESPONSE, 0, session, exchange, b"", data)

    def finish(self, session: bytes, exchange: bytes, data: bytes = b"HTTP/1.1 200 OK\r\n\r\nhello") -> None:
        self.frame(Kind.SENT, 0, session, exchange, b'{"host":"aws"}', b"GET / HTTP/1.1\r\nsigned\r\n\r\n")
        meta = b'{"outcome":"complete","status":200}'
        self.frame(Kind.RESPONSE, Flag.END | Flag.FINAL, session, exchange, meta, data)

    def call(self, session: bytes, number: int) -> bytes:
        """One whole exchange; its id."""
        exchange = ident(1_000_000 + number)
        body = b"POST /%d HTTP/1.1\r\n\r\n" % number + number.to_bytes(4, "big") * 20
        self.begin(session, exchange, body)
        self.finish(session, exchange, b"HTTP/1.1 200 OK\r\n\r\nanswer %d" % number)
        return exchange

    def stop(self) -> None:
        self.frame(Kind.WRITER_CLOSE, 0, NIL, NIL, b"{}")


class World:
    """A data directory with writers and a sealer."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.clock = StillClock()
        self.sealed: list[Sealed] = []

    def writer(self, name: str = "w1") -> Writer:
        return Writer(self.data, name)

    def sealer(self, store: FileStore | None = None) -> Sealer:
        return Sealer(self.data, ORIGIN, KEY, self.clock, on_sealed=self.sealed.extend, store=store)

    def seal(self) -> None:
        """Open a sealer, seal everything, close it."""
        with self.sealer() as sealer:
            sealer.drain()

    def finalise(self) -> None:
        """Make every part final: let 20 minutes pass."""
        self.clock.pass_(1200)
        self.seal()

    def verify(self, **options: object) -> Report:
        return verify_all(self.data, VKEY, **options)  # type: ignore[arg-type]

    def checkpoint(self) -> str:
        return (self.data / "log/checkpoint").read_text()

    def files(self) -> dict[str, bytes]:
        """Every file of objects and log but the sealer's own state and lock."""
        found = {}
        for path in sorted(self.data.rglob("*")):
            name = path.relative_to(self.data).as_posix()
            if (
                path.is_file()
                and name.startswith(("objects", "log/"))
                and name not in ("log/lock", "log/sealer.json")
            ):
                found[name] = path.read_bytes()
        return found


def codes(report: Report) -> set[str]:
    """The kinds of findings."""
    return {finding.code for finding in report.findings}
