"""The one error of the AWS decoders."""

from __future__ import annotations

from narrows.core.errors import NarrowsError


class DecodeProblem(NarrowsError):
    """Bytes that are not what their operation's model says. Recorded as a problem of the exchange, never fatal."""

    code = "decode_problem"
