"""The little of HTTP/1.1 that the model server needs: read a request, write an answer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

MAX_HEAD = 1 << 16


@dataclass
class Request:
    """A request as it came. `headers` keep their order and spelling; `get` does not mind the spelling."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    head: bytes
    body: bytes = b""

    def get(self, name: str) -> str:
        """A header's first value, or an empty string."""
        return next((value for key, value in self.headers if key.lower() == name), "")

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> dict[str, str]:
        """The query's parameters, as they are spelled."""
        pairs = (part.partition("=") for part in self.target.partition("?")[2].split("&") if part)
        return {name: value for name, _, value in pairs}


async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request | None:
    """The next request, or None when the client left. Raises ValueError for what is not a request."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head[:-4].decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        request = Request(method, target, headers, head)
        if request.get("expect").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if request.get("transfer-encoding").lower() == "chunked":
            request.body = await _chunks(reader)
        elif length := request.get("content-length"):
            request.body = await reader.readexactly(int(length))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    return request


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while size := int((await reader.readline()).partition(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readline()
    while await reader.readline() != b"\r\n":
        pass
    return bytes(body)


@dataclass
class Head:
    """An answer's head, before its framing."""

    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)

    def raw(self, *framing: tuple[str, str]) -> bytes:
        """The head's bytes."""
        lines = [f"HTTP/1.1 {self.status} Scripted", *(f"{name}: {value}" for name, value in (*self.headers, *framing))]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")
