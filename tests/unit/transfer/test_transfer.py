"""Bodies between the two sides: gathering, spooling, batches, and what an answer without its coding is."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from importlib import import_module
from pathlib import Path

import pytest
import zstandard

from narrows.core.errors import ProtocolError, Refusal, UpstreamError
from narrows.session.call import Outbound, PassBody
from narrows.transfer import answer
from narrows.transfer.body import BATCH, INLINE, Body, Spool
from narrows.wire.http1 import Data, End


def run(body: Callable[[ThreadPoolExecutor], Awaitable[None]]) -> None:
    with ThreadPoolExecutor(1) as executor:
        asyncio.run(body(executor))  # type: ignore[arg-type]


def chunk(payload: bytes) -> Data:
    return Data(b"%x\r\n" % len(payload) + payload + b"\r\n", payload)


def outbound(*, chunked: bool) -> Outbound:
    return Outbound("http", "h", 80, b"", b"", chunked, PassBody())


def test_a_body_is_its_pieces_and_its_bytes_on_the_wire() -> None:
    body = Body()
    for payload in (b"one", b"", b"three"):
        body.add(chunk(payload))
    body.add(End(b"0\r\nX: y\r\n\r\n", [(b"x", b"y")]))
    assert body.payload() == b"onethree"
    assert b"".join(body.raw) == b"3\r\none\r\n0\r\n\r\n5\r\nthree\r\n0\r\nX: y\r\n\r\n"
    assert (body.size, body.done, body.trailers) == (8, True, [(b"x", b"y")])


def test_many_small_chunks_are_few_objects() -> None:
    body = Body()
    for _ in range(50_000):
        body.add(chunk(b"x"))
    assert len(body.raw) <= 1025
    assert len(body._pieces) <= 1025
    assert body.payload() == b"x" * 50_000
    assert body.held == 300_000 == sum(map(len, body.raw))


@pytest.mark.parametrize("name", [b"x-amz-security-token", b"authorization", b"cookie", b"x-api-key"])
def test_trailers_may_not_carry_credentials(name: bytes) -> None:
    with pytest.raises(ProtocolError):
        Body().add(End(b"", [(b"x-ok", b"1"), (name, b"value")]))


@pytest.mark.parametrize("size", [0, 10, INLINE + 1])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_whole_body_is_framed_as_its_head_says(size: int, chunked: bool) -> None:
    async def body(executor: ThreadPoolExecutor) -> None:
        whole = Body()
        if size:
            whole.add(Data(bytes(size), bytes(size)))
        whole.add(End(b"", [(b"X-T", b"v")] if chunked else []))
        wire = await whole.through(outbound(chunked=chunked), asyncio.get_running_loop(), executor)
        framed = b"%x\r\n" % size + bytes(size) + b"\r\n" if size else b""
        assert wire == (framed + b"0\r\nX-T: v\r\n\r\n" if chunked else bytes(size))

    run(body)


def test_a_spool_gives_back_what_it_was_given(tmp_path: Path) -> None:
    async def body(executor: ThreadPoolExecutor) -> None:
        spool = Spool(tmp_path, asyncio.get_running_loop(), executor)
        data = bytes(range(256)) * 5000
        await spool.add([data[:1000], memoryview(data)[1000:700_000]])
        await spool.add([data[700_000:]])
        assert spool.digest == sha256(data).hexdigest()
        assert not list(tmp_path.iterdir()), "the file has no name"
        got = b""
        while True:
            polled = spool.poll()
            event = await spool.next()
            if isinstance(event, End):
                assert isinstance(polled, End), "the end is known without waiting once all was read"
                break
            assert polled is None
            assert len(event.payload) <= BATCH
            got += bytes(event.payload)
        assert got == data
        spool.close()
        spool.close()

    run(body)


def test_a_spool_that_cannot_be_made_or_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(executor: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(Refusal) as caught:
            Spool(tmp_path / "missing", loop, executor)
        assert (caught.value.code, caught.value.status) == ("spool_failed", 503)
        spool = Spool(tmp_path, loop, executor)
        spool._file.close()
        spool._file = open("/dev/full", "wb", buffering=0)  # type: ignore[assignment]  # noqa: SIM115
        with pytest.raises(Refusal, match="No space left"):
            await spool.add([b"x"])
        spool.close()

    run(body)


BODY = b"<Error>something</Error>"
BROTLI = import_module("brotli")


@pytest.mark.parametrize(
    ("coding", "coded"),
    [
        (b"", BODY),
        (b"identity", BODY),
        (b"gzip", gzip.compress(BODY)),
        (b"x-gzip", gzip.compress(BODY)),
        (b"deflate", zlib.compress(BODY)),
        (b"zstd", zstandard.compress(BODY)),
        (b"zstd", zstandard.ZstdCompressor(write_content_size=False).compress(BODY)),
        (b"br", BROTLI.compress(BODY)),
    ],
)
def test_codings_that_are_seen_through(coding: bytes, coded: bytes) -> None:
    assert answer._decoded(coded, coding) == BODY


@pytest.mark.parametrize(
    ("coding", "coded"),
    [
        (b"br", BODY),
        (b"gzip, gzip", gzip.compress(BODY)),
        (b"gzip", BODY),
        (b"gzip", gzip.compress(BODY)[:-3]),
        (b"gzip", gzip.compress(BODY) + gzip.compress(b"token")),
        (b"gzip", gzip.compress(bytes(answer.MAX_MASKED + 1))),
        (b"deflate", gzip.compress(BODY)),
        (b"compress", BODY),
        (b"zstd", BODY),
        (b"zstd", zstandard.compress(BODY)[:-1]),
        (b"zstd", zstandard.compress(BODY) + zstandard.compress(b"token")),
        (b"zstd", zstandard.compress(bytes(answer.MAX_MASKED + 1))),
        (b"br", BROTLI.compress(BODY)[:-1]),
        (b"br", BROTLI.compress(bytes(answer.MAX_MASKED + 1))),
        (b"br", b""),
    ],
)
def test_codings_that_are_not_hide_nothing(coding: bytes, coded: bytes) -> None:
    with pytest.raises(UpstreamError):
        answer._decoded(coded, coding)
