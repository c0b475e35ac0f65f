"""When what secret stores gave is used, renewed and given back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from narrows.core.values import Agent, Connection, CredentialSource, Lease, Principal
from narrows.upstream.credentials import SECRET_CHECK_NS, UNUSABLE_BEFORE_NS, UpstreamCredentials
from narrows.upstream.sources import Sources
from narrows.upstream.sources_shape import Loaded, SourceFailed
from narrows.wire.sigv4 import Credentials

S = 1_000_000_000
PAIR = Credentials("AKIAEXAMPLE000000000", "secret/of+the-tests", None)
LEASE = Lease(bytes(16), "prod", Principal("alice"), Agent("a"), 2_000_000_000, "NRWLA", "s", "t")


class Store(Sources):
    """A store that gives what it is told to, and remembers what it was asked."""

    def __init__(self, *answers: Loaded | SourceFailed) -> None:
        super().__init__({})
        self.answers = list(answers)
        self.asked: list[tuple[str, Loaded | None]] = []
        self.returned: list[Loaded] = []

    def stored(
        self, source: CredentialSource, connection: Connection, lease: Lease, before: Loaded | None = None
    ) -> Loaded:
        self.asked.append((source.kind, before))
        answer = self.answers.pop(0)
        if isinstance(answer, SourceFailed):
            raise answer
        return answer

    def give_back(self, source: CredentialSource, loaded: Loaded) -> None:
        self.returned.append(loaded)


class World:
    def __init__(self, store: Store, **credential: Any) -> None:
        self.now = 1_700_000_000 * S
        self.connection = Connection("prod", credential=CredentialSource(**credential))
        self.credentials = UpstreamCredentials(store, wall_ns=lambda: self.now, mono_ns=lambda: self.now)

    async def get(self) -> Any:
        return await self.credentials.get(LEASE, self.connection)


VAULT = {"kind": "vault", "address": "https://v", "auth_file": "/t", "engine": "aws", "secret_name": "agents"}


def test_a_short_lease_is_renewed_at_two_thirds_of_its_life_behind_the_calls() -> None:
    async def run() -> None:
        begin = 1_700_000_000 * S
        first = Loaded(PAIR, begin + 240 * S, lease="l/1")
        store = Store(first, Loaded(PAIR, begin + 400 * S, lease="l/1"))
        world = World(store, **VAULT)
        assert await world.get() is PAIR
        world.now += 159 * S
        assert await world.get() is PAIR
        assert len(store.asked) == 1
        world.now += 2 * S
        assert world.credentials.cached(LEASE, world.connection) is PAIR, "the call does not wait"
        (task,) = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
        await task
        assert store.asked[1] == ("vault", first), "it is asked for more of the same lease"
        world.now = begin + 399 * S
        assert world.credentials.cached(LEASE, world.connection) is None
        world.credentials.close()

    asyncio.run(run())


def test_a_store_that_fails_is_not_replaced_by_what_it_gave_long_ago() -> None:
    async def run() -> None:
        failed = SourceFailed("no credentials", "it is down", "mend it", step="source")
        store = Store(Loaded(PAIR), failed, failed)
        world = World(store, kind="secrets_manager", secret_name="s", region="eu-west-1")
        assert await world.get() is PAIR
        world.now += 2 * SECRET_CHECK_NS
        with pytest.raises(SourceFailed) as caught:
            await world.get()
        assert (caught.value.step, caught.value.hint) == ("source", "mend it")
        with pytest.raises(SourceFailed, match="it is down"):
            await world.get()
        assert len(store.asked) == 2, "its failure is repeated for a while, with the step"
        world.credentials.close()

    asyncio.run(run())


def test_what_has_nearly_expired_is_refused() -> None:
    async def run() -> None:
        store = Store(Loaded(PAIR, 1_700_000_000 * S + UNUSABLE_BEFORE_NS))
        world = World(store, **VAULT)
        with pytest.raises(Exception, match="expired"):
            await world.get()
        world.credentials.close()

    asyncio.run(run())


def test_a_tests_lease_is_given_back_and_forgotten() -> None:
    async def run() -> None:
        lent = Loaded(PAIR, 1_700_003_600 * S, lease="l/1")
        store = Store(lent, lent)
        world = World(store, **VAULT)
        await world.get()
        await world.credentials.give_back(LEASE, world.connection)
        assert store.returned == [lent] and world.credentials.cached(LEASE, world.connection) is None
        await world.credentials.give_back(LEASE, world.connection)
        assert store.returned == [lent]
        await world.get()
        world.credentials.close()

    asyncio.run(run())


def test_a_role_may_be_assumed_with_what_a_store_holds() -> None:
    class Roles(Store):
        def assume_role(
            self, source: CredentialSource, connection: Connection, lease: Lease, base: Credentials
        ) -> Loaded:
            assert base is PAIR and lease is LEASE
            return Loaded(Credentials("ASIA", "x", "y"), 1_700_003_600 * S)

    async def run() -> None:
        store = Roles(Loaded(PAIR))
        world = World(store, **VAULT | {"kind": "assume_role", "base": "vault", "engine": "kv2", "role_arn": "arn:x"})
        assert (await world.get()).access_key_id == "ASIA"
        assert store.asked == [("vault", None)]
        world.credentials.close()

    asyncio.run(run())
