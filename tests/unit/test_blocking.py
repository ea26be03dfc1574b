"""Which record holds up a shard, and who held it: `pollers.blocking`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from model.ids import FencingToken, NodeId
from model.lease import Lease
from model.outcome import FunctionFailed
from model.progress import MAX_TENURES, Blocking, ShardProgress, ShardReport, ShardState, Succession, Tenure
from model.record import NO_RECORDS, Batch, Records
from pollers.attempts import Work
from pollers.blocking import Stuck, blocking, shown_key, tenures
from tests.support.pump_fakes import SHARD, record

ANN, BOB = NodeId("ann"), NodeId("bob")
BOOM = FunctionFailed("Boom")


def stuck(position: int, *, key: bytes | None = b"k", records: int = 2, retry_at: float | None = None) -> Stuck:
    """Return failing work that begins at a position."""
    batch = Batch(Records.of([record(position + n, key=key) for n in range(records)]), 100)
    return Stuck(Work(batch, failures=3, invocations=4, setbacks=5, last=BOOM), retry_at)


def test_the_first_record_of_the_shard_is_the_one_that_blocks() -> None:
    """With several lanes it is the lowest one, since the checkpoint waits for it; the others are counted."""
    told = blocking([stuck(30, key=b"b"), stuck(7, retry_at=12.3456), stuck(20)], None, 10.0)
    assert told == Blocking("7", "k", 2, 3, 4, 5, since=10.0, retry_at=12.346, others=2)


def test_nothing_stuck_is_nothing_told() -> None:
    """A shard that goes on has no blocking record."""
    assert blocking([], Blocking("7", "k", 2, 3, 4, 5, 1.0, None), 10.0) is None


def test_the_same_record_blocks_since_it_began_also_for_the_next_holder() -> None:
    """Only another record begins anew."""
    first = blocking([stuck(7)], None, 10.0)
    assert first is not None
    again = blocking([stuck(7)], first, 99.0)
    other = blocking([stuck(8)], first, 99.0)
    assert again is not None
    assert other is not None
    assert (again.since, other.since) == (10.0, 99.0)


def test_the_final_call_of_a_window_can_block_too() -> None:
    """It has no record and comes before everything."""
    final = Stuck(Work(Batch(NO_RECORDS, 50), failures=1, last=BOOM), None)
    told = blocking([stuck(7), final], None, 10.0)
    assert told is not None
    assert (told.record, told.key, told.records) == ("window's final call", None, 0)


@pytest.mark.parametrize(
    ("key", "shown"), [(None, None), (b"k\x1b[2J", "k\ufffd[2J"), (b"\xff", "\\xff"), ("ü" * 100, "ü" * 64)]
)
def test_keys_are_shown_short_and_printable(key: bytes | str | None, shown: str | None) -> None:
    """Whatever a producer wrote, it does nothing to a terminal."""
    one = record(1)
    one.key = key
    assert shown_key(one) == shown


def lease(node: NodeId, token: int) -> Lease:
    """Return a lease on the shard."""
    return Lease(SHARD, node, FencingToken(token))


@pytest.mark.parametrize(
    ("progress", "expected"),
    [
        (ShardProgress(), Succession.FIRST),
        (ShardProgress(node=ANN, report=ShardReport(ShardState.DRAINING)), Succession.HANDED_OVER),
        (ShardProgress(node=ANN, report=ShardReport(ShardState.READING)), Succession.HOLDER_LOST),
        (ShardProgress(node=BOB, report=ShardReport(ShardState.RETRYING)), Succession.SAME_NODE),
    ],
)
def test_why_a_shard_moved(progress: ShardProgress, expected: Succession) -> None:
    """What the one before wrote last tells whether it was done with the shard."""
    assert tenures(progress, lease(BOB, 9), 10.0) == (Tenure(9, "bob", 10.0, expected),)


def test_the_last_few_holders_are_remembered() -> None:
    """Each holder adds itself, the oldest go, and taking up the same lease again adds nothing."""
    progress = ShardProgress()
    for token in range(8):
        node = (ANN, BOB)[token % 2]
        kept = tenures(progress, lease(node, token), float(token))
        progress = replace(progress, node=node, report=ShardReport(ShardState.READING, tenures=kept))
    assert [tenure.token for tenure in kept] == [3, 4, 5, 6, 7]
    assert len(kept) == MAX_TENURES
    assert tenures(progress, lease(BOB, 7), 99.0) == kept
