"""Fetching in sessions: aiokafka's own fetcher, requests and answers over brokers that keep to KIP-227."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, suppress
from random import Random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.subscription_state import SubscriptionState

from pollers.sources.kafka_fetcher import _LEAST_BYTES, KafkaRecord, SessionFetcher
from tests.support.fetch_broker import FetchBrokers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.looptime(noop_cycles=1)

_TOPIC = "t"
_HOLD_BYTES = 1_000_000
_FETCH_BYTES = 300_000
_RETRY_S = 0.2
_BACKOFF_S = 0.1  # how long what was fetched and is not taken keeps its broker from being asked


def tp(number: int) -> TopicPartition:
    """Return a partition."""
    return TopicPartition(_TOPIC, number)


class Rig:
    """A fetcher, and who takes from it."""

    def __init__(self, brokers: FetchBrokers) -> None:
        self.brokers = brokers
        self.subscriptions = SubscriptionState()
        self.fetcher = SessionFetcher(
            _TOPIC, brokers, self.subscriptions, hold_max_bytes=_HOLD_BYTES, fetch_max_bytes=_FETCH_BYTES,
            isolation_level="read_committed", auto_offset_reset="none", retry_backoff_ms=int(_RETRY_S * 1000),
        )  # fmt: skip
        self.taken: dict[int, list[tuple[int, bytes]]] = {}

    def move(self, places: dict[int, int]) -> None:
        """Assign, as `PartitionConsumer.move` does."""
        self.subscriptions.assign_from_user({tp(number) for number in places})
        for number, offset in places.items():
            self.fetcher.seek_to(tp(number), offset)

    async def take(self, count: int, *wanted: int) -> list[tuple[int, bytes]]:
        """Take that many more, of all partitions or of those."""
        found: list[tuple[int, bytes]] = []
        numbers = wanted or tuple(self.brokers.logs)
        async with asyncio.timeout(60):
            while len(found) < count:
                records = await self.fetcher.fetched_records([tp(number) for number in numbers], 0, 2)
                for partition, raws in records.items():
                    assert all(isinstance(raw, KafkaRecord) for raw in raws)
                    new = [(raw.offset, raw.value) for raw in raws]
                    self.taken.setdefault(partition.partition, []).extend(new)
                    found += new
                if not records:
                    await self.fetcher._create_fetch_waiter()
        return found

    def position(self, number: int) -> int:
        """Return the next offset to be taken."""
        position: int = self.subscriptions.subscription.assignment.state_value(tp(number)).position
        return position

    def held(self, node: int) -> list[int]:
        """Return the partitions of a broker with records that are not taken."""
        return [held.partition for held in self.fetcher._records if self.brokers.leaders[held.partition] == node]

    async def settled(self) -> None:
        """Let everything happen that needs no time."""
        for _ in range(20):
            await asyncio.sleep(0)


@asynccontextmanager
async def rig(brokers: FetchBrokers) -> AsyncIterator[Rig]:
    """Run a fetcher on the event loop's clock, a little fast: no wait is to end just before its time for rounding."""
    loop = asyncio.get_running_loop()
    clock = SimpleNamespace(monotonic=lambda: 1.001 * loop.time(), time=time.time)
    with patch("aiokafka.consumer.fetcher.time", clock):
        made = Rig(brokers)
        try:
            yield made
        finally:
            with suppress(asyncio.CancelledError):  # of a fetch that waits to be tried again: see kafka_client
                await made.fetcher.close()


def said(request: Any) -> tuple[int, dict[int, int], list[int]]:
    """Return a request's epoch, the places it names, and what it forgets."""
    named = {part[0]: part[-3] for _, parts in request.topics for part in parts}
    return request.session_epoch, named, sorted(n for _, numbers in request.forgotten_topics_data for n in numbers)


async def test_requests_name_only_what_has_moved_since_the_last_one() -> None:
    """Everything once, then the partition that brought something and nothing else."""
    brokers = FetchBrokers(_TOPIC, dict.fromkeys(range(100), 1))
    async with rig(brokers) as it:
        it.move(dict.fromkeys(range(100), 0))
        for number in (7, 8, 7):
            await it.settled()
            brokers.append(number, b"x")
            await it.take(1)
        await it.settled()
        whole, *parts = [said(request) for _, request in brokers.requests]
        assert whole == (0, dict.fromkeys(range(100), 0), [])
        # The first answer of a session names all of its partitions, so the second request had nothing to wait for.
        assert parts == [(1, {7: 1}, []), (2, {8: 1}, []), (3, {7: 2}, [])]


async def test_what_is_not_taken_is_forgotten_and_named_again_once_it_is() -> None:
    """Else the broker would send the same records with each answer."""
    brokers = FetchBrokers(_TOPIC, dict.fromkeys(range(3), 1))
    async with rig(brokers) as it:
        it.move(dict.fromkeys(range(3), 0))
        await it.settled()
        brokers.append(0, b"kept")
        await it.settled()
        assert len(brokers.requests) == 1, "a broker is left alone while something it sent is fresh"
        await asyncio.sleep(2 * _BACKOFF_S)
        assert [said(request) for _, request in brokers.requests[1:]] == [(1, {}, [0])]
        brokers.append(1, b"other")
        assert await it.take(1, 1) == [(0, b"other")]
        assert await it.take(1, 0) == [(0, b"kept")]
        brokers.append(2, b"third")
        assert await it.take(1, 2) == [(0, b"third")]
        await it.settled()
        assert (0, 1) in [place for _, request in brokers.requests for place in said(request)[1].items()]
        assert it.taken == {0: [(0, b"kept")], 1: [(0, b"other")], 2: [(0, b"third")]}


async def test_what_is_held_stays_within_its_bound_however_many_partitions_bring_something() -> None:
    """A fetch may bring what its broker's share has room for; beyond that the least there can be, here one batch."""
    brokers = FetchBrokers(_TOPIC, {number: number % 2 for number in range(60)})
    for number in brokers.logs:
        brokers.append(number, b"x" * 40_000)
    async with rig(brokers) as it:
        it.move(dict.fromkeys(range(60), 0))
        await asyncio.sleep(7.5 * _BACKOFF_S)
        for node in (0, 1):
            asked = [request.max_bytes for asked_of, request in brokers.requests if asked_of == node]
            assert asked[0] == _FETCH_BYTES  # brings seven batches
            assert _HOLD_BYTES // 2 - 7 * 40_100 < asked[1] < _HOLD_BYTES // 2 - 7 * 40_000  # brings five
            assert asked[2:] == [_LEAST_BYTES] * (len(asked) - 2) != []
            assert len(it.held(node)) == 7 + 5 + len(asked[2:])
        assert len(await it.take(60)) == 60


async def test_who_waits_gets_records_although_as_much_is_held_as_may_be() -> None:
    """Those of others, who take none, may lie there for long."""
    brokers = FetchBrokers(_TOPIC, dict.fromkeys(range(30), 1))
    for number in range(29):
        brokers.append(number, b"x" * 40_000)
    async with rig(brokers) as it:
        it.move(dict.fromkeys(range(30), 0))
        await asyncio.sleep(10)
        assert len(it.held(1)) == 29
        brokers.append(29, b"y")
        assert await it.take(1, 29) == [(0, b"y")]
        assert {request.max_bytes for _, request in brokers.requests[-2:]} == {_LEAST_BYTES}


async def test_a_paused_partition_is_not_fetched() -> None:
    """It is forgotten, and comes back when it is resumed."""
    brokers = FetchBrokers(_TOPIC, {0: 1, 1: 1})
    async with rig(brokers) as it:
        it.move({0: 0, 1: 0})
        await it.settled()
        it.subscriptions.pause(tp(0))
        brokers.append(1, b"x")
        await it.take(1)
        await it.settled()
        assert said(brokers.requests[-1][1]) == (1, {1: 1}, [0])
        it.subscriptions.resume(tp(0))
        brokers.append(0, b"y")
        brokers.append(1, b"z")
        assert await it.take(2) == [(1, b"z"), (0, b"y")]


async def test_a_seek_is_told_and_what_was_fetched_before_it_is_thrown_away() -> None:
    """Also when the answer was under way."""
    brokers = FetchBrokers(_TOPIC, {0: 1, 1: 1})
    async with rig(brokers) as it:
        it.move({0: 0, 1: 0})
        await it.settled()
        for value in (b"a", b"b", b"c", b"d"):
            brokers.append(0, value)
        it.fetcher.seek_to(tp(0), 2)
        assert await it.take(2) == [(2, b"c"), (3, b"d")]
        it.fetcher.seek_to(tp(0), 1)
        assert await it.take(3) == [(1, b"b"), (2, b"c"), (3, b"d")]


@pytest.mark.parametrize("under_way", [True, False])
async def test_the_ends_of_quiet_partitions_are_known_after_a_move(under_way: bool) -> None:  # noqa: FBT001
    """A session does not tell them again of its own accord, whatever became of the answer that told them."""
    brokers = FetchBrokers(_TOPIC, {0: 1, 1: 1})
    brokers.append(0, b"x")
    async with rig(brokers) as it:
        it.move({0: 1, 1: 0})
        for _ in range(3):
            await it.settled()
            if not under_way:
                brokers.append(1, b"y")  # held here, so that no fetch is under way
                await it.settled()
            it.move({0: 1, 1: len(brokers.logs[1])})
        it.fetcher.seek_to(tp(0), 0)
        await it.settled()
        it.fetcher.seek_to(tp(0), 1)
        await asyncio.sleep(2)
        assignment = it.subscriptions.subscription.assignment
        assert [assignment.state_value(tp(number)).highwater for number in (0, 1)] == [1, len(brokers.logs[1])]


@pytest.mark.parametrize("lost", ["request", "answer"])
async def test_after_a_lost_fetch_everything_is_named(lost: str) -> None:
    """A session that is certain to be in step begins, after the pause for retries."""
    brokers = FetchBrokers(_TOPIC, {0: 1, 1: 1})
    async with rig(brokers) as it:
        it.move({0: 0, 1: 0})
        await it.settled()
        losses = iter([lost])
        brokers.lose = lambda: next(losses, "")
        brokers.append(0, b"x")
        await it.take(1)
        brokers.append(0, b"y")
        assert await it.take(1) == [(1, b"y")]
        assert asyncio.get_running_loop().time() == pytest.approx(_RETRY_S)
        await it.settled()
        begins = [request for _, request in brokers.requests if request.session_epoch == 0]
        assert [said(request)[1] for request in begins] == [{0: 0, 1: 0}, {0: 1, 1: 0}]
        assert begins[1].session_id == 1, "the old one is ended"


async def test_a_session_the_broker_lost_begins_anew_at_once() -> None:
    """Others' sessions may have pushed it out."""
    brokers = FetchBrokers(_TOPIC, {0: 1, 1: 1})
    async with rig(brokers) as it:
        it.move({0: 0, 1: 0})
        await it.settled()
        brokers.nodes[1].cache.forget()
        brokers.append(0, b"x")
        await it.take(1)
        brokers.append(1, b"y")
        assert await it.take(1) == [(0, b"y")]
        assert asyncio.get_running_loop().time() == pytest.approx(0, abs=0.01)


async def test_a_broker_that_refuses_even_whole_fetches_is_not_asked_without_pause() -> None:
    """Each refusal is followed by the pause for retries."""
    brokers = FetchBrokers(_TOPIC, {0: 1})
    brokers.nodes[1].cache.take = lambda *_: Refusal()  # type: ignore[assignment,method-assign]
    async with rig(brokers) as it:
        it.move({0: 0})
        await asyncio.sleep(10.5 * _RETRY_S)
        assert len(brokers.requests) == pytest.approx(11, abs=1)


class Refusal:
    """A broker's answer that is an error as a whole."""

    session_id, places, error = 0, {}, -1  # type: ignore[var-annotated]


@pytest.mark.parametrize("version", [4, 6, 7, 10])
async def test_older_brokers_are_told_everything_or_know_sessions(version: int) -> None:
    """Fetch requests have sessions from version 7 on."""
    brokers = FetchBrokers(_TOPIC, {0: 1, 1: 1, 2: 1}, version=version)
    async with rig(brokers) as it:
        it.move({0: 0, 1: 0, 2: 0})
        for number in (0, 1, 0):
            await it.settled()
            brokers.append(number, b"x")
            await it.take(1)
        await it.settled()
        assert it.taken == {0: [(0, b"x"), (1, b"x")], 1: [(0, b"x")]}
        names = [sum(len(parts) for _, parts in request.topics) for _, request in brokers.requests]
        assert names == ([3, 3, 3, 3] if version < 7 else [3, 1, 1, 1])


async def test_a_broker_without_room_for_a_session_is_told_everything() -> None:
    """It says number zero."""
    brokers = FetchBrokers(_TOPIC, {0: 1, 1: 1})
    brokers.nodes[1].cache.room = False
    async with rig(brokers) as it:
        it.move({0: 0, 1: 0})
        for number in (0, 1):
            await it.settled()
            brokers.append(number, b"x")
            await it.take(1)
        await it.settled()
        assert [said(request)[:2] for _, request in brokers.requests] == [
            (0, {0: 0, 1: 0}), (0, {0: 1, 1: 0}), (0, {0: 1, 1: 1}),
        ]  # fmt: skip


async def test_partitions_take_turns_at_being_named_first() -> None:
    """An answer that is full leaves out those named last; without a session the order is ours."""
    brokers = FetchBrokers(_TOPIC, dict.fromkeys(range(30), 1))
    brokers.nodes[1].cache.room = False
    async with rig(brokers) as it:
        it.move(dict.fromkeys(range(30), 0))
        for _ in range(3):
            await it.settled()
            brokers.append(0, b"x")
            await it.take(1)
        orders = {tuple(part[0] for part in request.topics[0][1]) for _, request in brokers.requests}
        assert len(orders) == len(brokers.requests)


async def test_a_new_leader_is_asked_and_the_old_one_told_to_forget() -> None:
    """The metadata are asked for anew; the place stays the same."""
    brokers = FetchBrokers(_TOPIC, {0: 1, 1: 1, 2: 2})
    async with rig(brokers) as it:
        it.move({0: 0, 1: 0, 2: 0})
        await it.settled()
        brokers.append(0, b"before")
        await it.take(1)
        await it.settled()
        brokers.lead(0, 2)
        brokers.append(0, b"after")
        brokers.append(2, b"x")
        assert sorted(await it.take(2)) == [(0, b"x"), (1, b"after")]
        assert brokers.updates >= 1
        brokers.append(1, b"y")
        await it.take(1)
        await it.settled()
        assert any(said(request)[2] == [0] for node, request in brokers.requests if node == 1)
        assert any(said(request)[1].get(0) == 1 for node, request in brokers.requests if node == 2)


async def test_a_partition_without_a_leader_makes_the_metadata_be_asked_for() -> None:
    """The others go on meanwhile."""
    brokers = FetchBrokers(_TOPIC, {0: 1, 1: 1})
    async with rig(brokers) as it:
        brokers.known[0] = -1
        it.move({0: 0, 1: 0})
        brokers.append(0, b"x")
        brokers.append(1, b"y")
        assert sorted(await it.take(2)) == [(0, b"x"), (0, b"y")]
        assert brokers.updates == 1


async def test_quiet_partitions_of_a_session_are_heard_of() -> None:
    """An answer is one for all it could have named; whoever waits for records is not taken to be cut off."""
    brokers = FetchBrokers(_TOPIC, {0: 1, 1: 1, 2: 2})
    async with rig(brokers) as it:
        it.move({0: 0, 1: 0, 2: 0})
        await it.settled()
        brokers.append(0, b"x")
        await it.take(1)
        assert it.fetcher.heard_ms(tp(1)) is None
        await it.settled()
        brokers.append(0, b"y")
        await it.take(1)
        assert it.fetcher.heard_ms(tp(1)) is not None
        assert it.fetcher.heard_ms(tp(2)) is None


@pytest.mark.parametrize("seed", range(40))
async def test_nothing_is_lost_doubled_or_out_of_order_whatever_happens(seed: int) -> None:
    """Lost requests and answers, lost sessions, changed leaders, other assignments, records left lying."""
    random = Random(seed)
    brokers = FetchBrokers(_TOPIC, {number: random.randint(1, 3) for number in range(10)})
    brokers.lose = lambda: random.choices(["", "request", "answer"], [20, 1, 1])[0]
    written = dict.fromkeys(range(10), 0)
    async with rig(brokers) as it:
        it.move(dict.fromkeys(range(10), 0))
        for _ in range(60):
            for number in random.sample(range(10), 3):
                for _ in range(random.randint(1, 5)):
                    brokers.append(number, b"%d" % written[number])
                    written[number] += 1
            match random.randint(0, 9):
                case 0:
                    brokers.nodes[random.choice(list(brokers.nodes))].cache.forget()
                case 1:
                    brokers.lead(random.randint(0, 9), random.choice(list(brokers.nodes)))
                case 2:
                    it.move({number: len(it.taken.get(number, ())) for number in range(10)})
                case 3:
                    await asyncio.sleep(random.random())
            wanted = random.sample(range(10), random.randint(1, 10))
            if any(len(it.taken.get(number, ())) < written[number] for number in wanted):
                await it.take(1, *wanted)
        left = sum(written.values()) - sum(map(len, it.taken.values()))
        await it.take(left)
        assert it.taken == {number: [(at, b"%d" % at) for at in range(count)] for number, count in written.items()}
        assert all(it.position(number) == count for number, count in written.items())
