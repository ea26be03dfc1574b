"""Every store: the queue of asynchronous invocations (`EventQueue`)."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, cast

import pytest

from model.async_event import (
    ASYNC_QUEUE,
    BESIDES_BYTES,
    Condition,
    NewEvent,
    QueuedEvent,
    Response,
    Result,
    Settled,
    Standing,
    partition_key,
)
from model.lease import Lease, Member, ShardKind
from statemgr.event_queue import PARTITIONS, EventKey, QueueFullError
from tests.support.fleet_values import ANN, LONG_S, older, take

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection, Mapping, Sequence

    from statemgr.event_queue import EventQueue
    from statemgr.stores import Store
    from tests.support.store_labs import StoreLab

HERE = (3, 7)
WAIT_S = 0.1


def event(line: str = "f", payload: bytes = b"{}", request_id: str = "r-1") -> NewEvent:
    """Return an event of a function."""
    return NewEvent(line, f"{line}:live", request_id, "Root=1-x", payload)


async def hold(store: Store, partition: int) -> Lease:
    """Join and take a partition that has events."""
    await store.join(Member(ANN), ttl_s=LONG_S)
    return await take(store, ANN, partition_key(partition))


async def taken(
    queue: EventQueue,
    lease: Lease,
    *,
    limits: Mapping[str, int] | None = None,
    each: int = 100,
    most: int = 100,
    max_bytes: int = 10_000_000,
    turn: int = 0,
) -> Sequence[QueuedEvent]:
    """Take events under a lease that is good."""
    found = await queue.take(lease, limits=limits or {}, each=each, most=most, max_bytes=max_bytes, turn=turn)
    assert found is not None
    return found.events


def done(one: QueuedEvent) -> Settled:
    """Return that an event is done."""
    return Settled(one.event.line, one.id, one.event.size)


def again(one: QueuedEvent, after_s: float, standing: Standing | None = None) -> Settled:
    """Return that an event comes again."""
    return Settled(one.event.line, one.id, one.event.size, after_s, standing or one.standing)


async def test_an_event_is_taken_as_it_was_accepted(store: Store) -> None:
    """What was appended comes out whole, with its age and a fresh standing."""
    sent = event(payload='{"ü": "\\u0000"}'.encode(), request_id="r-9")
    partition = await store.events.append(sent, HERE)
    (one,) = await taken(store.events, await hold(store, partition))
    assert one.event == sent
    assert one.standing == Standing()
    assert 0 <= one.age_s < LONG_S


async def test_a_partition_is_wanted_from_its_first_event_on(store: Store) -> None:
    """The fleet is told of the partition as of any other shard; before, and of the others, it is not."""
    assert [shard.key for shard in (await store.snapshot()).wanted] == []
    partition = await store.events.append(event(), HERE)
    (wanted,) = (await store.snapshot()).wanted
    assert (wanted.key, wanted.kind, wanted.weight) == (partition_key(partition), ShardKind.SOURCE, 1.0)
    version = (await store.snapshot()).version
    await store.events.append(event(), (partition, partition))
    assert (await store.snapshot()).version == version


async def test_no_mapping_comes_of_it(store: Store) -> None:
    """The queue shows in no list of mappings."""
    await store.events.append(event(), HERE)
    assert (await store.mappings())[1] == []


async def test_the_shorter_of_two_partitions_is_chosen(store: Store) -> None:
    """Events spread over both, and what is done makes a partition shorter again."""
    first = await store.events.append(event(), HERE)
    second = await store.events.append(event(), HERE)
    assert {first, second} == set(HERE)
    lease = await hold(store, second)
    (one,) = await taken(store.events, lease)
    assert await store.events.settle(lease, [done(one)])
    assert await store.events.append(event(), HERE) == second


async def test_what_was_taken_is_not_taken_twice(store: Store) -> None:
    """An event under way is left alone until it is settled; one that is done never comes again."""
    lease = await hold(store, await store.events.append(event(), HERE))
    (one,) = await taken(store.events, lease)
    assert await taken(store.events, lease) == []
    assert await store.events.settle(lease, [done(one)])
    assert await taken(store.events, lease) == []
    assert (await store.events.depth()).events == 0


async def test_an_event_comes_again_when_it_is_due(lab: StoreLab, store: Store) -> None:
    """It is not taken earlier, `take` says when it will be, and its standing is what was settled."""
    lease = await hold(store, await store.events.append(event(), HERE))
    (one,) = await taken(store.events, lease)
    response = Response(200, "$LATEST", "Unhandled", b'{"errorMessage":"no"}')
    result = Result(Condition.RETRIES_EXHAUSTED, 1_700_000_000_000, 3, response, "id")
    standing = Standing(2, 1, response, result, 7.5, ("arn:one",))
    assert await store.events.settle(lease, [again(one, WAIT_S, standing)])
    early = await store.events.take(lease, limits={}, each=9, most=9, max_bytes=9)
    assert early is not None
    assert early.events == []
    assert early.next_due_s is not None
    assert 0 < early.next_due_s <= WAIT_S
    await lab.pass_time(WAIT_S + 0.01)
    (back,) = await taken(store.events, lease)
    assert (back.id, back.event, back.standing) == (one.id, one.event, standing)
    assert back.age_s > WAIT_S / 2
    assert await store.events.settle(lease, [again(back, 0, Standing(1))])
    (last,) = await taken(store.events, lease)
    assert await store.events.settle(lease, [done(last)])
    depth = await store.events.depth()
    assert (depth.events, depth.size) == (0, 0)


async def test_the_next_holder_takes_what_the_last_one_had(store: Store) -> None:
    """After a resume all that was taken and not settled is due at once; what waits for its time goes on waiting."""
    for at in range(3):
        await store.events.append(event(request_id=f"r-{at}"), (3, 3))
    lease = await hold(store, 3)
    finished, waiting, under_way = await taken(store.events, lease)
    assert await store.events.settle(lease, [done(finished), again(waiting, LONG_S)])
    await store.release([lease])
    successor = await take(store, ANN, partition_key(3))
    assert await taken(store.events, successor) == []
    assert await store.events.resume(successor)
    (back,) = await taken(store.events, successor)
    assert back.event == under_way.event


async def test_what_its_holder_has_stays_with_it(store: Store) -> None:
    """A holder that missed an answer resumes what it does not know of, and nothing that is under way."""
    for at in range(2):
        await store.events.append(event(request_id=f"r-{at}"), (3, 3))
    lease = await hold(store, 3)
    known, missed = await taken(store.events, lease)
    assert await store.events.resume(lease, [EventKey("f", known.id)])
    (back,) = await taken(store.events, lease)
    assert back.event == missed.event


async def test_a_stale_holder_can_neither_take_nor_settle(store: Store) -> None:
    """Every write carries the token, and an older one changes nothing."""
    await store.events.append(event(), (3, 3))
    await store.events.append(event(request_id="r-2"), (3, 3))
    lease = await hold(store, 3)
    (one,) = await taken(store.events, lease, most=1)
    stale = older(lease)
    assert await store.events.take(stale, limits={}, each=9, most=9, max_bytes=9) is None
    assert not await store.events.settle(stale, [done(one)])
    assert not await store.events.resume(stale)
    assert (await store.events.depth()).events == 2
    (other,) = await taken(store.events, lease)
    assert other.event.request_id == "r-2"


async def test_lines_are_limited_each_for_itself(store: Store) -> None:
    """One function's backlog leaves the others their share, whatever came first."""
    for line, number in (("busy", 5), ("idle", 1), ("paused", 2)):
        for _ in range(number):
            await store.events.append(event(line), (3, 3))
    lease = await hold(store, 3)
    found = await taken(store.events, lease, limits={"busy": 2, "paused": 0}, each=3)
    assert sorted(one.event.line for one in found) == ["busy", "busy", "idle"]


async def test_no_more_is_taken_than_there_is_room_for(store: Store) -> None:
    """In number and bytes; a single event larger than the room is taken all the same."""
    for _ in range(4):
        await store.events.append(event(payload=b'"' + b"x" * 98 + b'"'), (3, 3))
    lease = await hold(store, 3)
    assert len(await taken(store.events, lease, most=1)) == 1
    assert len(await taken(store.events, lease, max_bytes=50)) == 1
    assert len(await taken(store.events, lease, max_bytes=100 + BESIDES_BYTES + 1)) == 2


async def test_the_turn_says_which_line_goes_first(store: Store) -> None:
    """With room for one, lines are served in turn."""
    for line in ("a", "b"):
        for _ in range(2):
            await store.events.append(event(line), (3, 3))
    lease = await hold(store, 3)
    lines = [(await taken(store.events, lease, most=1, turn=turn))[0].event.line for turn in (1, 2, 3, 4)]
    assert sorted(lines[:2]) == sorted(lines[2:]) == ["a", "b"]


async def test_a_full_queue_takes_nothing_more(store: Store) -> None:
    """The bytes that wait are bounded; what is done makes room."""
    partition = await store.events.append(event(payload=b"[1234567]"), HERE, max_bytes=10 + BESIDES_BYTES)
    with pytest.raises(QueueFullError):
        await store.events.append(event(), HERE, max_bytes=10 + BESIDES_BYTES)
    lease = await hold(store, partition)
    (one,) = await taken(store.events, lease)
    await store.events.settle(lease, [done(one)])
    await store.events.append(event(), HERE, max_bytes=10 + BESIDES_BYTES)


ANSWER = Response(200, "$LATEST", "Unhandled", b'"' + b"x" * 998 + b'"')
ANSWER_BYTES = 1000


async def test_answers_are_kept_only_while_there_is_room(store: Store) -> None:
    """Beyond the bytes that may wait, an event comes again without what the function answered; its attempts count."""
    lease = await hold(store, await store.events.append(event(), HERE))
    (one,) = await taken(store.events, lease)
    tried = Standing(1, last=ANSWER)
    roomy = one.event.size + 2 * tried.kept_bytes
    assert await store.events.settle(lease, [again(one, 0, tried)], max_bytes=roomy)
    (one,) = await taken(store.events, lease)
    assert one.standing == tried
    over = Standing(2, result=Result(Condition.RETRIES_EXHAUSTED, 0, 2, ANSWER, "id"), told=("arn:one",))
    assert await store.events.settle(lease, [again(one, 0, over)], max_bytes=roomy)
    (one,) = await taken(store.events, lease)
    assert one.standing == over  # what is replaced makes room
    assert await store.events.settle(lease, [again(one, 0, over)], max_bytes=one.event.size + tried.kept_bytes // 2)
    (one,) = await taken(store.events, lease)
    assert one.standing == over.lean() != over
    assert await store.events.settle(lease, [done(one)])
    assert (await store.events.depth()).size == 0


async def test_answers_that_are_kept_count_among_the_bytes_taken(store: Store) -> None:
    """What comes back with large answers comes in smaller portions."""
    for _ in range(3):
        await store.events.append(event(), (3, 3))
    lease = await hold(store, 3)
    every = await taken(store.events, lease)
    assert await store.events.settle(lease, [again(one, 0, Standing(1, last=ANSWER)) for one in every])
    assert len(await taken(store.events, lease, max_bytes=ANSWER_BYTES)) == 1
    assert len(await taken(store.events, lease, max_bytes=3 * ANSWER_BYTES)) == 2


async def test_the_depth_counts_what_waits_and_what_is_under_way(lab: StoreLab, store: Store) -> None:
    """Events, bytes and the age of the oldest one, over all partitions."""
    empty = await store.events.depth()
    assert (empty.events, empty.size, empty.oldest_age_s) == (0, 0, None)
    await store.events.append(event(payload=b"[1]"), (0, 1))
    await lab.pass_time(WAIT_S)
    await store.events.append(event("g", payload=b"[22]"), (PARTITIONS - 1, PARTITIONS - 2))
    depth = await store.events.depth()
    assert (depth.events, depth.size) == (2, 7 + 2 * BESIDES_BYTES)
    assert depth.oldest_age_s is not None
    assert WAIT_S / 2 < depth.oldest_age_s < LONG_S


async def test_who_found_nothing_is_woken_by_the_next_event(store: Store) -> None:
    """An idle holder hears of an event without asking again."""
    await store.events.append(event(), (3, 3))
    lease = await hold(store, 3)
    async with aclosing(cast("AsyncGenerator[Collection[int] | None, None]", store.events.wakes())) as wakes:
        assert await anext(wakes) is None
        (one,) = await taken(store.events, lease)
        await store.events.settle(lease, [done(one)])
        assert await taken(store.events, lease) == []
        await store.events.append(event(), (3, 3))
        assert await anext(wakes) == {3}


async def test_settling_twice_settles_once(store: Store) -> None:
    """A write that is repeated because its answer was lost takes no other event with it."""
    lease = await hold(store, await store.events.append(event(), (3, 3)))
    (one,) = await taken(store.events, lease)
    assert await store.events.settle(lease, [done(one)])
    await store.events.append(event(request_id="r-2"), (3, 3))
    assert await store.events.settle(lease, [done(one), again(one, 0)])
    (other,) = await taken(store.events, lease)
    assert other.event.request_id == "r-2"
    assert (await store.events.depth()).events == 1


def test_a_partition_is_a_shard_of_no_mapping() -> None:
    """The queue's shards have a name that no mapping's shards can have."""
    assert str(partition_key(5)) == f"{ASYNC_QUEUE}/partition-5"
