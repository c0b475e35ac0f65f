"""The management API as the command line calls it: standard library only, one connection, no redirects.

Problem details (RFC 9457) come back as errors with what, why and hint; a gateway that does not answer is
UnreachableError (exit code 3).
"""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from narrows.cli import local
from narrows.cli.local import Local, UnreachableError
from narrows.core.errors import NarrowsError

PREFIX = "/api/v1"
TIMEOUT_S = 30
KEEP_S = 2.0
"""An idle connection is not used again after this: the API closes its end after a few seconds, and a POST that
meets a closed connection must not be sent twice."""
MAX_ANSWER = 512 * 1024 * 1024


class ApiError(NarrowsError):
    """The gateway answered no. `status` is the HTTP status, `code` the problem's stable name."""

    code = "api_error"

    def __init__(self, what: str, why: str = "", hint: str = "", *, status: int, code: str = "api_error") -> None:
        super().__init__(what, why, hint)
        self.status = status
        self.code = code


class Client:
    """Calls the API of one gateway. Not thread-safe."""

    def __init__(self, found: Local, *, timeout_s: float = TIMEOUT_S) -> None:
        self.local = found
        url = urlsplit(found.api)
        self._host = url.hostname or "127.0.0.1"
        self._secure = url.scheme == "https"
        self._port = url.port or (443 if self._secure else 80)
        self._timeout = timeout_s
        self._connection: http.client.HTTPConnection | None = None
        self._used = 0.0

    @classmethod
    def of(cls, data: Path, *, timeout_s: float = TIMEOUT_S) -> Client:
        """The client of the gateway that runs on `data`. Raises UnreachableError, ConfigError."""
        return cls(local.read(data), timeout_s=timeout_s)

    def get(self, path: str, **query: object) -> Any:
        """GET; query values that are None are left out. Returns the decoded JSON."""
        return self._json("GET", path, query=query)

    def post(self, path: str, body: object = None, *, key: str = "") -> Any:
        """POST a JSON body. Returns the decoded JSON, or None when the answer is empty.

        `key` is an Idempotency-Key: with one, a creation whose answer was lost may be sent again.
        """
        return self._json("POST", path, body=body if body is not None else {}, headers={"Idempotency-Key": key})

    def put(self, path: str, body: object, *, etag: str = "") -> Any:
        """PUT a JSON body; with `etag`, only if the thing still is as that tag says."""
        return self._json("PUT", path, body=body, headers={"If-Match": etag})

    def delete(self, path: str, *, etag: str = "") -> Any:
        """DELETE; `etag` is as for `put`."""
        return self._json("DELETE", path, headers={"If-Match": etag})

    def probe(self, path: str) -> None:
        """GET a health probe, which is beside the API. Raises ApiError with the reason if it says no."""
        response = self._send("GET", path, {}, None, prefix="")
        raw = response.read(MAX_ANSWER)
        if response.status >= 400:
            raise _problem(response.status, raw)

    def raw(self, path: str, **query: object) -> Iterator[bytes]:
        """GET bytes, in pieces, so that a body of any size passes through."""
        response = self._send("GET", path, query, None)
        if response.status >= 400:
            raise _problem(response.status, response.read(MAX_ANSWER))
        try:
            while piece := response.read(262144):
                yield piece
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error

    def pages(self, path: str, *, most: int | None = None, **query: object) -> Iterator[dict[str, Any]]:
        """The items of a listing, page after page, at most `most` of them (None: all)."""
        cursor: object = None
        given = 0
        while True:
            limit = 500 if most is None else min(500, most - given)
            page = self.get(path, **query, limit=limit, cursor=cursor)
            for item in page["items"]:
                yield item
                given += 1
                if most is not None and given >= most:
                    return
            cursor = page.get("next")
            if not cursor:
                return

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _json(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        response = self._send(method, path, query or {}, body, more=headers or {})
        try:
            raw = response.read(MAX_ANSWER)
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error
        if response.status >= 400:
            raise _problem(response.status, raw)
        if not raw:
            return None
        try:
            return json.loads(raw)
        except ValueError as error:
            raise ApiError(
                "The gateway's answer could not be read",
                f"{method} {path} gave no JSON",
                "another program may listen on its port: see `narrows doctor`",
                status=response.status,
            ) from error

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, object],
        body: object,
        *,
        prefix: str = PREFIX,
        more: Mapping[str, str] = MappingProxyType({}),
    ) -> http.client.HTTPResponse:
        target = prefix + path
        given = {k: _query_text(v) for k, v in query.items() if v is not None}
        if given:
            target += "?" + urlencode(given)
        headers = {"Authorization": f"Bearer {self.local.token}", "Accept": "application/json"}
        headers |= {name: value for name, value in more.items() if value}
        payload = None
        if body is not None:
            payload = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        if time.monotonic() - self._used > KEEP_S:
            self.close()
        for attempt in (1, 2):
            fresh = self._connection is None
            if self._connection is None:
                kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
                self._connection = kind(self._host, self._port, timeout=self._timeout)
            try:
                self._connection.request(method, target, payload, headers)
                response = self._connection.getresponse()
                self._used = time.monotonic()
                return response
            except (OSError, http.client.HTTPException) as error:
                self.close()
                # A kept connection that was closed meanwhile: once more, and only what is safe to do twice.
                again = method == "GET" or "Idempotency-Key" in headers
                if attempt == 1 and not fresh and again and not isinstance(error, TimeoutError):
                    continue
                raise self._unreachable(error) from error
        raise AssertionError("not reached")

    def _unreachable(self, error: Exception) -> UnreachableError:
        self.close()
        where = f"{self._host}:{self._port}"
        if isinstance(error, ConnectionRefusedError) and self.local.pid:
            return UnreachableError(
                "The gateway could not be reached",
                f"nothing listens on {where}, though {local.path_of(self.local.data)} names it",
                "start it with `narrows up --detach`",
            )
        if isinstance(error, (TimeoutError, socket.timeout)):
            why = f"{where} did not answer within {self._timeout:g} s"
        else:
            why = f"{where}: {type(error).__name__}: {error}"
        return UnreachableError("The gateway could not be reached", why, "see `narrows doctor`")


def segment(text: str) -> str:
    """`text` as one segment of a path."""
    return quote(text, safe="")


def _query_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _problem(status: int, raw: bytes) -> ApiError:
    """The error of a problem+json body; of any other body too, since a proxy may have answered."""
    try:
        found = json.loads(raw)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        found = {}
    return ApiError(
        str(found.get("title") or f"The gateway answered with HTTP status {status}"),
        str(found.get("detail") or ""),
        str(found.get("hint") or ("see DATA/run/narrows.log" if status >= 500 else "")),
        status=status,
        code=str(found.get("code") or "api_error"),
    )
