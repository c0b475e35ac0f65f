"""Takes a token to the issuer whose it is: choosing, keys, verification. What `oidc` decides, this provides for.

Blocking (it may fetch keys): the gateway calls it in a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from narrows.core.errors import Refusal
from narrows.core.issuers import Issuer
from narrows.identity.jwks import Fetch, KeySource
from narrows.identity.oidc import NotMine, Verified, decode, refused, verify


class Verifier:
    """Verifies tokens of the configured issuers."""

    def __init__(
        self,
        issuers: Sequence[Issuer],
        fetch: Callable[[Issuer], Fetch],
        wall_s: Callable[[], float],
        mono_s: Callable[[], float],
    ) -> None:
        self._issuers = tuple(issuers)
        self._wall_s = wall_s
        self._sources: dict[str, KeySource] = {}
        for one in self._issuers:
            self._sources.setdefault(one.issuer, KeySource(one.issuer, fetch(one), mono_s))

    def __call__(self, token: str, nonce: str | None = None) -> tuple[Verified, Issuer]:
        """Who the token is about, and the table that let it in.

        Raises Refusal: `token_not_ours` for a token of no configured issuer, else what is wrong with it. Raises
        UpstreamError where the issuer's keys cannot be had.
        """
        read = decode(token)
        mine = [one for one in self._issuers if one.issuer == read.issuer]
        if not mine:
            raise refused(
                "it is of no issuer that is configured here", code="token_not_ours", hint="narrows doctor lists them"
            )
        last: Refusal | None = None
        for one in mine:
            if read.algorithm not in one.algorithms:  # keys are not fetched for what can never be believed
                last = last or refused("it is not signed by an algorithm that is believed", code="token_algorithm")
                continue
            keys = self._sources[one.issuer].keys(read.kid, read.algorithm)
            found = verify(read, keys, one, self._wall_s(), nonce=nonce)
            if isinstance(found, Verified):
                return found, one
            if not isinstance(found, NotMine):
                last = found
        assert last is not None
        raise last
