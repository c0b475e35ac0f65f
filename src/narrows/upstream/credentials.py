"""Upstream credentials, AWS's and API keys: per connection and, for assumed roles, per session.

Guarantees:

- They are kept in memory only and shown in no repr, log or error.
- A connection's source is the only one asked; if it fails, calls on the connection fail (P3, P4).
- At most one load runs per key at a time; whoever else needs it waits for the same. A source that failed is
  left alone for two seconds, and its failure repeated meanwhile.
- Expiring credentials are renewed five minutes before they expire, behind the calls, which go on with the
  old ones as long as these are good. A change of a credentials file is seen within a second.
- The cache is bounded; a session's credentials go when it ends.

One instance per process, used from its event loop's thread. Sources block, so they run on threads of their
own: an instance metadata service that hangs must not hold up name resolution on the loop's default threads.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Protocol

from narrows.core.errors import CredentialError
from narrows.core.values import ApiKey, Connection, CredentialSource, Lease
from narrows.tasks import spawn
from narrows.upstream.sources import BaseRejected, Loaded, Sources
from narrows.upstream.sources_shape import SourceFailed
from narrows.wire.sigv4 import Credentials

CAPACITY = 4096
"""Keys in the cache, at most; the least recently used goes first."""
THREADS = 4

_S = 1_000_000_000
REFRESH_BEFORE_NS = 300 * _S
"""How long before their expiry credentials are renewed."""
UNUSABLE_BEFORE_NS = 15 * _S
"""Credentials that expire this soon are not used: a request must still be good when it arrives."""
RETRY_AFTER_NS = 2 * _S
"""How long a failure is repeated without asking the source again."""
RETRY_BEHIND_NS = 10 * _S
"""The same where a renewal failed and the old credentials are still good."""
FILE_CHECK_NS = 1 * _S
"""How often a credentials file is looked at."""
STATIC_CHECK_NS = 900 * _S
"""When a chain that gave credentials without expiry is asked again: someone may have changed its files. After
twice that without an answer they are no longer used: taking them away from the chain must have an effect."""

Upstream = Credentials | ApiKey
"""What goes upstream: an `aws` connection's credentials, or an `llm` connection's key."""

SECRET_CHECK_NS = 300 * _S
"""When a secret store that gave credentials without expiry is asked again; without an answer, they are used for twice
that."""

_STORES = ("secrets_manager", "vault", "sealed")
_FOREVER = 1 << 63
_Key = tuple[str, bytes, str]
_log = logging.getLogger(__name__)


class CredentialProvider(Protocol):
    """What the path needs: the credentials with which a lease's calls on a connection go upstream."""

    def cached(self, lease: Lease, connection: Connection) -> Upstream | None:
        """Good credentials if they are at hand. Never blocks or raises; call from the event loop."""
        ...

    async def get(self, lease: Lease, connection: Connection) -> Upstream:
        """Good credentials, loaded if need be. Raises CredentialError."""
        ...


class _Entry:
    """What is known about one key. Times: `good_until` and `refresh_at` wall, `quiet_until` monotonic, all
    ns.
    """

    __slots__ = ("error", "good_until", "loaded", "quiet_until", "refresh_at", "source", "task", "work")

    def __init__(self, source: CredentialSource) -> None:
        self.source = source
        self.loaded: Loaded | None = None
        self.good_until = 0
        self.refresh_at = 0
        self.quiet_until = 0
        self.error: CredentialError | None = None
        self.task: asyncio.Task[Loaded] | None = None
        self.work: asyncio.Future[Loaded] | None = None


class UpstreamCredentials:
    """The CredentialProvider of the gateway."""

    def __init__(
        self,
        sources: Sources | None = None,
        *,
        capacity: int = CAPACITY,
        timeout_s: float = 60.0,
        wall_ns: Callable[[], int] = time.time_ns,
        mono_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """`timeout_s` is how long a caller waits for a source; `wall_ns` and `mono_ns` are the clocks."""
        self._sources = sources or Sources()
        self._capacity = capacity
        self._timeout_s = timeout_s
        self._wall_ns = wall_ns
        self._mono_ns = mono_ns
        self._entries: OrderedDict[_Key, _Entry] = OrderedDict()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="narrows-credentials")

    def __repr__(self) -> str:
        return f"<UpstreamCredentials of {len(self._entries)} keys>"

    def cached(self, lease: Lease, connection: Connection) -> Upstream | None:
        """Good credentials if they are at hand, else None; starts a renewal that is due behind the call."""
        source = connection.credential
        key = _key(lease, connection)
        entry = self._entries.get(key)
        if entry is None or entry.loaded is None:
            return None
        if entry.source is not source:
            if entry.source != source:
                return None  # the connection was changed: its old credentials are not its credentials
            entry.source = source
        now = self._wall_ns()
        if now >= entry.good_until:
            return None
        self._entries.move_to_end(key)
        if now >= entry.refresh_at and self._mono_ns() >= entry.quiet_until:
            self._start(entry, lease, connection)
        return entry.loaded.credentials

    async def get(self, lease: Lease, connection: Connection) -> Upstream:
        """Good credentials, loaded if need be. Raises CredentialError."""
        found = self.cached(lease, connection)
        if found is not None:
            return found
        return await self._get(_key(lease, connection), connection.credential, lease, connection)

    def forget_session(self, session: bytes) -> None:
        """Drop what was kept for a session (16 bytes) that has ended."""
        for key in [key for key in self._entries if key[1] == session]:
            del self._entries[key]

    def forget_connection(self, name: str) -> None:
        """Drop what was kept for a connection: it was removed, or its target refused the credentials."""
        for key in [key for key in self._entries if key[0] == name]:
            del self._entries[key]

    async def give_back(self, lease: Lease, connection: Connection) -> None:
        """End what a source lent for this lease, and forget it: after a test, nobody uses it.

        Raises CredentialError.
        """
        source = connection.credential
        keys = [(connection.name, b"base", ""), _key(lease, connection)]
        for key, one in zip(keys, (_base(source), source), strict=True):
            entry = self._entries.pop(key, None)
            if entry is not None and entry.loaded is not None and entry.loaded.lease:
                await asyncio.to_thread(self._sources.give_back, one, entry.loaded)

    def close(self) -> None:
        """Forget everything and let the threads end."""
        self._entries.clear()
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _get(self, key: _Key, source: CredentialSource, lease: Lease, connection: Connection) -> Upstream:
        entry = self._entry(key, source)
        if entry.loaded is not None and self._wall_ns() < entry.good_until:
            if self._wall_ns() >= entry.refresh_at and self._mono_ns() >= entry.quiet_until:
                self._start(entry, lease, connection)
            return entry.loaded.credentials
        if entry.error is not None and self._mono_ns() < entry.quiet_until:
            raise _again(entry.error)
        try:
            # Shielded: the one who started a load may go away, those who wait for it must not suffer.
            loaded = await asyncio.shield(self._start(entry, lease, connection))
        except CredentialError as error:
            raise _again(error) from None
        return loaded.credentials

    def _entry(self, key: _Key, source: CredentialSource) -> _Entry:
        entry = self._entries.get(key)
        if entry is None or entry.source != source:
            entry = self._entries[key] = _Entry(source)
        self._entries.move_to_end(key)
        if len(self._entries) > self._capacity:
            self._entries.popitem(last=False)
        return entry

    def _start(self, entry: _Entry, lease: Lease, connection: Connection) -> asyncio.Task[Loaded]:
        """The load that runs for this entry, started if none does."""
        task = entry.task
        if task is None or task.done():
            task = entry.task = spawn(
                self._load(entry, lease, connection),
                name=f"credentials of {connection.name}",
                on_error=partial(_report, asyncio.get_running_loop()),
            )
        return task

    async def _load(self, entry: _Entry, lease: Lease, connection: Connection) -> Loaded:
        try:
            loaded = await self._fetch(entry, lease, connection)
            now = self._wall_ns()
            if loaded.expires_ns is not None and loaded.expires_ns - UNUSABLE_BEFORE_NS <= now:
                raise CredentialError(
                    f"no credentials for connection {connection.name}",
                    "its source gave credentials that have expired",
                    "check the clocks of the gateway and of the source",
                )
        except CredentialError as error:
            still_good = entry.loaded is not None and self._wall_ns() < entry.good_until
            entry.error = error
            entry.quiet_until = self._mono_ns() + (RETRY_BEHIND_NS if still_good else RETRY_AFTER_NS)
            _log.warning("credentials of connection %s: %s", connection.name, error)
            raise
        entry.error = None
        entry.loaded = loaded
        entry.good_until, entry.refresh_at = _times(entry.source, loaded, now)
        return loaded

    async def _fetch(self, entry: _Entry, lease: Lease, connection: Connection) -> Loaded:
        source = entry.source
        call: Callable[[], Loaded]
        if source.kind == "assume_role":
            base_key = (connection.name, b"base", "")
            base = await self._get(base_key, _base(source), lease, connection)
            assert isinstance(base, Credentials)
            call = partial(self._sources.assume_role, source, connection, lease, base)
        elif source.kind in _STORES:
            call = partial(self._sources.stored, source, connection, lease, entry.loaded)
        else:
            load = self._sources.api_key if connection.kind == "llm" else self._sources.load
            call = partial(load, source, entry.loaded)
        try:
            return await self._on_thread(entry, call, connection)
        except BaseRejected:
            self._entries.pop((connection.name, b"base", ""), None)
            raise

    async def _on_thread(self, entry: _Entry, call: Callable[[], Loaded], connection: Connection) -> Loaded:
        # A source that hangs keeps its thread. It is waited for again rather than started again, so that it can
        # hold one thread and not all of them.
        if entry.work is None:
            entry.work = asyncio.get_running_loop().run_in_executor(self._pool, call)
        work = entry.work
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asyncio.shield(work)
        except TimeoutError:
            raise CredentialError(
                f"no credentials for connection {connection.name}",
                f"its source did not answer in {self._timeout_s:g} s",
                "check what the source needs: the network, a credential process, instance metadata",
            ) from None
        finally:
            if work.done():
                entry.work = None


def _key(lease: Lease, connection: Connection) -> _Key:
    # The principal is in the key although a session has one only: AWS knows an assumed role by that name.
    if connection.credential.kind == "assume_role":
        return (connection.name, lease.session, lease.principal.name)
    # A connection may be replaced by one of another kind with the same source, which then gives something else.
    return (connection.name, b"", "" if connection.kind == "aws" else connection.kind)


def _base(source: CredentialSource) -> CredentialSource:
    return replace(source, kind=source.base, role_arn="", external_id="", sts_endpoint="")


def _times(source: CredentialSource, loaded: Loaded, now: int) -> tuple[int, int]:
    """Until when credentials may be used, and from when they are renewed behind the calls."""
    if source.kind in ("file", "sealed"):
        return now + FILE_CHECK_NS, _FOREVER
    if source.kind == "vault" and loaded.expires_ns is not None:
        # A short lease is renewed at two thirds of its life, a long one as all others are.
        due = max(loaded.expires_ns - REFRESH_BEFORE_NS, now + (loaded.expires_ns - now) * 2 // 3)
        return loaded.expires_ns - UNUSABLE_BEFORE_NS, min(due, loaded.expires_ns - UNUSABLE_BEFORE_NS)
    if loaded.expires_ns is None and source.kind in _STORES:
        return now + 2 * SECRET_CHECK_NS, now + SECRET_CHECK_NS
    if loaded.expires_ns is None and source.kind == "chain":
        return now + 2 * STATIC_CHECK_NS, now + STATIC_CHECK_NS
    if loaded.expires_ns is None:
        return _FOREVER, _FOREVER
    # A chain may give again what it gave before: not to be asked at every call in its last five minutes.
    refresh = max(loaded.expires_ns - REFRESH_BEFORE_NS, now + RETRY_BEHIND_NS)
    return loaded.expires_ns - UNUSABLE_BEFORE_NS, refresh


def _again(error: CredentialError) -> CredentialError:
    """The same failure for another caller: one exception raised many times would grow its traceback."""
    if isinstance(error, SourceFailed):
        return SourceFailed(error.what, error.why, error.hint, step=error.step)
    return CredentialError(error.what, error.why, error.hint)


def _report(loop: asyncio.AbstractEventLoop, error: BaseException) -> None:
    """A CredentialError was logged and went to whoever waits; anything else is a fault that must be heard."""
    if not isinstance(error, CredentialError):
        loop.call_exception_handler({"message": "loading credentials failed", "exception": error})
