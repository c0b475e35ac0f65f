"""The error types of Narrows.

Every error says what happened, why, and what to do next; the command line and the API print exactly those
three. An error text never holds a secret: build it from names, lengths and codes, not from values.
"""

from __future__ import annotations


class NarrowsError(Exception):
    """Base of all errors that a user may see.

    `what` is one sentence in the past tense, `why` the reason, `hint` the next thing to do (may be empty).
    `code` is stable and machine-readable: tests and scripts refer to it, never to the texts.
    """

    code: str = "error"

    def __init__(self, what: str, why: str = "", hint: str = "") -> None:
        self.what = what
        self.why = why
        self.hint = hint
        super().__init__(what)

    def __str__(self) -> str:
        text = self.what
        if self.why:
            text += f": {self.why}"
        if self.hint:
            text += f" ({self.hint})"
        return text


class ProtocolError(NarrowsError):
    """The peer broke the protocol. `status` is the HTTP status that tells a client so.

    Codecs raise this and nothing else, whatever bytes they are fed.
    """

    code = "protocol_error"

    def __init__(self, what: str, why: str = "", hint: str = "", *, status: int = 400) -> None:
        super().__init__(what, why, hint)
        self.status = status


class Refusal(NarrowsError):
    """A request that will not pass. `code` is the reason's stable name, `status` the HTTP status.

    `aws_code` is the error code that an AWS SDK knows (its own exception is raised from it).
    """

    code = "refused"

    def __init__(
        self, what: str, why: str = "", hint: str = "", *, code: str, status: int = 403, aws_code: str = "AccessDenied"
    ) -> None:
        super().__init__(what, why, hint)
        self.code = code
        self.status = status
        self.aws_code = aws_code


class RecorderFailed(NarrowsError):
    """The recorder cannot write. From here nothing passes until the process is restarted (P2)."""

    code = "recorder_failed"


class UpstreamError(NarrowsError):
    """The target could not be reached, or broke off. `phase` is `dial`, `tls`, `request` or `response`."""

    code = "upstream_error"

    def __init__(self, what: str, why: str = "", hint: str = "", *, phase: str, status: int = 502) -> None:
        super().__init__(what, why, hint)
        self.phase = phase
        self.status = status


class CredentialError(NarrowsError):
    """A connection's credential source gave nothing usable. New calls on it are refused; nothing falls back."""

    code = "credential_error"


class ConfigError(NarrowsError):
    """A setting, file or argument is wrong. Nothing was started or changed."""

    code = "config_error"


class NotFound(NarrowsError):
    """No such session, exchange, connection or object."""

    code = "not_found"


class ProofError(NarrowsError):
    """A record does not prove. The text names the record, the file and the offset."""

    code = "proof_error"
