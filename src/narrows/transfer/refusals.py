"""Refusals as answers: what this port does not carry, and how a refusal goes to the client."""

from __future__ import annotations

from narrows.core.errors import NarrowsError, Refusal
from narrows.session.call import Call, Handler
from narrows.wire.http1 import NO_BODY, RequestHead


def render_refusal(
    call: Call | None, handler: Handler | None, refusal: Refusal, request_id: str, *, keep: bool
) -> tuple[bytes, int]:
    """The whole answer, and its status: in the handler's form where there is a call that it can read."""
    if call is not None and handler is not None and call.head.method != b"CONNECT":
        status, headers, body = handler.refusal(call, refusal, request_id)
    else:
        status = refusal.status
        body = f"Narrows: {refusal} [{refusal.code}]\n".encode()
        headers = [(b"Content-Type", b"text/plain; charset=utf-8"), (b"Content-Length", b"%d" % len(body))]
        if status == 407:
            headers.append((b"Proxy-Authenticate", b'Basic realm="narrows"'))
    return render_reply(status, headers, keep=keep) + body, status


def check_form(head: RequestHead) -> None:
    """Refuse what this port does not carry: plain HTTP through the proxy."""
    if head.target[:1] != b"/" and head.target != b"*":
        raise Refusal(
            "Plain HTTP through the proxy is not passed",
            "a lease must not travel in the clear",
            "use https, or the gateway's own URL as endpoint",
            code="plain_http_proxy",
        )


def check_upgrade(head: RequestHead, handler: Handler) -> bool:
    """Whether the request may go on in the protocol that it asks for; False where it may pass as if it had not asked.

    Raises Refusal for protocols that `handler` does not know: what follows would not be on record.
    """
    asked = head.upgrade.lower()
    if asked == b"h2c":  # an offer that a server may pass over (RFC 9113 section 3.1)
        return False
    options = [option.strip() for option in (head.get(b"connection") or b"").lower().split(b",")]
    if asked == b"websocket" and handler.upgrades:
        if head.method == b"GET" and head.minor == 1 and head.framing == NO_BODY and b"upgrade" in options:
            return True
        raise Refusal(
            "The request is no WebSocket handshake",
            "it must be a GET of HTTP/1.1 without a body whose Connection header has `upgrade` (RFC 6455 section 4.1)",
            code="upgrade_malformed",
            status=400,
            aws_code="InvalidRequest",
        )
    raise Refusal(
        f"Switching protocols to {head.upgrade.decode('latin-1')[:40]} is not passed",
        "what follows would not be on record",
        code="upgrade_refused",
        status=501,
        aws_code="NotImplemented",
    )


def render_reply(status: int, headers: list[tuple[bytes, bytes]], *, keep: bool) -> bytes:
    """The head of an answer of our own."""
    if not keep:
        headers = [*headers, (b"Connection", b"close")]
    lines = b"".join([name + b": " + value + b"\r\n" for name, value in headers])
    return b"HTTP/1.1 %d %s\r\n" % (status, _REASONS.get(status, b"Refused")) + lines + b"\r\n"


def from_error(error: NarrowsError, code: str, status: int, aws_code: str) -> Refusal:
    return Refusal(error.what, error.why, error.hint, code=code, status=status, aws_code=aws_code)


_REASONS = {
    200: b"OK", 201: b"Created", 400: b"Bad Request", 401: b"Unauthorized", 403: b"Forbidden", 404: b"Not Found",
    405: b"Method Not Allowed", 407: b"Proxy Authentication Required", 408: b"Request Timeout",
    413: b"Content Too Large", 414: b"URI Too Long", 415: b"Unsupported Media Type", 417: b"Expectation Failed",
    421: b"Misdirected Request", 431: b"Request Header Fields Too Large", 500: b"Internal Server Error",
    501: b"Not Implemented", 502: b"Bad Gateway", 503: b"Service Unavailable", 504: b"Gateway Timeout",
    505: b"HTTP Version Not Supported",
}  # fmt: skip
